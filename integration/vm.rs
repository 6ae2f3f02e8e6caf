//! What this machine's kernel does not have: SELinux, AppArmor, cgroup v2 alone, a kernel before
//! 6.16. A virtual machine has them, with a kernel of Debian's, and this very program, the runtime
//! and the product in it. Each test starts the machine that it needs, once, and reports the result
//! of the test of the same name inside it. Inside it runs itself: real containers, real crashes.
#[path = "vm/apparmor.rs"]
mod apparmor;
#[path = "vm/machine.rs"]
mod machine;
#[path = "vm/older.rs"]
mod older;
#[path = "vm/selinux.rs"]
mod selinux;
#[path = "vm/stage.rs"]
mod stage;
#[path = "vm/unified.rs"]
mod unified;

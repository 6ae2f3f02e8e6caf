//! Cores of more than 8 MiB, whose memory the project reads from the process itself instead of from
//! the kernel's pipe. The file must not show it.
use super::places::{occupy, tmpfs_of};
use super::privileges::{USER, add_capability};
use crate::oracle::row::{Forced, Row};

pub fn rows() -> Vec<Row> {
    let row = |name| Row::new(name).crasher("--fill 12");
    vec![
        row("large"),
        row("large-zeros").zeros().crasher("--tail 32"),
        row("large-odd").crasher("--odd"),
        row("large-odd-all").crasher("--odd").parent("--filter 0x1ff"),
        row("large-odd-anonymous").crasher("--odd").parent("--filter 0x1"),
        row("large-odd-files").crasher("--odd").parent("--filter 0x3d"),
        row("large-odd-zeros-sorted")
            .crasher("--odd --tail 32")
            .zeros()
            .sysctl("kernel/core_sort_vma", "1"),
        row("large-layer").prepare(occupy).zeros().location("layer"),
        row("large-threads").crasher("--threads 64"),
        row("large-thread-dies").crasher("--threads 64 --in-thread"),
        row("large-leader-gone").crasher("--threads 3 --in-thread --leader-exits"),
        row("large-killed-by-signal").death("3"),
        row("large-chroot")
            .prepare(|bundle| bundle.rootfs().directory("/jail/cores", 0o1777))
            .crasher("--chroot /jail"),
        row("large-exe-deleted").crasher("--unlink /bin/crasher").pattern("/cores/core.%f"),
        row("large-umask-0777").parent("--umask 0777").forced(Forced::CoreFlag),
        row("large-missing").pattern("/cores/%e/core").forced(Forced::CoreFlag),
        row("large-target-symlink")
            .script("echo secret > /cwd/secret; ln -s /cwd/secret /cores/core.100"),
        row("large-limit-enough").parent("--core 100000000"),
        row("large-limit-cuts").parent("--core 9000001"),
        row("large-limit-cuts-zeros").parent("--core 13000000").zeros().crasher("--odd"),
        row("large-fsize-cuts").parent("--fsize 9000001"),
        row("large-full").prepare(|bundle| tmpfs_of(bundle, 2200)),
        row("large-user").parent(USER),
        row("large-user-without-any-capability").parent(USER).crasher("--odd"),
        // It may not trace, so it could not read another process's memory itself.
        row("large-root-without-capabilities")
            .parent("--drop 1 --drop 3 --drop 4 --drop 5 --drop 7")
            .crasher("--odd"),
        row("large-user-namespace").prepare(|bundle| {
            bundle.user_namespace();
        }),
        row("large-user-namespace-user").parent(USER).crasher("--odd").prepare(|bundle| {
            bundle.user_namespace();
        }),
        row("large-nested")
            .parent("--user-namespace --pid-namespace --mount-namespace --tmpfs /cores")
            .parent(USER)
            .location("memory"),
        row("large-nested-mount")
            .parent("--mount-namespace")
            .prepare(|bundle| add_capability(bundle, "CAP_SYS_ADMIN")),
        row("large-dumpable-0").crasher("--dumpable 0"),
    ]
}

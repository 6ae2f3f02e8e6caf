//! What the file is called: specifiers, escapes, core_uses_pid, odd templates.
use crate::oracle::observe::MARKER;
use crate::oracle::row::{Forced, Row};

pub fn rows() -> Vec<Row> {
    let mut rows = specifiers();
    rows.extend(comms());
    rows.extend(executables());
    rows.extend(templates());
    rows
}

fn specifiers() -> Vec<Row> {
    vec![
        Row::new("spec-all").pattern("/cores/%%-%p-%P-%i-%I-%u-%g-%d-%s-%t-%h-%e-%f-%E-%c-%C-%F-"),
        Row::new("spec-all-thread")
            .pattern("/cores/%p-%P-%i-%I-%u-%g-%d-%s-%t-%h-%e-%f-%E-%c-%C-%F-")
            .crasher("--threads 3 --in-thread --comm 746872656164"),
        Row::new("spec-all-user")
            .pattern("/cores/%p-%i-%u-%g-%d-%s-%e-%c")
            .parent("--uid 1000 --gid 1001 --core 1048576"),
        Row::new("spec-cpu").pattern("/cores/core.cpu%C").parent("--cpu 1"),
        Row::new("spec-limit").pattern("/cores/core.%c").parent("--core 1000000"),
        Row::new("spec-signal").pattern("/cores/core.%s").death("24"),
        Row::new("spec-unknown").pattern("/cores/core%z%q%Z%1x"),
        Row::new("spec-percent").pattern("/cores/%%p%%"),
        Row::new("spec-last-percent").pattern("/cores/core%"),
        Row::new("spec-last-percent-only").pattern("/cores/%p%").without_pid(),
        Row::new("spec-repeated").pattern("/cores/%p%p%p.%e%e%h%h"),
        Row::new("host-slash")
            .pattern("/cores/%h")
            .without_pid()
            .prepare(admin)
            .parent("--hostname 612f62"),
        Row::new("host-dots")
            .pattern("/cores/%h")
            .without_pid()
            .prepare(admin)
            .parent("--hostname 2e2e"),
        Row::new("host-percent").pattern("/cores/%h").prepare(admin).parent("--hostname 257025"),
        Row::new("host-empty")
            .pattern("/cores/%h")
            .without_pid()
            .prepare(admin)
            .parent("--hostname")
            .parent(""),
        Row::new("host-long")
            .pattern("/cores/%h")
            .prepare(admin)
            .parent(&format!("--hostname {}", "68".repeat(64))),
    ]
}

fn admin(bundle: &mut support::bundle::Bundle) {
    super::privileges::add_capability(bundle, "CAP_SYS_ADMIN");
}

fn comms() -> Vec<Row> {
    vec![
        Row::new("comm-dotdot").pattern("/cores/%e").without_pid().comm(b".."),
        Row::new("comm-dot").pattern("/cores/%e").without_pid().comm(b"."),
        Row::new("comm-empty").pattern("/cores/%e").without_pid().comm(b""),
        Row::new("comm-dotdot-pid").pattern("/cores/%e").comm(b".."),
        Row::new("comm-empty-between").pattern("/cores/a%eb").comm(b""),
        Row::new("comm-slash").pattern("/cores/%e").comm(b"a/b"),
        Row::new("comm-slashes").pattern("/cores/%e").without_pid().comm(b"../../x"),
        Row::new("comm-only-slash").pattern("/cores/%e").without_pid().comm(b"/"),
        Row::new("comm-space").pattern("/cores/%e").comm(b"a b"),
        Row::new("comm-spaces").pattern("/cores/core.%e.%s").comm(b" -a  b "),
        Row::new("comm-percent").pattern("/cores/%e").comm(b"%t%P"),
        Row::new("comm-newline").pattern("/cores/%e").comm(b"a\nb"),
        Row::new("comm-parenthesis").pattern("/cores/%e").comm(b") R 1 (\n"),
        Row::new("comm-15-bytes").pattern("/cores/%e").comm(b"123456789012345"),
        Row::new("comm-too-long").pattern("/cores/%e").comm(b"1234567890123456789"),
        Row::new("comm-not-utf8").pattern("/cores/%e").comm(b"\xff\xfe\x80a"),
        Row::new("comm-split-utf8").pattern("/cores/%e").comm(b"\xe2\x82\xac\xe2\x82"),
        Row::new("comm-control").pattern("/cores/%e").comm(b"\x1b[2J\x7f\x01"),
        Row::new("comm-quotes").pattern("/cores/%e").comm(b"\"'\\`$"),
        Row::new("comm-thread")
            .pattern("/cores/%e-%i")
            .crasher("--threads 2 --in-thread")
            .comm(b"the thread"),
    ]
}

fn executables() -> Vec<Row> {
    let paths = "/cores/%f-%E-%e";
    vec![
        Row::new("exe-deleted").pattern(paths).crasher("--unlink /bin/crasher"),
        Row::new("exe-space")
            .pattern(paths)
            .script("cp /bin/crasher '/tmp/a b'")
            .program("/tmp/a b"),
        Row::new("exe-newline")
            .pattern(paths)
            .script("cp /bin/crasher '/tmp/a\nb'")
            .program("/tmp/a\nb"),
        Row::new("exe-percent")
            .pattern(paths)
            .script("cp /bin/crasher /tmp/%p%t")
            .program("/tmp/%p%t"),
        Row::new("exe-deep")
            .pattern(paths)
            .script("mkdir -p /tmp/x/y && cp /bin/crasher /tmp/x/y/z")
            .program("/tmp/x/y/z"),
        Row::new("exe-renamed")
            .pattern(paths)
            .script("cp /bin/crasher /tmp/one && ln /tmp/one /tmp/two")
            .program("/tmp/one")
            .crasher("--unlink /tmp/two"),
        Row::new("exe-symlink")
            .pattern(paths)
            .script("ln -s /bin/crasher /tmp/link")
            .program("/tmp/link"),
        Row::new("exe-too-long")
            .pattern("/cores/%E%E%E%E")
            .forced(Forced::CoreFlag)
            .script(&format!("cp /bin/crasher /tmp/{0}", "n".repeat(100)))
            .program(&format!("/tmp/{0}", "n".repeat(100))),
        Row::new("chroot").pattern(paths).prepare(jail).parent("--chroot /jail").location("layer"),
        Row::new("chroot-of-its-own").pattern(paths).prepare(jail).crasher("--chroot /jail"),
        Row::new("chroot-relative")
            .pattern("core.%E")
            .prepare(jail)
            .crasher("--chroot /jail --chdir /cores"),
        // Its working directory is outside its root.
        Row::new("chroot-cwd-outside")
            .pattern("core.%E")
            .prepare(jail)
            .crasher("--chdir /cwd --chroot /jail"),
        Row::new("chroot-without-directory")
            .prepare(empty_jail)
            .crasher("--chroot /jail")
            .forced(Forced::CoreFlag),
    ]
}

fn jail(bundle: &mut support::bundle::Bundle) {
    empty_jail(bundle);
    bundle.rootfs().directory("/jail/cores", 0o1777);
}

fn empty_jail(bundle: &mut support::bundle::Bundle) {
    let crasher = support::crasher::crasher();
    bundle.rootfs().put(crasher, "/jail/bin/crasher");
}

fn templates() -> Vec<Row> {
    let long = |tail: &str| format!("/cores/{}{tail}", "x".repeat(127 - 7 - tail.len()));
    vec![
        Row::new("uses-pid-0").without_pid(),
        Row::new("uses-pid-1"),
        Row::new("uses-pid-1-with-p").pattern("/cores/core.%p"),
        Row::new("uses-pid-0-with-p").pattern("/cores/core.%p").without_pid(),
        Row::new("uses-pid-1-with-host-p").pattern("/cores/core.%P"),
        Row::new("uses-pid-1-with-i").pattern("/cores/core.%i"),
        Row::new("uses-pid-1-escaped-p").pattern("/cores/core.%%p"),
        Row::new("template-127").pattern(long("")).without_pid(),
        Row::new("template-127-pid").pattern(long("")),
        Row::new("template-127-specifier").pattern(long("%e.%p")),
        Row::new("template-127-last-percent").pattern(long("%")),
        Row::new("template-relative").pattern("core").parent("--chdir /cwd"),
        Row::new("template-relative-name").pattern("core.%e").parent("--chdir /cwd").without_pid(),
        Row::new("template-relative-below")
            .pattern("sub/core")
            .parent("--chdir /cwd")
            .script("mkdir -m 1777 /cwd/sub"),
        Row::new("template-relative-dot").pattern("./core").parent("--chdir /cwd"),
        Row::new("template-relative-root").pattern("core"),
        Row::new("template-relative-cwd-deleted")
            .pattern("core")
            .script("mkdir /cwd/gone")
            .forced(Forced::CoreFlag)
            .parent("--chdir /cwd/gone")
            .crasher("--rmdir /cwd/gone"),
        Row::new("template-relative-no-directory")
            .pattern("none/core")
            .parent("--chdir /cwd")
            .forced(Forced::CoreFlag),
        Row::new("template-space").pattern("/cores/a core of %e"),
        Row::new("template-doubled-slashes").pattern("//cores///core").location("store"),
        Row::new("template-last-slash").pattern("/cores/%p/").forced(Forced::Refused),
        Row::new("template-last-slash-pid").pattern("/cores/").forced(Forced::Refused),
        Row::new("template-parent").pattern("/cwd/../cores/core").forced(Forced::Refused),
        Row::new("template-in-root").pattern(format!("/{MARKER}")),
        Row::new("template-in-tmp").pattern(format!("/tmp/{MARKER}")),
        Row::new("template-utf8").pattern("/cores/kërn-%e"),
    ]
}

//! Whose credentials: users, capabilities, groups, privileged executables, dump modes, namespaces.
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use serde_json::json;

use crate::oracle::observe::{MARKER, PID};
use crate::oracle::row::{Forced, Row, SHARED};
use support::bundle::Bundle;
use support::crasher;

/// CAP_DAC_OVERRIDE as a number.
const DAC_OVERRIDE: u8 = 1;
pub const USER: &str = "--uid 1000 --gid 1000";

pub fn rows() -> Vec<Row> {
    let mut rows = users();
    rows.extend(privileged());
    rows.extend(mode_2());
    rows.extend(namespaces());
    rows
}

pub fn add_capability(bundle: &mut Bundle, name: &str) {
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!(name));
    }
}

fn users() -> Vec<Row> {
    let theirs = "chown 1000:1000 /cores; chmod 0700 /cores";
    let roots = "chown 0:0 /cores; chmod 0755 /cores";
    let without = format!("--drop {DAC_OVERRIDE}");
    // DAC_READ_SEARCH is not in the container's set, so DAC_OVERRIDE decides.
    vec![
        Row::new("root").script(roots),
        Row::new("root-in-theirs").script(theirs).forced(Forced::PrivilegeUsed),
        Row::new("root-without-dac-override").script(roots).parent(&without),
        Row::new("root-without-dac-override-in-theirs")
            .script(theirs)
            .parent(&without)
            .forced(Forced::CoreFlag),
        Row::new("root-without-fowner-target")
            .parent("--drop 3")
            .forced(Forced::CoreFlag)
            .script("echo > /cores/core.100; chown 1000 /cores/core.100; chown 1000 /cores"),
        Row::new("user").parent(USER),
        Row::new("user-in-own").script(theirs).parent(USER),
        Row::new("user-in-roots").script(roots).parent(USER).forced(Forced::CoreFlag),
        Row::new("user-in-roots-with-dac-override")
            .script(roots)
            .parent(USER)
            .parent(&format!("--ambient {DAC_OVERRIDE}")),
        Row::new("user-path-not-searchable")
            .pattern("/cores/closed/core")
            .prepare(super::places::occupy)
            .parent(USER)
            .script("mkdir -p -m 1777 /cores/closed && chmod 0700 /cores")
            .forced(Forced::CoreFlag),
        Row::new("group-directory")
            .script("chown 0:2000 /cores; chmod 0770 /cores")
            .parent(USER)
            .parent("--groups 5,2000"),
        Row::new("group-directory-of-others")
            .script("chown 0:2000 /cores; chmod 0770 /cores")
            .parent(USER)
            .parent("--groups 5,2001")
            .forced(Forced::CoreFlag),
        Row::new("group-set-gid-directory")
            .script("chown 0:3000 /cores; chmod 2777 /cores")
            .parent(USER),
        Row::new("group-of-root").parent("--gid 1234"),
    ]
}

/// Executables that change credentials or that cannot be read, and what
/// fs.suid_dumpable makes of them.
fn privileged() -> Vec<Row> {
    let row = |name, dumpable| {
        Row::new(name)
            .program("/bin/setuid")
            .parent(USER)
            .prepare(set_uid)
            .sysctl("fs/suid_dumpable", dumpable)
    };
    vec![
        row("set-uid-0", "0"),
        row("set-uid-1", "1").forced(Forced::NoCoreOfPrivileged).randomized(),
        row("set-uid-2-relative", "2").pattern("core").forced(Forced::CoreFlag),
        row("set-uid-2-host-directory", "2")
            .pattern(format!("/tmp/{MARKER}"))
            .forced(Forced::EscapesToHost),
        row("set-gid-0", "0").program("/bin/setgid"),
        row("unreadable-0", "0").program("/bin/unreadable"),
        row("unreadable-2-relative", "2")
            .program("/bin/unreadable")
            .pattern("core")
            .forced(Forced::CoreFlag),
        Row::new("dumpable-0").crasher("--dumpable 0"),
        Row::new("dumpable-0-user").crasher("--dumpable 0").parent(USER),
        Row::new("dumpable-0-suid-2").crasher("--dumpable 0").sysctl("fs/suid_dumpable", "2"),
        Row::new("dumpable-1").crasher("--dumpable 1").pattern("/cores/core.%d"),
    ]
}

/// fs.suid_dumpable = 2, in a directory that is the same from the host's root, which the kernel
/// takes, and from the container's.
fn mode_2() -> Vec<Row> {
    let row = |name: &str| {
        Row::new(format!("mode-2-{name}")).shared().prepare(set_uid).sysctl("fs/suid_dumpable", "2")
    };
    let dropped = |name: &str| row(name).crasher("--drop-to 1000");
    let target = format!("{SHARED}/core.{PID}");
    let existing = |name: &str, make: &str| {
        dropped(name).script(&make.replace('@', &target)).forced(Forced::CoreFlag)
    };
    vec![
        dropped("dropped").location("volume"),
        dropped("dropped-named").pattern(format!("{SHARED}/%e-%d-%u-%g.%p")),
        dropped("dropped-in-roots").script(&format!("chmod 0700 {SHARED}")),
        // Root, but without CAP_DAC_OVERRIDE, which it has given up.
        dropped("dropped-in-theirs")
            .script(&format!("chown 1000:1000 {SHARED}; chmod 0700 {SHARED}"))
            .forced(Forced::CoreFlag),
        dropped("dropped-umask").parent("--umask 0277").forced(Forced::CoreFlag),
        dropped("dropped-set-gid-directory")
            .script(&format!("chown 0:3000 {SHARED}; chmod 2777 {SHARED}")),
        dropped("dropped-in-thread").crasher("--threads 3 --in-thread"),
        // The root that the process has does not count, nor its working directory.
        row("dropped-chroot")
            .script("mkdir /cwd/jail")
            .crasher("--chroot /cwd/jail --drop-to 1000"),
        dropped("dropped-relative").pattern("core").forced(Forced::CoreFlag),
        existing("existing", "echo > @"),
        existing("existing-of-theirs", "echo > @; chown 1000 @"),
        existing("existing-symlink", "ln -s /cores/other @"),
        existing("existing-link", "echo > /tmp/of-the-oracle/one; ln /tmp/of-the-oracle/one @"),
        existing("existing-fifo", "mkfifo @"),
        existing("existing-directory", "mkdir @"),
        row("set-uid").program("/bin/setuid").parent(USER).randomized(),
        row("set-uid-in-theirs")
            .program("/bin/setuid")
            .parent(USER)
            .script(&format!("chown 1000:1000 {SHARED}; chmod 0700 {SHARED}"))
            .randomized(),
        row("set-gid").program("/bin/setgid").parent(USER).randomized(),
        row("unreadable").program("/bin/unreadable").parent(USER),
    ]
}

fn set_uid(bundle: &mut Bundle) {
    let rootfs = bundle.rootfs();
    for (path, group, mode) in
        [("/bin/setuid", 0, 0o4755), ("/bin/setgid", 2000, 0o2755), ("/bin/unreadable", 0, 0o711)]
    {
        rootfs.put(crasher::crasher(), path);
        let host = rootfs.host_path(path);
        chown(&host, Some(0), Some(group)).unwrap();
        fs::set_permissions(&host, fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn namespaces() -> Vec<Row> {
    let names = "/cores/core-%u-%g-%p-%i";
    vec![
        Row::new("container-user-namespace").pattern(names).prepare(|bundle| {
            bundle.user_namespace();
        }),
        Row::new("container-user-namespace-user").pattern(names).parent(USER).prepare(|bundle| {
            bundle.user_namespace();
        }),
        Row::new("container-user-namespace-layer").pattern(names).prepare(|bundle| {
            super::places::occupy(bundle);
            bundle.user_namespace();
        }),
        Row::new("nested-user-namespace").pattern(names).parent("--user-namespace").parent(USER),
        Row::new("nested-user-and-mount-namespace")
            .pattern(names)
            .parent("--user-namespace --mount-namespace")
            .parent(USER),
        // The PID in the name is the innermost.
        Row::new("nested-pid-namespace")
            .pattern("/cores/core-%p-%P-%i-%I")
            .parent("--user-namespace --pid-namespace")
            .parent(USER),
        Row::new("nested-all-namespaces")
            .location("memory")
            .pattern("/cores/core-%P")
            .parent("--user-namespace --pid-namespace --mount-namespace --tmpfs /cores")
            .parent(USER),
        // The core goes to the file system that only the crasher and its parent see.
        Row::new("nested-mount-over-directory")
            .location("memory")
            .pattern(names)
            .parent("--user-namespace --mount-namespace --tmpfs /cores")
            .parent(USER),
        Row::new("nested-mount-namespace")
            .pattern(names)
            .parent("--mount-namespace")
            .prepare(|bundle| add_capability(bundle, "CAP_SYS_ADMIN")),
        Row::new("nested-mount-namespace-tmpfs")
            .location("memory")
            .pattern(names)
            .parent("--mount-namespace --tmpfs /cores")
            .prepare(|bundle| add_capability(bundle, "CAP_SYS_ADMIN")),
        Row::new("nested-in-user-namespace-container")
            .location("memory")
            .pattern(names)
            .parent("--user-namespace --mount-namespace --tmpfs /cores")
            .parent(USER)
            .prepare(|bundle| {
                bundle.user_namespace();
            }),
    ]
}

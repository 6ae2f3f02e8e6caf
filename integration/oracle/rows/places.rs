//! Where the file goes: directories that are missing, read-only, full; a target that
//! exists already; kinds of place.
use std::fs;

use crate::oracle::row::{Forced, Row};
use support::bundle::Bundle;

pub fn rows() -> Vec<Row> {
    let mut rows = directories();
    rows.extend(targets());
    rows
}

fn directories() -> Vec<Row> {
    vec![
        // In the project's run: a volume, the host's store (an empty directory) or
        // the container's own layer.
        Row::new("place-volume").prepare(volume).location("volume"),
        Row::new("place-tmpfs")
            .prepare(|bundle| {
                bundle.tmpfs("/cores", 16 << 20);
            })
            .location("memory"),
        Row::new("place-store").zeros().location("store"),
        Row::new("place-layer").prepare(occupy).zeros().location("layer"),
        Row::new("place-deep").pattern("/cores/a/b/core").script("mkdir -p -m 1777 /cores/a/b"),
        Row::new("place-through-symlink")
            .pattern("/link/core")
            .prepare(|bundle| symlink(bundle, "/cores", "/link")),
        Row::new("place-through-relative-symlink")
            .pattern("/link/core")
            .prepare(|bundle| symlink(bundle, "./bin/../cores", "/link")),
        Row::new("place-symlink-retargeted")
            .location("layer")
            .pattern("/cores/link/core")
            .script(
                "{ umount /cores/link && rmdir /cores/link; } 2>/dev/null; mkdir -m 1777 /cwd/two \
                 && ln -s /cwd/two /cores/link",
            )
            .prepare(|bundle| {
                occupy(bundle);
                super::privileges::add_capability(bundle, "CAP_SYS_ADMIN");
            }),
        Row::new("missing-removed")
            .pattern("/cores/gone/core")
            .forced(Forced::CoreFlag)
            .prepare(volume)
            .script("rmdir /cores/gone 2>/dev/null; [ ! -e /cores/gone ]"),
        Row::new("missing-by-specifier").pattern("/cores/%e/core").forced(Forced::CoreFlag),
        Row::new("missing-dangling-directory")
            .pattern("/cores/link/core")
            .prepare(volume)
            .forced(Forced::CoreFlag)
            .script("rmdir /cores/link 2>/dev/null; ln -s /nowhere /cores/link"),
        Row::new("directory-is-file")
            .pattern("/cores/plain/core")
            .prepare(volume)
            .forced(Forced::CoreFlag)
            .script("rmdir /cores/plain 2>/dev/null; echo file > /cores/plain"),
        Row::new("read-only-volume").prepare(read_only_volume).forced(Forced::CoreFlag),
        Row::new("read-only-root").forced(Forced::CoreFlag).prepare(|bundle| {
            occupy(bundle);
            bundle.readonly_root();
        }),
        // Of one page, and of three: up to there, no page of the core holds zeros only.
        Row::new("full-in-notes").prepare(|bundle| tmpfs_of(bundle, 1)),
        Row::new("full-in-memory").prepare(|bundle| tmpfs_of(bundle, 3)),
        Row::new("full").prepare(|bundle| tmpfs_of(bundle, 16)).forced(Forced::MoreFits),
        Row::new("full-odd")
            .prepare(|bundle| tmpfs_of(bundle, 17))
            .script("head -c 5000 /dev/zero > /cores/other")
            .forced(Forced::MoreFits),
        Row::new("full-already")
            .prepare(|bundle| tmpfs_of(bundle, 16))
            .script("head -c 100000 /dev/zero > /cores/other 2>/dev/null; true"),
        Row::new("full-of-inodes")
            .forced(Forced::CoreFlag)
            .prepare(|bundle| {
                bundle.mount(
                    "tmpfs",
                    "tmpfs",
                    "/cores",
                    &["nosuid", "nodev", "mode=1777", "nr_inodes=2"],
                );
            })
            .script("echo > /cores/one; ! touch /cores/two"),
        Row::new("full-in-zeros")
            .zeros()
            .prepare(|bundle| tmpfs_of(bundle, 50))
            .forced(Forced::MoreFits),
    ]
}

/// A tmpfs of so many pages at /cores.
pub fn tmpfs_of(bundle: &mut Bundle, pages: u64) {
    bundle.tmpfs("/cores", pages * 4096);
}

fn volume(bundle: &mut Bundle) {
    let volume = bundle.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    bundle.bind(&volume, "/cores");
}

fn read_only_volume(bundle: &mut Bundle) {
    let volume = bundle.path().join("volume");
    fs::create_dir(&volume).unwrap();
    bundle.mount("bind", &volume.to_string_lossy(), "/cores", &["bind", "ro"]);
}

/// A directory with something in it is never covered by a mount.
pub fn occupy(bundle: &mut Bundle) {
    fs::write(bundle.rootfs().host_path("/cores/keep"), "something of the image's own\n").unwrap();
}

fn symlink(bundle: &mut Bundle, target: &str, link: &str) {
    std::os::unix::fs::symlink(target, bundle.rootfs().host_path(link)).unwrap();
}

/// What is at /cores/core.100 already, each as root and, where it makes a
/// difference, as somebody else.
fn targets() -> Vec<Row> {
    let user = "--uid 1000 --gid 1000";
    let big = "head -c 3000000 /dev/zero | tr '\\0' x > /cores/core.100";
    vec![
        Row::new("target-file").script("echo old > /cores/core.100"),
        Row::new("target-longer-file").script(big),
        Row::new("target-file-in-layer").prepare(occupy).script(big),
        Row::new("target-file-mode")
            .script("echo old > /cores/core.100; chmod 0444 /cores/core.100"),
        Row::new("target-symlink")
            .script("echo secret > /cwd/secret; ln -s /cwd/secret /cores/core.100"),
        Row::new("target-dangling-symlink").script("ln -s /cwd/nowhere /cores/core.100"),
        Row::new("target-symlink-to-itself").script("ln -s core.100 /cores/core.100"),
        Row::new("target-hard-link")
            .script("echo secret > /cores/secret; ln /cores/secret /cores/core.100"),
        Row::new("target-directory").script("mkdir /cores/core.100").forced(Forced::CoreFlag),
        Row::new("target-fifo").script("mkfifo /cores/core.100"),
        Row::new("target-device").script("mknod /cores/core.100 c 1 3"),
        Row::new("target-other-owner")
            .parent(user)
            .script("echo root > /cores/core.100")
            .forced(Forced::CoreFlag),
        Row::new("target-other-owner-symlink")
            .parent(user)
            .forced(Forced::CoreFlag)
            .script("ln -s /cwd/nowhere /cores/core.100"),
        Row::new("target-other-owner-fifo")
            .parent(user)
            .forced(Forced::CoreFlag)
            .script("mkfifo -m 0666 /cores/core.100"),
        Row::new("target-other-owner-root")
            .script("echo user > /cores/core.100; chown 1000:1000 /cores/core.100"),
        Row::new("target-other-owner-not-sticky")
            .parent(user)
            .script("echo root > /cores/core.100; chmod 0777 /cores"),
        Row::new("target-own-in-sticky")
            .parent(user)
            .script("echo own > /cores/core.100; chown 1000 /cores/core.100"),
    ]
}

//! A process, its container or its writer that is killed in the middle of a dump: the file ends
//! where the copy ended, as the kernel's does, and the record has the bytes that are there.
use std::fs;
use std::os::unix::fs::MetadataExt;

use support::crasher::{crasher, parent};
use support::fixture::{LONG, names, store_of};
use support::podman::Podman;
use support::require;
use support::runtime::Kind;
use support::scene::{ECI, ECI_PATTERN, fill, hooks, host};
use support::wait::wait_for;

support::cases!(in_the_middle:
    kill_of_the_first_process(&["exec /bin/crasher --fill 1200 null"], &["kill"]),
    kill_while_a_child_dumps(&["/bin/crasher --fill 1200 null; sleep 1000"], &["kill"]),
    removal(&["/bin/crasher --fill 1200 null; sleep 1000"], &["rm", "--force", "--time", "0"]),
    compressed(&["exec /bin/crasher --fill 1200 null", "zstd"], &["kill"]),
);

/// How often a dump may be over before the kill comes.
const TRIES: usize = 8;

/// Bytes that the threads which copy may have in their hands.
const AT_ONCE: u64 = 8 << 20;

fn in_the_middle(program: &[&str], verb: &[&str]) {
    if !require::programs(&["podman", "runc"]) {
        return;
    }
    let host = host();
    let podman = Podman::new(Kind::Runc, |rootfs| {
        fill(rootfs);
        rootfs.put(crasher(), "/bin/crasher");
        rootfs.put(parent(), "/bin/parent");
    });
    hooks(&podman);
    let pattern = format!("{ECI}={ECI_PATTERN}");
    let compress = format!("oci-coredump/compress={}", program.get(1).unwrap_or(&"none"));
    let options = ["--annotation", &pattern, "--annotation", &compress];
    for attempt in 0..TRIES {
        let name = format!("killed-{attempt}");
        let id = podman.start(&name, &options, &["/bin/sh", "-c", program[0]]);
        let store = store_of(&id);
        let core = wait_for("a core", LONG, || {
            let path = store.join(names(&store).first()?);
            (fs::metadata(&path).ok()?.blocks() > 0).then_some(path)
        });
        podman.verb(&[verb, &[name.as_str()]].concat());
        host.settle();
        let record = host.record(&id);
        let file = fs::metadata(&core).unwrap();
        assert_eq!(record["size"], file.len(), "{record:#}");
        // The file system's own blocks for a file come when it is written back.
        let on_disk = record["disk_size"].as_u64().unwrap();
        assert!(on_disk.abs_diff(file.blocks() * 512) <= 64 << 10, "{record:#}");
        if verb[0] != "rm" {
            podman.verb(&["rm", "--force", "--time", "0", &name]);
        }
        if record["outcome"] == "written" {
            continue;
        }
        assert_eq!(record["outcome"], "truncated", "{record:#}");
        // All of what it maps was written to: what is not on the disk does not count as its size.
        assert!(file.len() < 1200 << 20, "the size of the whole: {record:#}");
        assert!(file.len() <= file.blocks() * 512 + AT_ONCE, "it ends in zeros: {record:#}");
        return;
    }
    panic!("each of {TRIES} dumps was over before the kill came");
}

//! Whatever the fast lane lacks, the core is the same: another way is found, or everything is left
//! to the stream. The process's limits cut every kind of core where they cut the kernel's own file.

use crate::template::{Lane, Stage, Template, Way, assert_same, limit, unlimited};
use rustix::process::Resource;

// Without PAGEMAP_SCAN the page map is read, and without process_vm_readv /proc/PID/mem. A process
// that cannot be read, no second thread, and no descriptor leave only the stream.
support::cases!(without_a_system_call:
    pagemap_scan("s", Lane::Fast),
    process_vm_readv("v", Lane::Fast),
    both("sv", Lane::Fast),
    reading_memory("vp", Lane::Stream),
    reading_the_page_map("sp", Lane::Stream),
    threads("t", Lane::Stream),
    descriptors("d", Lane::Stream),
    all_of_them("svptd", Lane::Stream),
);

fn without_a_system_call(what: &'static str, expected: Lane) {
    let stage = Stage::new("without", "", &[]);
    let mut template = Template::start(&stage.container, "shared", "");
    assert_eq!(stage.same(&mut template, Way::Without(what), unlimited), expected);
}

support::cases!(small_without_a_system_call:
    pagemap_scan("s", Lane::Stream),
    process_vm_readv("v", Lane::Fast),
    reading_memory("vp", Lane::Stream),
    // A small core needs no second thread.
    threads("t", Lane::Fast),
    descriptors("d", Lane::Stream),
);

fn small_without_a_system_call(what: &'static str, expected: Lane) {
    let stage = Stage::new("small-without", "", &[]);
    let mut template = Template::start(&stage.container, "small-plain", "");
    assert_eq!(stage.same(&mut template, Way::Without(what), unlimited), expected);
}

/// A read that only the dead process could have answered, long after the first byte was
/// written: the stream begins again.
#[test]
fn in_the_middle() {
    let stage = Stage::new("middle", "", &[]);
    let mut template = Template::start(&stage.container, "never-filled", "");
    assert_eq!(stage.same(&mut template, Way::Project, unlimited), Lane::Stream);
}

/// RLIMIT_CORE counts the bytes that are emitted, RLIMIT_FSIZE their offset in the file.
#[test]
fn limits_are_exact() {
    let stage = Stage::new("limits", "", &[]);
    let mut template = Template::start(&stage.container, "shared", "");
    let whole = stage.core(&mut template, Way::Kernel, unlimited).unwrap();
    let (emitted, size) = (whole.sent, whole.bytes.len() as u64);
    assert!(emitted < size - (1 << 20), "no holes: {emitted} of {size}");
    // A core is cut if the limit is below what is emitted, and whole if it is above the size.
    // Between the two it is whole, but not in the fast lane, which does not count what is emitted.
    let core =
        [5 << 20, emitted - 4096, emitted - 1, emitted, emitted + 1, size - 1, size, size + 1];
    let fsize = [5 << 20, size - 4096, size - 1, size, size + 1];
    let all = core
        .map(|at| (Resource::Core, at))
        .into_iter()
        .chain(fsize.map(|at| (Resource::Fsize, at)));
    for (resource, bytes) in all {
        let cores = [Way::Kernel, Way::Stream, Way::Project].map(|way| {
            let ready = |pid| {
                unlimited(pid);
                limit(pid, resource, bytes);
            };
            stage
                .core(&mut template, way, ready)
                .unwrap_or_else(|| panic!("{resource:?} {bytes}, {way:?}: no core"))
        });
        let [kernel, stream, ours] = &cores;
        let cut = match resource {
            Resource::Core => bytes < emitted,
            _ => bytes < size,
        };
        let what = format!("{resource:?} of {bytes} ({emitted} emitted, {size} in all)");
        assert_eq!((kernel.bytes.len() as u64) < size, cut, "{what}: the kernel's");
        for (name, core) in [("stream", stream), ("project", ours)] {
            assert_same(kernel, core, &format!("{what}, {name}"));
            assert_eq!(core.record.as_ref().unwrap()["truncated"], cut, "{what}, {name}");
        }
        if !cut {
            assert_eq!(stream.lane(), Lane::Stream, "{what}");
            assert_eq!(ours.lane(), if bytes < size { Lane::Stream } else { Lane::Fast }, "{what}");
        }
    }
}

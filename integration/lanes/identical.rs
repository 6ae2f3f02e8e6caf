//! Every kind of memory: the files of the kernel, the stream and the fast lane
//! are the same in every byte.

use crate::template::{Lane, Stage, Template, Way, filter, inaccessible_is_given, run, unlimited};
use rustix::process::Pid;
use std::cell::Cell;
use std::path::Path;
use support::crasher::compile_as;
use support::processes::field;
use support::require;

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

/// Checks one kind: the template's kind and argument, the filters to try, and the way that the
/// project is expected to take.
fn judge(stage: &Stage, kind: &str, argument: &str, filters: &[u32], expected: Lane) {
    let mut template = Template::start(&stage.container, kind, argument);
    let is_hidden = kind.ends_with("inaccessible") && !inaccessible_is_given();
    let expected = if is_hidden { Lane::Stream } else { expected };
    for mask in filters {
        let lane = stage.same(&mut template, Way::Project, |pid| {
            unlimited(pid);
            filter(pid, *mask);
        });
        assert_eq!(lane, expected, "{kind} {mask:#x}");
    }
}

/// The filter that every process starts with, and all of it.
const FILTERS: [u32; 2] = [0x33, 0x1ff];

support::cases!(kinds_of_memory:
    plain("plain", &[0x33, 0x1, 0x5]),
    files("files", &[0x33, 0x1ff, 0x3d, 0x9]),
    shared("shared", &[0x33, 0x1ff, 0x1]),
    left_out("left-out", &FILTERS),
    inaccessible("inaccessible", &FILTERS),
    sharer("sharer", &FILTERS),
);

fn kinds_of_memory(kind: &str, filters: &[u32]) {
    let stage = Stage::new("kinds", "", &[]);
    let file = stage.directory.path().join("file");
    let argument = if kind == "files" { file.to_str().unwrap() } else { "" };
    judge(&stage, kind, argument, filters, Lane::Fast);
}

/// A small core is read in another way: the pages that exist, unless a page
/// of a mapped file does not.
#[test]
fn small_ones() {
    let stage = Stage::new("small", "", &[]);
    let file = stage.directory.path().join("file");
    let file = file.to_str().unwrap();
    for (kind, argument) in
        [("plain", ""), ("left-out", ""), ("inaccessible", ""), ("sharer", ""), ("threads", "20")]
    {
        judge(&stage, &format!("small-{kind}"), argument, &[0x33, 0x1], Lane::Fast);
    }
    // Code that was never executed.
    judge(&stage, "small-plain", "", &[0x5, 0x1ff], Lane::Stream);
    judge(&stage, "small-files", file, &FILTERS, Lane::Stream);
    judge(&stage, "small-shared", "", &FILTERS, Lane::Stream);
    // Pages that a process handles itself with userfaultfd: touching one would wait for ever.
    judge(&stage, "small-never-filled", "", &FILTERS, Lane::Stream);
    judge(&stage, "small-never-first", "", &FILTERS, Lane::Stream);
    // A copy of a process has touched its libraries less than the process.
    let program = compile_as("template-dynamic", include_str!("template.c"), &["-pthread"]);
    let mut template = Template::of(&stage.container, &program, "small-plain", "");
    assert_eq!(stage.same(&mut template, Way::Project, unlimited), Lane::Stream);
}

/// Like most programs: dynamic, and not a copy. Its stack protector differs in every run, so that
/// there is no core to compare with.
#[test]
fn a_small_dynamic_program() {
    let stage = Stage::new("small-dynamic", "", &[]);
    let program = compile_as("small-dynamic", include_str!("small.c"), &[]);
    let mut template = Template::start(&stage.container, "small-exec", program.to_str().unwrap());
    let core = stage.core(&mut template, Way::Project, unlimited).unwrap();
    assert_eq!(
        (core.lane(), &core.record.as_ref().unwrap()["outcome"]),
        (Lane::Fast, &"written".into())
    );
}

#[test]
fn small_and_swapped() {
    let stage = Stage::new("small-swapped", "", &[]);
    let Some(_swap) = Swap::on() else { return };
    let mut template = Template::start(&stage.container, "small-swapped", "");
    let lane = stage.same(&mut template, Way::Project, |pid| {
        unlimited(pid);
        assert_ne!(
            field(number(pid), "VmSwap").as_deref(),
            Some("0 kB"),
            "nothing was swapped out"
        );
    });
    assert_eq!(lane, Lane::Fast);
}

support::cases!(
    into_memory: shared("shared"),
    left_out("left-out"),
    inaccessible("inaccessible"),
    transparent("transparent")
);

/// Memory-backed files are written in another way.
fn into_memory(kind: &str) {
    let stage = Stage::below("/dev/shm", "memory", "", &[]);
    judge(&stage, kind, "", &FILTERS, Lane::Fast);
}

#[test]
fn a_dynamic_program() {
    let stage = Stage::new("dynamic", "", &[]);
    let program = compile_as("template-dynamic", include_str!("template.c"), &["-pthread"]);
    let mut template = Template::of(
        &stage.container,
        &program,
        "files",
        stage.directory.path().join("file").to_str().unwrap(),
    );
    // Between the segments of AArch64's libraries there are pages of the file that nobody may read.
    let has_gaps = Cell::new(false);
    let lane = stage.same(&mut template, Way::Project, |pid| {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", number(pid))).unwrap();
        assert!(
            ["/libc.so", "/ld-linux", "[vdso]", "[vvar]"].iter().all(|name| maps.contains(name)),
            "{maps}"
        );
        has_gaps.set(maps.lines().any(|line| line.contains(" ---p ") && line.contains('/')));
        unlimited(pid);
        filter(pid, 0x1ff);
    });
    let is_hidden = has_gaps.get() && !inaccessible_is_given();
    assert_eq!(lane, if is_hidden { Lane::Stream } else { Lane::Fast });
}

#[test]
fn transparent_huge_pages() {
    let stage = Stage::new("transparent", "", &[]);
    let mut template = Template::start(&stage.container, "transparent", "");
    for way in [Way::Project, Way::Without("s")] {
        let lane = stage.same(&mut template, way, |pid| {
            unlimited(pid);
            let smaps =
                std::fs::read_to_string(format!("/proc/{}/smaps_rollup", number(pid))).unwrap();
            let huge = smaps.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
            assert_ne!(huge.trim(), "0 kB", "there are none");
        });
        assert_eq!(lane, Lane::Fast);
    }
}

#[test]
fn huge_pages_of_hugetlbfs() {
    let stage = Stage::new("hugetlb", "", &[]);
    stage.host.set("vm/nr_hugepages", "8");
    // Private ones (0x20), shared ones (0x40), neither, both.
    judge(&stage, "hugetlb", "", &[0x33, 0x53, 0x13, 0x1ff], Lane::Fast);
}

/// The tags of memory (MTE) are behind all memory, where only the stream has them.
#[test]
#[cfg(target_arch = "aarch64")]
fn tagged_memory() {
    let features = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    if !features.lines().any(|line| line.starts_with("Features") && line.contains(" mte")) {
        require::skip("this processor has no memory tagging");
        return;
    }
    let stage = Stage::new("tagged", "", &[]);
    judge(&stage, "tagged", "", &[0x33], Lane::Stream);
    judge(&stage, "small-tagged", "", &[0x33], Lane::Stream);
}

#[test]
fn swapped_pages() {
    let stage = Stage::new("swapped", "", &[]);
    let Some(_swap) = Swap::on() else { return };
    let mut template = Template::start(&stage.container, "swapped", "");
    for way in [Way::Project, Way::Without("s"), Way::Without("v")] {
        let lane = stage.same(&mut template, way, |pid| {
            unlimited(pid);
            assert_ne!(
                field(number(pid), "VmSwap").as_deref(),
                Some("0 kB"),
                "nothing was swapped out"
            );
        });
        assert_eq!(lane, Lane::Fast);
    }
}

/// A swap file for as long as this lives.
struct Swap(String);

impl Swap {
    fn on() -> Option<Self> {
        let swap =
            Swap(Path::new(env!("CARGO_TARGET_TMPDIR")).join("swap").to_str().unwrap().to_owned());
        std::fs::write(&swap.0, vec![0; 64 << 20]).unwrap();
        run("chmod", &["0600", &swap.0]);
        run("mkswap", &[&swap.0]);
        let output = std::process::Command::new("swapon").arg(&swap.0).output().expect("swapon");
        if !output.status.success() {
            require::skip(&format!("swapon: {}", String::from_utf8_lossy(&output.stderr)));
            return None;
        }
        Some(swap)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = std::process::Command::new("swapoff").arg(&self.0).status();
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_thousand_threads() {
    let stage = Stage::new("threads", "", &[]);
    stage.host.set("kernel/core_file_note_size_limit", "16777216");
    let mut template = Template::start(&stage.container, "threads", "1000");
    let lane = stage.same(&mut template, Way::Project, |pid| {
        unlimited(pid);
        assert_eq!(field(number(pid), "Threads").as_deref(), Some("1000"));
    });
    assert_eq!(lane, Lane::Fast);
}

#[test]
fn sorted_by_size() {
    let stage = Stage::new("sorted", "", &[]);
    stage.host.set("kernel/core_sort_vma", "1");
    judge(&stage, "shared", "", &FILTERS, Lane::Fast);
}

/// More segments than e_phnum can say.
#[test]
fn seventy_thousand_segments() {
    let stage = Stage::new("segments", "", &[]);
    stage.host.set("vm/max_map_count", "100000");
    let mut template = Template::start(&stage.container, "segments", "70000");
    let lane = stage.same(&mut template, Way::Project, unlimited);
    assert_eq!(lane, Lane::Stream);
}

#[test]
fn a_32_bit_program() {
    let stage = Stage::new("narrow", "", &[]);
    let flags = [
        "-m32",
        "-static",
        "-nostdlib",
        "-ffreestanding",
        "-fno-stack-protector",
        "-fno-pie",
        "-no-pie",
        "-Wl,--build-id=none",
    ];
    let program = compile_as("narrow", include_str!("narrow.c"), &flags);
    let mut template = Template::start(&stage.container, "exec", program.to_str().unwrap());
    let lane = stage.same(&mut template, Way::Project, |pid| {
        unlimited(pid);
        filter(pid, 0x1ff);
    });
    assert_eq!(lane, Lane::Stream);
}

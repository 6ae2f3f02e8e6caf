//! `mode = "kernel"`: the kernel itself writes the file, by the one pattern of the one pod, as
//! in ECI's virtual machines.
use std::path::Path;

use support::core_file::{self, Crashed};
use support::host::{Host, STORE};
use support::runtime::{Kind, Runtime};
use support::scene::{ECI, ECI_PATTERN, bundle, crash, host, uninstall};

support::per_runtime!(the_kernel_writes_the_core, a_conflict, a_conflict_of_one_that_insists);

fn kernel_mode() -> Host {
    let host = host();
    host.configure("mode = \"kernel\"\n");
    host
}

/// The sysctl is the pattern itself; a core of the container's init and of an exec'd
/// process, written by the kernel.
fn the_kernel_writes_the_core(kind: Kind) {
    let host = kernel_mode();
    let runtime = Runtime::new(kind);
    let id = format!("kernel-{}", kind.name());
    let mut bundle = bundle();
    bundle.annotation(ECI, ECI_PATTERN);
    let before = host.sysctl("kernel/core_pattern");
    let container = runtime.start(&bundle, &id);
    assert_eq!(host.sysctl("kernel/core_pattern"), ECI_PATTERN);
    assert_eq!(host.sysctl("kernel/core_uses_pid"), "1");
    assert_eq!(container.sh("cat /proc/sys/kernel/core_pattern"), format!("{ECI_PATTERN}\n"));

    // Nobody between the kernel and the file: an exec'd process has the
    // limit that its engine gave it.
    let (pid, status) =
        crash(|script| container.sh(&format!("ulimit -c unlimited; {script}")), "segv");
    assert_eq!(status, 11 | 0x80);
    container.remove();
    let core = Path::new(STORE).join("containers").join(&id).join(format!("core-eci.{pid}"));
    assert_eq!(core_file::read(&core), Crashed { signal: 11, tid: pid });
    // poststop of the owner has freed the pattern.
    assert_eq!(host.sysctl("kernel/core_pattern"), before);
}

/// A second container with another pattern starts, but the first keeps the kernel's
/// one pattern until it ends.
fn a_conflict(kind: Kind) {
    let host = kernel_mode();
    let before = host.sysctl("kernel/core_pattern");
    let runtime = Runtime::new(kind);
    let mut first_bundle = bundle();
    first_bundle.annotation(ECI, "/first/core");
    let mut second_bundle = bundle();
    second_bundle.annotation(ECI, "/second/core");
    let first = runtime.start(&first_bundle, "first");
    let second = runtime.start(&second_bundle, "second");
    assert_eq!(host.sysctl("kernel/core_pattern"), "/first/core");
    // The truth, not a wish that the kernel does not follow.
    assert_eq!(second.sh("cat /proc/sys/kernel/core_pattern"), "/first/core\n");

    second.remove();
    assert_eq!(
        host.sysctl("kernel/core_pattern"),
        "/first/core",
        "it was not the second's to free"
    );
    first.remove();
    assert_eq!(host.sysctl("kernel/core_pattern"), before);

    let third = runtime.start(&second_bundle, "third");
    assert_eq!(host.sysctl("kernel/core_pattern"), "/second/core");
    third.remove();
    assert_eq!(host.sysctl("kernel/core_pattern"), before);
}

/// The same, when the second one insists: it is refused, and the first is not disturbed.
fn a_conflict_of_one_that_insists(kind: Kind) {
    let host = kernel_mode();
    let runtime = Runtime::new(kind);
    let mut first_bundle = bundle();
    first_bundle.annotation(ECI, "/first/core");
    let first = runtime.start(&first_bundle, "first");
    let mut second_bundle = bundle();
    second_bundle.annotation(ECI, "/second/core").annotation("oci-coredump/required", "true");
    let started = runtime.try_create(&second_bundle, "second").is_ok();
    assert!(!started, "the second was created");
    assert_eq!(host.sysctl("kernel/core_pattern"), "/first/core");
    // Two of one pod with one pattern are no conflict.
    let third = runtime.start(&first_bundle, "third");
    assert_eq!(third.sh("cat /proc/sys/kernel/core_pattern"), "/first/core\n");
    first.remove();
    third.remove();
}

/// Only a validated pattern reaches the sysctl.
#[test]
fn a_refused_pattern_does_not_reach_the_kernel() {
    let host = kernel_mode();
    let before = host.sysctl("kernel/core_pattern");
    let runtime = Runtime::new(Kind::Runc);
    for pattern in ["|/bin/sh -c id", "@/run/socket", "/a\n|/bin/sh"] {
        let mut bundle = bundle();
        bundle.annotation(ECI, pattern);
        let container = runtime.start(&bundle, "refused");
        assert_eq!(host.sysctl("kernel/core_pattern"), before, "{pattern:?}");
        container.remove();
    }
}

#[test]
fn uninstall_in_kernel_mode() {
    let host = kernel_mode();
    host.set("kernel/core_pattern", "/var/crash/core.%e");
    host.set("kernel/core_uses_pid", "0");
    let runtime = Runtime::new(Kind::Runc);
    let mut bundle = bundle();
    bundle.annotation(ECI, ECI_PATTERN);
    let _container = runtime.start(&bundle, "running");
    assert_eq!(host.sysctl("kernel/core_pattern"), ECI_PATTERN);
    uninstall();
    assert_eq!(host.sysctl("kernel/core_pattern"), "/var/crash/core.%e");
    assert_eq!(host.sysctl("kernel/core_uses_pid"), "0");
}

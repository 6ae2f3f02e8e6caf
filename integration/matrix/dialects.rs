//! Every dialect in which a container may request a pattern, and the administrator's
//! default for those that do not.
use std::fs;

use support::bundle::Bundle;
use support::fixture::in_the_store;
use support::runtime::{Container, Kind, Runtime};
use support::scene::{ECI, bundle, crash, host, only_record};

support::per_runtime!(
    every_dialect,
    the_limit_of_config_json_is_overruled,
    the_filter,
    the_limit_limits,
    a_share_of_the_file_system,
    a_bad_limit_costs_no_core,
    the_default_pattern,
    core_uses_pid_of_the_configuration
);

const UNLIMITED: &str = "unlimited";

/// Annotations, the pattern that the container then has, and the soft RLIMIT_CORE of its init.
type Case = (&'static [(&'static str, &'static str)], &'static str, &'static str);

const DIALECTS: [Case; 15] = [
    (&[("oci-coredump/pattern", "/d/own.%p")], "/d/own.%p", UNLIMITED),
    (&[("k8s.aliyun.com/eci-core-pattern", "/d/eci")], "/d/eci", UNLIMITED),
    (&[("alibabacloud.com/core-pattern", "/d/acs")], "/d/acs", UNLIMITED),
    (&[("bci.virtual-kubelet.io/core-pattern", "/d/bci-%e")], "/d/bci-%e", UNLIMITED),
    (
        &[("system.cci.io/coredump", r#"{"core_pattern": "/d/cci", "max_size": 3}"#)],
        "/d/cci",
        "3145728",
    ),
    (&[("system.cci.io/coredump", r#"{"core_pattern": "/d/cci"}"#)], "/d/cci", "1073741824"),
    (&[("starlingx.io/core_pattern", "/d/stx.%P")], "/d/stx.%P", UNLIMITED),
    (
        &[("starlingx.io/core_pattern", "/d/stx"), ("starlingx.io/core_max_size", "200K")],
        "/d/stx",
        "204800",
    ),
    (
        &[("starlingx.io/core_pattern", "/d/stx"), ("starlingx.io/core_max_size", "20m")],
        "/d/stx",
        "20971520",
    ),
    (
        &[("starlingx.io/core_pattern", "/d/stx"), ("starlingx.io/core_max_size", "2G")],
        "/d/stx",
        "2147483648",
    ),
    (&[("oci-coredump/pattern", "/d/own"), ("oci-coredump/limit", "512Mi")], "/d/own", "536870912"),
    (&[(ECI, "/d/eci"), ("oci-coredump/limit", "0")], "/d/eci", "0"),
    (&[(ECI, "/d/eci"), ("oci-coredump/limit", "unlimited")], "/d/eci", UNLIMITED),
    // The first key of the table wins.
    (
        &[
            ("oci-coredump/pattern", "/d/own"),
            (ECI, "/d/eci"),
            ("starlingx.io/core_pattern", "/d/stx"),
        ],
        "/d/own",
        UNLIMITED,
    ),
    // A setting for one container of the pod wins over the pod's; another
    // container's does not count.
    (
        &[
            ("io.kubernetes.cri.container-name", "web"),
            ("oci-coredump/pattern", "/d/pod"),
            ("web.oci-coredump/pattern", "/d/web"),
            ("db.oci-coredump/pattern", "/d/db"),
        ],
        "/d/web",
        UNLIMITED,
    ),
];

fn soft_limit_of_init(container: &Container) -> String {
    let limits = container.sh("cat /proc/1/limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

fn every_dialect(kind: Kind) {
    let _host = host();
    let runtime = Runtime::new(kind);
    for (annotations, pattern, limit) in DIALECTS {
        let mut bundle = bundle();
        for (key, value) in annotations {
            bundle.annotation(key, value);
        }
        let container = runtime.start(&bundle, "dialect");
        let read = container.sh("cat /proc/sys/kernel/core_pattern");
        assert_eq!(read, format!("{pattern}\n"), "{annotations:?}");
        assert_eq!(soft_limit_of_init(&container), limit, "{annotations:?}");
        assert!(container.sh("ls -d /d").contains("/d"), "{annotations:?}");
        container.remove();
    }
}

/// A limit in config.json, which runc sets after the hook, does not undo the annotation's.
fn the_limit_of_config_json_is_overruled(kind: Kind) {
    let _host = host();
    let runtime = Runtime::new(kind);
    let mut bundle = bundle();
    bundle.annotation(ECI, "/d/core").rlimit("RLIMIT_CORE", 0, u64::MAX);
    let container = runtime.start(&bundle, "limit");
    assert_eq!(soft_limit_of_init(&container), UNLIMITED);
}

/// `oci-coredump/filter` is inherited from the init, and a core holds what it says.
fn the_filter(kind: Kind) {
    let _host = host();
    let runtime = Runtime::new(kind);
    let mut bundle = bundle();
    bundle.annotation(ECI, "/d/core").annotation("oci-coredump/filter", "0x1");
    let container = runtime.start(&bundle, "filter");
    assert_eq!(container.sh("cat /proc/1/coredump_filter"), "00000001\n");
}

/// `oci-coredump/limit` on what is kept: nothing below a page, and not a byte more than allowed.
fn the_limit_limits(kind: Kind) {
    let host = host();
    let runtime = Runtime::new(kind);
    for (limit, outcome) in [("0", "none"), ("8192", "truncated"), ("100Mi", "written")] {
        let mut bundle = bundle();
        bundle.annotation(ECI, "/d/core").annotation("oci-coredump/limit", limit);
        bundle.args(&["/bin/victim", "wait", "segv"]);
        let id = format!("limit-{}-{limit}", kind.name());
        let container = runtime.start(&bundle, &id);
        container.wait_stopped();
        let (pid, _) = support::scene::ended(&container.stdout());
        container.remove();
        let record = support::scene::only_record(&host, &id);
        assert_eq!(record["outcome"], outcome, "{record:#}");
        let core =
            std::path::Path::new(support::host::STORE).join(format!("containers/{id}/core.{pid}"));
        match outcome {
            "none" => {
                assert!(!core.exists(), "{record:#}");
                assert!(!record["reason"].as_str().unwrap().is_empty(), "{record:#}");
            }
            // The kernel, too, stops before the first piece that does not fit.
            "truncated" => {
                assert!((1..=8192).contains(&core.metadata().unwrap().len()), "{record:#}")
            }
            _ => assert_eq!(support::core_file::read(&core).tid, pid),
        }
    }
}

/// `core`, ECI's own default, for the containers that the administrator selects: ECI's
/// API parameter CorePattern.
fn the_default_pattern(kind: Kind) {
    let host = host();
    let before = host.sysctl("kernel/core_pattern");
    host.configure(
        "default_pattern = \"core\"\n[select]\n\
         \"io.kubernetes.cri.sandbox-namespace\" = \"market*\"\n",
    );
    let runtime = Runtime::new(kind);
    let start = |annotations: &[(&str, &str)]| -> Bundle {
        let mut bundle = bundle();
        for (key, value) in annotations {
            bundle.annotation(key, value);
        }
        bundle
    };
    let namespace = "io.kubernetes.cri.sandbox-namespace";
    let other = start(&[(namespace, "kitchen")]);
    let container = runtime.start(&other, "not-selected");
    assert_eq!(
        container.sh("cat /proc/sys/kernel/core_pattern").trim_end(),
        host.sysctl("kernel/core_pattern")
    );
    container.remove();

    let selected = start(&[(namespace, "market-1")]);
    let container = runtime.start(&selected, "selected");
    assert_eq!(container.sh("cat /proc/sys/kernel/core_pattern"), "core\n");
    let (pid, _) = crash(|script| container.sh(&format!("cd /tmp && {script}")), "segv");
    assert_eq!(container.sh("ls /tmp"), format!("core.{pid}\n"));
    container.remove();

    let own = start(&[(namespace, "market-1"), (ECI, "/d/own")]);
    let container = runtime.start(&own, "own");
    assert_eq!(container.sh("cat /proc/sys/kernel/core_pattern"), "/d/own\n", "its own wish wins");
    container.remove();
    assert_ne!(host.sysctl("kernel/core_pattern"), before);
}

/// Without a `%p` the PID is appended, unless the administrator says otherwise.
fn core_uses_pid_of_the_configuration(kind: Kind) {
    let host = host();
    host.configure("core_uses_pid = false\n");
    let runtime = Runtime::new(kind);
    let mut bundle = bundle();
    let volume = tempfile::TempDir::new().unwrap();
    bundle.annotation(ECI, "/d/core").bind(volume.path(), "/d");
    let container = runtime.start(&bundle, "plain");
    crash(|script| container.sh(script), "segv");
    let names: Vec<_> =
        fs::read_dir(volume.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["core"]);
}

/// StarlingX's percentages, on a file system of 8 MiB.
fn a_share_of_the_file_system(kind: Kind) {
    for (key, value, room) in [
        ("core_max_size", "25%", 2 << 20),
        ("core_min_free", "75%", 2 << 20),
        ("core_max_size", "0", 8 << 20),
    ] {
        let host = host();
        let runtime = Runtime::new(kind);
        let id = format!("share-{}", kind.name());
        let mut bundle = in_the_store();
        bundle.config["annotations"].as_object_mut().unwrap().clear();
        bundle.annotation("starlingx.io/core_pattern", "/dump/core");
        bundle.annotation(&format!("starlingx.io/{key}"), value).tmpfs("/dump", 8 << 20);
        let container = runtime.start(&bundle, &id);
        container.exec(&["/bin/crasher", "--fill", "4", "null"]);
        host.settle();
        let record = only_record(&host, &id);
        let on_disk = record["disk_size"].as_u64().unwrap();
        if room < 8 << 20 {
            assert_eq!(
                (&record["outcome"], &record["cause"]),
                (&"truncated".into(), &"share".into())
            );
            assert!(
                on_disk <= room + (64 << 10) && on_disk >= room / 2,
                "{key} = {value}: {record:#}"
            );
        } else {
            assert_eq!(record["outcome"], "written", "{record:#}");
            assert!(on_disk > 4 << 20, "{record:#}");
        }
        container.remove();
    }
}

/// It has the default, and the pattern holds, unless the container requires all that it asks for.
fn a_bad_limit_costs_no_core(kind: Kind) {
    let _host = host();
    let runtime = Runtime::new(kind);
    let mut bundle = bundle();
    bundle.annotation(ECI, "/d/core").annotation("oci-coredump/limit", "lots");
    let container = runtime.start(&bundle, "bad-limit");
    assert_eq!(container.sh("cat /proc/sys/kernel/core_pattern"), "/d/core\n");
    assert_eq!(soft_limit_of_init(&container), UNLIMITED);
    let (pid, _) = crash(|script| container.sh(script), "segv");
    assert_eq!(container.sh("ls /d"), format!("core.{pid}\n"));
    container.remove();
    bundle.annotation("oci-coredump/required", "true");
    // tests/cases has what is said; crun does not pass it on.
    assert!(runtime.try_create(&bundle, "bad-limit").is_err(), "it was created");
    bundle.annotation("oci-coredump/limit", "200K");
    assert!(runtime.try_create(&bundle, "bad-limit").is_ok(), "a good limit was refused");
}

//! Names and annotations made to be mistaken for something else.
use std::process::Command;

use support::core_file;
use support::fixture::{bundle, crash, hex, names};
use support::runtime::{Kind, Runtime};
use support::scene::{self, ECI, product};

/// A process's name appears in the file name, in the record, in the log and on the
/// administrator's terminal.
#[test]
fn row_07_hostile_names() {
    let host = scene::host();
    host.configure("core_uses_pid = false\n");
    let runtime = Runtime::new(Kind::Runc);
    let (mut bundle, volume) = bundle();
    bundle.annotation(ECI, "/dump/%h-%e-%E");
    bundle.config["hostname"] = "h".into();
    let strange = bundle.rootfs().host_path("/bin/\u{1b}[2J\n%p|..");
    std::fs::copy(bundle.rootfs().host_path("/bin/crasher"), &strange).unwrap();
    let container = runtime.start(&bundle, "names");
    let outside = names(volume.path().parent().unwrap());
    let comms = [
        &b"../../x"[..],
        b"..",
        b"",
        b"a\nb",
        b"\x1b[2J",
        b"%p%s",
        b"|id",
        b"\xff\xfe",
        b"\",\"uid\":0",
    ];
    for comm in comms {
        crash(&container, "0:0", "", &["/bin/crasher", "--comm", &hex(comm), "null"]);
    }
    crash(&container, "0:0", "", &["/bin/\u{1b}[2J\n%p|..", "null"]);
    let cores = names(volume.path());
    assert_eq!(cores.len(), comms.len() + 1, "{cores:?}");
    for core in &cores {
        assert!(core.starts_with("h-") && core.contains("!bin!"), "{core:?}");
    }
    for entry in std::fs::read_dir(volume.path()).unwrap() {
        core_file::read(&entry.unwrap().path());
    }
    let now = names(volume.path().parent().unwrap());
    assert!(!now.iter().any(|name| name == "x" && !outside.contains(name)), "{now:?}");
    // Each crash is one record, the comm injects nothing into it, and no output contains
    // control sequences of its own.
    let records = host.records_of("names");
    assert!(
        records.len() == comms.len() + 1
            && records.iter().all(|record| record["outcome"] == "written"),
        "{records:#?}"
    );
    for verb in [&["list"][..], &["list", "--json"], &["info"], &["metrics"]] {
        let output = product(verb).output().unwrap();
        let controls: Vec<_> =
            output.stdout.iter().filter(|b| **b < b' ' && **b != b'\n').collect();
        assert!(output.status.success() && controls.is_empty(), "{verb:?}: {output:?}");
    }
    let listed = product(&["list"]).output().unwrap().stdout;
    assert_eq!(
        listed.iter().filter(|b| **b == b'\n').count(),
        comms.len() + 2,
        "{}",
        String::from_utf8_lossy(&listed)
    );
}

/// An annotation that the kernel would run as root. Refused both in the mode in which no annotation
/// ever reaches the kernel and in the one in which they do.
#[test]
fn row_08_annotation_that_names_a_program() {
    let host = scene::host();
    let marker = tempfile::TempDir::new().unwrap();
    let touched = marker.path().join("touched");
    let program = format!("|/bin/touch {}", touched.display());
    let evil = [
        program.clone(),
        format!("/dump/x\n{program}"),
        "@/run/s".into(),
        "@@/run/s".into(),
        format!("/{}", "x".repeat(200)),
    ];
    for mode in ["dispatch", "kernel"] {
        host.configure(&format!("mode = \"{mode}\"\n"));
        let runtime = Runtime::new(Kind::Runc);
        let before = host.sysctl("kernel/core_pattern");
        for pattern in &evil {
            let keys = [
                ECI,
                "oci-coredump/pattern",
                "starlingx.io/core_pattern",
                "alibabacloud.com/core-pattern",
            ];
            // One of the patterns in every dialect, the others in one.
            for key in if *pattern == program { &keys[..] } else { &keys[..1] } {
                let (mut bundle, _volume) = bundle();
                bundle.annotation(ECI, "/dump/core");
                bundle.config["annotations"] = serde_json::json!({ *key: pattern });
                let container = runtime.start(&bundle, "evil");
                let now = host.sysctl("kernel/core_pattern");
                assert_eq!(now, before, "{mode}: {key}: {pattern:?}");
                if *key == ECI {
                    crash(&container, "0:0", "", &["/bin/crasher", "null"]);
                }
            }
        }
        // In dispatch mode a valid one does not reach the kernel either.
        if mode == "dispatch" {
            let (mut bundle, _volume) = bundle();
            bundle.annotation(ECI, "/dump/marked-by-the-annotation");
            let container = runtime.start(&bundle, "good");
            assert!(
                !host.sysctl("kernel/core_pattern").contains("marked"),
                "the annotation's text is in the kernel"
            );
            container.remove();
            assert!(
                Command::new(support::host::BINARY).arg("uninstall").status().unwrap().success()
            );
        }
    }
    assert!(!touched.exists(), "the annotation's program was run");
}

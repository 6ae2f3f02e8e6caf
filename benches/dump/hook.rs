//! What the hook adds to the start of a container.
use std::path::Path;
use std::process::{Command, Stdio};

use support::bare::now;
use support::host::{BINARY, Host};

use crate::scene::spread;
use crate::{ROUNDS, does_nothing};

/// How often a hook stands in a configuration: what one adds is less than the
/// machine's own ups and downs.
const COPIES: usize = 16;

/// Every order of four in turn: what a run leaves for the machine to clean
/// up is paid by the next one.
fn order(round: usize) -> [usize; 4] {
    let mut rest = vec![0, 1, 2, 3];
    [round % 4, round / 4 % 3, round / 12 % 2, 0].map(|i| rest.remove(i))
}

/// What the hook adds to `runc run`, in what a static hook that does nothing adds.
pub fn hook() {
    let host = Host::take();
    host.install();
    let directory = tempfile::tempdir().unwrap();
    let nothing = does_nothing();
    let bundle = |name: &str, hook: Option<&Path>, copies: usize, annotated: bool| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.join("rootfs/proc")).unwrap();
        std::fs::copy(&nothing, path.join("rootfs/nothing")).unwrap();
        assert!(
            Command::new("runc").arg("spec").current_dir(&path).status().expect("runc").success()
        );
        let text = std::fs::read_to_string(path.join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = serde_json::json!(["/nothing"]);
        if let Some(hook) = hook {
            let one = serde_json::json!({
                "path": hook, "args": ["oci-coredump", "hook", "createRuntime"],
            });
            config["hooks"] = serde_json::json!({ "createRuntime": vec![one; copies] });
        }
        if annotated {
            config["annotations"] = serde_json::json!({ "oci-coredump/pattern": "/cores/core" });
        }
        std::fs::write(path.join("config.json"), config.to_string()).unwrap();
        path
    };
    let ours = Path::new(BINARY);
    let kinds = [
        bundle("none", None, 0, false),
        bundle("c", Some(&nothing), COPIES, false),
        bundle("plain", Some(ours), COPIES, false),
        // Once: the second would find everything in place.
        bundle("annotated", Some(ours), 1, true),
    ];
    let mut times = [const { Vec::<f64>::new() }; 4];
    for round in 0..24 * ROUNDS {
        for kind in order(round) {
            let (bundle, times) = (&kinds[kind], &mut times[kind]);
            let start = now();
            let root = directory.path().join("state");
            let status = Command::new("runc")
                .arg("--root")
                .arg(root)
                .args(["run", "--bundle"])
                .arg(bundle)
                .arg(format!("b{round}"))
                .stdin(Stdio::null())
                .status();
            assert!(status.unwrap().success());
            times.push((now() - start) as f64 / 1e6);
        }
    }
    // What each adds to the run without a hook beside it.
    let added = |t: &[f64], copies: usize| {
        spread(
            t.iter()
                .zip(&times[0])
                .map(|(with, without)| (with - without) / copies as f64)
                .collect(),
        )
        .0
    };
    let [c, plain, annotated] =
        [added(&times[1], COPIES), added(&times[2], COPIES), added(&times[3], 1)];
    println!(
        "runc run: {:.2} ms; one static C hook that does nothing adds {c:.2} ms (of {COPIES} in a \
         row)",
        spread(times[0].clone()).0
    );
    for (name, value, goal) in [
        ("hook without the annotation, by C's", plain, 1.1),
        ("hook with the annotation, by C's", annotated, 1.5),
    ] {
        println!("{name:<44} {:>7.3}  {:<17} <= {goal:.2}", value / c, format!("(+{value:.2} ms)"));
    }
}

//! deploy/helm and deploy/base are one: the Helm chart with its defaults is what kustomize applies.
//! Where there is a `helm`, it lints the chart and renders it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// The lines of a file of YAML without comments, indentation and quotes' style.
fn lines(text: &str) -> BTreeSet<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("{{"))
        .map(|line| line.trim_start_matches("- ").to_owned())
        .collect()
}

fn read(below: &str) -> String {
    std::fs::read_to_string(deploy().join(below)).unwrap()
}

#[test]
fn every_line_of_the_manifest_is_the_charts() {
    let chart = lines(&(read("helm/templates/daemonset.yaml") + &read("helm/values.yaml")));
    let manifest = lines(&read("base/daemonset.yaml"));
    let other: Vec<&String> = manifest.difference(&chart).collect();
    // What the template computes.
    assert_eq!(
        other,
        [r#"args: ["node", "serve", "--root", "/host"]"#, "image: oci-coredump", "name: node"],
        "in deploy/base/daemonset.yaml, but not in deploy/helm"
    );
}

#[test]
fn versions_are_the_programs() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = read("helm/Chart.yaml");
    assert!(chart.contains(&format!("\nversion: {version}\nappVersion: {version}\n")), "{chart}");
    assert!(read("helm/values.yaml").contains(&format!("  tag: {version}\n")));
}

/// Runs helm, if there is one.
fn helm(args: &[&str]) -> Option<String> {
    match Command::new("helm").args(args).arg(deploy().join("helm")).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: there is no helm");
            None
        }
        output => {
            let output = output.unwrap();
            assert!(output.status.success(), "helm {args:?}: {output:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
    }
}

#[test]
fn helm_renders_the_manifest() {
    let Some(said) = helm(&["lint", "--strict"]) else { return };
    assert!(said.contains("0 chart(s) failed"), "{said}");
    let plain = helm(&["template", "--namespace", "oci-coredump"]).unwrap();
    let manifest = lines(&read("base/daemonset.yaml"));
    let args = |line: &String| line.replace("\", \"", "\",\"");
    let rendered: BTreeSet<String> = lines(&plain).iter().map(args).collect();
    let missing: Vec<String> =
        manifest.iter().map(args).filter(|line| !rendered.contains(line)).collect();
    assert_eq!(missing, ["image: oci-coredump"]);

    let full = helm(&[
        "template",
        "--set",
        "metrics.enabled=true,metrics.podMonitor=true,directory=/opt/x,config=strict = true",
    ])
    .unwrap();
    for wanted in [
        "kind: PodMonitor",
        "kind: ConfigMap",
        r#""--directory","/opt/x","--config","/config/config.toml""#,
        r#""--every","60""#,
        "strict = true",
    ] {
        assert!(full.contains(wanted), "{wanted}: {full}");
    }
    let gone = helm(&["template", "--set", "uninstall=true,config=strict = true"]).unwrap();
    for args in [r#""--root","/host"]"#, r#""--root","/host","--stay"]"#] {
        assert!(gone.contains(&format!(r#"args: ["node","uninstall",{args}"#)), "{gone}");
    }
}

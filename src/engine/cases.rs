//! Case directories for the editors of engines' files: `input` and what each editor makes of it.
//! `BLESS=1 cargo test --lib engine::cases` writes the expected side anew.
//!
//! ```text
//! tests/engines/runtime/<case>/     config.json, perhaps config.toml
//!                                   -> expected: the edited config.json, or why none
//! tests/engines/docker/<case>/      daemon.json
//!                                   -> installed, removed
//! tests/engines/containerd/<case>/  config.toml of version 2 or 3
//!                                   -> installed, removed (and, version 3, imports)
//! ```

use super::{containerd, docker, spec};
use crate::config::Config;
use std::path::{Path, PathBuf};

const PROGRAM: &str = "/usr/libexec/oci/hooks.d/oci-coredump";

/// The files of every case below `tests/engines/<kind>`, each with what `work` makes of it.
fn cases(kind: &str, least: usize, work: impl Fn(&Path) -> Vec<(&'static str, String)>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines").join(kind);
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(&root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .collect();
    dirs.sort();
    assert!(dirs.len() >= least, "only {} cases of {kind}", dirs.len());
    let mut wrong = Vec::new();
    for dir in dirs {
        for (name, said) in work(&dir) {
            let file = dir.join(name);
            if std::env::var_os("BLESS").is_some() {
                std::fs::write(&file, &said).unwrap();
            }
            let expected = std::fs::read_to_string(&file).unwrap_or_default();
            if said != expected {
                wrong.push(format!("{}\n--- expected\n{expected}--- said\n{said}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn input(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap_or_default()
}

fn or_error(result: anyhow::Result<String>) -> String {
    result.unwrap_or_else(|e| format!("error: {e:#}\n"))
}

#[test]
fn runtime() {
    cases("runtime", 6, |dir| {
        let config = Config::parse(&input(dir, "config.toml")).unwrap();
        let text = input(dir, "config.json");
        let said = match spec::edit(text.as_bytes(), None, &config, Path::new(PROGRAM), u64::MAX) {
            Ok(None) => "untouched\n".to_owned(),
            Ok(Some(new)) => {
                // A second time there is nothing left to do.
                assert_eq!(
                    spec::edit(&new, None, &config, Path::new(PROGRAM), u64::MAX).unwrap(),
                    None,
                    "{dir:?}"
                );
                let value: serde_json::Value = serde_json::from_slice(&new).unwrap();
                format!("{value:#}\n")
            }
            Err(e) => format!("error: {e:#}\n"),
        };
        vec![("expected", said)]
    });
}

#[test]
fn docker_daemon() {
    cases("docker", 5, |dir| {
        let text = input(dir, "daemon.json");
        let installed = docker::add(&text, "/usr/libexec/oci/hooks.d/oci-coredump-runtime", true);
        let removed =
            installed.as_ref().map_or(String::new(), |(text, _)| docker::remove(text).unwrap());
        if let Ok((text, _)) = &installed {
            assert_eq!(
                docker::add(text, "/usr/libexec/oci/hooks.d/oci-coredump-runtime", true).unwrap().0,
                *text,
                "{dir:?}"
            );
        }
        let installed = or_error(installed.map(|(text, default)| {
            format!("{text}{}\n", if default { "the default" } else { "not the default" })
        }));
        vec![("installed", installed), ("removed", removed)]
    });
}

#[test]
fn containerd_config() {
    cases("containerd", 6, |dir| {
        let text = input(dir, "config.toml");
        let version = containerd::version(&text).unwrap_or_default().unwrap_or(2);
        let drop_in = version >= 3;
        let (onto, from) = if drop_in { ("", text.as_str()) } else { (text.as_str(), "") };
        let installed = containerd::runtimes(&text, version)
            .and_then(|r| containerd::add(onto, from, version, &r));
        let removed = installed
            .as_ref()
            .map_or(String::new(), |new| containerd::remove(new, Some(&text)).unwrap());
        if let (Ok(new), false) = (&installed, drop_in) {
            let again = containerd::runtimes(new, version)
                .and_then(|r| containerd::add(new, "", version, &r))
                .unwrap();
            assert_eq!(again, *new, "{dir:?}");
        }
        let mut files = vec![("installed", or_error(installed)), ("removed", removed)];
        if drop_in {
            let new = containerd::import(&text, "/etc/containerd/conf.d/*.toml", false).unwrap();
            files.push(("imports", new.unwrap_or_else(|| "untouched\n".into())));
            let nri = containerd::enable_nri(&text, true).unwrap();
            files.push(("nri", nri.unwrap_or_else(|| "untouched\n".into())));
        }
        files
    });
}

#[test]
fn a_base_specification_has_our_hooks_and_no_limits_of_containerd() {
    let default = r#"{"ociVersion":"1.0.2",
        "process":{"cwd":"/","rlimits":[{"type":"RLIMIT_NOFILE","soft":1024,"hard":1024}]},
        "mounts":[]}"#;
    let of = |admin| {
        serde_json::from_str::<serde_json::Value>(
            &containerd::base_spec(default, admin, Path::new(PROGRAM)).unwrap(),
        )
        .unwrap()
    };
    let spec = of(false);
    assert_eq!(spec["process"].to_string(), r#"{"cwd":"/"}"#);
    for stage in ["createRuntime", "poststart", "poststop"] {
        assert_eq!(spec["hooks"][stage][0]["path"], PROGRAM);
        assert_eq!(spec["hooks"][stage][0]["args"][2], stage);
    }
    assert_eq!(of(true)["process"]["rlimits"][0]["soft"], 1024);
}

//! Row 19: the core has the label that its crasher would have given it, and is made only where that
//! could have made it. The policy is `policy.conf`; the oracle is what the kernel does in its own
//! file mode, with the same container.
use std::fs;
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use tempfile::TempDir;

use crate::machine::DEBIAN;
use crate::stage::{self, CORE, DUMPED, run, run_with_the_kernels};
use support::bundle::Bundle;
use support::host::{Host, STORE};
use support::runtime::{Container, Kind, Runtime};
use support::scene::{self, ECI, ECI_PATTERN, only_record};

const ENFORCE: &str = "/sys/fs/selinux/enforce";
const XATTR: &str = "security.selinux";

/// The host with its policy enforced until the end of the scope.
struct Enforced(Host);

impl Enforced {
    fn host() -> Self {
        let host = scene::host();
        fs::write(ENFORCE, "1").unwrap();
        Enforced(host)
    }
}

impl Drop for Enforced {
    fn drop(&mut self) {
        fs::write(ENFORCE, "0").unwrap();
    }
}

fn label(path: &Path) -> String {
    let mut buffer = [0; 256];
    let n = lgetxattr(path, XATTR, &mut buffer[..]).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    String::from_utf8_lossy(&buffer[..n]).trim_end_matches('\0').to_owned()
}

fn relabel(path: &Path, label: &str) {
    lsetxattr(path, XATTR, label.as_bytes(), XattrFlags::empty())
        .unwrap_or_else(|e| panic!("{path:?}: {e}"));
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            relabel(&entry.unwrap().path(), label);
        }
    }
}

fn files(level: &str) -> String {
    format!("system_u:object_r:container_file_t:{level}")
}

/// Confines a container, as engines do, and gives it its files.
fn confine(bundle: &mut Bundle, level: &str) {
    bundle.config["process"]["selinuxLabel"] =
        format!("system_u:system_r:container_t:{level}").into();
    bundle.config["linux"]["mountLabel"] = files(level).into();
    relabel(bundle.rootfs().path(), &files(level));
}

/// A confined bundle, and its volume with a label of its own.
fn confined(level: &str, pattern: &str, program: &[&str], volume_label: &str) -> (Bundle, TempDir) {
    let (mut bundle, volume) = stage::bundle(pattern, program);
    confine(&mut bundle, level);
    relabel(volume.path(), volume_label);
    (bundle, volume)
}

/// Whether a shell in the container can do it; what it says.
fn attempt(container: &Container<'_>, script: &str) -> (bool, String) {
    let output = container.exec(&["/bin/sh", "-c", script]);
    (
        output.status.success(),
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    )
}

/// The volume is everybody's, as podman's `:z` makes it, so that the categories of the core are all
/// that is between it and the other containers.
#[test]
fn row_19_the_core_has_the_label_of_its_crasher() {
    DEBIAN.run(|| {
        let host = Enforced::host();
        let shared = files("s0");
        // By name, by the domain alone, and with other categories. The shell has asked for a label
        // itself, as setfscreatecon(3) does.
        let own =
            &format!("printf '%s' {} >/proc/self/attr/fscreate; kill -SEGV $$", files("s0:c1,c2"));
        let cases: [(&str, &str, &str, &[&str], &str); 4] = [
            (
                "named",
                "/dump/core",
                "s0:c1,c2",
                &["/bin/crasher", "null"],
                "system_u:object_r:container_named_t:s0:c1,c2",
            ),
            (
                "plain",
                "/dump/a core",
                "s0:c1,c2",
                &["/bin/crasher", "null"],
                "system_u:object_r:container_core_t:s0:c1,c2",
            ),
            (
                "third",
                "/dump/core",
                "s0:c3",
                &["/bin/crasher", "null"],
                "system_u:object_r:container_named_t:s0:c3",
            ),
            (
                "chosen",
                "/dump/core",
                "s0:c1,c2",
                &["/bin/sh", "-c", own],
                "system_u:object_r:container_file_t:s0:c1,c2",
            ),
        ];
        for (id, pattern, level, program, expected) in cases {
            let (mut bundle, volume) = confined(level, pattern, program, &shared);
            let core = volume.path().join(format!("{}.100", pattern.rsplit('/').next().unwrap()));
            assert_eq!(run(&bundle, id), DUMPED);
            let record = only_record(&host.0, id);
            assert_eq!(record["outcome"], "written", "{record:#}");
            let ours = label(&core);
            fs::remove_file(&core).unwrap();
            assert_eq!(run_with_the_kernels(&host.0, &mut bundle, pattern, id), DUMPED);
            let kernels = label(&core);
            println!("{id}: {ours}, the kernel's {kernels}");
            assert_eq!((ours.as_str(), kernels.as_str()), (expected, expected), "{id}");
        }
    });
}

#[test]
fn row_19_other_categories_cannot_read_the_core() {
    DEBIAN.run(|| {
        let host = Enforced::host();
        let (crashing, volume) =
            confined("s0:c1,c2", "/dump/core", &["/bin/crasher", "null"], &files("s0"));
        assert_eq!(run(&crashing, "crashing"), DUMPED);
        assert_eq!(only_record(&host.0, "crashing")["outcome"], "written");
        let runtime = Runtime::new(Kind::Runc);
        let reads = |level: &str, id: &str| {
            let (mut bundle, _other) = stage::bundle("/dump/core", &[]);
            bundle.args(&["/bin/sleep", "1000"]).bind(volume.path(), "/theirs");
            confine(&mut bundle, level);
            let container = runtime.start(&bundle, id);
            // The names are there for both.
            assert_eq!(container.sh("cd /theirs; echo *").trim(), CORE);
            attempt(&container, "cat /theirs/core.100 >/dev/null")
        };
        assert_eq!(reads("s0:c1,c2", "own"), (true, String::new()));
        let (could, said) = reads("s0:c3,c4", "foreign");
        assert!(
            !could && said.contains("Permission denied"),
            "a container of other categories read the core: {said}"
        );
    });
}

/// Root by the file system's modes, but not by the policy: the kernel makes no core there, nor
/// takes away what is not the container's.
#[test]
fn row_19_no_core_where_the_crasher_may_make_none() {
    DEBIAN.run(|| {
        let host = Enforced::host();
        let foreign = "system_u:object_r:foreign_t:s0";
        let (mut bundle, volume) =
            confined("s0:c1,c2", "/dump/core", &["/bin/crasher", "null"], foreign);
        let status = run(&bundle, "intruder");
        let record = only_record(&host.0, "intruder");
        let there = |path: &Path| {
            fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>()
        };
        assert!(there(volume.path()).is_empty(), "{status:#x} {record:#}");
        assert_eq!(record["outcome"], "none", "{record:#}");
        assert!(
            record["reason"].as_str().unwrap().contains("Permission denied by SELinux"),
            "{record:#}"
        );
        run_with_the_kernels(&host.0, &mut bundle, "/dump/core", "intruder");
        assert!(there(volume.path()).is_empty(), "the kernel's own file mode does it");

        let (mut bundle, volume) =
            confined("s0:c1,c2", "/dump/core", &["/bin/crasher", "null"], &files("s0"));
        let old = volume.path().join(CORE);
        fs::write(&old, "the host's").unwrap();
        relabel(&old, foreign);
        run(&bundle, "remover");
        let record = only_record(&host.0, "remover");
        assert_eq!(
            (fs::read_to_string(&old).ok().as_deref(), record["outcome"].as_str()),
            (Some("the host's"), Some("none")),
            "{record:#}"
        );
        run_with_the_kernels(&host.0, &mut bundle, "/dump/core", "remover");
        assert_eq!(
            fs::read_to_string(&old).unwrap(),
            "the host's",
            "the kernel's own file mode removes it"
        );

        // Not enforced, a denial is none, and the label is right all the same.
        fs::remove_file(&old).unwrap();
        fs::write(ENFORCE, "0").unwrap();
        assert_eq!(run(&bundle, "lenient"), DUMPED);
        assert_eq!(
            label(&old),
            "system_u:object_r:container_named_t:s0:c1,c2",
            "{:#}",
            only_record(&host.0, "lenient")
        );
    });
}

/// What the hook puts into the container has the container's label: else a confined process could
/// neither read its pattern nor leave a core.
#[test]
fn row_19_a_confined_container_can_use_the_store() {
    DEBIAN.run(|| {
        let host = Enforced::host();
        let (mut bundle, _volume) = confined("s0:c1,c2", ECI_PATTERN, &[], &files("s0:c1,c2"));
        bundle.args(&["/bin/sleep", "1000"]);
        let container = Runtime::new(Kind::Runc);
        let container = container.start(&bundle, "tenant");
        let store = Path::new(STORE).join("containers/tenant");
        assert_eq!(label(&store), files("s0:c1,c2"));
        assert_eq!(container.sh("cat /proc/sys/kernel/core_pattern").trim(), ECI_PATTERN);
        assert_eq!(label(&bundle.rootfs().host_path("/pod/data")), files("s0:c1,c2"));
        container.exec(&["/bin/parent", "--core", "unlimited", "--", "/bin/crasher", "null"]);
        let record = only_record(&host.0, "tenant");
        assert_eq!(
            (record["outcome"].as_str(), record["location"].as_str()),
            (Some("written"), Some("store")),
            "{record:#}"
        );
        let core = record["host_path"].as_str().unwrap();
        assert_eq!(label(Path::new(core)), "system_u:object_r:container_core_t:s0:c1,c2");
        let (could, said) = attempt(
            &container,
            &format!("cat {} >/dev/null", record["core_path"].as_str().unwrap()),
        );
        assert!(could, "{said}");
        container.remove();
    });
}

/// The same for a container that runs already: its root tells the label.
#[test]
fn row_19_enabled_later() {
    DEBIAN.run(|| {
        let host = Enforced::host();
        let (mut bundle, _volume) = confined("s0:c1,c2", "/unused", &[], &files("s0:c1,c2"));
        bundle.args(&["/bin/sleep", "1000"]);
        bundle.config["annotations"].as_object_mut().unwrap().remove(ECI);
        let runtime = Runtime::new(Kind::Runc);
        let container = runtime.start(&bundle, "late");
        let pid = container.pid().to_string();
        let output = scene::product(&["enable", "late", "--pid", &pid, "--pattern", "/cores/core"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        container.exec(&["/bin/parent", "--core", "unlimited", "--", "/bin/crasher", "null"]);
        let records = host.0.records();
        let core = records
            .first()
            .and_then(|r| r["host_path"].as_str())
            .unwrap_or_else(|| panic!("{records:#?}"));
        assert_eq!(label(Path::new(core)), "system_u:object_r:container_core_t:s0:c1,c2");
    });
}

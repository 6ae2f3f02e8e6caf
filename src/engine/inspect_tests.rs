use super::*;
use std::fs;

/// A scratch directory with a program and configurations.
struct TestRoot(tempfile::TempDir);

impl TestRoot {
    fn new() -> Self {
        let machine = TestRoot(tempfile::tempdir().unwrap());
        machine.write("oci-coredump", "");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            &path,
            text.replace("HERE", self.path("").to_str().unwrap().trim_end_matches('/')),
        )
        .unwrap();
        path
    }

    /// The states of all findings, and the text of the first.
    fn inspect(&self, engine: Engine, config: &str) -> (Vec<Severity>, String) {
        let found =
            inspect(engine, Some(&self.path(config)), &Program { path: self.path("oci-coredump") });
        assert!(found.iter().all(|f| f.hint.is_some() == (f.state != Severity::Good)));
        (found.iter().map(|f| f.state).collect(), found[0].text.clone())
    }
}

#[test]
fn podman_and_crio_by_their_directories() {
    let m = TestRoot::new();
    m.write("containers.conf", "[engine]\nhooks_dir = ['HERE/none', 'HERE/hooks.d']\n");
    m.write("crio.conf", "[crio.runtime]\nhooks_dir = ['HERE/hooks.d']\n");
    let (states, text) = m.inspect(Engine::Podman, "containers.conf");
    assert!(states == [Severity::Doubtful] && text.contains("hooks.d, where it looks"), "{text}");

    let file = |path: &str| {
        m.write("hooks.d/oci-coredump.json", &format!(r#"{{"hook":{{"path":"{path}"}}}}"#))
    };
    file("HERE/oci-coredump");
    assert_eq!(m.inspect(Engine::Podman, "containers.conf").0, [Severity::Good]);
    assert_eq!(m.inspect(Engine::Crio, "crio.conf").0, [Severity::Good]);
    file("HERE/gone");
    assert_eq!(m.inspect(Engine::Podman, "containers.conf").0, [Severity::Broken]);
    m.write("other", "");
    file("HERE/other");
    assert_eq!(m.inspect(Engine::Crio, "crio.conf").0, [Severity::Doubtful]);
    m.write("crio.conf", "[crio.runtime\n");
    assert_eq!(m.inspect(Engine::Crio, "crio.conf").0, [Severity::Doubtful]);
}

#[test]
fn crio_by_nri() {
    let m = TestRoot::new();
    let nri = "[crio.nri]\nnri_plugin_dir = 'HERE/plugins'\nnri_listen = 'HERE/nri.sock'\n";
    m.write("crio.conf", &format!("[crio.runtime]\nhooks_dir = ['HERE/none']\n{nri}"));
    let (states, text) = m.inspect(Engine::Crio, "crio.conf");
    assert!(states == [Severity::Doubtful] && text.contains("where it looks for hooks"), "{text}");
    fs::create_dir(m.path("plugins")).unwrap();
    std::os::unix::fs::symlink(m.path("oci-coredump"), m.path("plugins/90-oci-coredump")).unwrap();
    let (states, text) = m.inspect(Engine::Crio, "crio.conf");
    assert!(states == [Severity::Doubtful] && text.contains("does not run"), "{text}");
    m.write("crio.conf.d/10-off.conf", "[crio.nri]\nenable_nri = false\n");
    let (states, text) = m.inspect(Engine::Crio, "crio.conf");
    assert!(states == [Severity::Broken] && text.contains("switched off"), "{text}");
    // A later drop-in counts.
    m.write("crio.conf.d/20-on.conf", "[crio.nri]\nenable_nri = true\n");
    assert_eq!(m.inspect(Engine::Crio, "crio.conf").0, [Severity::Doubtful]);
    // The hook besides.
    m.write("none/oci-coredump.json", r#"{"hook":{"path":"HERE/oci-coredump"}}"#);
    let found = m.inspect(Engine::Crio, "crio.conf").0;
    assert_eq!(found, [Severity::Good, Severity::Doubtful]);
}

#[test]
fn the_socket_of_a_plugin_that_connects() {
    for (words, socket) in [
        (&["nri"][..], Some(nri::SOCKET)),
        (&["nri", "--socket", "/s"], Some("/s")),
        (&["nri", "--socket=/s"], Some("/s")),
        (&["node", "serve"], Some(nri::SOCKET)),
        (&["node", "serve", "--stay"], Some(nri::SOCKET)),
        (&["node", "install", "--stay"], None),
        (&["nri", "--help"], None),
        (&["serve"], None),
        (&[], None),
    ] {
        assert_eq!(plugin_socket(words), socket, "{words:?}");
    }
}

#[test]
fn docker_by_its_runtimes() {
    let m = TestRoot::new();
    assert_eq!(m.inspect(Engine::Docker, "daemon.json").0, [Severity::Doubtful]);
    m.write(
        "daemon.json",
        r#"{"runtimes": {"oci-coredump": {"path": "HERE/oci-coredump-runtime"}}}"#,
    );
    assert_eq!(m.inspect(Engine::Docker, "daemon.json").0, [Severity::Broken]);
    std::os::unix::fs::symlink("oci-coredump", m.path("oci-coredump-runtime")).unwrap();
    let (states, text) = m.inspect(Engine::Docker, "daemon.json");
    assert!(states == [Severity::Doubtful] && text.contains("the default one is runc"), "{text}");
    m.write(
        "daemon.json",
        r#"{"default-runtime": "oci-coredump",
            "runtimes": {"oci-coredump": {"path": "HERE/oci-coredump-runtime"}}}"#,
    );
    assert_eq!(m.inspect(Engine::Docker, "daemon.json").0, [Severity::Good]);
    m.write("daemon.json", "{");
    assert_eq!(m.inspect(Engine::Docker, "daemon.json").0, [Severity::Doubtful]);
}

#[test]
fn containerd_by_nri_and_by_its_specification() {
    let m = TestRoot::new();
    let nri = "[plugins.'io.containerd.nri.v1.nri']\nplugin_path = 'HERE/plugins'\n";
    m.write("config.toml", &format!("version = 3\n{nri}"));
    let (states, text) = m.inspect(Engine::Containerd, "config.toml");
    assert!(states == [Severity::Doubtful] && text.starts_with("neither"), "{text}");
    fs::create_dir(m.path("plugins")).unwrap();
    std::os::unix::fs::symlink(m.path("oci-coredump"), m.path("plugins/90-oci-coredump")).unwrap();
    let (states, text) = m.inspect(Engine::Containerd, "config.toml");
    assert!(states == [Severity::Doubtful] && text.contains("does not run"), "{text}");
    m.write("config.toml", &format!("version = 3\n{nri}disable = true\n"));
    let (states, text) = m.inspect(Engine::Containerd, "config.toml");
    assert!(states == [Severity::Broken] && text.contains("switched off"), "{text}");
    // Disabled by default up to 1.7.
    m.write("config.toml", &format!("version = 2\n{nri}"));
    assert_eq!(m.inspect(Engine::Containerd, "config.toml").0, [Severity::Broken]);
    fs::remove_file(m.path("plugins/90-oci-coredump")).unwrap();

    let table = "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.ocdtest]\n\
                 base_runtime_spec = '/etc/oci-coredump/containerd-base-ocdtest.json'\n";
    m.write("config.toml", &format!("version = 2\n{table}"));
    let (states, text) = m.inspect(Engine::Containerd, "config.toml");
    assert!(states == [Severity::Broken] && text.contains("does not exist"), "{text}");
    // A base specification that is not ours.
    m.write(
        "config.toml",
        &format!("version = 2\n{}", table.replace("containerd-base-ocdtest", "theirs")),
    );
    assert_eq!(m.inspect(Engine::Containerd, "config.toml").0, [Severity::Doubtful]);
}

#[test]
fn the_hooks_of_a_base_specification() {
    let program = Program { path: "/p".into() };
    let hook = r#"[{"path":"/x"},{"path":"/p"}]"#;
    let whole =
        format!(r#"{{"hooks":{{"createRuntime":{hook},"poststart":{hook},"poststop":{hook}}}}}"#);
    assert!(hooks_of(&whole, &program).unwrap().is_empty());
    assert_eq!(hooks_of(&whole.replace("poststop", "other"), &program).unwrap().len(), 1);
    assert_eq!(hooks_of("{}", &program).unwrap().len(), 3);
}

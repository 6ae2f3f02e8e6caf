//! Programs that compute the name of their core by `core_pattern` and `core_uses_pid`, as HotSpot
//! does, announce the file that there will be.
use std::path::Path;

use support::core_bytes::is_core;
use support::require;
use support::runtime::{Kind, Runtime};
use support::scene::{Engine, bundle, crash, host};
use tempfile::TempDir;

support::per_engine!(both_sysctls_name_the_core);

/// `get_core_path()` of HotSpot's os_posix.cpp, for an absolute pattern without other specifiers.
const NAMES: &str = r#"
p=$(cat /proc/sys/kernel/core_pattern); u=$(cat /proc/sys/kernel/core_uses_pid)
case $p in
    *%p*) echo "${p%%%p*}PID${p#*%p}" ;;
    *) [ $u = 1 ] && echo "$p.PID" || echo "$p" ;;
esac
"#;

fn both_sysctls_name_the_core(engine: Engine) {
    let host = host();
    let cases = [
        ("plain", "true", "/dump/core", ""),
        ("with-pid", "true", "/dump/%p.core", ""),
        ("without", "false", "/dump/core", ""),
        ("packed", "true", "/dump/core", "zstd"),
        ("packed-without", "false", "/dump/core", "zstd"),
    ];
    for (name, uses_pid, pattern, compress) in cases {
        host.configure(&format!("core_uses_pid = {uses_pid}\n"));
        let volume = TempDir::new().unwrap();
        let mut annotations = vec![("oci-coredump/pattern", pattern)];
        annotations.extend((!compress.is_empty()).then_some(("oci-coredump/compress", compress)));
        let args = ["sleep", "1000"];
        let container = engine.start(name, &annotations, &[(volume.path(), "/dump")], &args);
        let computed = container.sh(NAMES);
        let (pid, _) = crash(|script| container.sh(script), "segv");
        let announced = computed.trim().replace("PID", &pid.to_string());
        let name = Path::new(&announced).file_name().unwrap();
        assert_eq!(container.sh("ls -d /dump/*").trim(), announced);
        assert!(volume.path().join(name).exists());
        let writes = "echo 7 >/proc/sys/kernel/core_uses_pid";
        assert_eq!(container.sh(&format!("({writes}) 2>/dev/null || echo no")), "no\n");
        container.remove();
    }
}

/// A JVM's own words, and the file.
#[test]
fn a_jvm_announces_its_core() {
    if !require::programs(&["runc", "java"]) {
        return;
    }
    let _host = host();
    let volume = TempDir::new().unwrap();
    let mut bundle = bundle();
    // The JVM as it is installed here, with all that it needs.
    for part in ["/usr", "/lib", "/lib64", "/etc"] {
        bundle.mount("bind", part, part, &["rbind", "ro"]);
    }
    bundle.bind(volume.path(), "/dump").annotation("oci-coredump/pattern", "/dump/core");
    bundle.tmpfs("/tmp", 64 << 20);
    let runtime = Runtime::new(Kind::Runc);
    let container = runtime.start(&bundle, "jvm");
    // `jcmd` and others are not in a JRE: the JVM itself reads a program from a pipe for ever.
    let script = "cd /tmp; ulimit -c unlimited; mkfifo wait; \
                  java -Xmx32m -Xshare:off --source 17 wait >out 2>&1 & pid=$!; \
                  until grep -q libjvm /proc/$pid/maps; do sleep 0.1; done; \
                  until [ $(ls /proc/$pid/task | wc -l) -gt 5 ]; do sleep 0.1; done; \
                  kill -SEGV $pid; wait $pid; cat out; echo pid $pid";
    let said = container.exec(&["/bin/sh", "-c", script]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let pid = said.trim().rsplit(' ').next().unwrap();
    let core = format!("/dump/core.{pid}");
    assert!(said.contains("Core dump will be written"), "{said}");
    assert!(said.contains(&core), "{core}: {said}");
    let core = std::fs::read(volume.path().join(format!("core.{pid}"))).unwrap();
    assert!(is_core(&core));
}

//! The virtual machine: its root file system is made here, and its kernel is unpacked from Debian's
//! package. Emulated, since nested virtualization may not be available.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use support::crasher::{crasher, parent};
use support::require;
use support::rootfs::Rootfs;
use support::scene::victim;
use support::wait::ends_within;

/// From the start of the machine until it is off again; far more than it
/// takes, for a host that is busy.
const DEADLINE: Duration = Duration::from_secs(1200);

/// A machine, and the tests of it.
pub struct Machine {
    name: &'static str,
    /// What the kernel is told.
    parameters: &'static str,
    /// The modules with its tests.
    modules: &'static [&'static str],
    output: OnceLock<Option<String>>,
}

/// Debian 12's kernel: 6.1, with SELinux, and every controller in cgroup v2.
pub static DEBIAN: Machine = Machine {
    name: "debian",
    parameters: "security=selinux enforcing=0",
    modules: &["selinux::", "unified::", "older::"],
    output: OnceLock::new(),
};

/// The same, with AppArmor, which cannot be there beside SELinux.
pub static CONFINED: Machine = Machine {
    name: "confined",
    parameters: "security=apparmor apparmor=1",
    modules: &["apparmor::"],
    output: OnceLock::new(),
};

impl Machine {
    /// Runs a test: inside by itself, outside by the machine. The body is a closure of the test
    /// itself, and so has its name.
    pub fn run<F: FnOnce()>(&self, body: F) {
        if std::env::var_os("OCI_COREDUMP_MACHINE").is_some() {
            return body();
        }
        let name = std::any::type_name::<F>()
            .split_once("::")
            .unwrap()
            .1
            .trim_end_matches("::{{closure}}")
            .to_owned();
        let Some(output) = self.output.get_or_init(|| self.start()) else { return };
        let verdict =
            output.lines().find_map(|line| line.strip_prefix(&format!("test {name} ... ")));
        if verdict.map(str::trim) != Some("ok") {
            // What the test itself said, where the machine came that far.
            let own =
                output.split("---- ").find(|part| part.starts_with(&format!("{name} stdout ----")));
            panic!("{name} in the machine: {}", own.unwrap_or(output));
        }
    }

    /// Starts it and waits for its end. What the tests said; `None` where there is no such machine.
    fn start(&self) -> Option<String> {
        require::root();
        let kernel = kernel();
        if !(require::programs(&[
            "qemu-system-x86_64",
            "checkpolicy",
            "apparmor_parser",
            "cpio",
            "strip",
            "runc",
            "busybox",
        ])) {
            return None;
        }
        if kernel.is_none() {
            require::skip(
                "there is no kernel for a virtual machine (integration/tools.sh unpacks it, on \
                 x86-64)",
            );
        }
        let kernel = kernel?;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fill(&Rootfs::make(&at("root")));
        let pack =
            "cd \"$0\" && find . -print0 | cpio --null --create --quiet --format=newc >\"$1\"";
        succeed(Command::new("sh").args(["-c", pack]).arg(at("root")).arg(at("initramfs")));
        let words = [
            "console=ttyS0 panic=-1 loglevel=4 rdinit=/init",
            self.parameters,
            &format!("MACHINE={} MODULES={}", self.name, self.modules.join(",")),
            &format!("TESTS={}", std::env::current_exe().unwrap().display()),
        ];
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "1",
            "-m",
            "2048",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ]);
        command
            .arg("-no-reboot")
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(at("initramfs"))
            .args(["-append", &words.join(" ")]);
        for name in ["console", "results"] {
            command.arg("-serial").arg(format!("file:{}", at(name).display()));
        }
        let start = Instant::now();
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        if ends_within(&mut child, DEADLINE).is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let said = |name: &str| {
            String::from_utf8_lossy(&fs::read(at(name)).unwrap_or_default()).replace('\r', "")
        };
        let (console, results) = (said("console"), said("results"));
        println!("the machine ran for {:?}", start.elapsed());
        let whole = results.contains("the tests have ended: ");
        Some(if whole {
            results
        } else {
            format!("{results}\nthe machine did not come to its end; its console:\n{console}")
        })
    }
}

/// What `integration/tools.sh` has unpacked, beside the directory of programs that it puts on PATH.
fn kernel() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = home.join(".cache/oci-coredump-test/bin");
    std::env::split_paths(&path)
        .chain([cache])
        .map(|bin| bin.join("../kernel/vmlinuz"))
        .find(|kernel| kernel.is_file())
}

/// All that the tests use, where they find it here.
fn fill(root: &Rootfs) {
    let product = support::program::program();
    for program in [product, &std::env::current_exe().unwrap()] {
        root.put(program, &program.to_string_lossy());
        succeed(Command::new("strip").arg(root.host_path(&program.to_string_lossy())));
    }
    let runc = require::find("runc").unwrap();
    root.put_dynamic(&runc, &runc.to_string_lossy());
    for program in [crasher(), parent(), &victim()] {
        for file in [program.to_owned(), program.with_extension("c")] {
            root.put(&file, &file.to_string_lossy());
        }
    }
    let write = |name: &str, bytes: &[u8]| {
        fs::write(root.host_path(name), bytes).unwrap();
        fs::set_permissions(root.host_path(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    write("/init", include_bytes!("init"));
    let source = |name: &str| support::program::repository().join("integration/vm").join(name);
    // The newest form that Debian 12's kernel knows.
    succeed(
        Command::new("checkpolicy")
            .args(["-M", "-U", "allow", "-c", "33", "-o"])
            .arg(root.host_path("/policy"))
            .arg(source("policy.conf")),
    );
    let features = "/etc/apparmor.d/abi/kernel-5.4-vanilla";
    let only_compile =
        ["--skip-kernel-load", "--skip-cache", "--features-file", features, "--ofile"];
    succeed(
        Command::new(require::find("apparmor_parser").unwrap())
            .args(only_compile)
            .arg(root.host_path("/profiles"))
            .arg(source("profiles")),
    );
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

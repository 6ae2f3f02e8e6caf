//! The OCI runtimes, called as an engine calls them, each in a scratch `--root` of its own.
//!
//! [`Runtime::run`] starts a bundle in the foreground; [`Runtime::create`] gives a [`Container`],
//! which is killed and deleted when it goes out of scope, on panic too. What the container's init
//! prints is in [`Container::stdout`] and [`Container::stderr`]: files, since a pipe would be held
//! open for as long as the container lives.
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::bundle::Bundle;
use crate::require;
use crate::terminal::Terminal;
use crate::wait::{wait_for, within};

/// No container operation of the tests takes this long.
const DEADLINE: Duration = Duration::from_secs(30);

/// The runtimes under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Runc,
    Crun,
    Youki,
}

impl Kind {
    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Youki => "youki",
        }
    }
}

/// A runtime with a state directory of its own.
pub struct Runtime {
    kind: Kind,
    root: TempDir,
    program: PathBuf,
}

impl Runtime {
    /// Panics where the program is not installed: ask [`require::programs`] first.
    pub fn new(kind: Kind) -> Self {
        require::root();
        let root = tempfile::Builder::new().prefix(kind.name()).tempdir().unwrap();
        let program = program(kind, root.path());
        Self { kind, root, program }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What an engine must be given as the runtime's path: on a host with hybrid
    /// cgroups it is a script for crun.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The runtime with its global options; the verb comes next.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.root.path().join("state")).stdin(Stdio::null());
        command
    }

    /// Runs a command of the runtime, or of what stands before it, to its end.
    pub fn output(&self, command: &mut Command) -> Output {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let output = match self.kind {
                Kind::Youki => nudged(command),
                _ => command.output().unwrap(),
            };
            let stumbled = || self.stumbled(&String::from_utf8_lossy(&output.stderr));
            if output.status.success() || Instant::now() > deadline || !stumbled() {
                return output;
            }
        }
    }

    /// youki 0.7 runs from a sealed copy of itself, and does not try again when the kernel still
    /// holds a page of it (fcntl(2): EBUSY). That is before it has done anything.
    fn stumbled(&self, log: &str) -> bool {
        self.kind == Kind::Youki && log.contains("failed to seal /proc/self/exe")
    }

    /// `run`: from creation to the end of the program. The output is the container's.
    pub fn run(&self, bundle: &Bundle, id: &str) -> Output {
        bundle.write();
        let mut command = self.command();
        command.arg("run").arg("--bundle").arg(bundle.path()).arg(id);
        let output = self.output(&mut command);
        self.force_delete(id);
        output
    }

    /// `create`: hooks run, the program is not started yet. Panics when the runtime refuses.
    pub fn create<'r>(&'r self, bundle: &Bundle, id: &str) -> Container<'r> {
        self.try_create(bundle, id)
            .unwrap_or_else(|log| panic!("{} create {id}: {log}", self.kind.name()))
    }

    /// `create`, and what the runtime said when it refused.
    pub fn try_create<'r>(&'r self, bundle: &Bundle, id: &str) -> Result<Container<'r>, String> {
        bundle.write();
        let output = |name: &str| File::create(bundle.path().join(name)).unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut command = self.command();
            command.arg("create").arg("--bundle").arg(bundle.path()).arg(id);
            let status =
                command.stdout(output("stdout")).stderr(output("stderr")).status().unwrap();
            // Made before the status is looked at: a half-made container is deleted too.
            let container =
                Container { runtime: self, id: id.to_owned(), bundle: bundle.path().to_owned() };
            if status.success() {
                return Ok(container);
            }
            let log = container.stderr();
            if Instant::now() > deadline || !self.stumbled(&log) {
                return Err(log);
            }
        }
    }

    /// `create` and `start`.
    pub fn start<'r>(&'r self, bundle: &Bundle, id: &str) -> Container<'r> {
        let container = self.create(bundle, id);
        container.start();
        container
    }

    fn force_delete(&self, id: &str) {
        let mut command = self.command();
        // Usually it is gone already and the runtime complains: nobody needs to hear that.
        self.output(command.args(["delete", "--force", id]));
    }
}

/// Runs youki, whose `run` on a busy machine misses the end of a container that ends at once: the
/// SIGCHLD comes before it waits for signals. It is sent one now and then.
fn nudged(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || done.send(child.wait_with_output().unwrap()));
        loop {
            match ended.recv_timeout(Duration::from_secs(2)) {
                Ok(output) => return output,
                Err(_) => drop(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCHLD)),
            }
        }
    })
}

/// A container that exists. Killed and deleted on drop.
pub struct Container<'r> {
    runtime: &'r Runtime,
    id: String,
    bundle: PathBuf,
}

impl Container<'_> {
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn start(&self) {
        self.succeed(&["start", &self.id]);
    }

    /// The state as the runtime tells it.
    pub fn state(&self) -> Value {
        serde_json::from_slice(&self.succeed(&["state", &self.id]).stdout).unwrap()
    }

    /// `creating`, `created`, `running` or `stopped`.
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// The host PID of the container's init.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.state()["pid"].as_i64().unwrap()).unwrap()
    }

    /// `exec`: another process in the container, as root in `/`. The output and exit
    /// status are the process's.
    pub fn exec(&self, args: &[&str]) -> Output {
        self.runtime.output(&mut self.exec_command(&[], args))
    }

    /// `exec` with options of the runtime (`--user 1000`, ...).
    pub fn exec_with(&self, options: &[&str], args: &[&str]) -> Output {
        self.runtime.output(&mut self.exec_command(options, args))
    }

    /// `exec` as a command, for a test that wants to choose its standard streams.
    pub fn exec_command(&self, options: &[&str], args: &[&str]) -> Command {
        let mut command = self.runtime.command();
        command.arg("exec").args(options);
        if self.runtime.kind == Kind::Youki {
            // youki's parser would take the program's options for its own.
            command.arg(&self.id).arg("--").args(args);
        } else {
            command.arg(&self.id).args(args);
        }
        command
    }

    /// `exec` on a new terminal, of which this is the other end.
    pub fn exec_terminal(&self, args: &[&str]) -> Terminal {
        let socket = self.bundle.join("console");
        // A second terminal of the same container: the first one's socket has served.
        let _ = fs::remove_file(&socket);
        Terminal::receive(&socket, || {
            let mut options = vec!["--detach", "--console-socket", socket.to_str().unwrap()];
            let process = self.bundle.join("process.json");
            if self.runtime.kind == Kind::Youki {
                // youki ignores --tty: a terminal must be asked for in a
                // process of config.json's form.
                let config = fs::read(self.bundle.join("config.json")).unwrap();
                let mut wanted =
                    serde_json::from_slice::<Value>(&config).unwrap()["process"].take();
                wanted["terminal"] = true.into();
                wanted["args"] = args.into();
                fs::write(&process, wanted.to_string()).unwrap();
                options.extend(["--process", process.to_str().unwrap()]);
            } else {
                options.push("--tty");
            }
            let output = self.runtime.output(&mut self.exec_command(&options, args));
            assert!(output.status.success(), "{} exec --tty: {output:?}", self.runtime.kind.name());
        })
    }

    /// Standard output of an exec'd `sh -c SCRIPT`, which must succeed.
    pub fn sh(&self, script: &str) -> String {
        let output = self.exec(&["/bin/sh", "-c", script]);
        assert!(output.status.success(), "{}: {script}: {output:?}", self.runtime.kind.name());
        String::from_utf8(output.stdout).unwrap()
    }

    /// `kill`: a signal by name (`KILL`) to the container's init.
    pub fn kill(&self, signal: &str) {
        self.succeed(&["kill", &self.id, signal]);
    }

    /// Waits until the init has ended.
    pub fn wait_stopped(&self) {
        let what = format!("the end of {} {}", self.runtime.kind.name(), self.id);
        wait_for(&what, DEADLINE, || self.status() == "stopped");
    }

    /// `kill` with SIGKILL, then `delete`: the poststop hooks run.
    pub fn remove(self) {
        if self.status() != "stopped" {
            self.kill("KILL");
            self.wait_stopped();
        }
        // youki gives a group a second to become empty. A process of ours that leaves it then may
        // get no processor for as long on a busy machine; an engine deletes again.
        let delete = || {
            let output = self.runtime.output(self.runtime.command().args(["delete", &self.id]));
            let is_busy = String::from_utf8_lossy(&output.stderr).contains("could not delete");
            (!is_busy).then_some(output)
        };
        let output = wait_for(&format!("the removal of {}", self.id), DEADLINE, delete);
        assert!(output.status.success(), "{} delete: {output:?}", self.runtime.kind.name());
    }

    /// What the init has written to its standard output, as soon as `text` is in it.
    pub fn wait_for_stdout(&self, text: &str) -> String {
        within(DEADLINE, || Some(self.stdout()).filter(|printed| printed.contains(text)))
            .unwrap_or_else(|| {
                panic!(
                    "{} {}: no {text:?} in {:?}, {:?}",
                    self.runtime.kind.name(),
                    self.id,
                    self.stdout(),
                    self.stderr()
                )
            })
    }

    /// What the init has written to its standard output so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(self.bundle.join("stdout")).unwrap_or_default()
    }

    /// What the runtime and the init have written to their standard error so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.bundle.join("stderr")).unwrap_or_default()
    }

    fn succeed(&self, args: &[&str]) -> Output {
        let output = self.runtime.output(self.runtime.command().args(args));
        assert!(output.status.success(), "{} {args:?}: {output:?}", self.runtime.kind.name());
        output
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.runtime.force_delete(&self.id);
    }
}

/// A program for callers that cannot retry themselves, as [`Runtime::output`] does: it calls youki
/// again when it fails in that way. Other runtimes are returned unchanged.
pub fn steady(kind: Kind, directory: &Path, program: &Path) -> PathBuf {
    if kind != Kind::Youki {
        return program.to_owned();
    }
    let text = "#!/bin/sh\nlog=$(mktemp); deadline=$(($(date +%s) + SECONDS))\n\
                while :; do\n    \"PROGRAM\" \"$@\" 2>\"$log\"; status=$?\n    grep -q 'failed to \
                seal' \"$log\" || break\n    [ \"$(date +%s)\" -lt \"$deadline\" ] || \
                break\ndone\n\
                cat \"$log\" >&2; rm \"$log\"; exit $status\n";
    let text = text
        .replace("PROGRAM", &program.display().to_string())
        .replace("SECONDS", &DEADLINE.as_secs().to_string());
    script(&directory.join("steady"), &text)
}

/// Writes a script that stands for a runtime.
pub fn script(path: &Path, text: &str) -> PathBuf {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

/// crun refuses a host with hybrid cgroups; there it gets a mount namespace in which the second
/// hierarchy is not mounted.
fn program(kind: Kind, scratch: &Path) -> PathBuf {
    let program =
        require::find(kind.name()).unwrap_or_else(|| panic!("{} is not installed", kind.name()));
    if kind != Kind::Crun || !Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists() {
        return program;
    }
    let script = scratch.join("crun");
    let text = format!(
        "#!/bin/sh\nexec unshare -m sh -c 'umount /sys/fs/cgroup/unified; exec \"$@\"' crun {} \
         \"$@\"\n",
        program.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

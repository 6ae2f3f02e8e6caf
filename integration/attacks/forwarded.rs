//! Crashes that go to the earlier handler respect that handler's own limit, as the kernel would.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use support::crasher::{compile, crasher};
use support::host::Host;
use support::processes;
use support::scene::{self, product};
use support::server::Way;
use support::wait::wait_for;

const SOON: Duration = Duration::from_secs(60);

/// An earlier handler (`gate.c`) that does not end until the gate opens.
struct Gate {
    directory: TempDir,
    program: PathBuf,
}

impl Gate {
    fn new() -> Self {
        let directory = TempDir::with_prefix("g").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("gate-handler");
        fs::copy(compile("gate", include_str!("gate.c"), &[]), &program).unwrap();
        fs::copy(crasher(), directory.path().join("crasher")).unwrap();
        nix::unistd::mkfifo(&directory.path().join("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        Self { directory, program }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes it the earlier handler, with this limit, and then installs the product.
    fn take_over(&self, host: &Host, limit: u32) {
        let pattern = format!("|{} {}", self.program.display(), self.path().display());
        host.set("kernel/core_pattern", &pattern);
        host.set("kernel/core_pipe_limit", &limit.to_string());
        assert!(product(&["install"]).status().unwrap().success());
        assert_ne!(host.sysctl("kernel/core_pattern"), pattern);
    }

    /// How often it was started.
    fn started(&self) -> usize {
        fs::metadata(self.path().join("started")).map_or(0, |meta| meta.len() as usize)
    }

    /// How many are running.
    fn running(&self) -> usize {
        let runs = |pid: &i32| processes::exe(*pid).as_ref() == Some(&self.program);
        processes::all().filter(runs).count()
    }

    /// A process of an unprivileged user crashes.
    fn crash(&self) -> Child {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"])
            .arg(format!("ulimit -c unlimited; exec {}/crasher null", self.path().display()))
            .current_dir("/")
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Opens the gate for all handlers that run and all that follow.
    fn open(&self) -> fs::File {
        fs::File::options().read(true).write(true).open(self.path().join("gate")).unwrap()
    }
}

fn ended(children: &mut [Child]) -> usize {
    children.iter_mut().filter_map(|child| child.try_wait().unwrap()).count()
}

fn wait_for_all(children: &mut [Child]) {
    for child in children {
        child.wait().unwrap();
    }
}

support::cases!(
    row_29_the_earlier_handlers_own_limit: by_pipe(Way::Pipe),
    by_socket(Way::Socket)
);

/// Sixteen at once, as with the kernel. Of the other crashes none waits,
/// and nothing is left of them.
fn row_29_the_earlier_handlers_own_limit(way: Way) {
    const LIMIT: usize = 16;
    if !way.is_possible() {
        return;
    }
    let host = scene::host();
    let _server = way.serve(&host);
    let gate = Gate::new();
    gate.take_over(&host, LIMIT as u32);
    assert!(way.is_taken(&host));
    let mut children: Vec<_> = (0..60).map(|_| gate.crash()).collect();
    wait_for("those beyond the limit are not skipped", SOON, || {
        ended(&mut children) == 60 - LIMIT && gate.started() == LIMIT
    });
    assert_eq!((gate.started(), gate.running()), (LIMIT, LIMIT));
    let gate_is_open = gate.open();
    wait_for_all(&mut children);
    host.settle();
    wait_for("handlers are left", SOON, || gate.running() == 0);
    assert_eq!(gate.started(), LIMIT, "one of those that were skipped came later");
    // Handlers that have ended do not count any more.
    let mut again: Vec<_> = (0..4).map(|_| gate.crash()).collect();
    wait_for_all(&mut again);
    assert_eq!(gate.started(), LIMIT + 4);
    drop(gate_is_open);
}

/// Without a limit the kernel would run any number of handlers. This project's own limit applies,
/// and a crash that can wait is not skipped.
#[test]
fn row_29_an_earlier_handler_without_a_limit() {
    let host = scene::host();
    host.configure("[limits]\nconcurrent = 4\nwait = 120\n");
    let gate = Gate::new();
    gate.take_over(&host, 0);
    let mut children: Vec<_> = (0..20).map(|_| gate.crash()).collect();
    wait_for("four are not handled", SOON, || gate.started() == 4);
    // Each of the others has a helper by now, which looks for room again and again.
    wait_for("the others do not wait", SOON, || support::processes::helpers().len() == 16);
    assert_eq!((gate.started(), gate.running()), (4, 4));
    let gate_is_open = gate.open();
    wait_for_all(&mut children);
    host.settle();
    assert_eq!(gate.started(), 20, "one that had time was skipped");
    drop(gate_is_open);
}

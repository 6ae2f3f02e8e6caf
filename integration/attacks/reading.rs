//! Reading cores, and looking at running containers: no command waits for a container's file
//! system.
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::fixture::{bundle, crash, names};
use support::fuse::{Fuse, op};
use support::runtime::{Kind, Runtime};
use support::scene::{self, ECI, product};
use support::wait::ends_within;

/// Every verb waits at most three or four seconds for a container's file system; the
/// rest is for a busy machine.
const BOUND: Duration = Duration::from_secs(40);

/// One volume without its server blocked `list` for all containers, and each attempt left a process
/// that could not be killed.
#[test]
fn row_46_a_volume_that_does_not_answer() {
    let host = scene::host();
    let target = Fuse::mount();
    let runtime = Runtime::new(Kind::Runc);
    let (mut hung_bundle, _volume) = bundle();
    hung_bundle.annotation(ECI, "/fuse/core").bind(target.path(), "/fuse");
    let hung = runtime.start(&hung_bundle, "hung");
    let (calm_bundle, _calm_volume) = bundle();
    let calm = runtime.start(&calm_bundle, "calm");
    for container in [&hung, &calm, &hung] {
        crash(container, "0:0", "", &["/bin/crasher", "null"]);
    }
    host.settle();
    let pid = hung.pid().to_string();
    // The output shows the state of `hung`, and `calm` as usual.
    let table: [(&[&str], &[&str]); 8] = [
        (&["list"], &["unreachable", "present"]),
        (&["list", "--json"], &["\"unreachable\"", "\"present\""]),
        (&["info", "hung"], &["unreachable"]),
        (&["export", "hung", "-o", "-"], &["does not answer"]),
        (&["debug", "hung", "--debugger", "/bin/true"], &["does not answer"]),
        (&["metrics"], &["oci_coredump"]),
        (&["vacuum", "--dry-run"], &[]),
        (&["enable", "--pid", &pid, "other", "--pattern", "/fuse/deep/core"], &["does not answer"]),
    ];
    for (args, says) in table {
        target.hold(op::LOOKUP);
        let mut child =
            product(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let ended = ends_within(&mut child, BOUND);
        target.go_on();
        assert!(ended.is_some(), "{args:?} hangs");
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        for word in says {
            assert!(said.contains(word), "{args:?}: {said}");
        }
    }
}

/// A lease on a core made it appear missing.
#[test]
fn row_46_a_lease() {
    let host = scene::host();
    let runtime = Runtime::new(Kind::Runc);
    let (bundle, volume) = bundle();
    let container = runtime.start(&bundle, "leased");
    crash(&container, "0:0", "", &["/bin/crasher", "null"]);
    host.settle();
    let core = volume.path().join(&names(volume.path())[0]);
    let script = format!(
        "import fcntl, os, signal\n\
         signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
         fd = os.open({:?}, os.O_RDWR)\n\
         fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
         print('ready', flush=True)\n\
         signal.pause()",
        core.to_str().unwrap()
    );
    let mut holder =
        Command::new("python3").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    let outputs = [&["list"][..], &["info"], &["export", "-o", "-"]]
        .map(|args| product(args).output().unwrap());
    holder.kill().unwrap();
    holder.wait().unwrap();
    for output in &outputs {
        let said = [&output.stdout[..], &output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("lease") && !said.contains("missing"), "{said}");
    }
}

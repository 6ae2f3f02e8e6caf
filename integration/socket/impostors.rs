//! Who may connect to the socket, and what comes of it.
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use support::fixture::as_nobody;
use support::host::RUN;
use support::processes;
use support::runtime::{Kind, Runtime};
use support::scene::{self, ECI, ECI_PATTERN, bundle, crash};
use support::server::{SOCKET, Way};

/// The connection's end, which comes without a byte.
fn is_turned_away(mut stream: UnixStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_))
}

/// A process that has not crashed: of another user, it cannot connect; of root, it is turned away,
/// whatever it says, and no process is started for it. Nothing is recorded.
#[test]
fn row_11_impostor_at_the_socket() {
    if !Way::Socket.is_possible() {
        return;
    }
    let host = scene::host();
    let server = Way::Socket.serve(&host).unwrap();
    let runtime = Runtime::new(Kind::Runc);
    let mut bundle = bundle();
    bundle.annotation(ECI, ECI_PATTERN);
    let container = runtime.start(&bundle, "beside");
    assert!(server.is_used());
    let meta = fs::metadata(SOCKET).unwrap();
    assert_eq!((meta.uid(), meta.permissions().mode() & 0o777), (0, 0o600));
    assert_eq!(fs::metadata(RUN).unwrap().permissions().mode() & 0o777, 0o700);
    let script = format!(
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect({SOCKET:?}); s.recv(1)"
    );
    assert!(!as_nobody("python3", &["-c", &script]).output().unwrap().status.success());

    let request = [16u32.to_ne_bytes(), 16u32.to_ne_bytes()].concat();
    let request = [request, 15u64.to_ne_bytes().to_vec()].concat();
    for words in [&b""[..], &request, b"\x7fELF", &[0xff; 5000]] {
        let mut stream = UnixStream::connect(SOCKET).unwrap();
        let _ = stream.write_all(words);
        assert!(is_turned_away(stream), "{words:?}");
    }
    // Many that say nothing keep nobody waiting: each is turned away at once.
    let silent: Vec<_> = (0..500).map(|_| UnixStream::connect(SOCKET).unwrap()).collect();
    let (pid, status) = crash(|script| container.sh(script), "segv");
    assert_eq!(status, 11 | 0x80);
    assert!(silent.into_iter().all(is_turned_away));
    assert_eq!(processes::field(server.serving(), "Threads").as_deref(), Some("1"));
    let records = host.records();
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!(records[0]["pid"], pid);
    assert!(Path::new(SOCKET).exists());
}

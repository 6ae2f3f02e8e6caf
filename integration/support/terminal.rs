//! A person at a terminal, typing and reading: a pseudo-terminal that a runtime made for a process
//! in the container and handed over by its console socket, as to an engine; or, for podman, a
//! command on a terminal that script(1) makes.
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// How long to wait for something to be printed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal, and what was printed on it and nobody has looked at yet.
pub struct Terminal {
    child: Option<Child>,
    keyboard: Box<dyn Write>,
    screen: Receiver<Vec<u8>>,
    unread: Vec<u8>,
}

impl Terminal {
    /// Starts `command` (program and arguments; its environment and streams are not
    /// taken) on a new terminal.
    pub fn start(command: &Command) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<_> =
            words.map(|word| quote(word.to_str().expect("UTF-8 arguments"))).collect();
        let mut child = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &line.join(" "), "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script is not installed");
        let keyboard = Box::new(child.stdin.take().unwrap());
        let screen = show(child.stdout.take().unwrap());
        Self { child: Some(child), keyboard, screen, unread: Vec::new() }
    }

    /// The terminal that a runtime sends to the console socket `path`. `call` starts the runtime,
    /// after the socket is there and before it is waited for.
    pub fn receive(path: &Path, call: impl FnOnce()) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        call();
        let (connection, _) = listener.accept().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 4096];
        recvmsg(
            &connection,
            &mut [IoSliceMut::new(&mut name)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        let descriptor: OwnedFd = ancillary
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            })
            .expect("the console socket carries a descriptor");
        let master = File::from(descriptor);
        let screen = show(master.try_clone().unwrap());
        Self { child: None, keyboard: Box::new(master), screen, unread: Vec::new() }
    }

    /// Types `keys`; `\n` is the Enter key, `\x1c` is `^\`.
    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Waits until `text` has been printed; returns everything up to its end
    /// that was not returned before.
    pub fn wait_for(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let printed = String::from_utf8_lossy(&self.unread).into_owned();
            if let Some(start) = printed.find(text) {
                let (read, unread) = printed.split_at(start + text.len());
                self.unread = unread.as_bytes().to_vec();
                return read.to_owned();
            }
            match self.screen.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.unread.extend(bytes),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{text:?} was not printed in time; printed: {printed:?}")
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended without printing {text:?}; printed: {printed:?}")
                }
            }
        }
    }

    /// Waits until everything on the terminal has ended.
    pub fn wait_for_end(&mut self) {
        while self
            .screen
            .recv_timeout(PATIENCE)
            .map_err(|ended| assert_eq!(ended, RecvTimeoutError::Disconnected))
            .is_ok()
        {}
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It has ended already, unless the test is failing.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What comes out of `output`, as it comes. Ends with the end of the file, or the EIO
/// that a terminal has there.
fn show(mut output: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, screen) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    screen
}

/// For the shell that script(1) calls.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

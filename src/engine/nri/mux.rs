//! The wire protocol: two connections over one socket, with ttrpc messages in them.
//!
//! ```text
//! frame:    u32 connection, u32 length, bytes      (big endian; containerd/nri, pkg/net/multiplex)
//! message:  u32 length, u32 stream, u8 kind, u8 flags, payload     (containerd/ttrpc, PROTOCOL.md)
//! ```
//!
//! A message may be split over several frames, and a frame may hold several messages.

use anyhow::{Context, Result, ensure};
use std::io::{ErrorKind, Read, Write};

/// ttrpc's maximum payload, in bytes.
const PAYLOAD: usize = 4 << 20;
const HEADER: usize = 10;
const FRAME: usize = HEADER + PAYLOAD;

/// One of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    /// The engine calls, we answer.
    Plugin = 1,
    /// We call, the engine answers.
    Runtime = 2,
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// A call.
    Request = 1,
    /// The answer to a call.
    Response = 2,
}

/// A ttrpc message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TtrpcFrame {
    /// Number of the call: odd and increasing, chosen by the caller.
    pub stream: u32,
    /// Whether it is the call or its answer.
    pub kind: FrameKind,
    /// A `Request` or `Response` in protobuf encoding.
    pub payload: Vec<u8>,
}

/// The socket, and the received parts of incomplete messages.
#[derive(Debug)]
pub(super) struct Mux<S> {
    socket: S,
    pending: [Vec<u8>; 2],
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

impl<S: Read + Write> Mux<S> {
    /// Wraps a connected socket.
    pub(super) fn new(socket: S) -> Self {
        Mux { socket, pending: Default::default() }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The engine is gone, or the message is larger than ttrpc allows.
    pub(super) fn send(&mut self, connection: Connection, message: &TtrpcFrame) -> Result<()> {
        ensure!(
            message.payload.len() <= PAYLOAD,
            "a message of {} bytes is larger than ttrpc allows",
            message.payload.len()
        );
        let mut bytes = Vec::with_capacity(8 + HEADER + message.payload.len());
        bytes.extend((connection as u32).to_be_bytes());
        bytes.extend(((HEADER + message.payload.len()) as u32).to_be_bytes());
        bytes.extend((message.payload.len() as u32).to_be_bytes());
        bytes.extend(message.stream.to_be_bytes());
        bytes.extend([message.kind as u8, 0]);
        bytes.extend(&message.payload);
        self.socket.write_all(&bytes).context("write")
    }

    /// The next complete message; `None` if the engine has closed the connection.
    ///
    /// # Errors
    /// The input breaks the protocol.
    pub(super) fn receive(&mut self) -> Result<Option<(Connection, TtrpcFrame)>> {
        loop {
            for connection in [Connection::Plugin, Connection::Runtime] {
                if let Some(message) = take(&mut self.pending[connection as usize - 1])? {
                    return Ok(Some((connection, message)));
                }
            }
            let mut head = [0; 8];
            match self.socket.read_exact(&mut head) {
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                    ) =>
                {
                    return Ok(None);
                }
                other => other.context("read")?,
            }
            let (connection, length) = (number(&head[..4]), number(&head[4..]) as usize);
            ensure!(length <= FRAME, "a frame of {length} bytes breaks the protocol");
            let mut bytes = vec![0; length];
            self.socket.read_exact(&mut bytes).context("read")?;
            // Other connections may be added to the protocol in future: skipped.
            if let Some(pending) =
                (connection as usize).checked_sub(1).and_then(|i| self.pending.get_mut(i))
            {
                ensure!(
                    pending.len() <= FRAME,
                    "more than one message in advance breaks the protocol"
                );
                pending.extend(bytes);
            }
        }
    }
}

/// Takes the first message off. Messages of other kinds (streams) are skipped.
fn take(pending: &mut Vec<u8>) -> Result<Option<TtrpcFrame>> {
    loop {
        if pending.len() < HEADER {
            return Ok(None);
        }
        let length = number(&pending[..4]) as usize;
        ensure!(length <= PAYLOAD, "a message of {length} bytes breaks the protocol");
        if pending.len() < HEADER + length {
            return Ok(None);
        }
        let rest = pending.split_off(HEADER + length);
        let mut message = std::mem::replace(pending, rest);
        let (stream, kind) = (number(&message[4..8]), message[8]);
        let kind = match kind {
            1 => FrameKind::Request,
            2 => FrameKind::Response,
            _ => continue,
        };
        return Ok(Some(TtrpcFrame { stream, kind, payload: message.split_off(HEADER) }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn message(stream: u32, payload: &[u8]) -> TtrpcFrame {
        TtrpcFrame { stream, kind: FrameKind::Request, payload: payload.to_vec() }
    }

    /// What one `send` writes, including the frame header.
    fn sent(connection: Connection, message: &TtrpcFrame) -> Vec<u8> {
        let mut mux = Mux::new(Cursor::new(Vec::new()));
        mux.send(connection, message).unwrap();
        mux.socket.into_inner()
    }

    #[test]
    fn the_bytes() {
        let bytes = sent(Connection::Runtime, &message(3, b"ab"));
        assert_eq!(bytes, [0, 0, 0, 2, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 3, 1, 0, b'a', b'b']);
        let mut mux = Mux::new(Cursor::new(bytes));
        assert_eq!(mux.receive().unwrap(), Some((Connection::Runtime, message(3, b"ab"))));
        assert_eq!(mux.receive().unwrap(), None);
    }

    #[test]
    fn cut_and_joined() {
        let raw: Vec<u8> = [message(1, b"one"), message(3, &[7; 300])]
            .iter()
            .flat_map(|m| sent(Connection::Plugin, m)[8..].to_vec())
            .collect();
        let mut bytes = Vec::new();
        for part in raw.chunks(11) {
            bytes.extend([0, 0, 0, 9, 0, 0, 0, 1, 0xff]);
            bytes.extend(1u32.to_be_bytes());
            bytes.extend((part.len() as u32).to_be_bytes());
            bytes.extend(part);
        }
        let mut mux = Mux::new(Cursor::new(bytes));
        assert_eq!(mux.receive().unwrap().unwrap().1, message(1, b"one"));
        assert_eq!(mux.receive().unwrap().unwrap().1, message(3, &[7; 300]));
        assert_eq!(mux.receive().unwrap(), None);
    }

    #[test]
    fn too_large() {
        assert!(Mux::new(Cursor::new(vec![0, 0, 0, 1, 0xff, 0, 0, 0])).receive().is_err());
        let mut bytes = vec![0, 0, 0, 1, 0, 0, 0, 10];
        bytes.extend([0xff, 0, 0, 0, 0, 0, 0, 1, 1, 0]);
        assert!(Mux::new(Cursor::new(bytes)).receive().is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut mux = Mux::new(Cursor::new(bytes));
            while let Ok(Some(_)) = mux.receive() {}
        }
    }
}

//! The protocol of the kernel's coredump socket: it connects for a crash, says what it can do, and
//! does what it is asked to. Nothing is made of a core until then.
//!
//! # References
//! include/uapi/linux/coredump.h and fs/coredump.c, Linux 6.17; core(5).

use super::descriptor::{read, wait_readable, write};
use anyhow::{Context, Result, ensure};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The kernel writes the core to the socket.
const KERNEL: u64 = 1;

/// The crashed process stays until the socket is closed.
const WAIT: u64 = 8;

/// The size of the first version of both structures: two `u32` and a `u64`. A later kernel still
/// takes that of the answer.
const SIZE: usize = 16;

/// Most bytes of a request of a later version.
const LONGEST: u32 = 4096;

/// Reads the request, which the kernel sends right after it has connected.
///
/// # Errors
/// It does not come within `time`, is none, or the kernel cannot do what is needed.
pub(crate) fn request(socket: impl AsFd, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    let mut request = [0; SIZE];
    exactly(&socket, &mut request, until)?;
    let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap_or_default());
    let mask = u64::from_ne_bytes(request[8..].try_into().unwrap_or_default());
    let (size, size_ack) = (word(0), word(4));
    ensure!(
        (SIZE as u32..=LONGEST).contains(&size) && size_ack as usize >= SIZE,
        "the request has {size} bytes, its answer may have {size_ack}: no request of the kernel's"
    );
    ensure!(
        mask & (KERNEL | WAIT) == KERNEL | WAIT,
        "the kernel can neither write the core nor wait: {mask:#x}"
    );
    // What a later version adds is not needed.
    exactly(&socket, &mut vec![0; size as usize - SIZE], until)
}

/// Asks the kernel for the core, and to wait until the socket is closed. Before this, closing the
/// socket refuses the core: none is made, and the wait status of the crashed process says so.
///
/// # Errors
/// The kernel has taken the crashed process away.
pub(crate) fn ask(socket: impl AsFd) -> rustix::io::Result<()> {
    let mut answer = [0; SIZE];
    answer[..4].copy_from_slice(&(SIZE as u32).to_ne_bytes());
    answer[8..].copy_from_slice(&(KERNEL | WAIT).to_ne_bytes());
    write(&socket, &answer).map(drop)
}

/// Waits until the kernel, having been asked, gives the core, which comes next.
///
/// # Errors
/// The kernel has taken the crashed process away, or refuses what it was asked for.
pub(crate) fn answered(socket: impl AsFd) -> rustix::io::Result<()> {
    let (mut mark, mut got) = ([0; 4], 0);
    while got < mark.len() {
        match read(&socket, &mut mark[got..])? {
            0 => return Err(rustix::io::Errno::PIPE),
            n => got += n,
        }
    }
    match u32::from_ne_bytes(mark) {
        0 => Ok(()),
        _ => Err(rustix::io::Errno::PROTO),
    }
}

fn exactly(socket: impl AsFd, buffer: &mut [u8], until: Instant) -> Result<()> {
    let mut got = 0;
    while got < buffer.len() {
        let left = until.saturating_duration_since(Instant::now());
        ensure!(wait_readable(&socket, Some(left))?, "the kernel's request does not come");
        match read(&socket, &mut buffer[got..]).context("read the kernel's request")? {
            0 => anyhow::bail!("the connection ended before the kernel's request"),
            n => got += n,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn said(size: u32, size_ack: u32, mask: u64, rest: usize) -> Result<()> {
        let (ours, mut kernel) = UnixStream::pair().unwrap();
        let head = [size.to_ne_bytes(), size_ack.to_ne_bytes()].concat();
        kernel.write_all(&[head, mask.to_ne_bytes().to_vec(), vec![0; rest]].concat()).unwrap();
        drop(kernel);
        request(ours, Duration::from_secs(60))
    }

    #[test]
    fn requests() {
        said(16, 16, 15, 0).unwrap();
        said(24, 32, 31, 8).unwrap();
        for bad in [said(8, 16, 15, 0), said(16, 8, 15, 0), said(16, 16, 7, 0), said(24, 16, 15, 0)]
        {
            bad.unwrap_err();
        }
    }

    #[test]
    fn an_answer_and_its_mark() {
        for (mark, is) in [(0u32, true), (3, false)] {
            let (ours, mut kernel) = UnixStream::pair().unwrap();
            kernel.write_all(&mark.to_ne_bytes()).unwrap();
            ask(&ours).unwrap();
            assert_eq!(answered(&ours).is_ok(), is);
            let mut answer = [0; 16];
            kernel.read_exact(&mut answer).unwrap();
            assert_eq!(answer[..8], [16u32.to_ne_bytes(), [0; 4]].concat()[..]);
            assert_eq!(u64::from_ne_bytes(answer[8..].try_into().unwrap()), 9);
        }
        let (ours, kernel) = UnixStream::pair().unwrap();
        drop(kernel);
        answered(&ours).unwrap_err();
    }
}

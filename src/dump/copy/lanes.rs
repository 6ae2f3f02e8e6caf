//! The copy: the kernel's stream in, a file with the kernel's holes out. Runs with the crasher's
//! rights only.
//!
//! Three lanes give the same file: the memory of a small process in few reads (`small_core`), that
//! of a large one by several threads (`parallel`), and the kernel's pipe (`pipe`), which always
//! works.

use super::early_release;
use super::frames::Frames;
use super::head::{Head, Load};
use super::input::Input;
use super::output::Output;
use super::parallel;
use super::pipe::{Start, body, head};
use super::sink::{Sparse, Zstd};
use super::small_core;
use super::source::{Failed, Source};
use super::spans::Spans;
use super::spans::next_open;
use super::stop::{Bounds, Stop};
use super::target::Target;
use crate::sys::hold::Hold;
use crate::sys::{AsFd, Errno};
use std::sync::Arc;

/// Copies a core. `Ok` when it is whole; else why not, and what could be written is in the file.
/// With a `source` the memory comes from the process itself where that gives the same file; else
/// all of it comes through the pipe.
///
/// With a `release` the process is let go early if that lane is taken.
pub fn copy(
    pipe: impl AsFd,
    target: &Arc<Target>,
    bounds: &Bounds,
    source: Option<Source>,
    release: Option<Release<'_>>,
) -> Result<(), Stop> {
    let mut input = Input::new(pipe, target);
    let mut output = Output::new(Sparse(target.clone()), bounds.limit);
    let result = sparse(&mut input, &mut output, bounds, source, release);
    if matches!(result, Err(Stop::Limit | Stop::Ended | Stop::Read(_))) {
        let _ = output.cut();
    }
    result
}

/// The same, compressed.
pub fn compress(
    pipe: impl AsFd,
    target: &Arc<Target>,
    bounds: &Bounds,
    source: Option<Source>,
) -> Result<(), Stop> {
    let mut input = Input::new(pipe, target);
    let mut output = Output::new(Zstd::new(target, 0, bounds.file_size)?, bounds.limit);
    let result = packed(&mut input, &mut output, target, bounds, source);
    if result.is_err() {
        // A frame that is not closed could not be read at all.
        let _ = output.cut();
    }
    result
}

fn packed<I: AsFd>(
    input: &mut Input<I>,
    output: &mut Output<Zstd>,
    target: &Arc<Target>,
    bounds: &Bounds,
    mut source: Option<Source>,
) -> Result<(), Stop> {
    let Start { head, files, .. } = head(input, output)?;
    if let Some(files) = parallel::suits(&head, files.as_deref(), bounds.room())
        && let Some(source) = source.take_if(|s| s.pidfd.is_some())
    {
        output.flush()?;
        let start = output.position;
        output.sink.close(start)?;
        let frames: &'static Frames =
            Box::leak(Box::new(Frames::new(target, start).map_err(|_| Stop::Write(Errno::NOMEM))?));
        let copied = parallel::compress(
            Box::leak(Box::new(source)),
            head.loads.clone(),
            files,
            target,
            frames,
        );
        match copied.map_or_else(Err, |()| {
            frames.end(head.end).map_err(|why| Failed::Stream(why, head.end))
        }) {
            Ok(()) => return Ok(()),
            Err(Failed::Ended(_)) => return frames.cut().and(Err(Stop::Ended)),
            // Frames are written one after the other: there is nothing behind what failed, and no
            // other way to write it.
            Err(Failed::Stream(why @ (Stop::Full | Stop::Write(_)), _)) => {
                return frames.cut().and(Err(why));
            }
            // What could not be read comes through the pipe, of which nothing was read.
            Err(Failed::Stream(..)) => {
                frames.back()?;
                output.sink = Zstd::new(target, start, bounds.file_size)?;
            }
        }
    }
    body(input, output, bounds, source, &head)
}

fn sparse<I: AsFd>(
    input: &mut Input<I>,
    output: &mut Output<Sparse>,
    bounds: &Bounds,
    mut source: Option<Source>,
    release: Option<Release<'_>>,
) -> Result<(), Stop> {
    let Start { head, files, threads } = head(input, output)?;
    let small = source
        .as_ref()
        .and_then(|source| small_core::pieces(&head, files.as_deref(), bounds.room(), source));
    if let (Some(pieces), Some(source)) = (small, &source) {
        let target = &output.sink.0.clone();
        output.flush()?;
        match small_core::copy(source, &pieces, target) {
            Ok(()) => return output.end_at(head.end),
            Err(Failed::Ended(whole)) => return ended(output, whole.min(head.end)),
            // Pieces are written from front to back: what lies behind the first failure is not
            // there.
            Err(Failed::Stream(why @ (Stop::Full | Stop::Write(_)), _)) => return Err(why),
            Err(Failed::Stream(..)) => target.again_from(output.position),
        }
    }
    if let Some(files) = parallel::suits(&head, files.as_deref(), bounds.room())
        && let Some(source) = source.take_if(|s| s.pidfd.is_some())
    {
        let target = &output.sink.0.clone();
        output.flush()?;
        // A thread that is stuck in a read is left behind with what it uses; see there.
        let source: &'static Source = Box::leak(Box::new(source));
        let held = release
            .map_or(Ok(None), |release| release.act(source, &head, &files, &threads, target));
        let released = matches!(held, Ok(Some(_)));
        let open = |held: &Option<Spans>, load: &&Load| {
            held.as_ref().is_none_or(|done| {
                next_open(done, load.address, load.address + load.size).is_some()
            })
        };
        let rest = |held| {
            parallel::copy(
                source,
                head.loads.iter().filter(|load| open(&held, load)).copied().collect(),
                files,
                target,
                held,
            )
        };
        match held.and_then(rest) {
            Ok(()) => return output.end_at(head.end),
            // The threads do not write from front to back: what lies behind the first failure has
            // gaps that nobody could tell from zeros.
            Err(Failed::Stream(why, whole)) if released || why == Stop::Full => {
                return output.end_at(whole.clamp(output.position, head.end)).and(Err(why));
            }
            Err(Failed::Ended(whole)) => return ended(output, whole.min(head.end)),
            // Nothing of the pipe was read, so the stream writes the same bytes again to the same
            // places. But the lane does not write from front to back: where it ran out of space,
            // what it has of the end would take the place of what is missing before.
            Err(Failed::Stream(..)) => {
                output.end_at(output.position)?;
                target.again_from(output.position);
            }
        }
    }
    body(input, output, bounds, source, &head)
}

/// The process has gone: the file is whole up to here.
fn ended(output: &mut Output<Sparse>, whole: u64) -> Result<(), Stop> {
    output.reach = whole.max(output.reach);
    Err(Stop::Ended)
}

/// How the process is let go early.
pub struct Release<'a> {
    /// What its memory is held with.
    pub hold: Hold,
    /// Lets it go.
    pub go: &'a mut dyn FnMut(),
}

impl Release<'_> {
    /// Lets the process go, if its memory can be held; else it waits as usual.
    fn act(
        self,
        source: &'static Source,
        head: &Head,
        files: &[u64],
        threads: &[u64],
        target: &Arc<Target>,
    ) -> Result<Option<Spans>, Failed> {
        // On other architectures than x86-64 nothing says where the threads' blocks are.
        if threads.is_empty() {
            return Ok(None);
        }
        let Some((held, done)) =
            early_release::prepare(self.hold, source, head, files, threads, target)?
        else {
            return Ok(None);
        };
        source.memory.detach();
        (self.go)();
        // For as long as this process lives.
        std::mem::forget(held);
        Ok(Some(done))
    }
}

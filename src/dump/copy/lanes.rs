//! The copy: the kernel's stream in, a file with the kernel's holes out. Runs with the crasher's
//! rights only.
//!
//! Three lanes give the same file: the memory of a small process in few reads (`small_process`),
//! that of a large one by several threads (`parallel`), and the kernel's pipe (`pipe`), which
//! always works. They are tried in this order; the head of the core comes through the pipe for all
//! of them. A compressed core takes the last two only, with frames instead of holes
//! (`zstd_frames`). A core that keeps less of the memory is another file, by a way of its own
//! (`reduced`).

use super::crashed_memory::{CrashedMemory, Failed};
use super::early_release::Release;
use super::output::CoreOutput;
use super::parallel;
use super::pipe::{self, Start};
use super::pipe_reader::PipeReader;
use super::reduced::Reduced;
use super::sink::{Sink, Sparse, Zstd};
use super::small_process;
use super::stop::{Bounds, Stop};
use super::target::CopyTarget;
use super::zstd_frames::Frames;
use crate::elf::Load;
use crate::elf::spans::{Spans, next_open};
use crate::sys::{AsFd, Errno};
use std::sync::Arc;

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// `Ok` when the core is whole; else why not, and what could be written is in the file.
    pub result: Result<(), Stop>,
    /// Bytes of the core with all of the memory, if this one keeps less.
    pub full_size: Option<u64>,
}

impl Copied {
    /// What became of a core that keeps all of the memory.
    fn whole(result: Result<(), Stop>) -> Self {
        Copied { result, full_size: None }
    }
}

/// Copies a core. With a `source` the memory comes from the process itself where that gives the
/// same file; else all of it comes through the pipe.
///
/// With a `release` the process is let go early if the parallel lane is taken.
pub(crate) fn copy_core(
    pipe: impl AsFd,
    target: &Arc<CopyTarget>,
    bounds: &Bounds,
    source: Option<CrashedMemory>,
    release: Option<Release<'_>>,
) -> Copied {
    let mut input = PipeReader::new(pipe, target);
    let mut output = CoreOutput::new(Sparse(target.clone()), bounds.limit);
    let reduced = reduce(&mut input, &mut output, target, bounds, source.as_ref());
    let copied = reduced.unwrap_or_else(|| {
        let (input, output) = (&mut input, &mut output);
        Copied::whole(pipe::head(input, output).and_then(|start| {
            let mut core = CoreCopy { input, output, target, bounds, start, source, release };
            core.take([CoreCopy::small_process, CoreCopy::parallel, CoreCopy::pipe])
        }))
    });
    if matches!(copied.result, Err(Stop::Limit | Stop::Ended | Stop::Read(_))) {
        let _ = output.cut();
    }
    copied
}

/// The same, compressed.
pub(crate) fn compress(
    pipe: impl AsFd,
    target: &Arc<CopyTarget>,
    bounds: &Bounds,
    source: Option<CrashedMemory>,
) -> Copied {
    let mut input = PipeReader::new(pipe, target);
    let sink = match Zstd::new(target, 0, bounds.file_size) {
        Ok(sink) => sink,
        Err(stop) => return Copied::whole(Err(stop)),
    };
    let mut output = CoreOutput::new(sink, bounds.limit);
    let reduced = reduce(&mut input, &mut output, target, bounds, source.as_ref());
    let copied = reduced.unwrap_or_else(|| {
        let (input, output) = (&mut input, &mut output);
        Copied::whole(pipe::head(input, output).and_then(|start| {
            let release = None;
            let mut core = CoreCopy { input, output, target, bounds, start, source, release };
            core.take([CoreCopy::parallel_frames, CoreCopy::pipe])
        }))
    });
    if copied.result.is_err() {
        // A frame that is not closed could not be read at all.
        let _ = output.cut();
    }
    copied
}

/// Copies what a small core keeps, if one is asked for and can be made.
fn reduce<I: AsFd, S: Sink>(
    input: &mut PipeReader<I>,
    output: &mut CoreOutput<S>,
    target: &CopyTarget,
    bounds: &Bounds,
    source: Option<&CrashedMemory>,
) -> Option<Copied> {
    if bounds.keep.is_all() {
        return None;
    }
    let reduced = match Reduced::begin(input).transpose()? {
        Ok(reduced) => reduced,
        Err(stop) => return Some(Copied::whole(Err(stop))),
    };
    let result = reduced.copy(input, output, source, target, bounds.keep);
    Some(Copied { result, full_size: Some(reduced.full_size) })
}

/// How it goes on after a lane. Where the copy ends before the end of the core, that is an error: a
/// [`Stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Done,
    /// The lane is not for this core, and has done nothing.
    Skip,
    /// The lane has failed. Another one begins after so many bytes of the file.
    Rewind(u64),
}

/// A way to copy what comes after the head.
type Lane<C> = fn(&mut C) -> Result<Next, Stop>;

/// A core on its way, after its head.
struct CoreCopy<'a, 'r, I, S> {
    input: &'a mut PipeReader<I>,
    output: &'a mut CoreOutput<S>,
    target: &'a Arc<CopyTarget>,
    bounds: &'a Bounds,
    start: Start,
    source: Option<CrashedMemory>,
    release: Option<Release<'r>>,
}

impl<I: AsFd, S: Sink> CoreCopy<'_, '_, I, S> {
    /// Tries the lanes, of which the last one is the pipe.
    fn take<const N: usize>(&mut self, lanes: [Lane<Self>; N]) -> Result<(), Stop> {
        for lane in lanes {
            match lane(self)? {
                Next::Done => return Ok(()),
                Next::Skip => {}
                Next::Rewind(offset) => self.target.again_from(offset),
            }
        }
        Err(Stop::Ended)
    }

    /// What no other lane has copied comes through the pipe.
    fn pipe(&mut self) -> Result<Next, Stop> {
        let source = self.source.take();
        pipe::body(self.input, self.output, self.bounds, source, &self.start.head)?;
        Ok(Next::Done)
    }
}

impl<I: AsFd> CoreCopy<'_, '_, I, Sparse> {
    fn small_process(&mut self) -> Result<Next, Stop> {
        let Start { head, files, .. } = &self.start;
        let Some(source) = &self.source else { return Ok(Next::Skip) };
        let pieces = small_process::pieces(head, files.as_deref(), self.bounds.room(), source);
        let Some(pieces) = pieces else { return Ok(Next::Skip) };
        self.output.flush()?;
        match small_process::copy_memory(source, &pieces, self.target) {
            Ok(()) => self.output.end_at(head.end).map(|()| Next::Done),
            Err(Failed::Ended(whole)) => Err(ended(self.output, whole.min(head.end))),
            // Pieces are written from front to back: what lies behind the first failure is not
            // there.
            Err(Failed::Stream(why @ (Stop::Full | Stop::Write(_)), _)) => Err(why),
            Err(Failed::Stream(..)) => Ok(Next::Rewind(self.output.position)),
        }
    }

    fn parallel(&mut self) -> Result<Next, Stop> {
        let Start { head, files, threads } = &self.start;
        let files = parallel::suits(head, files.as_deref(), self.bounds.room());
        let Some(files) = files else { return Ok(Next::Skip) };
        let source = self
            .source
            .take_if(|source| source.pidfd.is_some() && source.can_read(&head.barred, &files));
        let Some(source) = source else { return Ok(Next::Skip) };
        self.output.flush()?;
        // A thread that is stuck in a read is left behind with what it uses; see there.
        let source: &'static CrashedMemory = Box::leak(Box::new(source));
        let held = self
            .release
            .take()
            .map_or(Ok(None), |release| release.act(source, head, &files, threads, self.target));
        let released = matches!(held, Ok(Some(_)));
        let open = |held: &Option<Spans>, load: &&Load| {
            held.as_ref().is_none_or(|done| {
                next_open(done, load.address, load.address + load.size).is_some()
            })
        };
        let rest = |held| {
            let loads = head.loads.iter().filter(|load| open(&held, load)).copied().collect();
            parallel::copy_memory(source, loads, files, self.target, held)
        };
        let start = self.output.position;
        match held.and_then(rest) {
            Ok(()) => self.output.end_at(head.end).map(|()| Next::Done),
            // The threads do not write from front to back: what lies behind the first failure has
            // gaps that nobody could tell from zeros.
            Err(Failed::Stream(why, whole)) if released || why == Stop::Full => {
                self.output.end_at(whole.clamp(start, head.end)).and(Err(why))
            }
            Err(Failed::Ended(whole)) => Err(ended(self.output, whole.min(head.end))),
            // Nothing of the pipe was read, so the stream writes the same bytes again to the same
            // places. But this lane does not write from front to back: where it ran out of space,
            // what it has of the end would take the place of what is missing before.
            Err(Failed::Stream(..)) => self.output.end_at(start).map(|()| Next::Rewind(start)),
        }
    }
}

impl<I: AsFd> CoreCopy<'_, '_, I, Zstd> {
    fn parallel_frames(&mut self) -> Result<Next, Stop> {
        let Start { head, files, .. } = &self.start;
        let files = parallel::suits(head, files.as_deref(), self.bounds.room());
        let Some(files) = files else { return Ok(Next::Skip) };
        let source = self
            .source
            .take_if(|source| source.pidfd.is_some() && source.can_read(&head.barred, &files));
        let Some(source) = source else { return Ok(Next::Skip) };
        self.output.flush()?;
        let start = self.output.position;
        self.output.sink.close(start)?;
        let frames = Frames::new(self.target, start).map_err(|_| Stop::Write(Errno::NOMEM))?;
        let frames: &'static Frames = Box::leak(Box::new(frames));
        let source = Box::leak(Box::new(source));
        let copied = parallel::compress(source, head.loads.clone(), files, self.target, frames);
        let ended = |()| frames.end(head.end).map_err(|why| Failed::Stream(why, head.end));
        match copied.and_then(ended) {
            Ok(()) => Ok(Next::Done),
            Err(Failed::Ended(_)) => frames.cut().and(Err(Stop::Ended)),
            // Frames are written one after the other: there is nothing behind what failed, and no
            // other way to write it.
            Err(Failed::Stream(why @ (Stop::Full | Stop::Write(_)), _)) => {
                frames.cut().and(Err(why))
            }
            // What could not be read comes through the pipe, of which nothing was read.
            Err(Failed::Stream(..)) => {
                let base = frames.back()?;
                self.output.sink = Zstd::new(self.target, start, self.bounds.file_size)?;
                Ok(Next::Rewind(base))
            }
        }
    }
}

/// The process has gone: the file is whole up to here.
fn ended(output: &mut CoreOutput<Sparse>, whole: u64) -> Stop {
    output.reach = whole.max(output.reach);
    Stop::Ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::copy::target::Capacity;
    use crate::sys::counter::Counter;
    use crate::sys::filesystem::FsType;

    /// What `take` makes of a core without a head, and how long its file is then.
    fn through(
        take: impl FnOnce(&mut CoreCopy<'_, '_, std::fs::File, Sparse>) -> Result<(), Stop>,
    ) -> (Result<(), Stop>, u64) {
        let file = tempfile::tempfile().unwrap();
        let length = || file.metadata().unwrap().len();
        let moved = Counter::shared().unwrap();
        let fd = file.try_clone().unwrap().into();
        let target = &Arc::new(CopyTarget::new(fd, moved, Capacity::default(), FsType::Other));
        let pipe = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&pipe, &[1; 10_000], 0).unwrap();
        let mut input = PipeReader::new(pipe, target);
        let mut output = CoreOutput::new(Sparse(target.clone()), None);
        let start = pipe::head(&mut input, &mut output).unwrap();
        let (input, output, bounds) = (&mut input, &mut output, &Bounds::default());
        let mut core =
            CoreCopy { input, output, target, bounds, start, source: None, release: None };
        (take(&mut core), length())
    }

    fn fails<C>(_: &mut C) -> Result<Next, Stop> {
        Ok(Next::Rewind(0))
    }

    fn stops<C>(_: &mut C) -> Result<Next, Stop> {
        Err(Stop::Full)
    }

    #[test]
    fn lanes_are_tried_in_their_order() {
        // Without a source neither of the first two is for a core.
        let all = through(|core| {
            core.take([CoreCopy::small_process, CoreCopy::parallel, CoreCopy::pipe])
        });
        assert_eq!(all, (Ok(()), 10_000));
        assert_eq!(through(|core| core.take([fails, CoreCopy::pipe])), (Ok(()), 10_000));
        assert_eq!(through(|core| core.take([stops, CoreCopy::pipe])), (Err(Stop::Full), 0));
        assert_eq!(through(|core| core.take([CoreCopy::pipe, stops])), (Ok(()), 10_000));
    }
}

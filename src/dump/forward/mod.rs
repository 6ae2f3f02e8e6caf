//! Crashes of processes that belong to no registered container: the handler that was there before
//! gets them, as if we were not here.

mod admission;
mod socket_to_pipe;

use crate::config::Config;
use crate::dump::crash::arguments::Crash;
use crate::dump::crash::facts::Facts;
use crate::dump::crash::transport::Transport;
use crate::dump::policy::plan;
use crate::dump::slots::{Pool, SlotAnswer, SlotRequest};
use crate::dump::writer::parent;
use crate::limits::Limits;
use crate::pattern::{Handler, Template};
use crate::registry::Registry;
use crate::store::Store;
use crate::sys::proc::Proc;
use crate::sys::{descriptor, pidfd, process};
use crate::sysctl::{self, Saved};
use admission::{Admission, Crashed, Places};
use anyhow::{Context, Result, bail};
use socket_to_pipe::Feed;

pub(super) use admission::CrashOwner;

/// Whose process crashed, and what holds for it.
struct Whose<'a> {
    /// The user, and whether it is the host's own.
    owner: CrashOwner,
    /// Where slots are.
    registry: Option<&'a Registry>,
    /// The configuration's.
    limits: &'a Limits,
}

/// Hands the crash on to whoever had the pattern before. `owner`: whose process it was.
pub(super) fn hand_on(
    crash: Crash,
    owner: CrashOwner,
    registry: Option<Registry>,
    config: &Config,
) {
    let whose = Whose { owner, registry: registry.as_ref(), limits: &config.limits };
    let known = |store: &Store| {
        if !Saved::load(store).is_ok_and(|saved| saved.is_some()) {
            sparingly(registry.as_ref(), "earlier", || {
                log::warn!(
                    "what kernel.core_pattern was before is not known: crashes of the host's go to \
                     the distribution's handler, or to a file; `oci-coredump uninstall` and \
                     `install` mend it"
                )
            });
        }
        Saved::load_or_default(store)
    };
    // The store's disk may not answer: the host's own crashes do not wait for it.
    let saved = Saved::of_run().unwrap_or_else(|| match Store::open(config) {
        Ok(store) => known(&store),
        Err(e) => {
            sparingly(registry.as_ref(), "store", || log::error!("{e:#}, going on without it"));
            Saved::unknown()
        }
    });
    let done = forward(crash, saved, &whose);
    if let Err(e) = done {
        sparingly(registry.as_ref(), "failed", || {
            log::error!("a crash of the host's: {e:#} (further ones are not told of for a minute)")
        });
    }
}

/// A pipe program replaces this process, with the core untouched on stdin and
/// the pidfd as descriptor 3, so this returns only where the handler is a file, nothing, or fails.
fn forward(mut crash: Crash, saved: Saved, whose: &Whose<'_>) -> Result<()> {
    match saved.handler() {
        Handler::Nothing => Ok(()),
        Handler::Socket => bail!(
            "the earlier handler {:?} is a socket, which only the kernel can connect to, \
             dropping the core",
            saved.core_pattern
        ),
        Handler::Pipe(args) => {
            let most = Places::of(saved.pipe_limit(), whose.limits);
            let is_still = || crash.pidfd.as_ref().is_none_or(pidfd::lives);
            let crashed = start_time(&crash);
            if crashed.is_none() && !is_still() {
                // Nobody waits for the core of a process that was killed meanwhile; and where the
                // earlier handler hands crashes back, this one could not be told from a new one.
                return Ok(());
            }
            let entered = whose
                .registry
                .context("there is no run directory")
                .and_then(|r| admission::admit(r, most, whose.owner, crashed, is_still));
            match entered {
                Ok(Admission::Granted) => {}
                Ok(Admission::Full) => {
                    skip(whose, &crash);
                    return Ok(());
                }
                Ok(Admission::Again) => {
                    came_back(whose, &crash, &saved);
                    return Ok(());
                }
                Err(e) => uncounted(whose, &e),
            }
            let args: Vec<_> = args.iter().map(|a| a.expand_argument(&crash.said)).collect();
            let program = args.first().context("the earlier handler names no program")?.clone();
            let feed = match crash.transport {
                Transport::Pipe => None,
                Transport::Socket => Some(Feed::start()?),
            };
            let pidfd = Vec::from_iter(crash.pidfd.take());
            let program = crate::sys::proc::os(&program);
            let error = process::exec_as_kernel_would(program, &args, &pidfd);
            feed.into_iter().for_each(Feed::cancel);
            Err(error).context("earlier handler")
        }
        Handler::File(template) => to_file(&crash, &template, whose),
    }
}

fn start_time(crash: &Crash) -> Option<Crashed> {
    let pid = crash.said.host_pid;
    Some((pid, Proc::open(pid).and_then(|process| process.start_time()).ok()?))
}

/// Logs a loop: the earlier handler forwarded the crash back to this program.
fn came_back(whose: &Whose<'_>, crash: &Crash, saved: &Saved) {
    let pid = crash.said.host_pid;
    sparingly(whose.registry, "again", || {
        log::warn!(
            "process {pid} (in no registered container): the earlier handler {:?} forwarded its \
             crash back to this program, a loop that ends here: configure it not to, or run \
             `oci-coredump uninstall`, set core_pattern, `oci-coredump install` (further ones are \
             not told of for a minute)",
            saved.core_pattern
        )
    });
}

fn skip(whose: &Whose<'_>, crash: &Crash) {
    let pid = crash.said.host_pid;
    sparingly(whose.registry, "forwarded", || {
        log::warn!(
            "process {pid} (in no registered container): the earlier handler is at its limit of \
             crashes at a time, this one is skipped (further ones are not told of for a minute)"
        )
    });
}

/// Logs that crashes cannot be counted. They are handed on all the same: a fault of our own run
/// directory does not cost the host a core.
fn uncounted(whose: &Whose<'_>, cause: &anyhow::Error) {
    sparingly(whose.registry, "uncounted", || {
        log::warn!("crashes of the host's cannot be counted, ignoring: {cause:#}")
    });
}

/// Writes as the kernel's file mode does. The user whose rights the writer has can stop it, or have
/// it hang in a file system: so it takes a slot of that user's, and keeps it as long as it hangs.
fn to_file(crash: &Crash, template: &Template, whose: &Whose<'_>) -> Result<()> {
    let append_pid = sysctl::core_uses_pid()? != 0;
    let file = match plan::host_file(crash, template, append_pid) {
        Ok(file) => plan::CorePlan { patience: plan::patience(whose.limits), ..file },
        // As the kernel: nothing is said of processes that may leave no core.
        Err(cause) => {
            log::debug!("process {} of the host: no core: {cause}", crash.said.host_pid);
            return Ok(());
        }
    };
    let facts = Facts::gather(crash)?;
    let Limits { concurrent, host_concurrent, wait, min_memory, .. } = whose.limits.clone();
    let limits =
        Limits { concurrent, host_concurrent, wait, min_memory, ..Limits::default() }.with_slots();
    let asked = whose.registry.context("there is no run directory").and_then(|registry| {
        let request = SlotRequest {
            registry,
            account: &whose.owner.account(),
            pool: Pool::Others { is_contained: whose.owner.is_contained },
            limits: &limits,
            first: crash.said.host_pid as u64,
            is_still: &|| facts.is_still(crash),
        };
        request.ask(|| 0)
    });
    let slot = match asked {
        Ok(SlotAnswer::Slot(slot)) => Some(slot),
        Ok(SlotAnswer::Free) => None,
        Ok(SlotAnswer::Refused(_)) => {
            skip(whose, crash);
            return Ok(());
        }
        Err(e) => {
            uncounted(whose, &e);
            None
        }
    };
    let (written, waiting) = parent::write(crash, &facts, &file, slot.as_deref(), None, |_| {})?;
    let stuck = written.stuck;
    if let Some(cause) = written.finished.cause {
        let path = file.path.escape_ascii();
        log::debug!("process {} of the host: core {path}: {cause}", crash.said.host_pid);
    }
    descriptor::release_stdin();
    if let Some(writer) = waiting {
        writer.end()?;
    }
    if stuck { parent::interrupt_kernel_dump(crash, &facts) } else { Ok(()) }
}

/// Limits how often crashes that are not a container's are logged. Without a run directory there is
/// nothing to count in, and all are.
pub(super) fn sparingly(registry: Option<&Registry>, what: &str, say: impl FnOnce()) {
    match registry {
        Some(registry) => crate::report::sparingly(registry.dir(), what, say),
        None => say(),
    }
}

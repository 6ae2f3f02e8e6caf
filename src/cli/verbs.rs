//! The command line: the text of `--help`, the man page and the completions come
//! from this one definition.

use super::node;
use super::selection::{Source, Which};
use crate::engine::{self, Engine};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

const AFTER: &str = "\
A container asks with an annotation:

  podman run --annotation k8s.aliyun.com/eci-core-pattern=/pod/data/dump/core-eci IMAGE

The core of a process that dies in it then appears, in the container, as /pod/data/dump/core-eci.PID.

Files:
  /etc/oci-coredump/config.toml        settings; need not exist
  /run/oci-coredump/                   the containers that are registered
  /var/lib/oci-coredump/containers/    cores of containers that mount no volume for them
  /var/lib/oci-coredump/records/       one file for every crash, of lines of JSON
  /var/lib/oci-coredump/binaries/      executables and libraries of the cores, by build-id and content

Settings of what is kept, with their defaults:
  termination_log = \"init\"    whose core /dev/termination-log of the container tells of: init, any, off
  [binaries]                  executables and libraries of the cores
    keep = true
    max_file = \"1G\"           most bytes of one; a larger one is not kept
    max_total = \"4G\"          most bytes of all
  [vacuum]                    the rules of `vacuum`, applied after crashes and when containers end
    max_size, max_age, keep   none

Exit status: 0 done, also if the reader of a pipe went away; 1 failed, no crash matched, or `doctor` found a failure; 2 the command line is wrong.
Environment: NO_COLOR (no colours, also on a terminal), TZ (in which times are shown and read).";

/// What MATCH means; every verb that takes it says so.
const MATCH: &str = "\
                     A MATCH is a PID (in the container or on the host), the path of an executable \
                     or core, a name \
                     (container, its ID or the head of it, pod, executable, comm, signal), or \
                     FIELD=VALUE with container, \
                     pod, namespace, image, exe, comm, pid, signal, core or user. Names and values \
                     may hold * and ?. All \
                     MATCHes must hold. Names do not match what users have registered of their \
                     rootless containers, unless \
                     user=UID is one of the MATCHes.";

/// Gives every container its own core_pattern, as if the kernel had namespaced it.
#[derive(Debug, Parser)]
#[command(name = "oci-coredump", version, after_help = AFTER, max_term_width = 100)]
pub struct Cli {
    /// Say what is done in detail, on stderr.
    #[arg(short, long, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make the kernel hand crashes to this program now, not only when the first container asks.
    ///
    /// What kernel.core_pattern was before is saved, and keeps getting the crashes of everything
    /// that is no registered container. Where systemd runs, /etc/sysctl.d/61-oci-coredump.conf sets
    /// the pattern from the next boot on, and oci-coredump.service, where its unit is installed,
    /// keeps it. Run it as root, by the path at which the program will stay.
    ///
    /// With an engine: tell that engine of this program instead. podman and CRI-O need it only
    /// where they do not read the standard hooks.d directory.
    ///
    /// Example: oci-coredump install docker --dry-run
    Install {
        /// Tell this engine.
        engine: Option<Engine>,
        #[command(flatten)]
        options: engine::Options,
        /// Tell every engine that is on this host.
        #[arg(long, conflicts_with = "engine")]
        detect: bool,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Give the kernel's settings back, and remove what this program keeps in /run.
    ///
    /// kernel.core_pattern, core_uses_pid and core_pipe_limit become what they were, unless
    /// somebody else has changed them since. Cores and records stay, unless --purge is given. The
    /// file in sysctl.d goes, and the service is stopped and disabled. Engines that were told of
    /// this program are made to forget it first.
    ///
    /// With an engine: only make that engine forget it.
    ///
    /// Example: oci-coredump uninstall --purge
    Uninstall {
        /// Make this engine forget.
        engine: Option<Engine>,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
        /// Remove the cores and records in the store too.
        #[arg(long, conflicts_with = "engine")]
        purge: bool,
    },
    /// Check everything that a core on its way depends on, and say what to do.
    ///
    /// Each line is ok, warning or failure. Exit status 1 if there is a failure. Of the engines
    /// those are looked at that are on this machine: by which way they come to this program,
    /// whether that is in place, and whether annotations arrive by it.
    ///
    /// Example: oci-coredump doctor containerd --json
    Doctor {
        /// Of the engines look at this one only.
        engine: Option<Engine>,
        /// The engine's configuration file, where it is not the usual one.
        #[arg(long, value_name = "FILE", requires = "engine")]
        config: Option<PathBuf>,
        /// Print a JSON array of {"check", "verdict", "text", "hint"}.
        #[arg(long)]
        json: bool,
    },
    /// List the crashes, the newest last.
    ///
    /// COREFILE is present, truncated (short), missing (it was there), overwritten (another file
    /// has its name), inaccessible (you may not look) or none (never written; `info` says why).
    ///
    /// Example: oci-coredump list pod=shop-0 --since yesterday
    #[command(after_help = MATCH)]
    List {
        #[command(flatten)]
        which: Which,
        /// Only the newest N.
        #[arg(short = 'n', value_name = "N")]
        newest: Option<usize>,
        /// The newest first.
        #[arg(short, long)]
        reverse: bool,
        /// Print a JSON array of records; with --follow one object a line.
        #[arg(long)]
        json: bool,
        /// Go on printing crashes as they come.
        #[arg(short, long, conflicts_with = "reverse")]
        follow: bool,
    },
    /// Show everything that is known of a crash, the newest that matches, with
    /// the stack of every thread.
    ///
    /// Functions come from the container's own files while it runs, else from the kept
    /// binaries; a file counts only if its build-id is the one in the core. The core is read by
    /// a process without any rights.
    ///
    /// Example: oci-coredump info nginx --since today
    #[command(after_help = MATCH)]
    Info {
        #[command(flatten)]
        which: Which,
        /// The newest N instead of one.
        #[arg(short = 'n', value_name = "N", default_value_t = 1, hide_default_value = true)]
        newest: usize,
        /// Read this core file, whether there is a record of it or not.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["matches", "since", "until",
        "newest"])]
        core: Option<PathBuf>,
        /// Take executables and libraries from below this directory instead of the container's
        /// root.
        #[arg(long, value_name = "DIR")]
        sysroot: Option<PathBuf>,
        /// Print JSON, one object for each crash.
        #[arg(long)]
        json: bool,
    },
    /// Open a crash in a debugger, the newest that matches, with the executable
    /// and libraries that it had.
    ///
    /// They are copied to a temporary directory, laid out as in the container, and removed
    /// when the debugger ends; only those with the build-id in the core are taken. A MATCH
    /// that ends in .tar.zst is a bundle that `export` has written. It all is what a
    /// container wrote: the debugger reads no settings and no scripts, has an empty HOME,
    /// which is its working directory, and a terminal of its own; one that root starts runs
    /// as a user that nobody else is.
    ///
    /// Example: oci-coredump debug nginx -A -batch -A -ex -A bt
    #[command(after_help = MATCH)]
    Debug {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        from: Source,
        /// Which debugger: gdb, lldb, or the path of one.
        #[arg(long, value_name = "PROGRAM", default_value = "gdb")]
        debugger: PathBuf,
        /// One more argument for the debugger.
        #[arg(short = 'A', value_name = "ARGUMENT", allow_hyphen_values = true)]
        arguments: Vec<OsString>,
        /// Run the debugger as root, if you are, with whatever the core makes it do.
        #[arg(long)]
        as_root: bool,
        /// Let it ask the servers of DEBUGINFOD_URLS for what it misses: they
        /// learn which programs crash.
        #[arg(long)]
        debuginfod: bool,
    },
    /// Write a crash into one file: core, record, executable, libraries, and a script that opens
    /// them in gdb on any machine.
    ///
    /// The file is a tar archive, compressed with zstd; the same crash gives the same bytes, and
    /// holes of the core stay holes. Only its owner may read it.
    ///
    /// Example: oci-coredump export nginx -o nginx.tar.zst
    #[command(after_help = MATCH)]
    Export {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        from: Source,
        /// Write to this file; - is stdout.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Write the core alone, decompressed.
        #[arg(long)]
        core_only: bool,
    },
    /// Remove the oldest crashes: their records, and their cores where these are in the store.
    ///
    /// Cores on volumes and in containers are not touched. A crash that one of the rules
    /// names goes; kept executables and libraries go with the last core that needs them.
    /// The rules of `[vacuum]` in the configuration are applied by themselves, after
    /// crashes and when containers end.
    ///
    /// Example: oci-coredump vacuum --max-age "2 weeks" --max-size 10G --dry-run
    #[command(group(clap::ArgGroup::new("rules").args(["max_size", "max_age",
    "keep"]).multiple(true).required(true)))]
    Vacuum {
        /// Most bytes on disk of all cores in the store and what is kept with them: 500M, 10G.
        #[arg(long, value_name = "SIZE")]
        max_size: Option<String>,
        /// Remove what is older than this: 30d, "2 weeks", or a date.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        max_age: Option<String>,
        /// Keep the newest N, at most.
        #[arg(long, value_name = "N")]
        keep: Option<usize>,
        /// Say what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
        /// Work on this store instead of the configured one.
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
    },
    /// Remove crashes: their records, and their cores where these are in the store.
    ///
    /// A core on a volume or in a container's own layer is not ours and stays; its record goes. A
    /// file that has the core's name but is another one stays too.
    ///
    /// Example: oci-coredump rm shop --until yesterday
    #[command(after_help = MATCH)]
    Rm {
        #[command(flatten)]
        which: Which,
        /// All of them.
        #[arg(long)]
        all: bool,
        /// Do not ask for a confirmation.
        #[arg(short, long, visible_alias = "force")]
        yes: bool,
        /// Say what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Put kernel.core_pattern back whenever another program has overwritten it, until stopped.
    ///
    /// It looks every two seconds: the kernel tells nobody of a change. oci-coredump.service runs
    /// it, which `install` enables where systemd runs.
    ///
    /// Example: oci-coredump watch
    Watch,
    /// Print metrics of the recorded crashes, as OpenMetrics text.
    ///
    /// Example: oci-coredump metrics --textfile /var/lib/node_exporter/textfile/oci-coredump.prom
    Metrics {
        /// Replace this file, for node_exporter's textfile collector.
        #[arg(long, value_name = "PATH")]
        textfile: Option<PathBuf>,
        /// Read this store instead of the configured one.
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
    },
    /// Give a container that is running its own core pattern, without a restart.
    ///
    /// What the hook would have done at its start is done now: the dump directory, its view of
    /// core_pattern, RLIMIT_CORE of all its processes, the registration. A name or ID is looked up
    /// with podman, docker, nerdctl, crictl, ctr, runc, crun or youki, whichever knows it; with
    /// --by by that command alone; with --pid nobody is asked. What is not as if the container had
    /// been started so is said in a line each.
    ///
    /// Example: oci-coredump enable web --pattern /pod/data/dump/core-eci --limit 2G
    #[command(group(clap::ArgGroup::new("target").args(["container",
    "pid"]).multiple(true).required(true)))]
    Enable {
        /// Its name or ID.
        container: Option<String>,
        /// A process of it; the name is then only what it is to be called, or left out.
        #[arg(long, value_name = "PID", conflicts_with = "by")]
        pid: Option<i32>,
        /// Ask this command for it, with its own options.
        #[arg(
            long,
            value_name = "COMMAND",
            help = "Ask this command for it, with its options, such as \"runc --root /run/x\""
        )]
        by: Option<String>,
        /// The pattern, as the annotation would have it: a core(5) template.
        #[arg(long)]
        pattern: String,
        /// Most bytes of one core: 0, 200K, 512Mi, 2G, unlimited.
        #[arg(long, value_name = "SIZE")]
        limit: Option<String>,
        /// coredump_filter of its processes, such as 0x33.
        #[arg(long, value_name = "MASK")]
        filter: Option<String>,
        /// none or zstd.
        #[arg(long, value_name = "HOW")]
        compress: Option<String>,
    },
    /// Take back what `enable` did; the container is as before, its cores stay.
    ///
    /// Example: oci-coredump disable web
    Disable {
        /// Its name or ID, or the head of that.
        container: String,
    },
    /// Print what the hook would do for a bundle, and touch nothing.
    ///
    /// Example: oci-coredump plan /run/containers/storage/overlay-containers/ID/userdata
    Plan {
        /// The bundle: a directory with a config.json.
        bundle: PathBuf,
        /// The state that a runtime would give the hook; only the container ID matters here, which
        /// else is the bundle's name.
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
        /// Use this configuration instead of /etc/oci-coredump/config.toml.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Install on a Kubernetes node, from a pod: see deploy/.
    ///
    /// The program is copied to the host, whose root is mounted at DIR; the host's copy tells
    /// containerd or CRI-O, whichever is there, and with `serve` is the NRI plugin as long as the
    /// pod runs. Refuses to replace a program that somebody else has installed.
    ///
    /// Example: oci-coredump node serve --root /host
    Node {
        /// What to do.
        action: node::Action,
        /// Where the host's root is mounted. Without it: this is the host, and
        /// the program is in its place.
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
        /// Do not end when all is done.
        #[arg(long)]
        stay: bool,
    },
    /// Check whether an OCI runtime does for its hooks what a hook like this one needs.
    ///
    /// Order and namespaces of the hooks, the state that they are given, mounts and limits that
    /// they set, and what comes of one that fails. A few containers are started in a scratch
    /// directory, with this program as their hooks and their only file: no image, no network. Needs
    /// root. Exit status 1 if something is failed.
    ///
    /// Example: oci-coredump verify --runtime /usr/sbin/runc
    Verify {
        /// The runtime: a program with the command line of runc.
        #[arg(long, value_name = "PATH")]
        runtime: PathBuf,
        /// Print a JSON array of {"subject", "need", "verdict", "found"}.
        #[arg(long)]
        json: bool,
    },
    /// A hook, or the program, of a container of `verify`.
    #[command(hide = true)]
    VerifyProbe {
        /// The name under which it reports.
        stage: String,
        /// The file to whose end it writes what it sees.
        report: PathBuf,
        /// The scratch directory on the host.
        scratch: PathBuf,
        /// What it does besides.
        actions: Vec<crate::verify::Action>,
    },
    /// Serve an engine as its NRI plugin, by connecting to its socket; for ever,
    /// across restarts of the engine.
    ///
    /// Usually the engine starts the plugin itself: `oci-coredump install containerd`.
    ///
    /// Example: oci-coredump nri --socket /var/run/nri/nri.sock
    Nri {
        /// The engine's socket.
        #[arg(long, value_name = "PATH", default_value = engine::nri::SOCKET)]
        socket: PathBuf,
    },
    /// The OCI hook, for runtimes: the container's state is read from stdin.
    ///
    /// Without a stage it is found out from the state. createRuntime fails only where the
    /// container (annotation oci-coredump/required) or the administrator (strict = true) insists;
    /// poststart and poststop never do.
    Hook {
        /// createRuntime, prestart, poststart or poststop.
        stage: Option<String>,
    },
    /// The kernel's pipe helper; the kernel gives it its arguments.
    Handle {
        /// A word for the version of the list, v1, and the values of %P %p %I %i %u %g %d %s %t %c
        /// %C %F %h %e %f %E of core(5).
        specifiers: Vec<OsString>,
    },
    /// Print the man page.
    ///
    /// Example: oci-coredump man | man -l -
    Man,
    /// Print the completions of a shell.
    ///
    /// Example: oci-coredump completions bash > /etc/bash_completion.d/oci-coredump
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_teaches() {
        for verb in Cli::command().get_subcommands() {
            let about = verb
                .get_about()
                .unwrap_or_else(|| panic!("{} has no help", verb.get_name()))
                .to_string();
            assert!(about.len() > 10, "{}: {about}", verb.get_name());
            let long = verb.get_long_about().map(ToString::to_string).unwrap_or_default();
            // The two that only machines start have none.
            assert!(
                long.contains("Example: oci-coredump ")
                    || ["hook", "handle", "verify-probe"].contains(&verb.get_name()),
                "{} has no example",
                verb.get_name()
            );
        }
    }
}

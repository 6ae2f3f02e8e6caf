//! The command line. `--help`, the man page and the completions are all made from this definition.

use super::node;
use super::selection::Which;
use super::subject::Subject;
use crate::engine::{self, Engine};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

const AFTER: &str = "\
A container requests its pattern with an annotation:

  podman run --annotation k8s.aliyun.com/eci-core-pattern=/pod/data/dump/core-eci IMAGE

When a process in it dies of a signal that dumps core, the core is, in the container,
/pod/data/dump/core-eci.PID.

Files:
  /etc/oci-coredump/config.toml        settings; may be absent
  /usr/share/doc/oci-coredump/config.toml
                                       all settings with their defaults, explained
  /run/oci-coredump/                   the registered containers
  /var/lib/oci-coredump/containers/    cores of containers that mount no volume for them
  /var/lib/oci-coredump/records/       one file for every crash, of lines of JSON
  /var/lib/oci-coredump/binaries/      executables and libraries of the cores,
                                       by build-id and content

Exit status: 0 success, also if the reader of a pipe has closed it; 1 failure, no crash matched, or
`doctor` found a failure; 2 wrong command line.
Environment: NO_COLOR (no colours, even on a terminal), TZ (time zone in which times are shown and
read).";

/// What MATCH means, for the `--help` of every verb that takes it.
const MATCH: &str = "\
    A MATCH is a PID (in the container or on the host), the path of an executable or a core, a \
    name (of a container, the beginning of its ID, a pod, an executable, a comm or a signal), or \
    FIELD=VALUE, where FIELD is container, pod, namespace, image, exe, comm, pid, signal, core, \
    user or record. Names and values may contain * and ?. A crash must match all of them. A name \
    does not match the rootless containers of users unless user=UID is one of the MATCHes.";

/// Gives every container its own core_pattern, as if the kernel had namespaced it.
#[derive(Debug, Parser)]
#[command(name = "oci-coredump", version, after_help = AFTER, max_term_width = 100)]
pub(super) struct Cli {
    /// Report in detail on stderr what is done.
    #[arg(short, long, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make the kernel hand crashes to this program now, not only when the first container asks.
    ///
    /// The previous kernel.core_pattern is saved, and its handler keeps getting all crashes
    /// that are no registered container's. Where systemd runs,
    /// /etc/sysctl.d/61-oci-coredump.conf sets the pattern at every boot, and
    /// oci-coredump.service, if its unit is installed, puts it back when another program
    /// overwrites it. Run this as root, from the path at which the program will stay.
    ///
    /// With an ENGINE: configure that engine to use this program, and do nothing else. podman and
    /// CRI-O need it only if they do not read the standard hooks.d directory.
    ///
    /// Example: oci-coredump install docker --dry-run
    Install {
        /// Configure this engine.
        engine: Option<Engine>,
        #[command(flatten)]
        options: engine::Options,
        /// Configure every engine that is found on this host.
        #[arg(long, conflicts_with = "engine")]
        detect: bool,
        /// Print what would be done, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Restore the kernel's settings, and remove what this program keeps in /run.
    ///
    /// kernel.core_pattern, core_uses_pid and core_pipe_limit get their previous values back,
    /// unless another program has changed them since. Cores and records stay, unless --purge is
    /// given. The file in sysctl.d is removed, and the service is stopped and disabled. The
    /// configuration of every engine that uses this program is restored first.
    ///
    /// With an ENGINE: only restore that engine's configuration.
    ///
    /// Example: oci-coredump uninstall --purge
    Uninstall {
        /// Restore this engine's configuration.
        engine: Option<Engine>,
        /// Print what would be done, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Also remove the cores and records in the store.
        #[arg(long, conflicts_with = "engine")]
        purge: bool,
    },
    /// Check everything that a core depends on between the crash and the file, with advice.
    ///
    /// Each line is ok, a warning or a failure. The exit status is 1 if there is a failure. For
    /// every engine that is found on this host it shows how the engine is to start this program,
    /// whether that is configured, and whether annotations reach this program.
    ///
    /// Example: oci-coredump doctor containerd --json
    Doctor {
        /// Check only this engine.
        engine: Option<Engine>,
        /// The engine's configuration file, if it is not at the usual path.
        #[arg(long, value_name = "FILE", requires = "engine")]
        config: Option<PathBuf>,
        /// Print a JSON array of {"check", "verdict", "text", "hint"}.
        #[arg(long)]
        json: bool,
    },
    /// List the crashes, the newest last.
    ///
    /// The column UPLOADED is yes when oci-coredump-ship has uploaded the crash, and no if its
    /// container does not want that.
    ///
    /// The column COREFILE is: present; truncated, the file is incomplete; missing, it was removed;
    /// removed with its container, or with its pod: it was where only these keep it; overwritten, another file has its name; inaccessible, you may not read it; unreachable, its
    /// file system does not answer; leased, another process holds a lease on it; none, it was never
    /// written (`info` shows why).
    ///
    /// Example: oci-coredump list pod=shop-0 --since yesterday
    #[command(after_help = MATCH)]
    List {
        #[command(flatten)]
        which: Which,
        /// List only the newest N.
        #[arg(short = 'n', value_name = "N")]
        newest: Option<usize>,
        /// List the newest first.
        #[arg(short, long)]
        reverse: bool,
        /// Print a JSON array of records; with --follow one object on each line.
        #[arg(long)]
        json: bool,
        /// Keep running and print new crashes as they happen.
        #[arg(short, long, conflicts_with = "reverse")]
        follow: bool,
    },
    /// Show everything that is known about the newest matching crash, with
    /// the stack of every thread.
    ///
    /// Function names come from the container's own files while it runs, else from the kept
    /// executables and libraries. A file is used only if its build-id is the one in the core. A
    /// process without any privileges reads the core.
    ///
    /// Example: oci-coredump info nginx --since today
    #[command(after_help = MATCH)]
    Info {
        #[command(flatten)]
        which: Which,
        /// Show the newest N crashes instead of one.
        #[arg(short = 'n', value_name = "N", default_value_t = 1, hide_default_value = true)]
        newest: usize,
        /// Read this core file; it needs no record.
        #[arg(
            long,
            value_name = "FILE",
            conflicts_with_all = ["matches", "since", "until", "newest"]
        )]
        core: Option<PathBuf>,
        /// Take executables and libraries from below this directory instead of the container's
        /// root.
        #[arg(long, value_name = "DIR")]
        sysroot: Option<PathBuf>,
        /// Print JSON, one object for each crash.
        #[arg(long)]
        json: bool,
    },
    /// Open the newest matching crash in a debugger, with the executable and libraries that it had.
    ///
    /// They are copied to a temporary directory, laid out as in the container, and removed when
    /// the debugger ends. Only files with the build-id in the core are used. A MATCH that ends in
    /// .tar.zst is a bundle that `export` has written, and one such as s3://BUCKET/... an uploaded
    /// one, which oci-coredump-ship fetches. All of these files come from a container and are not
    /// trusted: the debugger reads no settings and no scripts, has an empty HOME as
    /// its working directory and a terminal of its own, and if root starts it, it runs as a user
    /// ID that nothing else uses.
    ///
    /// Example: oci-coredump debug nginx -A -batch -A -ex -A bt
    #[command(after_help = MATCH)]
    Debug {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        from: Subject,
        /// The debugger: gdb, lldb, or the path of one.
        #[arg(long, value_name = "PROGRAM", default_value = "gdb")]
        debugger: PathBuf,
        /// Pass one more argument to the debugger; may be repeated.
        #[arg(short = 'A', value_name = "ARGUMENT", allow_hyphen_values = true)]
        arguments: Vec<OsString>,
        /// Run the debugger as root, if you are root. Whatever the core makes
        /// it do is then done as root.
        #[arg(long)]
        as_root: bool,
        /// Let the debugger fetch missing debug information from the servers in DEBUGINFOD_URLS,
        /// which then learn which programs crash.
        #[arg(long)]
        debuginfod: bool,
    },
    /// Write a crash to one file: core, record, executable, libraries, and a script that opens
    /// them in gdb on any machine.
    ///
    /// The file is a tar archive, compressed with zstd. The same crash gives the same bytes, and
    /// holes in the core stay holes. Only its owner may read it.
    ///
    /// Example: oci-coredump export nginx -o nginx.tar.zst
    #[command(after_help = MATCH)]
    Export {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        from: Subject,
        /// Write to this file; - is stdout.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Write only the core, decompressed.
        #[arg(long)]
        core_only: bool,
    },
    /// Write a page about the newest matching crash: who died of what, and where.
    ///
    /// One HTML file without scripts and without anything from elsewhere: what `info` shows, the
    /// stack of every thread, registers, modules, and when the same program crashed before.
    ///
    /// Example: oci-coredump report nginx -o nginx.html
    #[command(after_help = MATCH)]
    Report {
        #[command(flatten)]
        which: Which,
        /// Write to this file; - is stdout.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Upload crashes to object storage, as `[upload]` of the configuration says.
    ///
    /// Starts the program oci-coredump-ship, which is beside this one where it is installed.
    ///
    /// Example: oci-coredump ship run --once
    #[command(disable_help_flag = true)]
    Ship {
        /// The arguments of that program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Remove the oldest crashes: their records, and their cores if these are in the store.
    ///
    /// Cores on volumes and in containers are not touched. A crash is removed if any of the given
    /// rules applies to it. Kept executables and libraries are removed with the last core that
    /// needs them. The rules in `[vacuum]` of the configuration are applied automatically, after
    /// crashes and when containers end.
    ///
    /// Example: oci-coredump vacuum --max-age "2 weeks" --max-size 10G --dry-run
    #[command(group(
        clap::ArgGroup::new("rules")
            .args(["max_size", "max_age", "keep"])
            .multiple(true)
            .required(true)
    ))]
    Vacuum {
        /// Most bytes on disk of all cores in the store and the files kept with them: 500M, 10G.
        #[arg(long, value_name = "SIZE")]
        max_size: Option<String>,
        /// Remove crashes older than this: 30d, "2 weeks", or a date.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        max_age: Option<String>,
        /// Keep at most the newest N crashes.
        #[arg(long, value_name = "N")]
        keep: Option<usize>,
        /// Print what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
        /// Use this store instead of the configured one.
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
    },
    /// Remove crashes: their records, and their cores if these are in the store.
    ///
    /// A core on a volume or in a container's own layer does not belong to this program and stays;
    /// its record is removed. A file that has the core's name but is a different file stays too.
    ///
    /// Example: oci-coredump rm shop --until yesterday
    #[command(after_help = MATCH)]
    Rm {
        #[command(flatten)]
        which: Which,
        /// Remove all crashes.
        #[arg(long)]
        all: bool,
        /// Do not ask for confirmation.
        #[arg(short, long, visible_alias = "force")]
        yes: bool,
        /// Print what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Restore kernel.core_pattern whenever another program has overwritten it, until stopped.
    ///
    /// It checks every two seconds, since the kernel does not announce a change.
    /// oci-coredump.service runs this command; `install` enables the service where systemd runs.
    ///
    /// Example: oci-coredump watch
    Watch {
        /// Check once, and end.
        #[arg(long)]
        once: bool,
    },
    /// Print metrics of crashes in the text format of Prometheus, or serve them.
    ///
    /// Crashes are counted since the boot, whatever becomes of their records; sizes are sums over
    /// the records that are there. With --listen the connections are served by a process without
    /// privileges, on the path /metrics.
    ///
    /// Example: oci-coredump metrics --textfile /var/lib/node_exporter/textfile/oci-coredump.prom
    Metrics {
        /// Replace this file, for node_exporter's textfile collector, instead of printing.
        #[arg(long, value_name = "PATH")]
        textfile: Option<PathBuf>,
        /// Replace it again every so many seconds, until stopped.
        #[arg(long, value_name = "SECONDS", requires = "textfile",
            value_parser = clap::value_parser!(u64).range(1..=86_400))]
        every: Option<u64>,
        /// Serve them over HTTP on this address and port, until stopped: 127.0.0.1:9950.
        #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "textfile")]
        listen: Option<std::net::SocketAddr>,
        /// Read this store instead of the configured one.
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
    },
    /// Give a running container its own core pattern, without a restart.
    ///
    /// Does now what the hook would have done when the container started: makes the dump directory,
    /// mounts the container's view of core_pattern, sets RLIMIT_CORE of all its processes and
    /// registers it. podman, docker, nerdctl, crictl, ctr, runc, crun and youki are asked for it at
    /// once, as far as they are installed, for three seconds at most; with --by only the given
    /// command; with --pid none. Each difference from a container that was started this way is printed on a line.
    ///
    /// Example: oci-coredump enable web --pattern /pod/data/dump/core-eci --limit 2G
    #[command(group(
        clap::ArgGroup::new("target").args(["container", "pid"]).multiple(true).required(true)
    ))]
    Enable {
        /// Name or ID of the container, the beginning of the ID, or POD/NAME.
        container: Option<String>,
        /// Process ID of one of its processes. CONTAINER is then only the name to register it
        /// under, and may be omitted.
        #[arg(long, value_name = "PID", conflicts_with = "by")]
        pid: Option<i32>,
        /// Look the container up with this command.
        #[arg(
            long,
            value_name = "COMMAND",
            help = "Look it up with this command and its options, such as \"runc --root /run/x\""
        )]
        by: Option<String>,
        /// The pattern, as in the annotation: a core(5) template.
        #[arg(long)]
        pattern: String,
        /// Most bytes of one core: 0, 200K, 512Mi, 2G, unlimited.
        #[arg(long, value_name = "SIZE")]
        limit: Option<String>,
        /// coredump_filter of its processes, such as 0x33.
        #[arg(long, value_name = "MASK")]
        filter: Option<String>,
        /// Compression of the cores: none or zstd.
        #[arg(long, value_name = "HOW")]
        compress: Option<String>,
    },
    /// Undo what `enable` did. The container is as before; its cores stay.
    ///
    /// Example: oci-coredump disable web
    Disable {
        /// Name or ID of the container, the beginning of the ID, or POD/NAME.
        container: String,
    },
    /// Print what the hook would do for a bundle, and change nothing.
    ///
    /// Example: oci-coredump plan /run/containers/storage/overlay-containers/ID/userdata
    Plan {
        /// The bundle: a directory with a config.json.
        bundle: PathBuf,
        /// A file with the state that a runtime would pass to the hook. Only the container ID in it
        /// is used; without this option the ID is the name of the bundle's directory.
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
        /// Use this configuration instead of /etc/oci-coredump/config.toml.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Install on a Kubernetes node, or run a command there, from a pod: see deploy/.
    ///
    /// The program is copied to the host, whose root is mounted at DIR. The host's copy configures
    /// containerd or CRI-O, whichever is there, and with `serve` runs as its NRI plugin for as long
    /// as the pod runs. A program that somebody else has installed is not replaced.
    ///
    /// Example: oci-coredump node serve --root /host
    ///
    /// Example: kubectl exec POD -- /oci-coredump node run -- export web-0 -o - > web-0.tar.zst
    Node {
        /// What to do.
        action: node::Action,
        /// With `run`: the command, as it would be typed on the node.
        #[arg(last = true)]
        words: Vec<OsString>,
        /// Where the host's root is mounted; for `run` it is /host. Without it, this is the host
        /// and the program is in its place already.
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
        /// The directory on the host for the program. Without it the first of
        /// /usr/libexec/oci/hooks.d, /opt/oci-coredump, /home/kubernetes/bin/oci-coredump and
        /// /var/lib/oci-coredump-node whose file system takes files and lets programs run.
        #[arg(long, value_name = "PATH")]
        directory: Option<PathBuf>,
        /// Make this file the host's /etc/oci-coredump/config.toml; `uninstall` removes it.
        #[arg(long, value_name = "FILE", requires = "root")]
        config: Option<PathBuf>,
        /// Keep running when done, so that a DaemonSet does not start the pod again.
        #[arg(long)]
        stay: bool,
    },
    /// Check whether an OCI runtime treats its hooks as a hook like this one needs.
    ///
    /// Checks the order and namespaces of the hooks, the state passed to them, the mounts and
    /// limits that they set, and what follows when one fails. It starts a few containers in a
    /// scratch directory, with this program as their hooks and their only file: no image, no
    /// network. Needs root. The exit status is 1 if a check failed.
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
    /// Runs as a hook, or as the program, of a container that `verify` starts.
    #[command(hide = true)]
    VerifyProbe {
        /// The name under which it reports.
        stage: String,
        /// The file to which it appends what it observes.
        report: PathBuf,
        /// The scratch directory on the host.
        scratch: PathBuf,
        /// What it does besides reporting.
        actions: Vec<crate::verify::Action>,
    },
    /// Serve an engine as its NRI plugin, by connecting to its socket. Runs until stopped, and
    /// reconnects when the engine restarts.
    ///
    /// Usually the engine starts the plugin itself: `oci-coredump install containerd`.
    ///
    /// Example: oci-coredump nri --socket /var/run/nri/nri.sock
    Nri {
        /// The engine's NRI socket.
        #[arg(long, value_name = "PATH", default_value = engine::nri::SOCKET)]
        socket: PathBuf,
    },
    /// The OCI hook, started by runtimes: reads the container's state from stdin.
    ///
    /// Without a STAGE the stage is derived from the state. createRuntime fails only if the
    /// container (annotation oci-coredump/required) or the administrator (strict = true) requires
    /// the core pattern; poststart and poststop never fail.
    Hook {
        /// createRuntime, prestart, poststart or poststop.
        stage: Option<String>,
    },
    /// The pipe helper, started by the kernel with its arguments.
    Handle {
        /// The version of the argument list, v1, and the values of %P %p %I %i %u %g %d %s %t %c %C
        /// %F %h %e %f %E of core(5).
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
        /// The shell.
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
            // The verbs that only machines start have no example.
            assert!(
                long.contains("Example: oci-coredump ")
                    || ["hook", "handle", "verify-probe"].contains(&verb.get_name()),
                "{} has no example",
                verb.get_name()
            );
        }
    }
}

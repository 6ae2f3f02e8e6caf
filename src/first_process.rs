//! The first process of a container: an init that runs a program, or the program itself, for which
//! the kernel ignores what would kill another.

/// Init programs that run one program, their oldest child, and exit with it.
pub(crate) const INITS: [&str; 6] =
    ["tini", "tini-static", "catatonit", "docker-init", "podman-init", "dumb-init"];

/// Those of s6 and runit, which have many children, and children between them and the program.
pub(crate) const SUPERVISORS: [&str; 5] =
    ["s6-svscan", "s6-supervise", "rc.init", "runsvdir", "runsv"];

/// Init systems, and shells that start a program.
const OTHERS: [&str; 8] = ["init", "systemd", "sh", "bash", "dash", "ash", "busybox", "pause"];

/// What it means that a program is the first process.
pub(crate) const IGNORED: &str = "the kernel ignores signals without a handler there: raise() and \
     kill have no effect, abort() of the C library ends in SIGSEGV, and a JVM or Go program that \
     aborts leaves no core; an init helps (`--init`, or `shareProcessNamespace: true`)";

/// Whether a program of this name runs others as the first process.
pub(crate) fn is_init(name: &str) -> bool {
    INITS.contains(&name) || SUPERVISORS.contains(&name) || OTHERS.contains(&name)
}

//! Where the hooks run, and what of the container is there by then.

use super::check::{Check, check, hold};
use super::life::Life;
use std::collections::BTreeMap;

const SUBJECT: &str = "namespaces";

/// The checks.
pub fn checks(life: &Life) -> Vec<Check> {
    vec![
        check(
            SUBJECT,
            "createRuntime runs in the runtime's namespaces",
            as_runtime(life, "createRuntime 1"),
        ),
        check(SUBJECT, "poststart runs in the runtime's namespaces", as_runtime(life, "poststart")),
        check(SUBJECT, "poststop runs in the runtime's namespaces", as_runtime(life, "poststop")),
        check(
            SUBJECT,
            "createContainer runs in the container's mount namespace",
            in_container(life, "createContainer"),
        ),
        check(
            SUBJECT,
            "startContainer runs in the container's mount namespace",
            in_container(life, "startContainer"),
        ),
        check(SUBJECT, "startContainer has the container's root as /", rooted(life)),
        check(SUBJECT, "the container's namespaces are there at createRuntime", there(life)),
        check(
            SUBJECT,
            "createRuntime runs before the pivot, with the root mounted at its place",
            before_pivot(life),
        ),
        check(SUBJECT, "the process is in its cgroup at createRuntime", cgroup(life)),
    ]
}

fn differ(a: &BTreeMap<String, u64>, b: &BTreeMap<String, u64>) -> String {
    a.iter()
        .filter(|(name, inode)| b.get(*name) != Some(inode))
        .map(|(name, _)| name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

fn as_runtime(life: &Life, stage: &str) -> Result<String, String> {
    let sight = life.of(stage)?;
    let other = differ(&life.own.namespaces, &sight.namespaces);
    hold(
        other.is_empty() && sight.outside,
        if other.is_empty() { String::new() } else { format!("in another namespace: {other}") },
    )
}

fn in_container(life: &Life, stage: &str) -> Result<String, String> {
    let (hook, program) =
        (life.of(stage)?.namespaces.get("mnt"), life.of("program")?.namespaces.get("mnt"));
    hold(
        hook.is_some() && hook == program,
        if hook == program { "" } else { "in another mount namespace than the program" },
    )
}

fn rooted(life: &Life) -> Result<String, String> {
    let sight = life.of("startContainer")?;
    hold(
        sight.inside && !sight.outside,
        if sight.outside { "it sees the host's files" } else { "" },
    )
}

/// The process that the state names is in the same namespaces as the program later.
fn there(life: &Life) -> Result<String, String> {
    let init = life
        .of("createRuntime 1")?
        .init
        .as_ref()
        .ok_or("the state's process could not be looked at")?;
    let mut expected = life.of("program")?.namespaces.clone();
    // A process moves into a new PID namespace only with its children.
    expected.remove("pid");
    let other = differ(&expected, &init.namespaces);
    hold(
        other.is_empty(),
        if other.is_empty() { String::new() } else { format!("not the program's yet: {other}") },
    )
}

fn before_pivot(life: &Life) -> Result<String, String> {
    let init = life
        .of("createRuntime 1")?
        .init
        .as_ref()
        .ok_or("the state's process could not be looked at")?;
    let root = life.bundle.join("rootfs");
    let mounted = init.mounts.contains(&root);
    hold(
        mounted,
        if mounted {
            String::new()
        } else {
            format!("{} is no mount point in the container's mount namespace", root.display())
        },
    )
}

fn cgroup(life: &Life) -> Result<String, String> {
    let init = life
        .of("createRuntime 1")?
        .init
        .as_ref()
        .ok_or("the state's process could not be looked at")?;
    let same = !life.cgroup.is_empty() && init.cgroup == life.cgroup;
    hold(same, if same { "" } else { "it was in another than the running program" })
}

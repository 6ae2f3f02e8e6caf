//! Checks in which namespaces the hooks run, and what of the container exists by then.

use super::check::{HookCheck, check, hold};
use super::lifecycle::Lifecycle;
use std::collections::BTreeMap;

const SUBJECT: &str = "namespaces";

/// The checks, on one container.
pub(super) fn checks(lifecycle: &Lifecycle) -> Vec<HookCheck> {
    vec![
        check(
            SUBJECT,
            "createRuntime runs in the runtime's namespaces",
            as_runtime(lifecycle, "createRuntime 1"),
        ),
        check(
            SUBJECT,
            "poststart runs in the runtime's namespaces",
            as_runtime(lifecycle, "poststart"),
        ),
        check(
            SUBJECT,
            "poststop runs in the runtime's namespaces",
            as_runtime(lifecycle, "poststop"),
        ),
        check(
            SUBJECT,
            "createContainer runs in the container's mount namespace",
            in_container(lifecycle, "createContainer"),
        ),
        check(
            SUBJECT,
            "startContainer runs in the container's mount namespace",
            in_container(lifecycle, "startContainer"),
        ),
        check(SUBJECT, "startContainer has the container's root as /", rooted(lifecycle)),
        check(SUBJECT, "the container's namespaces are there at createRuntime", there(lifecycle)),
        check(
            SUBJECT,
            "createRuntime runs before the pivot, with the root mounted at its place",
            before_pivot(lifecycle),
        ),
        check(SUBJECT, "the process is in its cgroup at createRuntime", cgroup(lifecycle)),
    ]
}

fn differ(a: &BTreeMap<String, u64>, b: &BTreeMap<String, u64>) -> String {
    a.iter()
        .filter(|(name, inode)| b.get(*name) != Some(inode))
        .map(|(name, _)| name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

fn as_runtime(lifecycle: &Lifecycle, stage: &str) -> Result<String, String> {
    let observation = lifecycle.of(stage)?;
    let other = differ(&lifecycle.own.namespaces, &observation.namespaces);
    hold(
        other.is_empty() && observation.outside,
        if other.is_empty() { String::new() } else { format!("in another namespace: {other}") },
    )
}

fn in_container(lifecycle: &Lifecycle, stage: &str) -> Result<String, String> {
    let (hook, program) = (
        lifecycle.of(stage)?.namespaces.get("mnt"),
        lifecycle.of("program")?.namespaces.get("mnt"),
    );
    hold(
        hook.is_some() && hook == program,
        if hook == program { "" } else { "in another mount namespace than the program" },
    )
}

fn rooted(lifecycle: &Lifecycle) -> Result<String, String> {
    let observation = lifecycle.of("startContainer")?;
    hold(
        observation.inside && !observation.outside,
        if observation.outside { "it sees the host's files" } else { "" },
    )
}

/// Whether the process that the state names is in the same namespaces as the program later.
fn there(lifecycle: &Lifecycle) -> Result<String, String> {
    let init = lifecycle
        .of("createRuntime 1")?
        .init
        .as_ref()
        .ok_or("the state's process could not be looked at")?;
    let mut expected = lifecycle.of("program")?.namespaces.clone();
    // A process enters a new PID namespace only with its children.
    expected.remove("pid");
    let other = differ(&expected, &init.namespaces);
    hold(
        other.is_empty(),
        if other.is_empty() { String::new() } else { format!("not the program's yet: {other}") },
    )
}

fn before_pivot(lifecycle: &Lifecycle) -> Result<String, String> {
    let init = lifecycle
        .of("createRuntime 1")?
        .init
        .as_ref()
        .ok_or("the state's process could not be looked at")?;
    let root = lifecycle.bundle.join("rootfs");
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

fn cgroup(lifecycle: &Lifecycle) -> Result<String, String> {
    let init = lifecycle
        .of("createRuntime 1")?
        .init
        .as_ref()
        .ok_or("the state's process could not be looked at")?;
    let same = !lifecycle.cgroup.is_empty() && init.cgroup == lifecycle.cgroup;
    hold(same, if same { "" } else { "it was in another than the running program" })
}

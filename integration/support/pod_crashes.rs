//! What crashes in a pod's containers, and what must come of it, whatever the engine.
use crate::cri::{Cri, Pod};
use crate::host::Host;
use crate::product::core_of;

/// Only one of the two has a pattern of its own; the other takes the pod's.
pub const ASKS: [(&str, &str); 2] =
    [("oci-coredump/pattern", "/dump/all"), ("two.oci-coredump/pattern", "/cores/%e-of-two")];

/// Crashes in both containers of a pod, by ExecSync; `limited`: whether the engine gives an
/// exec the container's limit.
pub fn crash_in_both(host: &Host, pod: &Pod, limited: bool) {
    let (one, two) = (pod.container("one"), pod.container("two"));
    if limited {
        assert_eq!(pod.exec(&one, "ulimit -Sc").0, "unlimited\n");
    }
    assert_eq!(pod.exec(&one, "cat /proc/sys/kernel/core_pattern").0, "/dump/all\n");
    assert_eq!(pod.exec(&two, "cat /proc/sys/kernel/core_pattern").0, "/cores/%e-of-two\n");
    for (container, name, directory, start) in
        [(&one, "one", "/dump", "all."), (&two, "two", "/cores", "crasher-of-two.")]
    {
        let (_, status) = pod.exec(container, "/bin/crasher null");
        assert_eq!(status, 139, "{name}");
        let record = core_of(host, container);
        assert_eq!(
            (&record["container_name"], &record["pod_namespace"]),
            (&name.into(), &"shop".into()),
            "{record}"
        );
        assert!(record["pod_name"].as_str().is_some_and(|pod| pod.starts_with("web")), "{record}");
        let listed = pod.exec(container, &format!("ls {directory}")).0;
        assert!(listed.starts_with(start), "{name}: {listed:?}");
    }
}

/// A pod that asks for nothing has what it would have without us.
pub fn nothing_for_silent_pods(host: &Host, cri: &Cri) {
    let pod = cri.pod("silent", &[("example.com/other", "x")]);
    let container = pod.container("app");
    pod.exec(&container, "/bin/crasher null");
    assert!(host.records_of(&container).is_empty());
    // The host's own pattern, as without us.
    assert_eq!(
        pod.exec(
            &container,
            "ls -d /dump /cores 2>/dev/null; head -c 1 /proc/sys/kernel/core_pattern"
        )
        .0,
        "|"
    );
    pod.remove();
}

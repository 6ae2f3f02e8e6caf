//! /proc/PID/cgroup: which control groups a process is in.

/// One line of it: one hierarchy, see cgroups(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// The controllers of the hierarchy; empty for cgroup v2.
    pub controllers: Vec<u8>,
    /// Path below the root of the hierarchy, as this process's cgroup namespace shows it.
    pub path: Vec<u8>,
}

/// Parses it; its lines are `ID:controllers:path`. Other lines are skipped.
pub(crate) fn cgroups(text: &[u8]) -> Vec<Cgroup> {
    let mut out = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        let mut parts = line.splitn(3, |b| *b == b':');
        if let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        {
            out.push(Cgroup { controllers: controllers.to_vec(), path: path.to_vec() });
        }
    }
    out
}

/// The part of a cgroup's path that no process in the container can have made: up to the component
/// that names a user (of systemd's), else a container (by an ID of 64 hexadecimal digits, as
/// engines have it), else a unit of systemd; where there is none, the first component.
pub(crate) fn container_of(path: &[u8]) -> &[u8] {
    let is_user = |word: &[u8]| word.starts_with(b"user-");
    let is_container =
        |word: &[u8]| word.split(|b| !b.is_ascii_hexdigit()).any(|digits| digits.len() >= 64);
    let is_unit = |word: &[u8]| word.ends_with(b".service") || word.ends_with(b".scope");
    let words: Vec<&[u8]> = path.split(|b| *b == b'/').skip(1).collect();
    let find = |is: &dyn Fn(&[u8]) -> bool| words.iter().position(|word| is(word));
    let last = find(&is_user).or_else(|| find(&is_container)).or_else(|| find(&is_unit));
    let named = words.iter().take(last.unwrap_or(0) + 1).map(|word| 1 + word.len()).sum();
    path.get(..named).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_lines() {
        let c = cgroups(b"4:memory:/a:b/\xffc\n0::/x\n");
        assert_eq!(c[0], Cgroup { controllers: b"memory".to_vec(), path: b"/a:b/\xffc".to_vec() });
        assert_eq!(c[1], Cgroup { controllers: vec![], path: b"/x".to_vec() });
        assert_eq!(c.len(), 2);
    }

    #[test]
    fn a_container_by_its_cgroup() {
        let id = "0123456789abcdef".repeat(4);
        for (container, below) in [
            (format!("/machine.slice/libpod-{id}.scope"), "/container/a"),
            (format!("/kubepods/besteffort/pod1b4e28ba-2fa1-11d2-883f-0016d3cca427/{id}"), "/a"),
            (format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"), "/x/y"),
            (format!("/system.slice/containerd.service/kubepods-pod1.slice:cri:{id}"), "/x.scope"),
            (format!("/docker/{id}"), "/x"),
            ("/user.slice/user-1000.slice".into(), "/user@1000.service/a.scope"),
            ("/system.slice/some.service".into(), "/payload"),
            ("/mine".into(), "/a/b"),
            ("/".into(), ""),
            (String::new(), ""),
        ] {
            let path = format!("{container}{below}");
            assert_eq!(container_of(path.as_bytes()), container.as_bytes(), "{path}");
        }
    }
}

//! Warnings about what a container gets by its pattern and may not expect, for `plan` and
//! `doctor`. Pure.

use super::config_json::Volume;
use crate::config::{Config, KeptMemory, Mode};
use crate::name_conflict::Existing;
use crate::pattern::Pattern;

/// A specifier that gives replicas of one container different names. Each of their first processes
/// is PID 1, and their programs and users are the same.
const TELLS_APART: [&str; 4] = ["%h", "%t", "%P", "%I"];

/// That the pattern names a directory. As with the kernel, the core is then beside it.
pub(super) fn names_directory(pattern: &Pattern, append_pid: bool) -> String {
    let pid = if append_pid { ".PID" } else { "" };
    format!(
        "{:?} is a directory in the container: as with the kernel, the core is {pattern}{pid} \
         beside it; for one in it, add a file name, such as {pattern}/core",
        pattern.to_string()
    )
}

/// Remarks on a pattern, one line each. `volume`: the mount that covers its directory.
pub(super) fn of(
    pattern: &Pattern,
    existing: Option<Existing>,
    keep: KeptMemory,
    volume: Option<&Volume>,
    config: &Config,
) -> Vec<String> {
    let mut all = Vec::new();
    let text = pattern.to_string();
    let is_shared = volume.is_some_and(|volume| !volume.is_own);
    let is_replaced = existing.unwrap_or(config.existing) == Existing::Replace;
    if is_shared && is_replaced && !TELLS_APART.iter().any(|specifier| text.contains(specifier)) {
        all.push(format!(
            "replicas on this volume, and the container when it is started again, may give their \
             cores the same name, and a new one replaces the old one: {text}.%h.%t tells them \
             apart, oci-coredump/existing: number or keep keeps them"
        ));
    }
    let is_made = config.make_directories.applies(volume.is_none());
    if pattern.varies_by_directory() && !is_made {
        all.push(
            "directories that a specifier names are not made there (make_directories in the \
             configuration): where they are missing there is no core"
                .into(),
        );
    }
    match (keep, config.mode) {
        (KeptMemory::All, _) => {}
        (keep, Mode::Dispatch) => all.push(format!(
            "its cores are small ones (oci-coredump/keep: {}): they have {} of the memory",
            keep.as_str(),
            keep.meaning().trim_end_matches(',')
        )),
        (keep, Mode::Kernel) => all.push(format!(
            "oci-coredump/keep: {} has no effect with mode = \"kernel\": the kernel writes all",
            keep.as_str()
        )),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_which_pattern() {
        let on_volume = Volume { target: "/d".into(), source: Some("/v".into()), is_own: false };
        let own = Volume { is_own: true, ..on_volume.clone() };
        let config = Config::default();
        let of = |text: &str, existing, volume| {
            let pattern = text.parse().unwrap();
            let all = of(&pattern, existing, KeptMemory::All, volume, &config);
            let words = ["replicas", "are not made"];
            words.map(|word| all.iter().any(|line| line.contains(word)))
        };
        let volume = Some(&on_volume);
        assert_eq!(of("/d/core", None, volume), [true, false]);
        assert_eq!(of("/d/core", None, None), [false; 2]);
        assert_eq!(of("/d/core", None, Some(&own)), [false; 2]);
        assert_eq!(of("/d/core.%h", None, volume), [false; 2]);
        assert_eq!(of("/d/core.%t", None, volume), [false; 2]);
        assert_eq!(of("/d/core", Some(Existing::Number), volume), [false; 2]);
        assert_eq!(of("/d/%h/core", None, volume), [false, true]);
        assert_eq!(of("/d/%h/core", None, None), [false; 2]);
    }
}

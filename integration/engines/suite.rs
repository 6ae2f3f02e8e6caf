//! Which programs: those of the machine, or those of a newer Debian, unpacked by
//! `integration/tools.sh` and run as they are.
use std::path::PathBuf;
use std::process::Command;

use support::require;

/// Where the programs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// The machine's: containerd 1.6 on Debian 12.
    Machine,
    /// Debian 13: containerd 1.7, Docker 26.
    Trixie,
    /// Debian unstable: containerd 2, Docker 28.
    Sid,
}

impl Suite {
    /// The directories of its programs, which come first on PATH.
    fn directories(self) -> Vec<PathBuf> {
        let name = match self {
            Suite::Machine => return Vec::new(),
            Suite::Trixie => "trixie",
            Suite::Sid => "sid",
        };
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let cache =
            std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap_or_default();
        let root = cache.join("oci-coredump-test").join(name);
        vec![root.join("usr/bin"), root.join("usr/sbin")]
    }

    /// Whether all of these are there. In CI a missing one fails the test.
    pub fn has(self, programs: &[&str]) -> bool {
        match self {
            Suite::Machine => require::programs(programs),
            _ => match programs.iter().find(|program| self.find(program).is_none()) {
                None => true,
                Some(missing) => require::skip(&format!(
                    "{missing} of {self:?} is not unpacked: integration/tools.sh does it"
                )),
            },
        }
    }

    fn find(self, program: &str) -> Option<PathBuf> {
        let own = self
            .directories()
            .into_iter()
            .map(|directory| directory.join(program))
            .find(|path| path.is_file());
        if self == Suite::Machine { require::find(program) } else { own }
    }

    /// One of its programs, with a PATH on which its others come first.
    pub fn command(self, program: &str) -> Command {
        let mut command =
            Command::new(self.find(program).unwrap_or_else(|| panic!("no {program} of {self:?}")));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = self
            .directories()
            .into_iter()
            .chain(std::env::split_paths(&path))
            .chain(["/usr/sbin".into(), "/sbin".into()]);
        command.env("PATH", std::env::join_paths(all).unwrap());
        command
    }
}

//! The core's SELinux label, and whether SELinux's policy lets the crasher make the file at all.
//! The kernel's file mode does both as the crasher. Our writer has become it in all else, but is
//! still in the domain of the kernel's helpers, which may do more.

use crate::dump::crash::facts::Facts;
use crate::sys::proc::os;
use crate::sys::selinux::{Policy, SelinuxSubject};
use crate::sys::{BorrowedFd, OwnedFd};
use anyhow::Result;

/// What the writer asks.
#[derive(Debug)]
pub(crate) struct Labeller<'a> {
    subject: &'a Result<SelinuxSubject>,
    policy: Result<Policy>,
}

/// The label is set: the next file that this process creates gets it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The crasher may not remove what has the name.
    pub keep_old: bool,
    /// What went wrong without keeping the core from being written, for the log.
    pub note: Option<String>,
}

impl<'a> Labeller<'a> {
    /// To be called by the writer while it still has our root. `None` where SELinux is off.
    pub(crate) fn new(facts: &'a Facts) -> Option<Self> {
        facts.subject.as_ref().map(|subject| Labeller { subject, policy: Policy::open() })
    }

    /// What has to stay open.
    pub(crate) fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.policy.iter().flat_map(Policy::files)
    }

    /// To be called by the writer before it makes `name` in `dir`, which becomes its working
    /// directory.
    ///
    /// # Errors
    /// Why there may be no core: the policy forbids it, or the label cannot be given. With the
    /// helper's label the containers beside could read it.
    pub(crate) fn prepare(&self, dir: &OwnedFd, name: &[u8]) -> Result<Ready, String> {
        let policy = self.policy.as_ref().map_err(|e| format!("SELinux: {e:#}"))?;
        match self.attempt(policy, dir, name) {
            Ok((None, keep_old)) => Ok(Ready { keep_old, note: None }),
            wrong => decide(
                wrong.map(|(denied, _)| denied.unwrap_or_default()).map_err(|e| format!("{e:#}")),
                policy.is_enforced(),
            ),
        }
    }

    fn attempt(
        &self,
        policy: &Policy,
        dir: &OwnedFd,
        name: &[u8],
    ) -> Result<(Option<String>, bool)> {
        let subject = self.subject.as_ref().map_err(|e| anyhow::anyhow!("{e:#}"))?;
        let answer = policy.ask(subject, dir, os(name))?;
        policy.choose(&answer.label)?;
        Ok((answer.denied, !answer.may_replace))
    }
}

/// The result of a denial (`Ok`) or a failure. In permissive mode denials are ignored, since the
/// kernel logs each of them.
fn decide(what: Result<String, String>, enforced: bool) -> Result<Ready, String> {
    match (what, enforced) {
        (Ok(denied), true) => Err(format!("Permission denied by SELinux ({denied})")),
        (Ok(_), false) => Ok(Ready::default()),
        (Err(e), true) => Err(format!("its SELinux label cannot be given: {e}")),
        (Err(e), false) => Ok(Ready {
            keep_old: false,
            note: Some(format!("the core's SELinux label cannot be given: {e}")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_enforced() {
        let denied = || Ok("a may not write, dir b".to_owned());
        let failed = || Err("write: EACCES".to_owned());
        assert_eq!(
            decide(denied(), true).unwrap_err(),
            "Permission denied by SELinux (a may not write, dir b)"
        );
        assert_eq!(decide(denied(), false), Ok(Ready::default()));
        assert_eq!(
            decide(failed(), true).unwrap_err(),
            "its SELinux label cannot be given: write: EACCES"
        );
        assert_eq!(
            decide(failed(), false).unwrap().note.as_deref(),
            Some("the core's SELinux label cannot be given: write: EACCES")
        );
    }
}

//! What `[upload]` says, by the program that reads it.

use super::super::remote;
use super::check::{Check, failure, ok, warning};
use crate::config::Config;
use std::process::{Command, Stdio};

/// Whether crashes are uploaded; nothing where neither the program nor a URL is there.
pub(super) fn uploads(config: &Config) -> Option<Check> {
    let program = remote::program();
    if !program.is_file() {
        return config.upload.url.as_ref().map(|url| {
            let what = format!("{} is missing: nothing is uploaded to {url}", program.display());
            warning("uploads", what, "install oci-coredump-ship, or remove [upload]")
        });
    }
    let said = Command::new(&program).arg("check").stdin(Stdio::null()).output();
    Some(match said {
        Ok(out) if out.status.success() => {
            ok("uploads", String::from_utf8_lossy(&out.stdout).trim().to_owned())
        }
        Ok(out) => {
            let text = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            let text = text.strip_prefix("oci-coredump-ship: ").unwrap_or(&text).to_owned();
            failure("uploads", text, "docs/upload.md has the keys")
        }
        Err(e) => {
            let what = format!("start {}: {e}", program.display());
            failure("uploads", what, "install oci-coredump-ship again")
        }
    })
}

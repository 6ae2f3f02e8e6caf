//! What only root of the host may do.

use crate::sys::user;
use anyhow::{Result, ensure};

/// Fails unless this process is root of the host.
///
/// # Errors
/// This process is not root of the host.
pub(super) fn need_root() -> Result<()> {
    ensure!(
        user::is_host_root(),
        "only root of the host may do this; run it with sudo, outside of any container"
    );
    Ok(())
}

//! What only root of the host may do.

use crate::sys::user;
use anyhow::{Result, ensure};

/// # Errors
/// This process is not root of the host.
pub(super) fn need_root() -> Result<()> {
    ensure!(
        user::is_host_root(),
        "only root of the host may do it; run it with sudo, outside of any container"
    );
    Ok(())
}

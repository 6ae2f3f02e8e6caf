//! containerd's own programs: the version that is installed, its default specification.

use anyhow::{Context, Result, ensure};
use std::path::Path;

/// Runs one of containerd's programs, by its fixed paths, and returns its output.
pub(super) fn ask(program: &str, args: &[&str]) -> Result<String> {
    let paths = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"]
        .map(|d| Path::new(d).join(program));
    let path = paths
        .iter()
        .find(|p| p.is_file())
        .with_context(|| format!("no {program} in /usr/bin or /usr/local/bin"))?;
    let output = std::process::Command::new(path)
        .args(args)
        .output()
        .with_context(|| format!("run {}", path.display()))?;
    ensure!(
        output.status.success(),
        "{} {}: {}",
        path.display(),
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} {}: not UTF-8", path.display(), args.join(" ")))
}

/// Major and minor number in the output of `containerd --version`.
pub(super) fn release(text: &str) -> Option<(u64, u64)> {
    text.split_whitespace().find_map(|word| {
        let mut numbers = word.trim_start_matches('v').split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(
            release("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3"),
            Some((1, 6))
        );
        assert_eq!(
            release("containerd github.com/containerd/containerd/v2 2.1.9+unknown "),
            Some((2, 1))
        );
        assert_eq!(release("containerd containerd.io v2.0.0-rc.1 207ad"), Some((2, 0)));
        assert_eq!(release("containerd"), None);
    }
}

//! An image as an archive that every engine imports: one layer, busybox, the crasher, and what a
//! pod's own container does.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::crasher::crasher;
use crate::rootfs::Rootfs;
use crate::runtime::script;

/// Its name.
pub const IMAGE: &str = "localhost/victim:1";

/// Makes `image.tar` in `scratch`, in the form of `docker save`.
pub fn make(scratch: &Path) -> PathBuf {
    let rootfs = Rootfs::make(&scratch.join("rootfs"));
    rootfs.put(crasher(), "/bin/crasher");
    let pause = script(&scratch.join("pause"), "#!/bin/sh\ntrap exit TERM\nsleep 100000 &\nwait\n");
    rootfs.put(&pause, "/bin/pause");
    run(Command::new("tar")
        .arg("-C")
        .arg(rootfs.path())
        .args(["-cf"])
        .arg(scratch.join("layer.tar"))
        .arg("."));
    fs::remove_dir_all(rootfs.path()).unwrap();
    let sum = run(Command::new("sha256sum").arg(scratch.join("layer.tar")));
    let digest = sum.split(' ').next().unwrap();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "1000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    fs::write(scratch.join("config.json"), config.to_string()).unwrap();
    fs::write(
        scratch.join("manifest.json"),
        json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}])
            .to_string(),
    )
    .unwrap();
    let image = scratch.join("image.tar");
    run(Command::new("tar").arg("-C").arg(scratch).arg("-cf").arg(&image).args([
        "manifest.json",
        "config.json",
        "layer.tar",
    ]));
    image
}

/// Standard output of a command that must succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

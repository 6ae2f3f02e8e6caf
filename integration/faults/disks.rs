//! Targets that fail in the middle: the record names the cause, and the file holds complete data up
//! to some point and nothing after it.
use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use tempfile::TempDir;

use crate::witness::{BOUND, Calm, settled};
use support::bare::{self, Container};
use support::fuse::{Answer, Fuse};
use support::host::Host;
use support::scene;

const MIB: u64 = 1 << 20;

/// A file system in memory of the test's own.
pub struct Tmpfs(TempDir);

impl Tmpfs {
    pub fn new(bytes: u64) -> Self {
        let directory = TempDir::with_prefix("tmpfs").unwrap();
        Self::over(directory.path(), bytes, 0o1777);
        Self(directory)
    }

    /// Mounts one over a directory; the caller unmounts it.
    pub fn over(path: &Path, bytes: u64, mode: u32) {
        mount(
            Some("test"),
            path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(format!("size={bytes},mode={mode:o}").as_str()),
        )
        .unwrap();
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

/// Its name, MiB of memory of the victim, annotations.
type Way = (&'static str, usize, &'static [(&'static str, &'static str)]);

/// How a core is written: through the pipe, by the fast lane, after an early release.
const WAYS: [Way; 4] = [
    ("pipe", 6, &[]),
    ("fast", 12, &[]),
    ("early", 24, &[("oci-coredump/release", "early")]),
    ("zstd", 12, &[("oci-coredump/compress", "zstd")]),
];

/// An error in the form of the records.
fn words(errno: Errno) -> String {
    std::io::Error::from_raw_os_error(errno as i32).to_string()
}

/// Crashes a victim whose pages are not zero, and examines what is left.
fn fails(
    host: &Host,
    directory: &Path,
    fault: &str,
    errno: Errno,
    ways: &[Way],
    before: &dyn Fn(&str),
    read: &dyn Fn(&str) -> Vec<u8>,
) {
    let calm = Calm::new();
    for &(way, size, annotations) in ways {
        before(way);
        let what = format!("{fault}, {way}");
        let name = format!("{fault}-{way}");
        let container = Container::new(&name, directory, annotations);
        let mut victim = container.victim(&bare::victim(), "random", size);
        victim.crash();
        if way == "fast" {
            calm.crash(host, &what);
        }
        assert!(victim.ends_within(BOUND), "{what}: the crashed process hangs");
        let record = settled(host, &name, victim.pid());
        assert_eq!(
            (&record["outcome"], &record["truncated"]),
            (&"truncated".into(), &true.into()),
            "{what}: {record:#}"
        );
        let why = record["reason"].as_str().unwrap();
        assert!(why.contains(&words(errno)), "{what}: {why}");
        assert_eq!(record["released_at"].is_null(), way != "early", "{what}: {record:#}");
        let file = record["core_path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let core = read(&file);
        assert_eq!(record["size"], core.len(), "{what}: {record:#}");
        assert!(core.len() as u64 >= MIB / 2, "{what}: {} bytes are left", core.len());
        if way != "zstd" {
            assert_no_gaps(&core, &what);
        }
        let _ = fs::remove_file(directory.join(file));
    }
}

/// The memory that the victim filled has no page of zeros, so a page of zeros in the file is
/// one that was never written.
fn assert_no_gaps(core: &[u8], what: &str) {
    let header = FileHeader64::<LittleEndian>::parse(core).unwrap();
    let segments = header.program_headers(LittleEndian, core).unwrap();
    let filled = segments
        .iter()
        .filter(|segment| segment.p_type(LittleEndian) == PT_LOAD)
        .max_by_key(|segment| segment.p_filesz(LittleEndian))
        .unwrap();
    let (start, size) = (filled.p_offset(LittleEndian), filled.p_filesz(LittleEndian));
    assert!((core.len() as u64) < start + size, "{what}: nothing is missing");
    let there = core.get(start as usize..).unwrap_or_default();
    let gap = there.chunks(4096).position(|page| page.iter().all(|b| *b == 0));
    assert_eq!(gap, None, "{what}: a page that was never written, of {} bytes", there.len());
}

/// On a disk of the test's own.
fn on_fuse(fault: &str, errno: Errno) {
    let host = scene::host();
    host.configure("allow_early_release = true\n");
    let target = Fuse::mount();
    let fail = Answer::Fail(errno as i32);
    // Before the release the small parts are written, wherever they belong; what
    // comes then is what is to fail.
    let before = |way: &str| {
        if way == "early" { target.on_write(6 * MIB, fail) } else { target.beyond(3 * MIB, fail) }
    };
    fails(&host, target.path(), fault, errno, &WAYS, &before, &|name| {
        target.content(name).unwrap()
    });
}

#[test]
fn input_output_error() {
    on_fuse("eio", Errno::EIO);
}

#[test]
fn quota() {
    on_fuse("edquot", Errno::EDQUOT);
}

/// A full disk, and a full volume in memory, on which there is no early release.
#[test]
fn no_space_left() {
    on_fuse("enospc", Errno::ENOSPC);
    let host = scene::host();
    let target = Tmpfs::new(4 * MIB);
    let ways = WAYS.into_iter().filter(|(way, ..)| *way != "early").collect::<Vec<_>>();
    fails(&host, target.path(), "memory", Errno::ENOSPC, &ways, &|_| (), &|name| {
        fs::read(target.path().join(name)).unwrap()
    });
}

/// The volume becomes read-only, as file systems do on errors.
#[test]
fn read_only() {
    let host = scene::host();
    let target = Tmpfs::new(4 * MIB);
    let container = Container::new("erofs", target.path(), &[]);
    let calm = Calm::new();
    mount(
        Some("test"),
        target.path(),
        None::<&str>,
        MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
        None::<&str>,
    )
    .unwrap();
    let mut victim = container.victim(&bare::victim(), "tiny", 0);
    victim.crash();
    assert!(victim.ends_within(BOUND));
    calm.crash(&host, "erofs");
    let record = settled(&host, "erofs", victim.pid());
    assert_eq!(
        (&record["outcome"], &record["core_path"]),
        (&"none".into(), &serde_json::Value::Null),
        "{record:#}"
    );
    assert!(record["reason"].as_str().unwrap().contains(&words(Errno::EROFS)), "{record:#}");
    assert!(!victim.core().exists());
}

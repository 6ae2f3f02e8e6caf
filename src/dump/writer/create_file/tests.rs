use super::*;
use crate::sys::user;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

fn core_file(path: &Path, existing: Existing) -> CorePlan {
    CorePlan { path: path.as_os_str().as_bytes().to_vec(), existing, ..CorePlan::default() }
}

fn make(core_file: &CorePlan) -> Result<Made, Cause> {
    let wanted = FileSpec { core_file, keep_old: false, owner: user::effective_uid() };
    create(&OpenedDirectory::of(core_file, None, 0o022)?, &wanted)
}

#[test]
fn what_happens_at_a_name_that_exists() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("core.1");
    let inode = || std::fs::metadata(&path).unwrap().ino();
    let of = |existing| make(&core_file(&path, existing));
    let id = |made: &Made| file::stat(&made.file).unwrap().id.inode();

    let first = of(Existing::Keep).unwrap();
    assert_eq!((first.number, id(&first)), (1, inode()));
    let kept = of(Existing::Keep).err().unwrap();
    assert_eq!(kept.acted().as_deref(), Some("existing = keep"));
    assert_eq!(inode(), id(&first), "it did not stay");

    let numbers = [2, 3].map(|_| of(Existing::Number).unwrap().number);
    assert_eq!(numbers, [2, 3]);
    assert_eq!(inode(), id(&first), "it did not stay");
    std::fs::remove_file(dir.path().join("core.1.2")).unwrap();
    assert_eq!(of(Existing::Number).unwrap().number, 2, "the first free one");

    let new = of(Existing::Replace).unwrap();
    assert_eq!((new.number, id(&new)), (1, inode()));
    assert_ne!(id(&new), id(&first));
}

#[test]
fn numbers_have_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = core_file(&dir.path().join("core"), Existing::Number);
    for number in 1..=LAST {
        assert_eq!(make(&file).unwrap().number, number);
    }
    assert_eq!(make(&file).err().unwrap().acted().as_deref(), Some("existing = number"));
}

/// Replicas on one volume that crash at once: each has a file of its own while it writes, and none
/// writes into another's.
#[test]
fn many_at_once_never_share_a_file() {
    for existing in Existing::ALL {
        let dir = tempfile::tempdir().unwrap();
        let file = core_file(&dir.path().join("core.1"), existing);
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| make(&file))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut ids: Vec<_> =
            made.iter().flatten().map(|made| file::stat(&made.file).unwrap().id).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "{existing:?}: two have one file");
        let expected = if existing == Existing::Keep { 1 } else { 16 };
        assert_eq!(count, expected, "{existing:?}");
    }
}

#[test]
fn directories_are_made_below_the_fixed_one_only() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().to_str().unwrap();
    let fixed = base.len() + 1;
    let of = |below: &str, made_below| {
        let path = format!("{base}/{below}").into_bytes();
        let file = CorePlan { path, made_below, ..CorePlan::default() };
        OpenedDirectory::of(&file, None, 0o022).map(|_| ()).map_err(|cause| cause.to_string())
    };
    of("a/b/core", None).unwrap_err();
    of("a/b/core", Some(fixed)).unwrap();
    let mode = dir.path().join("a/b").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, DUMP_DIR_MODE, "for all users of the container");
    of("a/b/core", Some(fixed)).unwrap();
    of("missing/a/core", Some(fixed + "missing/".len())).unwrap_err();
    // What is missing is not made behind a link.
    std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
    of("link/oci-coredump-test/core", Some(fixed)).unwrap_err();
    assert!(!Path::new("/oci-coredump-test").exists());
    of(&format!("{}core", "d/".repeat(DEPTH + 1)), Some(fixed)).unwrap_err();
    assert!(!dir.path().join("d").exists());
}

/// The container sees its directory of the store read-only: what is below it is the host's to make.
#[test]
fn directories_in_the_store_are_made_on_the_hosts_side() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().to_str().unwrap();
    let store = file::open_dir(dir.path()).unwrap();
    let file = CorePlan {
        path: format!("{base}/web/core").into_bytes(),
        made_below: Some(base.len() + 1),
        ..CorePlan::default()
    };
    let place = OpenedDirectory::of(&file, Some(&store), 0o022).unwrap();
    assert!(same(&place.dir, &file::open_dir(&dir.path().join("web")).unwrap()));
    // Nor is a link in it followed.
    std::fs::remove_dir(dir.path().join("web")).unwrap();
    std::os::unix::fs::symlink("/tmp", dir.path().join("web")).unwrap();
    assert!(OpenedDirectory::of(&file, Some(&store), 0o022).is_err());
}

//! Invariants of the dispatcher for untrusted input; see [`crate::fuzzing`].

use crate::config::KeptMemory;
use crate::dump::copy::lanes;
use crate::dump::copy::pages::page_size;
use crate::dump::copy::stop::{Bounds, Stop};
use crate::dump::copy::target::{Capacity, CopyTarget};
use crate::dump::crash::arguments;
use crate::dump::policy::plan;
use crate::elf::starts_of_files;
use crate::registry::Entry;
use crate::sys::OwnedFd;
use crate::sys::counter::Counter;
use crate::sys::filesystem::FsType;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Arc, OnceLock};

/// The arguments of `handle`, each behind a NUL.
pub(crate) fn argv(text: &[u8]) {
    let all: Vec<OsString> =
        text.split(|b| *b == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    if let Ok(said) = arguments::parse(&all) {
        // Nobody is known without the numbers; what stands behind the last name is another
        // version's.
        assert!(all.len() >= arguments::NEEDED);
        let path = crate::pattern::Template::parse(b"/c/%p%P%i%I%u%g%d%s%t%h%e%f%E%c%C%F")
            .expand(&said, true);
        let inside = plan::inside_path(&path, b"/", b"/");
        assert!(inside.first() == Some(&b'/') && !inside.windows(2).any(|pair| pair == b"//"));
    }
}

/// What the dispatcher makes of an entry: a path on the host only below the directory that the
/// entry names.
pub(crate) fn place(entry: &Entry) {
    let Some(pattern) = &entry.pattern else { return };
    let path = pattern.expand(&crate::invariants::crash(b""), entry.append_pid);
    let inside = plan::inside_path(&path, b"/", b"/srv");
    if let (Some(host), Some((_, source))) =
        (plan::host_path(&inside, entry.place.mount.as_ref()), &entry.place.mount)
    {
        assert!(host.starts_with(source.trim_end_matches('/').as_bytes()));
    }
}

/// A core in the pipe, behind a byte of choices (among them whether the core is to be a small one)
/// and two numbers of four bytes: RLIMIT_CORE and RLIMIT_FSIZE.
///
/// The file holds what came, up to where it ends; if the copy says that it is whole it is, and no
/// limit is passed.
pub(crate) fn stream(data: &[u8]) {
    let Some((start, core)) = data.split_first_chunk::<9>() else { return };
    let number = |at: usize| {
        u64::from(u32::from_le_bytes(start[at..at + 4].try_into().expect("four bytes")))
    };
    let bounds = Bounds {
        limit: (start[0] & 1 != 0).then(|| number(1)),
        file_size: (start[0] & 2 != 0).then(|| number(5)),
        keep: if start[0] & 8 != 0 { KeptMemory::Stacks } else { KeptMemory::All },
    };
    let mut pipe = tempfile::tempfile().expect("a file");
    pipe.write_all(core).and_then(|()| pipe.rewind()).expect("a file");
    let file = tempfile::tempfile().expect("a file");
    static MOVED: OnceLock<Counter> = OnceLock::new();
    let moved = *MOVED.get_or_init(|| Counter::shared().expect("a page"));
    let target = Arc::new(CopyTarget::new(
        OwnedFd::from(file.try_clone().expect("a descriptor")),
        moved,
        Capacity::default(),
        FsType::Other,
    ));
    if start[0] & 4 != 0 {
        let _ = lanes::compress(&pipe, &target, &bounds, None);
        return;
    }
    if start[0] & 8 != 0 {
        let copied = lanes::copy_core(&pipe, &target, &bounds, None, None);
        let data = file.metadata().expect("a file").len();
        let is_small = copied.full_size.is_some();
        assert!(!is_small || bounds.limit.is_none_or(|limit| data <= limit), "{data} bytes");
        return;
    }
    let result = lanes::copy_core(&pipe, &target, &bounds, None, None).result;
    let mut written = Vec::new();
    let mut file: File = file;
    file.rewind().and_then(|()| file.read_to_end(&mut written)).expect("a file");
    assert!(written.len() <= core.len(), "more than came");
    if result.is_ok() {
        assert_eq!(written.len(), core.len(), "not all of it, but it says so");
    }
    // What the kernel leaves free before the first page is taken for zeros.
    let differs: Vec<_> = written
        .iter()
        .zip(core)
        .enumerate()
        .filter(|(_, (ours, came))| ours != came)
        .map(|(at, _)| at)
        .collect();
    if let (Some(first), Some(last)) = (differs.first(), differs.last()) {
        assert!(
            last - first < page_size() as usize && differs.iter().all(|at| written[*at] == 0),
            "bytes {first} to {last} are not what came"
        );
    }
    let data = written.iter().filter(|byte| **byte != 0).count() as u64;
    assert!(
        bounds.limit.is_none_or(|limit| data <= limit),
        "{data} bytes are over the limit: {result:?}"
    );
    assert!(result != Err(Stop::Limit) || bounds.limit.is_some());
    let _ = starts_of_files(core);
}

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

pub(super) fn note(kind: u32, desc: &[u8]) -> Vec<u8> {
    let head = [5u32, desc.len() as u32, kind];
    let mut n = head.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    n.extend(b"CORE\0\0\0\0");
    n.extend(desc);
    n.resize(n.len().next_multiple_of(4), 0);
    n
}

/// NT_PRSTATUS of an x86-64 thread that died of SIGSEGV.
pub(super) fn status(tid: i32, pc: u64, sp: u64, fp: u64) -> Vec<u8> {
    let mut d = vec![0u8; 336];
    d[12] = 11;
    d[32..36].copy_from_slice(&tid.to_le_bytes());
    for (i, v) in [(16, pc), (19, sp), (4, fp)] {
        d[112 + 8 * i..120 + 8 * i].copy_from_slice(&u64::to_le_bytes(v));
    }
    note(1, &d)
}

pub(super) fn words(w: &[u64]) -> Vec<u8> {
    w.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// A program header.
pub(super) fn segment(
    kind: u64,
    flags: u64,
    offset: u64,
    address: u64,
    in_file: u64,
    size: u64,
) -> Vec<u8> {
    words(&[kind | flags << 32, offset, address, 0, in_file, size, 0])
}

/// A core made by hand: two threads, one row of NT_FILE, a stack with frame pointers in one
/// segment, and code that is not dumped in another.
fn core() -> Vec<u8> {
    let mut prpsinfo = vec![0u8; 136];
    prpsinfo[24] = 12;
    prpsinfo[40..45].copy_from_slice(b"a\x1bb\0c");
    prpsinfo[56..62].copy_from_slice(b"/bin/a");
    let mut files = words(&[1, 4096, CODE, CODE + 0x1000, 0]);
    files.extend(b"/bin/a\0");
    let mut siginfo = vec![0u8; 128];
    (siginfo[0], siginfo[8], siginfo[16]) = (11, 1, 0x10);
    let notes = [
        status(12, CODE + 0x10, STACK, STACK + 16),
        note(3, &prpsinfo),
        note(0x5349_4749, &siginfo),
        status(13, 0, STACK, 0),
        note(0x4649_4c45, &files),
    ]
    .concat();
    // [fp] = the caller's frame pointer, [fp + 8] = the return address.
    let stack = words(&[CODE + 0x30, 0, STACK + 40, CODE + 0x20, 0, 0, CODE + 0x28, 0]);
    let mut out =
        vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 62, 0, 1, 0, 0, 0];
    out.extend(words(&[0, 64, 0]));
    out.extend([0, 0, 0, 0, 64, 0, 56, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    let at = 64 + 3 * 56;
    out.extend(segment(4, 0, at, 0, notes.len() as u64, 0));
    out.extend(segment(1, 6, at + notes.len() as u64, STACK, stack.len() as u64, 0x1000));
    out.extend(segment(1, 5, 0, CODE, 0, 0x1000));
    out.extend(notes);
    out.extend(stack);
    out
}

const CODE: u64 = 0x40_0000;
const STACK: u64 = 0x7fff_0000;

/// The stacks where nothing that is asked for is there.
fn threads(bytes: &Vec<u8>) -> Vec<ThreadStack> {
    let mut asked = BTreeSet::new();
    loop {
        let (mut all, mut needed) = (Vec::new(), Vec::new());
        stacks(bytes, &[], &asked, None, &mut |part| {
            match part {
                PartialResult::Thread(t) => all.push(t),
                PartialResult::Needed(files) => needed = files,
                _ => {}
            }
            Ok(())
        })
        .unwrap();
        let before = asked.len();
        asked.extend(needed);
        if asked.len() == before {
            return all;
        }
    }
}

#[test]
fn what_the_core_says() {
    let o = overview(&core()).unwrap();
    assert_eq!((o.pid, o.threads, o.missing), (12, 2, 0));
    assert_eq!(
        (o.comm.as_str(), o.arguments.as_str(), o.machine.as_str()),
        (r"a\x1bb", "/bin/a", "x86-64")
    );
    assert_eq!(o.signal.unwrap().meaning.as_deref(), Some("address not mapped at 0x10"));
    assert_eq!(
        o.modules,
        [Module { path: "/bin/a".into(), start: CODE, end: CODE + 0x1000, ..Module::default() }]
    );
}

#[test]
fn without_files_by_frame_pointers() {
    let all = threads(&core());
    let addresses = |i: usize| all[i].frames.iter().map(|f| f.address).collect::<Vec<u64>>();
    assert_eq!(all.iter().map(|t| t.tid).collect::<Vec<_>>(), [12, 13]);
    assert_eq!(addresses(0), [CODE + 0x10, CODE + 0x20, CODE + 0x28]);
    // A jump to 0: the top of the stack is the caller.
    assert_eq!(addresses(1), [0, CODE + 0x30]);
    assert!(all[0].cut.as_deref().unwrap().contains("was not found"), "{:?}", all[0].cut);
}

#[test]
fn a_cut_core_says_how_much_is_missing() {
    let mut bytes = core();
    bytes.truncate(bytes.len() - 40);
    assert_eq!(overview(&bytes).unwrap().missing, 40);
    assert!(threads(&bytes)[0].cut.is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Reading a core ends whatever it contains, at worst with an error.
    #[test]
    fn nothing_that_is_damaged_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = core();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = overview(&bytes);
        let _ = stacks(&bytes, &[], &BTreeSet::new(), None, &mut |_| Ok(()));
    }

    /// Nor does reading the names of a file.
    #[test]
    fn no_file_with_names_panics(
        which in 0..4usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        const FILES: [&[u8]; 4] = [
            include_bytes!("../../fuzz/seeds/symbols/go"),
            include_bytes!("../../fuzz/seeds/symbols/debugdata"),
            include_bytes!("../../fuzz/seeds/symbols/skeleton"),
            include_bytes!("../../fuzz/seeds/symbols/split"),
        ];
        let mut bytes = FILES[which].to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_names(&bytes);
    }
}

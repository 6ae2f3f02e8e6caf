use super::invariants::reduced;
use super::*;
use crate::corefile::tests::{note, segment, status, words};
use proptest::prelude::*;

/// A core of hand: threads with their stack pointers, and segments: address, size in memory, flags,
/// contents.
fn core(threads: &[[u64; 3]], segments: &[(u64, u64, u64, Vec<u8>)], auxv: &[u64]) -> Vec<u8> {
    let mut notes: Vec<u8> = Vec::new();
    for (tid, [pc, sp, fp]) in (1..).zip(threads) {
        notes.extend(status(tid, *pc, *sp, *fp));
    }
    notes.extend(note(6, &words(auxv)));
    let files = [&words(&[1, 4096, CODE, CODE + 0x5000, 0]), &b"/bin/a\0"[..]].concat();
    notes.extend(note(0x4649_4c45, &files));
    let count = segments.len() as u64 + 1;
    let is_many = count >= 0xffff;
    let number = if is_many { 0xffff } else { count as u16 };
    let start = 64 + 56 * count;
    let mut at = start + notes.len() as u64;
    let mut heads = segment(4, 0, start, 0, notes.len() as u64, 0);
    for (address, size, flags, bytes) in segments {
        heads.extend(segment(1, *flags, at, *address, bytes.len() as u64, *size));
        at += bytes.len() as u64;
    }
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0".to_vec();
    out.extend(words(&[0, 64, if is_many { at } else { 0 }]));
    out.extend([0, 0, 0, 0, 64, 0, 56, 0]);
    out.extend(number.to_le_bytes());
    out.extend([64, 0, u8::from(is_many), 0, 0, 0]);
    out.extend(heads);
    out.extend(notes);
    segments.iter().for_each(|(_, _, _, bytes)| out.extend(bytes));
    if is_many {
        let mut section = [0; 64];
        section[44..48].copy_from_slice(&(count as u32).to_le_bytes());
        out.extend(section);
    }
    out
}

fn small(core: &Vec<u8>, keep: KeptMemory) -> Vec<u8> {
    reduced(core);
    let mut out = Vec::new();
    let small = SmallCore::of_file(core, keep).unwrap();
    small
        .write(&mut |bytes| {
            out.extend_from_slice(bytes);
            anyhow::Ok(())
        })
        .unwrap();
    out
}

/// What of some memory the small core has.
fn has(small: &Vec<u8>, address: u64, size: usize) -> Option<Vec<u8>> {
    let image = CoreImage::parse(small).unwrap();
    let mut bytes = vec![0; size];
    image.memory.read(address, &mut bytes).map(|()| bytes)
}

const CODE: u64 = 0x40_0000;
const STACK: u64 = 0x7fff_0000;
const HEAP: u64 = 0x1000_0000;

/// A heap of 16 MiB, and a stack whose first word points into it.
fn usual(sp: u64) -> Vec<u8> {
    let heap: Vec<u8> = vec![3; 16 << 20];
    let mut stack = vec![9; 0x3000];
    stack[0x2000..0x2008].copy_from_slice(&(HEAP + 0x5010).to_le_bytes());
    let code = (CODE, 0x5000, 5, Vec::new());
    let heap = (HEAP, 16 << 20, 6, heap);
    core(&[[CODE + 0x10, sp, 0]], &[code, heap, (STACK, 0x3000, 6, stack)], &[0, 0])
}

#[test]
fn stacks_and_what_they_point_to() {
    let whole = usual(STACK + 0x2000);
    let stacks = small(&whole, KeptMemory::Stacks);
    assert!(stacks.len() < 16 << 10, "{} bytes", stacks.len());
    assert_eq!(has(&stacks, STACK + 0x2000, 0x1000), has(&whole, STACK + 0x2000, 0x1000));
    assert!(has(&stacks, STACK + 0x2000 - 128, 128).is_some(), "no red zone");
    assert_eq!(has(&stacks, STACK, 8), None, "memory below the stack");
    assert_eq!(has(&stacks, HEAP + 0x5000, 0x1000), has(&whole, HEAP + 0x5000, 0x1000));
    assert_eq!(has(&stacks, HEAP + 0x4000, 8), None, "memory that nothing points to");
    let only = small(&whole, KeptMemory::StacksOnly);
    assert_eq!(has(&only, STACK + 0x2000, 0x1000), has(&whole, STACK + 0x2000, 0x1000));
    assert_eq!(has(&only, HEAP + 0x5000, 8), None, "the heap");
    // Code that was not dumped is announced as before.
    let image = CoreImage::parse(&stacks).unwrap();
    assert!(image.is_code(0x40_4fff) && !image.is_code(HEAP));
    assert_eq!(image.missing(), 0);
    // A small core of a small core is the same.
    assert_eq!(small(&stacks, KeptMemory::Stacks), stacks);
}

#[test]
fn stack_pointers_that_lead_nowhere() {
    for sp in [0, 1, 8, STACK - (2 << 20), STACK + 0x3000, 1 << 47, u64::MAX, u64::MAX - 200] {
        let stacks = small(&usual(sp), KeptMemory::Stacks);
        assert_eq!(has(&stacks, STACK, 8), None, "{sp:#x}");
        assert!(stacks.len() < 4 << 10, "{sp:#x}: {} bytes", stacks.len());
    }
    // After an overflow it is a little below its stack.
    let stacks = small(&usual(STACK - 0x800), KeptMemory::Stacks);
    assert!(has(&stacks, STACK, 0x3000).is_some());
    // On the heap no stack has 16 MiB.
    let stacks = small(&usual(HEAP + 0x1000), KeptMemory::StacksOnly);
    assert!(stacks.len() <= (8 << 20) + (64 << 10), "{} bytes", stacks.len());
}

#[test]
fn many_threads_share_the_room() {
    let place = |i: u64| STACK + 0x1000 * i;
    let threads: Vec<[u64; 3]> = (0..10_000).map(|i| [1, place(i), 0]).collect();
    let segments: Vec<_> = (0..10_000).map(|i| (place(i), 0x100, 6, vec![7; 0x100])).collect();
    let whole = core(&threads, &segments, &[0, 0]);
    let stacks = small(&whole, KeptMemory::Stacks);
    let image = CoreImage::parse(&stacks).unwrap();
    assert_eq!(image.notes.threads.len(), 10_000);
    assert!(has(&stacks, place(9_999), 0x100).is_some(), "the last thread has no stack");
}

#[test]
fn more_segments_than_the_header_has_room_for() {
    let mut segments: Vec<(u64, u64, u64, Vec<u8>)> =
        (0..66_000).map(|i| (0x10_0000 + i * 0x2000, 0x1000, 4, Vec::new())).collect();
    segments.push((STACK, 0x1000, 6, vec![5; 0x1000]));
    let whole = core(&[[1, STACK + 0x800, 0]], &segments, &[0, 0]);
    assert_eq!(CoreImage::parse(&whole).unwrap().segments.len(), 66_001);
    let stacks = small(&whole, KeptMemory::Stacks);
    assert_eq!(CoreImage::parse(&stacks).unwrap().segments.len(), 66_001);
    assert_eq!(has(&stacks, STACK + 0x800, 0x800), Some(vec![5; 0x800]));
}

/// Where a signal handler has a stack of its own, the one that it interrupted is kept too.
#[test]
fn interrupted_stacks() {
    const OTHER: u64 = 0x6000_0000;
    let mut handlers = vec![0; 0x1000];
    let mut word = |at: usize, value: u64| {
        handlers[0x400 + 8 * at..0x408 + 8 * at].copy_from_slice(&value.to_le_bytes());
    };
    word(15, STACK + 0x2000);
    word(18, 0x002b_0000_0000_0033);
    let segments = [(OTHER, 0x1000, 6, handlers), (STACK, 0x3000, 6, vec![9; 0x3000])];
    let whole = core(&[[1, OTHER + 0x100, 0]], &segments, &[0, 0]);
    let stacks = small(&whole, KeptMemory::StacksOnly);
    assert_eq!(has(&stacks, STACK + 0x2000, 8), Some(vec![9; 8]));
    assert_eq!(has(&stacks, STACK + 0x1000, 8), None);
}

/// Which mapped file is a module is told as of the whole core, whatever was dumped of it.
#[test]
fn modules_of_the_whole_core() {
    let program = [&b"\x7fELF"[..], &[0; 0xffc]].concat();
    let stack = || (STACK, 0x1000, 6, vec![5; 0x1000]);
    for (flags, dumped, others, is_module) in [
        // As the kernel announces it: code and data, dumped or not.
        (5, 0x4000, 0x1000, true),
        (5, 0, 0x1000, true),
        (4, 0x4000, 0x1000, false),
        (4, 0, 0x1000, false),
        // As gdb does, which announces nothing that it does not dump.
        (5, 0x4000, 0, true),
        (4, 0x4000, 0, false),
        (4, 0x2000, 0, true),
    ] {
        let rest = if others == 0 { dumped as u64 } else { 0x4000 };
        let segments = [
            (CODE, 0x1000, 4, program.clone()),
            (CODE + 0x1000, rest, flags, vec![7; dumped]),
            (HEAP, others, 6, Vec::new()),
            stack(),
        ];
        let whole = core(&[[1, STACK + 8, 0]], &segments, &[0, 0]);
        let modules = |core: &Vec<u8>| crate::corefile::overview(core).unwrap().modules;
        assert_eq!(!modules(&whole).is_empty(), is_module, "{flags} {dumped:#x} {others:#x}");
        for keep in [KeptMemory::Stacks, KeptMemory::StacksOnly] {
            let stacks = small(&whole, keep);
            assert!(stacks.len() < 10 << 10, "{} bytes", stacks.len());
            assert_eq!(modules(&stacks), modules(&whole), "{flags} {dumped:#x} {others:#x}");
            assert_eq!(small(&stacks, keep), stacks);
        }
    }
}

proptest! {
    #[test]
    fn whatever_the_registers_and_segments_say(
        threads in prop::collection::vec(any::<[u64; 3]>(), 1..4),
        segments in prop::collection::vec(
            (0u64..0x8000, 0u64..0x4000, 0u64..8, 0usize..0x4000),
            0..8,
        ),
        near in any::<bool>(),
        auxv in prop::collection::vec(0u64..0x9000, 0..6),
    ) {
        let segments: Vec<_> = segments
            .into_iter()
            .map(|(at, size, flags, n)| (at, size, flags, (0..n).map(|i| (i * 8) as u8).collect()))
            .collect();
        let threads: Vec<_> =
            threads.into_iter().map(|t| if near { t.map(|r| r % 0x9000) } else { t }).collect();
        reduced(&core(&threads, &segments, &auxv));
    }

    #[test]
    fn damage_is_no_panic(at in 0usize..0x400, byte in any::<u8>()) {
        let stack = (STACK, 0x1000, 6, vec![5; 0x1000]);
        let mut whole = core(&[[1, STACK + 8, 0]], &[stack], &[3, 64]);
        let at = at % whole.len();
        whole[at] = byte;
        reduced(&whole);
    }
}

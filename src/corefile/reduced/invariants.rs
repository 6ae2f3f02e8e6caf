//! What must hold of small cores, whatever the core says.

use super::SmallCore;
use crate::config::KeptMemory;
use crate::corefile::head::CoreHead;
use crate::corefile::image::CoreImage;

/// Most bytes of memory in a small core.
const MOST: u64 = 100 << 20;

/// Any bytes, as a core: what is made of it is a core with the same notes, each byte of its memory
/// is the core's at that address, and there is not much of it.
pub(crate) fn reduced(core: &[u8]) {
    let core = core.to_vec();
    for keep in [KeptMemory::Stacks, KeptMemory::StacksOnly] {
        let Ok(small) = SmallCore::of_file(&core, keep) else { return };
        let mut bytes = Vec::new();
        small
            .write(&mut |part| {
                bytes.extend_from_slice(part);
                anyhow::Ok(())
            })
            .expect("it is a vector");
        let head = CoreHead::read(&core).expect("it was read");
        let whole = CoreImage::of(&head, &core).expect("it was read");
        let own = CoreHead::read(&bytes).expect("a core");
        assert_eq!(own.notes.concat(), head.notes.concat());
        let image = CoreImage::of(&own, &bytes).expect("a core");
        assert_eq!(image.missing(), 0);
        let kept = image.segments.iter().filter(|s| s.dumped.size > 0);
        assert!(kept.clone().map(|s| s.dumped.size).sum::<u64>() <= MOST);
        let mut last = 0;
        for segment in kept {
            assert!(last <= segment.start(), "{segment:?} overlaps");
            last = segment.start() + segment.dumped.size;
            let size = segment.dumped.size as usize;
            let (mut theirs, mut ours) = (vec![0; size], vec![0; size]);
            whole.memory.read(segment.start(), &mut theirs).expect("memory that was not there");
            image.memory.read(segment.start(), &mut ours).expect("memory that was announced");
            assert!(theirs == ours, "{segment:?} differs");
        }
    }
}

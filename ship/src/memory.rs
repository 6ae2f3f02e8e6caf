//! The memory that contents are in: a few blocks of all uploads together, which are used again and
//! again, so that it is the same whatever is uploaded.

use crate::state::Content;
use bytes::Bytes;
use object_store::PutPayload;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Size of a block in bytes.
pub(crate) const BLOCK: usize = 8 << 20;
/// Blocks of all uploads together.
pub(crate) const BLOCKS: usize = 4;

type Free = Arc<Mutex<Vec<Vec<u8>>>>;

/// All blocks.
#[derive(Clone)]
pub(crate) struct Memory {
    free: Free,
    room: Arc<Semaphore>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Memory { free: Free::default(), room: Arc::new(Semaphore::new(BLOCKS)) }
    }

    /// Waits for some blocks, 4 at most. Who waits must hold none: so nobody waits for ever.
    pub(crate) async fn room(&self, blocks: usize) -> Room {
        let permit = self.room.clone().acquire_many_owned(blocks.min(BLOCKS) as u32).await;
        Room { free: self.free.clone(), permit: permit.ok() }
    }

    /// Some blocks, if they are free now.
    pub(crate) fn room_now(&self, blocks: usize) -> Option<Room> {
        let permit = self.room.clone().try_acquire_many_owned(blocks as u32).ok()?;
        Some(Room { free: self.free.clone(), permit: Some(permit) })
    }
}

/// Blocks that are somebody's, and not used yet.
pub(crate) struct Room {
    free: Free,
    permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// The next of them; `None` after the last.
    pub(crate) fn block(&mut self) -> Option<Block> {
        let permit = self.permit.as_mut()?.split(1)?;
        let bytes = self.free.lock().ok()?.pop();
        let bytes = bytes.unwrap_or_else(|| Vec::with_capacity(BLOCK));
        Some(Block { bytes, free: self.free.clone(), _permit: permit })
    }
}

/// One block. It goes back when nobody has it any more.
pub(crate) struct Block {
    pub bytes: Vec<u8>,
    free: Free,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.bytes.clear();
        if let Ok(mut free) = self.free.lock() {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// A content, or a part of one.
#[derive(Clone, Default)]
pub(crate) struct Text(Vec<Bytes>);

impl Text {
    pub(crate) fn push(&mut self, bytes: Bytes) {
        self.0.push(bytes);
    }

    /// Its size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Its size and hash.
    pub(crate) fn content(&self) -> Content {
        let mut hash = Hash::default();
        self.pieces().for_each(|piece| hash.add(piece));
        hash.end()
    }

    /// Reads it as JSON.
    ///
    /// # Errors
    /// It is none, or lacks something.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        match self.0.as_slice() {
            [one] => serde_json::from_slice(one),
            all => {
                let mut read: Box<dyn Read + '_> = Box::new(std::io::empty());
                for piece in all {
                    read = Box::new(read.chain(piece.as_ref()));
                }
                serde_json::from_reader(read)
            }
        }
    }

    /// Adds a member to a JSON object, which must have others, as its last.
    pub(crate) fn add_member(&mut self, name: &str, value: &serde_json::Value) {
        while let Some(last) = self.0.pop() {
            if let Some(end) = last.iter().rposition(|byte| *byte == b'}') {
                self.0.push(last.slice(..end));
                self.0.push(format!(",{name:?}:{value}}}\n").into());
                break;
            }
        }
    }
}

impl From<Text> for PutPayload {
    fn from(text: Text) -> Self {
        text.0.into_iter().collect()
    }
}

impl From<Bytes> for Text {
    fn from(bytes: Bytes) -> Self {
        Text(vec![bytes])
    }
}

/// Hashes a stream as it passes.
#[derive(Default)]
pub(crate) struct Hash(Sha256, u64);

impl Hash {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
        self.1 += bytes.len() as u64;
    }

    pub(crate) fn end(self) -> Content {
        let digest = self.0.finalize();
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Content { size: self.1, sha256 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn filled(room: &mut Room) -> Bytes {
        let mut block = room.block().unwrap();
        block.bytes.extend([7; 100]);
        Bytes::from_owner(block)
    }

    #[test]
    fn blocks_come_back() {
        let memory = Memory::new();
        let mut room = memory.room_now(BLOCKS).unwrap();
        let all: Vec<Bytes> = (0..BLOCKS).map(|_| filled(&mut room)).collect();
        assert!(room.block().is_none() && memory.room_now(1).is_none());
        let again = all[0].slice(3..);
        drop((room, all));
        assert!(memory.room_now(BLOCKS).is_none(), "one is still used");
        drop(again);
        let mut room = memory.room_now(BLOCKS).unwrap();
        assert_eq!(memory.free.lock().unwrap().len(), BLOCKS);
        assert_eq!(filled(&mut room).len(), 100, "what was in it before has gone");
    }

    #[test]
    fn a_member_is_added() {
        for pieces in [vec!["{\"a\":1}\n"], vec!["{\"a\"", ":1}", "\n"], vec!["{\"a\":{}", "}"]] {
            let mut text = Text(pieces.iter().map(|piece| Bytes::from(*piece)).collect());
            let before: Value = text.json().unwrap();
            text.add_member("b", &json!({"c": "d"}));
            let after: Value = text.json().unwrap();
            assert_eq!((&after["a"], &after["b"]["c"]), (&before["a"], &json!("d")), "{pieces:?}");
            assert_eq!(text.content().size, text.len() as u64);
        }
    }
}

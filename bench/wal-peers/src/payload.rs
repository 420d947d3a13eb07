//! What entries carry: random bytes of a fixed seed, made before anything is timed.

use bench_harness::random::Random;
use bytes::Bytes;

use crate::Result;

/// Different payloads of one size. Entries take them in turn.
///
/// The first 8 bytes of each are its number, so that whoever reads one back can tell whether all of it is right. The
/// rest does not compress.
pub struct Payloads {
    slots: Vec<Bytes>,
}

impl Payloads {
    /// About a MiB of payloads, a multiple of 64 of them.
    pub fn new(bytes_each: usize) -> Self {
        let mut random = Random::new(0x5eed);
        let count = ((1 << 20) / bytes_each).next_multiple_of(64);
        let one = |slot: usize| {
            let mut payload = Vec::with_capacity(bytes_each + 8);
            payload.extend_from_slice(&(slot as u64).to_le_bytes());
            while payload.len() < bytes_each {
                payload.extend_from_slice(&random.next().to_le_bytes());
            }
            payload.truncate(bytes_each);
            Bytes::from(payload)
        };
        Self { slots: (0..count).map(one).collect() }
    }

    /// All, in groups of `batch`.
    pub fn batches(&self, batch: usize) -> impl Iterator<Item = &[Bytes]> {
        self.slots.chunks_exact(batch)
    }

    /// The number of a payload that was read back.
    ///
    /// # Errors
    /// It is none of ours.
    pub fn slot_of(&self, data: &[u8]) -> Result<usize> {
        let number = data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes) as usize);
        match number.filter(|slot| self.slots.get(*slot).is_some_and(|payload| payload == data)) {
            Some(slot) => Ok(slot),
            None => Err(format!("read back {} bytes that nobody wrote", data.len()).into()),
        }
    }

    /// Refuses a payload that is not the one of the entry with this index, counted from 1.
    pub fn check(&self, index: u64, data: &[u8]) -> Result<()> {
        let expected = (index as usize - 1) % self.slots.len();
        match self.slot_of(data)? {
            slot if slot == expected => Ok(()),
            slot => Err(format!("entry {index} carries payload {slot} instead of {expected}").into()),
        }
    }
}

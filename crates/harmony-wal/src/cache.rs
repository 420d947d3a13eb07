//! The newest entries in memory: what followers and apply read never touches the disk.

use harmony_types::{Entry, LogIndex, WalOffset};

use crate::blocks::Blocks;

/// Entries that share one block of memory, 32 KiB.
const BLOCK_ENTRIES: usize = 512;

/// Memory of an entry beside its data: small entries are bounded too.
const ENTRY_BYTES: u64 = size_of::<(WalOffset, Entry)>() as u64;

const _: () = assert!(ENTRY_BYTES <= 64);

/// A run of entries up to the last one of the log, bounded in bytes, but never without what is not yet written.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: Blocks<(WalOffset, Entry), BLOCK_ENTRIES>,
    /// Of data and of the entries themselves.
    bytes: u64,
    bytes_max: u64,
}

impl Cache {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { entries: Blocks::new(), bytes: 0, bytes_max }
    }

    /// The entry at `index`, if it is here.
    pub(crate) fn get(&self, index: LogIndex) -> Option<&Entry> {
        let first = self.entries.first()?.1.index;
        let position = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
        self.entries.get(position).map(|(_, entry)| entry)
    }

    /// Adds the entry behind the last one; `offset` is where it stands or will stand.
    pub(crate) fn push(&mut self, offset: WalOffset, entry: Entry) {
        if let Some((_, last)) = self.entries.last() {
            assert_eq!(last.index.next(), entry.index, "the cache is one run");
        }
        self.bytes += bytes_of(&entry);
        self.entries.push((offset, entry));
    }

    /// Drops the entries from `from` on.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        while self.entries.last().is_some_and(|(_, entry)| from <= entry.index) {
            let (_, entry) = self.entries.pop_last().expect("there is one");
            self.bytes -= bytes_of(&entry);
        }
    }

    /// Drops the entries up to `upto`.
    pub(crate) fn release(&mut self, upto: LogIndex) {
        while self.entries.first().is_some_and(|(_, entry)| entry.index <= upto) {
            self.pop_front();
        }
    }

    /// Gives up the oldest entries that stand before `written` until the rest fits.
    pub(crate) fn trim(&mut self, written: WalOffset) {
        while self.bytes_max < self.bytes && self.entries.first().is_some_and(|(offset, _)| *offset < written)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, entry)) = self.entries.pop_first() {
            self.bytes -= bytes_of(&entry);
        }
    }
}

fn bytes_of(entry: &Entry) -> u64 {
    ENTRY_BYTES + entry.data.len() as u64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn cache_of(indexes: std::ops::RangeInclusive<u64>) -> Cache {
        let mut cache = Cache::new(2 * (ENTRY_BYTES + 10));
        for index in indexes {
            let entry =
                Entry { index: LogIndex(index), data: Bytes::from_static(&[1; 10]), ..Entry::default() };
            cache.push(WalOffset(index), entry);
        }
        cache
    }

    #[test]
    fn what_is_not_written_is_kept_whatever_the_bound() {
        let mut cache = cache_of(1..=5);
        cache.trim(WalOffset(2));
        assert!(cache.get(LogIndex(1)).is_none());
        assert!((2..=5).all(|index| cache.get(LogIndex(index)).is_some()));
        cache.trim(WalOffset(9));
        assert!(cache.get(LogIndex(3)).is_none());
        assert_eq!(cache.get(LogIndex(4)).unwrap().index, LogIndex(4));
    }

    #[test]
    fn both_ends_can_be_dropped() {
        let mut cache = cache_of(1..=5);
        cache.truncate(LogIndex(4));
        cache.release(LogIndex(1));
        assert!(cache.get(LogIndex(4)).is_none() && cache.get(LogIndex(1)).is_none());
        assert_eq!(cache.bytes, 2 * (ENTRY_BYTES + 10));
    }

    #[test]
    fn entries_without_data_are_bounded_too() {
        let mut cache = Cache::new(10 * ENTRY_BYTES);
        for index in 1..=100 {
            cache.push(WalOffset(index), Entry { index: LogIndex(index), ..Entry::default() });
        }
        cache.trim(WalOffset(101));
        assert!(cache.get(LogIndex(90)).is_none() && cache.get(LogIndex(91)).is_some());
    }
}

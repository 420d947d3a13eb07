//! The newest entries in memory: what followers and apply read never touches the disk.

use std::collections::VecDeque;

use harmony_types::{Entry, LogIndex, WalOffset};

/// A run of entries up to the last one of the log, bounded in bytes of data, but never without what is not yet written.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: VecDeque<(WalOffset, Entry)>,
    bytes: u64,
    bytes_max: u64,
}

impl Cache {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// The entry at `index`, if it is here.
    pub(crate) fn get(&self, index: LogIndex) -> Option<&Entry> {
        let first = self.entries.front()?.1.index;
        let position = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
        self.entries.get(position).map(|(_, entry)| entry)
    }

    /// Adds the entry behind the last one; `offset` is where it stands or will stand.
    pub(crate) fn push(&mut self, offset: WalOffset, entry: Entry) {
        if let Some((_, last)) = self.entries.back() {
            assert_eq!(last.index.next(), entry.index, "the cache is one run");
        }
        self.bytes += entry.data.len() as u64;
        self.entries.push_back((offset, entry));
    }

    /// Drops the entries from `from` on.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        while self.entries.back().is_some_and(|(_, entry)| from <= entry.index) {
            let (_, entry) = self.entries.pop_back().expect("there is one");
            self.bytes -= entry.data.len() as u64;
        }
    }

    /// Drops the entries up to `upto`.
    pub(crate) fn release(&mut self, upto: LogIndex) {
        while self.entries.front().is_some_and(|(_, entry)| entry.index <= upto) {
            self.pop_front();
        }
    }

    /// Gives up the oldest entries that stand before `written` until the rest fits.
    pub(crate) fn trim(&mut self, written: WalOffset) {
        while self.bytes_max < self.bytes && self.entries.front().is_some_and(|(offset, _)| *offset < written)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, entry)) = self.entries.pop_front() {
            self.bytes -= entry.data.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn cache_of(indexes: std::ops::RangeInclusive<u64>) -> Cache {
        let mut cache = Cache::new(20);
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
        assert_eq!(cache.bytes, 20);
    }
}

//! A queue in blocks: growing copies nothing, what leaves at either end is given back, and a few blocks are used again.
//!
//! A ring that doubles would hold up to twice what is in it, three times while it grows, and never shrink: too much for
//! millions of entries.

use std::collections::VecDeque;

/// Blocks kept for reuse: a queue that gains at one end what it loses at the other allocates nothing.
const SPARES_MAX: usize = 32;

/// Items in the order in which they came, in blocks of `N` places. Invariants: `start < N` places of the first block were
/// left, behind them `len` places are taken without a gap, and there is no block without a place left or taken.
#[derive(Debug)]
pub(crate) struct Blocks<T, const N: usize> {
    blocks: VecDeque<VecDeque<T>>,
    start: usize,
    len: usize,
    /// Blocks without items, for the next that are needed.
    spares: Vec<VecDeque<T>>,
}

impl<T, const N: usize> Blocks<T, N> {
    pub(crate) fn new() -> Self {
        const { assert!(N.is_power_of_two()) };
        Self { blocks: VecDeque::new(), start: 0, len: 0, spares: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The item that `position` others stand before.
    pub(crate) fn get(&self, position: usize) -> Option<&T> {
        let place = self.start + position;
        let before = if place < N { self.start } else { 0 };
        self.blocks.get(place / N)?.get(place % N - before)
    }

    pub(crate) fn first(&self) -> Option<&T> {
        self.blocks.front()?.front()
    }

    pub(crate) fn last(&self) -> Option<&T> {
        self.blocks.back()?.back()
    }

    /// Adds an item at the end. Allocates once in `N` items, unless a block is spare.
    pub(crate) fn push(&mut self, item: T) {
        if (self.start + self.len).is_multiple_of(N) {
            let block = self.spares.pop().unwrap_or_else(|| VecDeque::with_capacity(N));
            self.blocks.push_back(block);
        }
        self.blocks.back_mut().expect("the last block has a place, or was just added").push_back(item);
        self.len += 1;
    }

    /// Takes the first item.
    pub(crate) fn pop_first(&mut self) -> Option<T> {
        let item = self.blocks.front_mut()?.pop_front()?;
        self.left(1);
        Some(item)
    }

    /// Takes the last item.
    pub(crate) fn pop_last(&mut self) -> Option<T> {
        let item = self.blocks.back_mut()?.pop_back()?;
        self.len -= 1;
        self.drop_blocks_behind();
        Some(item)
    }

    /// Drops all items but the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        if self.len <= len {
            return;
        }
        self.len = len;
        self.drop_blocks_behind();
        if let Some(block) = self.blocks.len().checked_sub(1) {
            let before = if block == 0 { self.start } else { 0 };
            self.blocks[block].truncate(self.start + len - block * N - before);
        }
    }

    /// Drops the first `count` items, or all.
    pub(crate) fn drop_first(&mut self, count: usize) {
        let mut count = count.min(self.len);
        while 0 < count {
            let Some(block) = self.blocks.front_mut() else { return };
            let dropped = block.len().min(count);
            block.drain(..dropped);
            self.left(dropped);
            count -= dropped;
        }
    }

    /// The first item that `before` is false for, or the end. It must be false for all behind that.
    pub(crate) fn partition_point(&self, before: impl Fn(&T) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(&before) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// `count` items left the first block.
    fn left(&mut self, count: usize) {
        self.len -= count;
        self.start += count;
        if self.start == N {
            self.start = 0;
            let block = self.blocks.pop_front();
            self.keep(block);
        }
    }

    fn drop_blocks_behind(&mut self) {
        while (self.start + self.len).div_ceil(N) < self.blocks.len() {
            let block = self.blocks.pop_back();
            self.keep(block);
        }
    }

    fn keep(&mut self, block: Option<VecDeque<T>>) {
        if let Some(mut block) = block.filter(|_| self.spares.len() < SPARES_MAX) {
            block.clear();
            self.spares.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use harmony_types::fake::seed::for_each_seed;

    use super::*;

    #[test]
    fn it_is_a_queue_whatever_leaves_at_either_end() {
        for_each_seed(0..20, 2, |_, rng| {
            let (mut blocks, mut queue) = (Blocks::<u64, 8>::new(), VecDeque::new());
            for item in 0..2_000 {
                match rng.below(12) {
                    0 => assert_eq!(blocks.pop_first(), queue.pop_front()),
                    1 => assert_eq!(blocks.pop_last(), queue.pop_back()),
                    2 => {
                        let len = rng.index(0..queue.len() + 2);
                        blocks.truncate(len);
                        queue.truncate(len);
                    }
                    3 => {
                        let count = rng.index(0..queue.len() + 2);
                        blocks.drop_first(count);
                        queue.drain(..count.min(queue.len()));
                    }
                    _ => {
                        for item in item..item + rng.below(6) {
                            blocks.push(item);
                            queue.push_back(item);
                        }
                    }
                }
                assert_eq!((blocks.first(), blocks.last()), (queue.front(), queue.back()));
                assert_eq!(blocks.len(), queue.len());
                let items: Vec<_> = (0..=queue.len()).map_while(|position| blocks.get(position)).collect();
                assert!(items.iter().copied().eq(queue.iter()), "{items:?} is not {queue:?}");
                assert!(blocks.blocks.len() <= queue.len() / 8 + 2, "a block for nothing");
            }
        });
    }

    #[test]
    fn a_place_is_found_by_halving() {
        let mut blocks = Blocks::<u64, 8>::new();
        (0..50).for_each(|item| blocks.push(item));
        blocks.drop_first(10);
        assert_eq!(blocks.partition_point(|item| *item < 33), 23);
        assert_eq!(blocks.partition_point(|_| false), 0);
        assert_eq!(blocks.partition_point(|_| true), 40);
    }

    #[test]
    fn a_block_is_used_again() {
        let mut blocks = Blocks::<u64, 8>::new();
        (0..9).for_each(|item| blocks.push(item));
        let first = std::ptr::from_ref(blocks.first().unwrap());
        blocks.drop_first(8);
        (9..17).for_each(|item| blocks.push(item));
        assert_eq!(std::ptr::from_ref(blocks.get(8).unwrap()), first);
    }
}

//! The bytes of one file: sparse, in shared pages, so that an image of a disk costs little.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE_BYTES: usize = 4096;

/// Bytes `0..len`; a page that is not there reads as zeros, and no page holds anything but zeros beyond `len`.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE_BYTES]>>,
    /// Parts that take no space on the disk, start to end: apart from each other, none beyond `len`.
    holes: BTreeMap<u64, u64>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes that it takes on the disk.
    pub(super) fn used_bytes(&self) -> u64 {
        self.len - self.holes.iter().map(|(start, end)| end - start).sum::<u64>()
    }

    /// Bytes of `start..end` that take no space yet: what writing there costs.
    pub(super) fn missing_bytes(&self, start: u64, end: u64) -> u64 {
        let in_hole = |(from, to): (&u64, &u64)| (*to).min(end).saturating_sub((*from).max(start));
        self.holes.iter().map(in_hole).sum::<u64>() + end.saturating_sub(self.len.max(start))
    }

    /// Where a write from `start` to `end` stops on a disk with so many bytes left.
    pub(super) fn fits_until(&self, start: u64, end: u64, free: u64) -> u64 {
        let mut at = start;
        let mut left = free;
        for (from, to) in self.holes.iter().filter(|(_, to)| start < **to) {
            let from = (*from).max(start);
            if end <= from || from + left < *to {
                return end.min(from + left);
            }
            left -= to - from;
            at = *to;
        }
        end.min(at.max(self.len).saturating_add(left))
    }

    /// Takes space for `start..end`.
    fn fill(&mut self, start: u64, end: u64) {
        let touched: Vec<(u64, u64)> = self
            .holes
            .range(..end)
            .rev()
            .take_while(|(_, to)| start < **to)
            .map(|(&from, &to)| (from, to))
            .collect();
        for (from, to) in touched {
            self.holes.remove(&from);
            if from < start {
                self.holes.insert(from, start);
            }
            if end < to {
                self.holes.insert(end, to);
            }
        }
    }

    /// A hole from the end to `len`.
    fn extend(&mut self, len: u64) {
        if self.len < len {
            let start = match self.holes.last_key_value() {
                Some((start, end)) if *end == self.len => *start,
                _ => self.len,
            };
            self.holes.insert(start, len);
            self.len = len;
        }
    }

    /// Takes space up to `len`, and is at least so long.
    pub(super) fn allocate(&mut self, len: u64) {
        self.extend(len);
        self.fill(0, len);
    }

    /// Copies from `offset` on; returns how many bytes there were.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = there.min(buffer.len());
        for_each_page(offset, count, |page, start, range| match self.pages.get(&page) {
            Some(bytes) => {
                let len = range.len();
                buffer[range].copy_from_slice(&bytes[start..start + len]);
            }
            None => buffer[range].fill(0),
        });
        count
    }

    /// Overwrites from `offset` on, growing the file when needed; a gap reads as zeros.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        for_each_page(offset, bytes.len(), |page, start, range| {
            let piece = &bytes[range];
            if !self.pages.contains_key(&page) && piece.iter().all(|&byte| byte == 0) {
                return;
            }
            let target = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(target)[start..start + piece.len()].copy_from_slice(piece);
        });
        let end = offset + bytes.len() as u64;
        self.extend(end);
        self.fill(offset, end);
    }

    /// Cuts or extends with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (page, start) = locate(len);
            let _ = self.pages.split_off(&(page + u64::from(start != 0)));
            if start != 0
                && let Some(last) = self.pages.get_mut(&page)
            {
                Arc::make_mut(last)[start..].fill(0);
            }
            let _ = self.holes.split_off(&len);
            if let Some(mut last) = self.holes.last_entry() {
                let end = last.get_mut();
                *end = len.min(*end);
            }
            self.len = len;
        }
        self.extend(len);
    }

    /// Everything.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).expect("a file in memory fits into memory")];
        self.read(&mut bytes, 0);
        bytes
    }
}

fn locate(offset: u64) -> (u64, usize) {
    let page_bytes = PAGE_BYTES as u64;
    (offset / page_bytes, usize::try_from(offset % page_bytes).expect("less than a page"))
}

/// Calls `visit(page, start in the page, range of the caller's buffer)` for each page that the range touches.
fn for_each_page(offset: u64, count: usize, mut visit: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < count {
        let (page, start) = locate(offset + done as u64);
        let end = count.min(done + PAGE_BYTES - start);
        visit(page, start, done..end);
        done = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::seed::for_each_seed;

    #[test]
    fn behaves_as_a_vector_of_bytes() {
        for_each_seed(0..20, 5, |_, rng| {
            let (mut content, mut model) = (Content::default(), Vec::new());
            for _ in 0..60 {
                let offset = rng.index(0..3 * PAGE_BYTES);
                if rng.chance(1, 4) {
                    content.set_len(offset as u64);
                    model.resize(offset, 0);
                } else {
                    let count = rng.index(0..2 * PAGE_BYTES);
                    let bytes = if rng.chance(1, 5) { vec![0; count] } else { rng.bytes(count) };
                    content.write(&bytes, offset as u64);
                    if !bytes.is_empty() {
                        model.resize(model.len().max(offset + count), 0);
                        model[offset..offset + count].copy_from_slice(&bytes);
                    }
                }
                assert_eq!(content.len(), model.len() as u64);
                assert!(content.to_vec() == model, "bytes differ");
            }
        });
    }

    #[test]
    fn holes_take_no_space_until_they_are_written() {
        for_each_seed(0..20, 5, |_, rng| {
            let mut content = Content::default();
            // Whether each byte takes space.
            let mut model: Vec<bool> = Vec::new();
            for _ in 0..60 {
                let (start, count) = (rng.index(0..60), rng.index(0..20));
                let end = start + count;
                let missing = (start..end).filter(|at| !model.get(*at).is_some_and(|used| *used));
                assert_eq!(content.missing_bytes(start as u64, end as u64), missing.clone().count() as u64);
                let free = rng.index(0..20);
                let stop = missing.clone().nth(free).unwrap_or(end);
                assert_eq!(content.fits_until(start as u64, end as u64, free as u64), stop as u64);
                match rng.below(3) {
                    0 => {
                        content.set_len(start as u64);
                        model.resize(start, false);
                    }
                    1 => {
                        content.allocate(start as u64);
                        model.resize(model.len().max(start), false);
                        model[..start].fill(true);
                    }
                    _ if count == 0 => {}
                    _ => {
                        content.write(&vec![7; count], start as u64);
                        model.resize(model.len().max(end), false);
                        model[start..end].fill(true);
                    }
                }
                assert_eq!(content.len(), model.len() as u64);
                assert_eq!(content.used_bytes(), model.iter().filter(|used| **used).count() as u64);
            }
        });
    }

    #[test]
    fn reads_stop_at_the_end() {
        let mut content = Content::default();
        content.write(b"abc", PAGE_BYTES as u64 - 1);
        let mut buffer = [9; 5];
        assert_eq!(content.read(&mut buffer, PAGE_BYTES as u64), 2);
        assert_eq!(buffer, [b'b', b'c', 9, 9, 9]);
        assert_eq!(content.read(&mut buffer, 1 << 40), 0);
    }

    #[test]
    fn zeros_cost_no_pages_and_clones_share_them() {
        let mut content = Content::default();
        content.write(&vec![0; 1 << 20], 0);
        assert_eq!((content.len(), content.pages.len()), (1 << 20, 0));
        content.write(b"x", 5);
        let image = content.clone();
        content.write(b"y", 5);
        assert_eq!((image.to_vec()[5], content.to_vec()[5]), (b'x', b'y'));
    }
}

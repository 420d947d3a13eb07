//! Checksums of many ranges of one buffer for the price of little more than one pass over it.
//!
//! Whoever looks for frames in bytes of unknown origin would otherwise pay for each range anew: bytes that look like a
//! header every 8 bytes, each with a length up to the end, make that quadratic.

use std::ops::Range;

use crc32fast::Hasher;

/// One checksum is remembered for so many bytes: 4 bytes of memory for 64.
const STRIDE_BYTES: usize = 64;

/// The checksums of all prefixes of `bytes`, computed when first needed.
pub(crate) struct RangeSums<'a> {
    bytes: &'a [u8],
    /// CRC-32 of the first `slot * STRIDE_BYTES` bytes.
    prefixes: Vec<u32>,
    /// Bytes that went through the checksum so far.
    hashed: usize,
}

impl<'a> RangeSums<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, prefixes: Vec::new(), hashed: 0 }
    }

    /// CRC-32 of `range`, going on from the checksum `before` of what comes before it.
    pub(crate) fn continued(&mut self, before: u32, range: Range<usize>) -> u32 {
        let bytes = range.len() as u64;
        // A CRC is linear: that of a range is that of the prefix up to its end, less what the prefix before it becomes
        // by the time the end is reached.
        let start = self.prefix(range.start);
        shifted(before ^ start, bytes) ^ self.prefix(range.end)
    }

    #[cfg(test)]
    pub(crate) fn hashed(&self) -> usize {
        self.hashed
    }

    fn prefix(&mut self, end: usize) -> u32 {
        let slot = end / STRIDE_BYTES;
        if self.prefixes.is_empty() {
            self.prefixes.push(0);
        }
        while self.prefixes.len() <= slot {
            let last = self.prefixes.len() - 1;
            let sum = self.hash(self.prefixes[last], last * STRIDE_BYTES..(last + 1) * STRIDE_BYTES);
            self.prefixes.push(sum);
        }
        self.hash(self.prefixes[slot], slot * STRIDE_BYTES..end)
    }

    fn hash(&mut self, before: u32, range: Range<usize>) -> u32 {
        self.hashed += range.len();
        let mut hasher = Hasher::new_with_initial(before);
        hasher.update(&self.bytes[range]);
        hasher.finalize()
    }
}

/// What `sum` becomes when so many bytes of another checksum's share follow.
fn shifted(sum: u32, bytes: u64) -> u32 {
    let mut hasher = Hasher::new_with_initial(sum);
    hasher.combine(&Hasher::new_with_initial_len(0, bytes));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_has_the_checksum_of_its_bytes() {
        let bytes: Vec<u8> = (0..300u32).map(|at| at.wrapping_mul(0x9E37_79B9).to_be_bytes()[1]).collect();
        let mut sums = RangeSums::new(&bytes);
        for start in 0..=bytes.len() {
            for end in start..=bytes.len() {
                for before in [0, 0xdead_beef] {
                    let mut hasher = Hasher::new_with_initial(before);
                    hasher.update(&bytes[start..end]);
                    assert_eq!(sums.continued(before, start..end), hasher.finalize(), "{start}..{end}");
                }
            }
        }
    }

    #[test]
    fn many_ranges_cost_little_more_than_one_pass() {
        let bytes = vec![7; 1 << 16];
        let mut sums = RangeSums::new(&bytes);
        for start in (0..bytes.len()).step_by(8) {
            sums.continued(0, start..bytes.len() - 1);
        }
        assert!(sums.hashed() <= bytes.len() + 2 * STRIDE_BYTES * bytes.len() / 8, "{}", sums.hashed());
    }
}

//! The block in which the log ends, held in memory so that a group can be written as whole blocks, past the page cache.
//!
//! A group starts somewhere in a block whose first part was written before, and ends somewhere in another. Written as blocks,
//! it repeats that first part, byte by byte as it stands on the disk, and zeros follow behind its end, where free space
//! reads as zeros anyway. So a torn write changes nothing that a torn write of the group alone would not: a sector of the
//! part that was there before is the same, be it written or not. (The page cache writes whole pages, too.)

/// See the module.
pub(crate) struct TailBlock {
    block_bytes: usize,
    /// Bytes of the last block that are used; fewer than a block.
    used: Vec<u8>,
    /// Room for blocks, and to align them.
    staging: Vec<u8>,
}

/// Blocks, and where they go.
pub(crate) struct Blocks<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: u64,
}

impl TailBlock {
    /// For groups of up to `group_bytes_max`. The log ends behind `used`, which starts at a block.
    pub(crate) fn new(block_bytes: usize, group_bytes_max: usize, used: &[u8]) -> Self {
        let staging = vec![0; group_bytes_max + 3 * block_bytes];
        let mut tail = Self { block_bytes, used: Vec::with_capacity(block_bytes), staging };
        tail.restart(used);
        tail
    }

    /// Size of a block.
    pub(crate) fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// The log ends behind `used`, which starts at a block.
    pub(crate) fn restart(&mut self, used: &[u8]) {
        assert!(used.len() < self.block_bytes, "{} bytes are more than a block", used.len());
        self.used.clear();
        self.used.extend_from_slice(used);
    }

    /// What `bytes`, no more than a group has, make of the blocks from the last one on. They start at `at`, where the log ends.
    pub(crate) fn blocks(&mut self, bytes: &[u8], at: u64) -> Blocks<'_> {
        let start = at - self.used.len() as u64;
        assert!(start.is_multiple_of(self.block_bytes as u64), "the log does not end at {at}");
        let used = self.used.len() + bytes.len();
        let whole = used.next_multiple_of(self.block_bytes);
        let aligned = self.staging.as_ptr().align_offset(self.block_bytes);
        let blocks = &mut self.staging[aligned..aligned + whole];
        let (head, rest) = blocks.split_at_mut(self.used.len());
        head.copy_from_slice(&self.used);
        let (body, padding) = rest.split_at_mut(bytes.len());
        body.copy_from_slice(bytes);
        padding.fill(0);
        Blocks { bytes: blocks, at: start }
    }

    /// The log goes on with `bytes`.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let used = (self.used.len() + bytes.len()) % self.block_bytes;
        if used <= bytes.len() {
            self.used.clear();
            self.used.extend_from_slice(&bytes[bytes.len() - used..]);
        } else {
            self.used.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However a log is cut into groups, the blocks written over each other are the log with zeros behind it.
    #[test]
    fn blocks_written_one_after_the_other_are_the_log() {
        for sizes in [&[1, 1, 62, 64, 65, 3][..], &[64, 64], &[130, 1, 1], &[63, 1, 64, 200], &[5]] {
            let mut tail = TailBlock::new(64, 200, &[]);
            let (mut log, mut disk) = (Vec::new(), Vec::new());
            for (group, size) in (1..).zip(sizes) {
                let bytes = vec![group; *size];
                let at = log.len() as u64;
                let blocks = tail.blocks(&bytes, at);
                assert_eq!(blocks.bytes.as_ptr().align_offset(64), 0);
                let start = usize::try_from(blocks.at).unwrap();
                disk.resize(disk.len().max(start + blocks.bytes.len()), 9);
                disk[start..start + blocks.bytes.len()].copy_from_slice(blocks.bytes);
                tail.push(&bytes);
                log.extend_from_slice(&bytes);
                assert_eq!(disk[..log.len()], log, "{sizes:?}");
                assert!(disk[log.len()..].iter().all(|byte| *byte == 0), "{sizes:?}");
            }
        }
    }

    #[test]
    fn it_goes_on_where_a_log_ends() {
        let mut tail = TailBlock::new(64, 200, &[7; 10]);
        let blocks = tail.blocks(&[8; 4], 64 * 5 + 10);
        assert_eq!((blocks.at, blocks.bytes.len()), (64 * 5, 64));
        assert_eq!(blocks.bytes[..15], [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 8, 8, 8, 0]);
    }
}

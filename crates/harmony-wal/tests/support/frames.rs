//! A writer of segments made of `docs/format.md` alone, which writes whatever it is told to with checksums that hold.

use crc32fast::Hasher;

/// A segment in the making.
pub(crate) struct Segment {
    pub(crate) bytes: Vec<u8>,
    sequence: u32,
    /// Checksum of the last frame.
    chain: u32,
}

impl Segment {
    /// With head, `Crc` and `State`; the numbers are those of the head.
    pub(crate) fn open(sequence: u32, oldest: u64, boundary: u64, boundary_term: u64) -> Self {
        let mut head = Vec::from(*b"HARMWAL\n");
        head.extend(1u32.to_le_bytes());
        head.extend(0u32.to_le_bytes());
        for number in [u64::from(sequence), oldest, 0, 0, boundary, boundary_term] {
            head.extend(number.to_le_bytes());
        }
        head.extend([0; 4]);
        head.extend(crc32fast::hash(&head).to_le_bytes());
        let mut segment = Self { bytes: head, sequence, chain: 0 };
        segment.push(4, boundary, boundary_term, 160, &0u32.to_le_bytes());
        segment.push(2, 0, 0, 160, &0u64.to_le_bytes());
        assert_eq!(segment.bytes.len(), 160);
        segment
    }

    /// Appends a frame.
    pub(crate) fn push(&mut self, kind: u8, index: u64, term: u64, durable: u32, payload: &[u8]) {
        let start = self.bytes.len();
        let at = u32::try_from(start).expect("a small segment");
        let length = u32::try_from(32 + payload.len() + 4).expect("a small payload");
        let mut covered = Vec::from(length.to_le_bytes());
        covered.extend(durable.to_le_bytes());
        covered.extend(index.to_le_bytes());
        covered.extend(term.to_le_bytes());
        let seeded = || Hasher::new_with_initial(self.sequence.wrapping_mul(0x9E37_79B9) ^ at);
        let mut link = seeded();
        link.update(&self.chain.to_le_bytes());
        link.update(&covered);
        link.update(&[kind]);
        let link = link.finalize().to_le_bytes();
        let last = [link[0], link[1], link[2], kind];
        let mut crc = seeded();
        crc.update(&covered);
        crc.update(&last);
        crc.update(payload);
        self.chain = crc.finalize();
        self.bytes.extend(covered);
        self.bytes.extend(self.chain.to_le_bytes());
        self.bytes.extend(last);
        self.bytes.extend(payload);
        let end = (start + 32 + payload.len() + 4).next_multiple_of(8);
        self.bytes.resize(end - 4, 0);
        // Sectors wholly inside with at most one byte that is not 0; those that the trailer ends are not empty by it.
        let inside = (start.next_multiple_of(512)..).step_by(512).take_while(|sector| sector + 512 <= end);
        let sparse = |sector: &usize| {
            let upto = (sector + 512).min(self.bytes.len());
            self.bytes[*sector..upto].iter().filter(|byte| **byte != 0).count() <= 1
        };
        let poor = u32::try_from(inside.filter(sparse).count()).expect("a small payload").to_le_bytes();
        self.bytes.extend([poor[0], poor[1], poor[2], 0xA5]);
    }
}

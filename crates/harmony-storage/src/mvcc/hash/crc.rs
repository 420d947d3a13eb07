//! Joining two CRC-32C: the checksum of `a` followed by `b` from the checksums of both and the length of `b`.
//!
//! A checksum is a polynomial over GF(2), modulo the generator; n bytes behind it multiply it by x^(8n). Powers x^(2^k) are
//! made at compile time, so a join takes one multiplication for each bit set in the length: a hash over a million keys
//! joins a million times.

/// The generator of CRC-32C, lowest power in the highest bit.
const GENERATOR: u32 = 0x82f6_3b78;

/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// x^(2^k) at place k.
const POWERS: [u32; 64] = {
    let mut powers = [ONE >> 1; 64];
    let mut k = 1;
    while k < 64 {
        powers[k] = multiply(powers[k - 1], powers[k - 1]);
        k += 1;
    }
    powers
};

const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = ONE;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 0 { b >> 1 } else { (b >> 1) ^ GENERATOR };
        bit >>= 1;
    }
    product
}

/// The checksum of two byte strings one behind the other; `bytes` is the length of the second.
pub(super) fn join(first: u32, second: u32, bytes: usize) -> u32 {
    let mut shifted = first;
    let mut rest = bytes;
    // A byte is 8 = 2^3 bits.
    let mut k = 3;
    while rest != 0 {
        if rest & 1 == 1 {
            shifted = multiply(POWERS[k], shifted);
        }
        rest >>= 1;
        k += 1;
    }
    shifted ^ second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_is_as_hashed_in_one_go() {
        let bytes: Vec<u8> = (0..5_000u32).map(|number| number.to_le_bytes()[0] ^ 0x5a).collect();
        for split in [0, 1, 2, 7, 255, 256, 257, 4_095, 4_999, 5_000] {
            let (first, second) = bytes.split_at(split);
            let joined = join(crc32c::crc32c(first), crc32c::crc32c(second), second.len());
            assert_eq!(joined, crc32c::crc32c(&bytes), "split at {split}");
        }
    }
}

//! What is written: keys of 32 bytes under prefixes of 100,000, values of 256 random bytes that tell which write they are of.

use bench_harness::random::Random;
use bytes::Bytes;

/// Keys under one prefix.
pub const PREFIX_KEYS: u64 = 100_000;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 256;

/// Bytes that values are cut from.
const POOL_BYTES: usize = 1 << 20;
/// Coprime to every number of keys that anybody asks for, so that multiples visit all keys in no order.
const STRIDE: u64 = 2_654_435_761;

/// The key with this number.
pub fn key(number: u64) -> Bytes {
    format!("key/{:03}/{number:024}", number / PREFIX_KEYS).into()
}

/// Of all keys with this prefix's number: the first that may be, and the first behind.
pub fn prefix(number: u64) -> (Bytes, Bytes) {
    (format!("key/{number:03}/").into(), format!("key/{number:03}0").into())
}

/// The key to be written in this turn, of `0..keys`: `keys` turns write each once, in no order.
pub fn shuffled(turn: u64, keys: u64) -> u64 {
    turn.wrapping_mul(STRIDE) % keys
}

/// Values.
pub struct Values(Bytes);

impl Values {
    pub fn new() -> Self {
        let mut random = Random::new(0x5eed);
        let words = (0..POOL_BYTES / 8).flat_map(|_| random.next().to_le_bytes());
        Self(words.collect::<Vec<u8>>().into())
    }

    /// The value that write `generation` gives to the key with this number, from 0. Shared, not copied.
    pub fn of(&self, number: u64, generation: u32) -> Bytes {
        let place =
            Random::new(number ^ u64::from(generation) << 40).below((POOL_BYTES - VALUE_BYTES) as u64);
        self.0.slice(place as usize..place as usize + VALUE_BYTES)
    }
}

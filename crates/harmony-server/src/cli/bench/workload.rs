//! What the clients send: one template a benchmark, in which only the number in the key changes.

use bytes::Bytes;

use super::frame;
use crate::client::ClientError;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};

/// What every key starts with. Values have no `/`, so the template's keys cannot be mistaken for something else.
const PREFIX: &[u8] = b"bench/";
/// Digits that change from key to key; longer keys have zeros before them.
const DIGITS_MAX: usize = 19;
/// Keeps a request, key and value, far below every server's limit on messages.
const SIZE_MAX: usize = 64 << 20;

/// Which benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    Get { serializable: bool },
    Range { serializable: bool, size: u64, limit: i64 },
    Txn,
}

/// Sizes of keys and values, and how many keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) key_size: usize,
    pub(super) value_size: usize,
    pub(super) keys: u64,
    pub(super) seed: u64,
}

impl Shape {
    /// Whether such keys can be made.
    ///
    /// # Errors
    /// Says what to change.
    pub(super) fn check(self) -> Result<(), String> {
        let key_size_min = PREFIX.len() + self.keys.to_string().len();
        if self.key_size < key_size_min {
            return Err(format!("--key-size for {} keys must be at least {key_size_min}", self.keys));
        }
        if self.key_size > SIZE_MAX || self.value_size > SIZE_MAX {
            return Err(format!("--key-size and --value-size can be at most {SIZE_MAX}"));
        }
        Ok(())
    }

    /// The key of a number.
    pub(super) fn key(self, number: u64) -> Bytes {
        let mut key = vec![b'0'; self.key_size];
        key[..PREFIX.len()].copy_from_slice(PREFIX);
        self.write_number(&mut key, number);
        key.into()
    }

    /// Puts a number in a key.
    fn write_number(self, key: &mut [u8], mut number: u64) {
        let digits = DIGITS_MAX.min(self.key_size - PREFIX.len());
        for digit in key.iter_mut().rev().take(digits) {
            *digit = b'0' + u8::try_from(number % 10).expect("a digit");
            number /= 10;
        }
        assert_eq!(number, 0, "the number fits in the key");
    }

    fn value(self) -> Bytes {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut random = SplitMix(self.seed);
        (0..self.value_size).map(|_| LETTERS[usize::try_from(random.below(64)).expect("below 64")]).collect()
    }
}

/// The requests of one benchmark.
#[derive(Debug)]
pub(super) struct Workload {
    kind: Kind,
    shape: Shape,
    template: Vec<u8>,
    /// Where keys stand in the template, and what to add to the request's number there.
    keys_at: Vec<(usize, u64)>,
}

impl Workload {
    /// The workload of a benchmark.
    ///
    /// # Errors
    /// [`ClientError::Usage`] when the ranges are longer than the key space.
    pub(super) fn new(kind: Kind, shape: Shape) -> Result<Self, ClientError> {
        if let Kind::Range { size, .. } = kind
            && size > shape.keys
        {
            return Err(ClientError::Usage(format!(
                "--range-size {size} is more than all {} keys",
                shape.keys
            )));
        }
        let template = template(kind, shape).to_vec();
        let at = |number| positions(&template, &shape.key(number));
        let mut keys_at: Vec<_> = at(0).into_iter().map(|position| (position, 0)).collect();
        if let Kind::Range { size, .. } = kind {
            keys_at.extend(at(size).into_iter().map(|position| (position, size)));
        }
        Ok(Self { kind, shape, template, keys_at })
    }

    /// The benchmark's name.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Put => "put",
            Kind::Get { .. } => "get",
            Kind::Range { .. } => "range",
            Kind::Txn => "txn",
        }
    }

    /// The RPC's path.
    pub(super) fn path(&self) -> &'static str {
        match self.kind {
            Kind::Put => "/etcdserverpb.KV/Put",
            Kind::Get { .. } | Kind::Range { .. } => "/etcdserverpb.KV/Range",
            Kind::Txn => "/etcdserverpb.KV/Txn",
        }
    }

    /// An answer shorter than this says that the key was not there.
    pub(super) fn answer_bytes_min(&self) -> usize {
        match self.kind {
            Kind::Get { .. } => self.shape.key_size + self.shape.value_size,
            Kind::Range { .. } => self.shape.key_size,
            Kind::Put | Kind::Txn => 0,
        }
    }

    /// The request for a key's number, framed. Ranges that would leave the key space are moved back into it.
    pub(super) fn request(&self, number: u64) -> Bytes {
        let number = match self.kind {
            Kind::Range { size, .. } => number.min(self.shape.keys - size),
            _ => number,
        };
        let mut request = self.template.clone();
        for (position, plus) in &self.keys_at {
            self.shape.write_number(&mut request[*position..*position + self.shape.key_size], number + plus);
        }
        request.into()
    }
}

fn template(kind: Kind, shape: Shape) -> Bytes {
    let key = shape.key(0);
    let put = || PutRequest { key: key.clone(), value: shape.value(), ..PutRequest::default() };
    let get = |serializable| RangeRequest { key: key.clone(), serializable, ..RangeRequest::default() };
    let op = |request| RequestOp { request: Some(request) };
    match kind {
        Kind::Put => frame(&put()),
        Kind::Get { serializable } => frame(&get(serializable)),
        Kind::Range { serializable, size, limit } => {
            frame(&RangeRequest { range_end: shape.key(size), limit, ..get(serializable) })
        }
        Kind::Txn => frame(&TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Greater.into(),
                target: CompareTarget::Version.into(),
                key: key.clone(),
                range_end: Bytes::new(),
                target_union: Some(TargetUnion::Version(0)),
            }],
            success: vec![op(Request::RequestRange(get(false))), op(Request::RequestPut(put()))],
            failure: vec![op(Request::RequestPut(put()))],
        }),
    }
}

/// Where `part` occurs in `whole`.
fn positions(whole: &[u8], part: &[u8]) -> Vec<usize> {
    whole.windows(part.len()).enumerate().filter(|(_, window)| *window == part).map(|(at, _)| at).collect()
}

/// A small random generator (splitmix64): enough to spread keys, and the same everywhere for one seed.
#[derive(Clone, Debug)]
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    /// The next 64 bits.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number in `0..bound`; its bias is far below what a benchmark could show.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(bound)) >> 64).expect("below the bound")
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    const SHAPE: Shape = Shape { key_size: 32, value_size: 256, keys: 1000, seed: 7 };

    fn decode<T: Message + Default>(kind: Kind, number: u64) -> T {
        let request = Workload::new(kind, SHAPE).unwrap().request(number);
        assert_eq!(request[0], 0, "not compressed");
        assert_eq!(u32::from_be_bytes(request[1..5].try_into().unwrap()) as usize, request.len() - 5);
        T::decode(&request[5..]).unwrap()
    }

    #[test]
    fn a_key_is_its_number_behind_zeros() {
        assert_eq!(&SHAPE.key(42)[..], b"bench/00000000000000000000000042");
        let long = Shape { key_size: 100, ..SHAPE }.key(u64::from(u32::MAX));
        assert!(long.len() == 100 && long.ends_with(b"0004294967295"));
    }

    #[test]
    fn requests_differ_in_their_number_only() {
        let put: PutRequest = decode(Kind::Put, 999);
        assert_eq!((put.key, put.value.len()), (SHAPE.key(999), 256));
        let get: RangeRequest = decode(Kind::Get { serializable: true }, 5);
        assert_eq!((get.key, get.serializable, get.range_end.len()), (SHAPE.key(5), true, 0));
        let txn: TxnRequest = decode(Kind::Txn, 17);
        assert_eq!(txn.compare[0].key, SHAPE.key(17));
        for op in txn.success.into_iter().chain(txn.failure) {
            let key = match op.request.unwrap() {
                Request::RequestPut(put) => put.key,
                Request::RequestRange(get) => get.key,
                other => panic!("{other:?}"),
            };
            assert_eq!(key, SHAPE.key(17));
        }
    }

    #[test]
    fn ranges_stay_in_the_key_space() {
        let kind = Kind::Range { serializable: false, size: 100, limit: 9 };
        let range: RangeRequest = decode(kind, 30);
        assert_eq!((range.key, range.range_end, range.limit), (SHAPE.key(30), SHAPE.key(130), 9));
        let last: RangeRequest = decode(kind, 999);
        assert_eq!((last.key, last.range_end), (SHAPE.key(900), SHAPE.key(1000)));
        let error =
            Workload::new(Kind::Range { serializable: false, size: 1001, limit: 0 }, SHAPE).unwrap_err();
        assert_eq!(error.to_string(), "--range-size 1001 is more than all 1000 keys");
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let check = |shape: Shape| shape.check().unwrap_err();
        assert_eq!(check(Shape { key_size: 9, ..SHAPE }), "--key-size for 1000 keys must be at least 10");
        assert!(Shape { key_size: 10, ..SHAPE }.check().is_ok());
        assert!(check(Shape { value_size: usize::MAX, ..SHAPE }).contains("at most"));
    }

    #[test]
    fn one_seed_is_one_sequence() {
        let draw = |seed| {
            let mut random = SplitMix(seed);
            (0..100).map(|_| random.below(10)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!((0..10).all(|number| draw(1).contains(&number)));
    }
}

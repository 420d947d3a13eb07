//! Any bytes as segments: never a panic, memory in proportion to the files, and what opens can be read and is the same
//! when it is opened again. Fuzz targets; `docs/testing.md` says how to run them for long.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

mod counting;
#[path = "support/failing.rs"]
mod failing;
#[path = "support/frames.rs"]
mod frames;
#[path = "support/model.rs"]
mod model;
#[path = "support/place.rs"]
mod place;

use std::sync::LazyLock;

use bolero::TypeGenerator;
use harmony_types::{LogIndex, RecordType, Term, Wal, WalError};
use harmony_wal::verify;

use frames::Segment;
use model::{Held, Model, entry};
use place::{Files, Place};

/// How many inputs each target tries when it runs as a test.
const INPUTS: usize = 3_000;
/// Memory for a log of so many bytes, with what every log takes: blocks of the index, buffers of the reader.
const BYTES_MAX: i64 = 4 << 20;
const FIRST: &str = "0000000000000001-0000000000000001.wal";

/// Opens what lies there, and compares what can be compared without knowing what should be there.
fn check(files: &Files) {
    let mut place = Place::fake();
    place.load(files);
    let ((), counts) = counting::count(|| check_open(&place, files));
    let held: usize = files.values().map(Vec::len).sum();
    let bound = BYTES_MAX + 40 * i64::try_from(held).unwrap();
    assert!(counts.peak_bytes <= bound, "{} bytes of memory for {held}", counts.peak_bytes);
}

fn check_open(place: &Place, files: &Files) {
    let looked = verify(&*place.fs, &place.dir);
    let wal = match place.open() {
        Ok(wal) => wal,
        Err(error) => {
            // Whose log it is, only an open asks.
            assert!(looked.is_err() || matches!(error, WalError::Foreign { .. }), "{error}");
            assert_eq!(place.files(), *files, "changed by a refusal: {error}");
            return;
        }
    };
    // A directory without segments is a new log.
    assert!(looked.is_ok() || files.keys().all(|name| !name.ends_with(".wal")), "{looked:?}");
    let (held, records) = (Held::of(&wal), wal.read_all().unwrap());
    drop(wal);
    let again = place.open().unwrap();
    assert_eq!(again.recovery().torn, None, "cut twice");
    assert_eq!(
        (Held::of(&again), again.read_all().unwrap()),
        (held, records),
        "another log at the second open"
    );
}

/// A good log over three segments, of two flavours.
static GOOD: LazyLock<[Files; 2]> = LazyLock::new(|| {
    [1, 2].map(|term| {
        let place = Place::fake();
        let (wal, mut model) = (place.open().unwrap(), Model::default());
        for index in (1..=26).step_by(2) {
            let group = [entry(index, term, 500), entry(index + 1, term, 90)];
            model.append_many(&wal, Some(model.now().hard_state), &group).unwrap();
            model.sync(&wal).unwrap();
        }
        model.snapshot(&wal, LogIndex(3), Term(term)).unwrap();
        model.truncate(&wal, LogIndex(26)).unwrap();
        wal.close().unwrap();
        let files = place.files();
        assert_eq!(files.keys().filter(|name| name.ends_with(".wal")).count(), 3);
        files
    })
});

/// What happens to a good log. Places are taken modulo what is there.
#[derive(Clone, Debug, TypeGenerator)]
enum Edit {
    Overwrite {
        segment: u8,
        at: u16,
        bytes: Vec<u8>,
    },
    Flip {
        segment: u8,
        at: u16,
        mask: u8,
    },
    Zero {
        segment: u8,
        at: u16,
        bytes: u16,
    },
    Insert {
        segment: u8,
        at: u16,
        bytes: Vec<u8>,
    },
    Delete {
        segment: u8,
        at: u16,
        bytes: u16,
    },
    /// Bytes of the other log, or of another segment of this one, at the same place or another.
    Splice {
        other: bool,
        from: u8,
        at: u16,
        bytes: u16,
        into: u8,
        to: Option<u16>,
    },
    Resize {
        segment: u8,
        bytes: u16,
    },
    Remove {
        segment: u8,
    },
    /// A segment under the name of another.
    Rename {
        segment: u8,
        into: u8,
    },
    /// A file's whole content of the other log.
    Replace {
        segment: u8,
    },
}

fn name_of(files: &Files, number: u8) -> String {
    files
        .keys()
        .filter(|name| name.ends_with(".wal"))
        .cycle()
        .nth(usize::from(number))
        .cloned()
        .unwrap_or_default()
}

fn range(at: u16, bytes: u16, held: usize) -> std::ops::Range<usize> {
    let start = usize::from(at) % (held + 1);
    start..(start + usize::from(bytes) % 1024).min(held)
}

fn edit(files: &mut Files, segment: u8, change: impl FnOnce(&mut Vec<u8>)) {
    let name = name_of(files, segment);
    if let Some(content) = files.get_mut(&name) {
        change(content);
    }
}

impl Edit {
    fn apply(&self, files: &mut Files) {
        match self {
            Self::Overwrite { segment, at, bytes } => edit(files, *segment, |content| {
                let range = range(*at, u16::try_from(bytes.len()).unwrap_or(u16::MAX), content.len());
                let count = range.len();
                content[range].copy_from_slice(&bytes[..count]);
            }),
            Self::Flip { segment, at, mask } => edit(files, *segment, |content| {
                let slot = range(*at, 1, content.len());
                content[slot].iter_mut().for_each(|byte| *byte ^= mask);
            }),
            Self::Zero { segment, at, bytes } => edit(files, *segment, |content| {
                let range = range(*at, *bytes, content.len());
                content[range].fill(0);
            }),
            Self::Insert { segment, at, bytes } => edit(files, *segment, |content| {
                let at = range(*at, 0, content.len()).start;
                content.splice(at..at, bytes.iter().copied());
            }),
            Self::Delete { segment, at, bytes } => edit(files, *segment, |content| {
                let range = range(*at, *bytes, content.len());
                content.drain(range);
            }),
            Self::Resize { segment, bytes } => {
                edit(files, *segment, |content| content.resize(usize::from(*bytes) % 9000, 0));
            }
            Self::Splice { other, from, at, bytes, into, to } => {
                let source = if *other { &GOOD[1] } else { &*files };
                let source = source.get(&name_of(source, *from)).cloned().unwrap_or_default();
                let range = range(*at, *bytes, source.len());
                let piece = source[range.clone()].to_vec();
                edit(files, *into, |content| {
                    let to = to.map_or(range.start, usize::from) % (content.len() + 1);
                    let count = piece.len().min(content.len() - to);
                    content[to..to + count].copy_from_slice(&piece[..count]);
                });
            }
            Self::Remove { segment } => drop(files.remove(&name_of(files, *segment))),
            Self::Rename { segment, into } => {
                let into = name_of(files, *into);
                if let Some(content) = files.remove(&name_of(files, *segment)) {
                    files.insert(into, content);
                }
            }
            Self::Replace { segment } => {
                let name = name_of(files, *segment);
                if let Some(content) = GOOD[1].get(&name) {
                    files.insert(name, content.clone());
                }
            }
        }
    }
}

#[test]
fn any_bytes_as_a_segment() {
    bolero::check!().with_iterations(INPUTS).for_each(|bytes: &[u8]| {
        check(&Files::from([(FIRST.to_owned(), bytes.to_vec())]));
        // And behind a good opening, so that they are looked at as frames.
        let mut segment = Segment::open(1, 0, 0, 0).bytes;
        segment.extend_from_slice(bytes);
        check(&Files::from([(FIRST.to_owned(), segment)]));
    });
}

#[test]
fn a_good_log_changed_in_any_way() {
    bolero::check!().with_iterations(INPUTS).with_type::<Vec<Edit>>().for_each(|edits| {
        let mut files = GOOD[0].clone();
        for edit in edits.iter().take(6) {
            edit.apply(&mut files);
        }
        check(&files);
    });
}

/// A frame whose checksums hold, whatever it says: what a writer with a mistake, or with bad intent, could leave.
#[derive(Clone, Debug, TypeGenerator)]
struct Hostile {
    kind: Kind,
    index: Number,
    term: Number,
    durable: u16,
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Kind {
    Known(u8),
    Any(u8),
    Entry,
}

/// Numbers near the borders of what is allowed, most of them.
#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Number {
    Small(u8),
    Last,
    Next,
    Largest(u8),
    Any(u64),
}

impl Number {
    fn resolve(self, last: u64) -> u64 {
        match self {
            Self::Small(number) => u64::from(number % 8),
            Self::Last => last,
            Self::Next => last.saturating_add(1),
            Self::Largest(below) => u64::MAX - u64::from(below % 4),
            Self::Any(number) => number,
        }
    }
}

#[derive(Clone, Debug, TypeGenerator)]
struct HostileLog {
    oldest: Number,
    boundary: Number,
    boundary_term: Number,
    frames: Vec<Hostile>,
    /// Cut or extended to so many bytes, or not.
    file_bytes: Option<u16>,
}

fn hostile_files(log: &HostileLog) -> Files {
    let boundary = log.boundary.resolve(0);
    let mut segment = Segment::open(1, log.oldest.resolve(1), boundary, log.boundary_term.resolve(0));
    let mut last = boundary;
    for frame in log.frames.iter().take(20) {
        let kind = match frame.kind {
            Kind::Known(kind) => kind % 8,
            Kind::Any(kind) => kind,
            Kind::Entry => RecordType::Entry as u8,
        };
        let (index, term) = (frame.index.resolve(last), frame.term.resolve(1));
        let mut payload = frame.payload.clone();
        if kind == RecordType::Entry as u8 {
            payload.insert(0, 0);
            last = index;
        }
        if kind == RecordType::State as u8 && payload.len() % 3 != 0 {
            payload.resize(8, 1);
        }
        segment.push(kind, index, term, u32::from(frame.durable & !7), &payload);
    }
    let mut bytes = segment.bytes;
    bytes.resize(log.file_bytes.map_or(bytes.len().max(4096), usize::from), 0);
    Files::from([(format!("{:016x}-{:016x}.wal", 1, boundary.wrapping_add(1)), bytes)])
}

#[test]
fn frames_that_check_and_make_no_sense() {
    bolero::check!()
        .with_iterations(INPUTS)
        .with_type::<HostileLog>()
        .for_each(|log| check(&hostile_files(log)));
}

/// The second implementation of the format, which is made of `docs/format.md` alone, writes what the first one reads.
#[test]
fn the_documented_format_is_the_one_that_is_read() {
    let mut segment = Segment::open(1, 1, 0, 0);
    for index in 1..=5u64 {
        let payload = [&[0][..], &vec![7; usize::try_from(index).unwrap() * 100]].concat();
        segment.push(1, index, 3, 160, &payload);
    }
    segment.push(5, 5, 3, 160, &[]);
    segment.bytes.resize(4096, 0);
    let mut place = Place::fake();
    place.load(&Files::from([(FIRST.to_owned(), segment.bytes)]));
    let wal = place.open().unwrap();
    assert_eq!(wal.recovery().torn, None);
    let held = Held::of(&wal);
    assert_eq!((held.bounds.last, held.entries.len()), (LogIndex(4), 4));
    assert!(
        held.entries
            .iter()
            .all(|entry| entry.term == Term(3) && entry.data.len() as u64 == entry.index.0 * 100)
    );
}

//! Logs of format 1 as files that are never written again: every later release reads them to exactly this content.
//!
//! `HARMONY_BLESS=1` writes those that are missing; one that exists is never touched.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

#[path = "support/failing.rs"]
mod failing;
#[path = "support/model.rs"]
mod model;
#[path = "support/place.rs"]
mod place;

use std::path::{Path, PathBuf};
use std::sync::Once;

use bytes::Bytes;
use harmony_types::{Entry, EntryType, HardState, LogIndex, NodeId, Term, Wal};
use harmony_wal::{DumpOptions, dump};

use model::{Held, Model, entry};
use place::{Files, Place};

/// What a fixture must be read as, spelled out beside what wrote it.
struct Fixture {
    name: &'static str,
    write: fn(&mut Place),
    boundary: (u64, u64),
    /// Index, term and bytes of data of each entry.
    entries: &'static [(u64, u64, usize)],
    /// Term, vote, commit.
    hard_state: (u64, u64, u64),
    segments: usize,
    /// Where a torn tail begins and how long it is.
    torn: Option<(u32, u32, u64)>,
}

const FIXTURES: [Fixture; 6] = [
    Fixture {
        name: "plain",
        write: plain,
        boundary: (3, 1),
        entries: &[
            (4, 1, 1000),
            (5, 1, 1000),
            (6, 2, 900),
            (7, 2, 0),
            (8, 2, 1500),
            (9, 3, 1200),
            (10, 3, 1200),
            (11, 3, 33),
        ],
        hard_state: (3, 2, 9),
        segments: 3,
        torn: None,
    },
    Fixture {
        name: "released",
        write: released,
        boundary: (4, 1),
        entries: &[(5, 1, 1500), (6, 1, 1500), (7, 1, 1500), (8, 1, 1500), (9, 1, 1500)],
        hard_state: (1, 0, 7),
        segments: 3,
        torn: None,
    },
    Fixture {
        name: "truncated",
        write: truncated,
        boundary: (0, 0),
        entries: &[(1, 1, 1500), (2, 1, 1500), (3, 4, 40)],
        hard_state: (4, 3, 2),
        segments: 2,
        torn: None,
    },
    Fixture {
        name: "torn",
        write: torn,
        boundary: (0, 0),
        entries: &[(1, 1, 100), (2, 1, 100), (3, 1, 400)],
        hard_state: (0, 0, 0),
        segments: 1,
        torn: Some((1, 936, 744)),
    },
    Fixture {
        name: "unsealed",
        write: unsealed,
        boundary: (0, 0),
        entries: &[(1, 1, 1700), (2, 1, 1700), (3, 1, 1700)],
        hard_state: (1, 2, 1),
        segments: 2,
        torn: None,
    },
    Fixture {
        name: "snapshot",
        write: snapshot,
        boundary: (50, 6),
        entries: &[(51, 6, 20), (52, 7, 20)],
        hard_state: (7, 1, 51),
        segments: 1,
        torn: None,
    },
];

fn state((term, vote, commit): (u64, u64, u64)) -> HardState {
    HardState { term: Term(term), vote: NodeId::new(vote), commit: LogIndex(commit) }
}

/// Appends the entries as one group and syncs.
fn group(model: &mut Model, wal: &dyn Wal, hard_state: (u64, u64, u64), entries: &[(u64, u64, usize)]) {
    let entries: Vec<Entry> =
        entries.iter().map(|(index, term, bytes)| entry(*index, *term, *bytes)).collect();
    model.append_many(wal, Some(state(hard_state)), &entries).unwrap();
    model.sync(wal).unwrap();
}

/// Every kind of record that a caller appends, over three segments.
fn plain(place: &mut Place) {
    let (mut model, wal) = (Model::default(), place.open().unwrap());
    group(&mut model, &wal, (1, 0, 0), &[(1, 1, 0), (2, 1, 10), (3, 1, 600), (4, 1, 1000)]);
    group(&mut model, &wal, (1, 1, 3), &[(5, 1, 1000), (6, 1, 700), (7, 1, 100)]);
    model.truncate(&wal, LogIndex(6)).unwrap();
    group(&mut model, &wal, (2, 1, 5), &[(6, 2, 900), (7, 2, 0), (8, 2, 1500)]);
    model.snapshot(&wal, LogIndex(3), Term(1)).unwrap();
    model.append(&wal, &entry(9, 3, 1200)).unwrap();
    group(&mut model, &wal, (3, 2, 8), &[(10, 3, 1200), (11, 3, 33)]);
    model.set_hard_state(&wal, state((3, 2, 9))).unwrap();
    wal.close().unwrap();
}

/// The first two segments are gone; the newest hard state is older than what is left of the entries.
fn released(place: &mut Place) {
    let (mut model, wal) = (Model::default(), place.open().unwrap());
    for index in 1..=9 {
        group(&mut model, &wal, (1, 0, index.min(7)), &[(index, 1, 1500)]);
    }
    model.release(&wal, LogIndex(5)).unwrap();
    wal.close().unwrap();
}

/// Entries of a second segment were replaced by shorter ones.
fn truncated(place: &mut Place) {
    let (mut model, wal) = (Model::default(), place.open().unwrap());
    group(&mut model, &wal, (1, 1, 1), &[(1, 1, 1500), (2, 1, 1500), (3, 1, 1500), (4, 1, 300)]);
    model.truncate(&wal, LogIndex(4)).unwrap();
    group(&mut model, &wal, (4, 3, 2), &[(3, 4, 40)]);
    wal.close().unwrap();
}

/// The power went during the write of the last group: its first entry is whole, and its second lacks a sector.
fn torn(place: &mut Place) {
    let (mut model, wal) = (Model::default(), place.open().unwrap());
    group(&mut model, &wal, (0, 0, 0), &[(1, 1, 100), (2, 1, 100)]);
    model.append_many(&wal, None, &[entry(3, 1, 400), entry(4, 1, 700)]).unwrap();
    wal.read_all().unwrap();
    drop(wal);
    let mut files = place.files();
    let bytes = files.get_mut("0000000000000001-0000000000000001.wal").unwrap();
    bytes[1024..1536].fill(0);
    place.load(&files);
}

/// The power went between the making of the second segment and the seal of the first.
fn unsealed(place: &mut Place) {
    let (mut model, wal) = (Model::default(), place.open().unwrap());
    group(&mut model, &wal, (1, 2, 1), &[(1, 1, 1700), (2, 1, 1700)]);
    group(&mut model, &wal, (1, 2, 1), &[(3, 1, 1700)]);
    wal.close().unwrap();
    let mut files = place.files();
    let bytes = files.get_mut("0000000000000001-0000000000000001.wal").unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[end - 40..].fill(0);
    place.load(&files);
}

/// A snapshot that the log was far behind replaced all of it.
fn snapshot(place: &mut Place) {
    let (mut model, wal) = (Model::default(), place.open().unwrap());
    group(&mut model, &wal, (2, 1, 2), &[(1, 1, 100), (2, 2, 100)]);
    model.snapshot(&wal, LogIndex(50), Term(6)).unwrap();
    group(&mut model, &wal, (7, 1, 51), &[(51, 6, 20), (52, 7, 20)]);
    wal.close().unwrap();
}

fn home(fixture: &Fixture) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(fixture.name)
}

/// The segments alone: the lock, the reserve and the like hold nothing.
fn stored(fixture: &Fixture) -> Files {
    static BLESSED: Once = Once::new();
    BLESSED.call_once(bless);
    let home = home(fixture);
    let listed = std::fs::read_dir(&home).unwrap_or_else(|error| panic!("{}: {error}", home.display()));
    let name = |entry: &std::fs::DirEntry| entry.file_name().into_string().unwrap();
    let entries = listed.map(Result::unwrap).filter(|entry| name(entry).ends_with(".wal"));
    entries.map(|entry| (name(&entry), std::fs::read(entry.path()).unwrap())).collect()
}

/// Writes the fixtures that are missing, when asked to.
fn bless() {
    if std::env::var("HARMONY_BLESS").as_deref() != Ok("1") {
        return;
    }
    for fixture in FIXTURES.iter().filter(|fixture| !home(fixture).exists()) {
        let mut place = Place::fake();
        (fixture.write)(&mut place);
        std::fs::create_dir_all(home(fixture)).unwrap();
        for (name, bytes) in place.files().iter().filter(|(name, _)| name.ends_with(".wal")) {
            std::fs::write(home(fixture).join(name), bytes).unwrap();
        }
        let mut text = Vec::new();
        dump(&*place.fs, &place.dir, &mut text, DumpOptions::default()).unwrap();
        std::fs::write(home(fixture).join("dump.txt"), text).unwrap();
    }
}

#[test]
fn every_fixture_of_format_1_reads_as_it_was_written() {
    for fixture in &FIXTURES {
        let what = fixture.name;
        let files = stored(fixture);
        for mut place in [Place::fake(), Place::real()] {
            place.load(&files);
            let mut text = Vec::new();
            let report = dump(&*place.fs, &place.dir, &mut text, DumpOptions::default()).unwrap();
            assert_eq!(place.files(), files, "{what}: a look changes nothing");
            let golden = std::fs::read_to_string(home(fixture).join("dump.txt")).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), golden, "{what}");
            assert_eq!(report.segments, fixture.segments, "{what}");

            // Twice: what the first open repairs is whole for the second.
            for torn in [fixture.torn, None] {
                let wal = place.open().unwrap_or_else(|error| panic!("{what}: {error}"));
                let held = Held::of(&wal);
                let LogIndex(boundary) = held.bounds.boundary;
                assert_eq!((boundary, held.bounds.boundary_term.0), fixture.boundary, "{what}");
                let expected: Vec<Entry> =
                    fixture.entries.iter().map(|(index, term, bytes)| entry(*index, *term, *bytes)).collect();
                assert_eq!(held.entries, expected, "{what}");
                assert_eq!(held.hard_state, state(fixture.hard_state), "{what}");
                let found = wal.recovery().torn.as_ref();
                let found = found.map(|torn| (torn.offset.segment(), torn.offset.byte(), torn.bytes));
                assert_eq!(found, torn, "{what}");
            }
            // And it goes on.
            let wal = place.open().unwrap();
            let (last, term) = (wal.bounds().last, wal.term(wal.bounds().last).unwrap());
            let next = Entry {
                term,
                index: last.next(),
                entry_type: EntryType::Normal,
                data: Bytes::from_static(b"appended by a later release"),
            };
            wal.append_many(None, std::slice::from_ref(&next)).unwrap();
            wal.close().unwrap();
            let wal = place.open().unwrap();
            assert_eq!(wal.entries(next.index..next.index.next(), 100).unwrap(), [next], "{what}");
        }
    }
}

/// What wrote the fixtures still says what they are, should one ever have to be explained.
#[test]
fn the_writers_of_the_fixtures_still_write_what_is_read_from_them() {
    for fixture in &FIXTURES {
        let mut place = Place::fake();
        (fixture.write)(&mut place);
        let now = Held::of(&place.open().unwrap());
        place.load(&stored(fixture));
        assert_eq!(now, Held::of(&place.open().unwrap()), "{}", fixture.name);
    }
}

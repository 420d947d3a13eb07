//! A log over three segments with every byte flipped, and with segments dropped, copied, exchanged and replaced: it is
//! whole, or refused with the place that is damaged and nothing changed. In memory and on real files.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

#[path = "support/failing.rs"]
mod failing;
#[path = "support/model.rs"]
mod model;
#[path = "support/place.rs"]
mod place;

use bytes::Bytes;
use harmony_types::{Entry, HardState, LogIndex, NodeId, Term, Wal, WalRecord};

use model::{Model, entry};
use place::{Files, Outcome, Place};

/// One life of a log: its files after each group, all of them synced.
struct Life {
    past: Vec<Files>,
    model: Model,
    frames: Vec<Frame>,
}

/// Where a record stands.
struct Frame {
    segment: String,
    start: usize,
    /// Behind its payload; up to `end`, padding and trailer follow.
    payload_end: usize,
    end: usize,
    /// Last index before it.
    index: LogIndex,
}

impl Life {
    fn files(&self) -> &Files {
        self.past.last().unwrap()
    }

    fn names(&self) -> Vec<String> {
        segments(self.files())
    }

    /// The last index in each segment.
    fn last_indexes(&self) -> Vec<LogIndex> {
        let last = |name: &String| self.frames.iter().rfind(|frame| frame.segment == *name).unwrap().index;
        let mut lasts: Vec<LogIndex> = self.names().iter().map(last).collect();
        *lasts.last_mut().unwrap() = self.model.now().last();
        lasts
    }
}

fn segments(files: &Files) -> Vec<String> {
    files.keys().filter(|name| name.ends_with(".wal")).cloned().collect()
}

/// Three segments of groups with zeros and other bytes; `flavour` changes the bytes and no length.
fn three_segments(flavour: u8, last_group: &[Vec<u8>]) -> Life {
    let place = Place::fake();
    let wal = place.open().unwrap();
    let (mut model, mut past) = (Model::default(), Vec::new());
    let round = |round: u8| {
        [vec![vec![round ^ flavour; 1100], vec![], vec![round + 1; 33]], vec![vec![0; 700]]].into_iter()
    };
    for group in (0..4).flat_map(round).chain([last_group.to_vec()]) {
        let first = model.now().last().next().0;
        let entries: Vec<Entry> = (first..)
            .zip(group)
            .map(|(index, data)| Entry { data: Bytes::from(data), ..entry(index, 1, 0) })
            .collect();
        let state = HardState { term: Term(1), vote: NodeId::new(7), commit: LogIndex(first - 1) };
        model.append_many(&wal, Some(state), &entries).unwrap();
        model.sync(&wal).unwrap();
        past.push(place.files());
    }
    let names = segments(past.last().unwrap());
    assert_eq!(names.len(), 3);
    let mut frames = Vec::new();
    let mut index = LogIndex::ZERO;
    wal.scan(&mut |offset, WalRecord { record_type, index: own, data, .. }| {
        let start = offset.byte() as usize;
        let payload_end = start + 32 + data.len();
        let segment = names[offset.segment() as usize - 1].clone();
        frames.push(Frame { segment, start, payload_end, end: (payload_end + 4).next_multiple_of(8), index });
        if record_type == harmony_types::RecordType::Entry {
            index = own;
        }
        true
    })
    .unwrap();
    Life { past, model, frames }
}

/// Flips one byte and compares the outcome with what the byte means. True when the log was refused.
fn check_flip(place: &mut Place, life: &Life, name: &str, offset: usize, mask: u8) -> bool {
    let mut files = life.files().clone();
    files.get_mut(name).unwrap()[offset] ^= mask;
    place.load(&files);
    let what = format!("{name} byte {offset} ^ {mask:#x}");
    let outcome = place.check(&life.model, &what);
    let last = life.names().last().unwrap() == name;
    let of_segment = || life.frames.iter().filter(|frame| frame.segment == *name);
    let end = of_segment().next_back().unwrap().end;
    let frame = of_segment().find(|frame| frame.start <= offset && offset < frame.end);
    match (outcome, frame) {
        (Outcome::Recovered { torn, .. }, None) => {
            assert!(72 <= offset, "{what}: a damaged head");
            assert!(!torn || (last && end <= offset), "{what}: cut");
            false
        }
        (Outcome::Recovered { torn, .. }, Some(frame)) => {
            assert!(frame.payload_end <= offset && !torn, "{what}: damage to a record went unnoticed");
            false
        }
        (Outcome::Refused(refusal), frame) => {
            let boundary = of_segment().next().unwrap().index;
            let (at, index) = match frame {
                Some(frame) => (frame.start, frame.index),
                None if offset < 72 => (0, boundary),
                None => {
                    assert!(last, "{what}: nothing depends on what stands behind a seal");
                    (end, life.model.now().last())
                }
            };
            assert_eq!(refusal.segment.as_deref(), Ok(name), "{what}");
            assert_eq!(refusal.offset, at as u64, "{what}: {}", refusal.message);
            if !refusal.message.contains("version") {
                assert_eq!(refusal.index, index, "{what}: {}", refusal.message);
            }
            true
        }
    }
}

#[test]
fn every_flipped_byte_loses_nothing_or_is_refused_where_it_is() {
    let mut outcomes = [0, 0];
    for (last_group, first_segment) in
        [(vec![vec![9; 20]], 0), (vec![vec![0; 600]], 2), (vec![vec![5; 5], vec![0; 40]], 2)]
    {
        let life = three_segments(0, &last_group);
        let mut place = Place::fake();
        for name in life.names().split_off(first_segment) {
            for (offset, byte) in life.files()[&name].iter().enumerate() {
                // Once to another value, once to zero, which is also what a sector that was not written reads as.
                for mask in [Some(0x41), Some(*byte).filter(|byte| *byte != 0)].into_iter().flatten() {
                    outcomes[usize::from(check_flip(&mut place, &life, &name, offset, mask))] += 1;
                }
            }
        }
    }
    assert!(outcomes.iter().all(|count| 1000 < *count), "{outcomes:?}");
}

#[test]
fn every_flipped_byte_of_real_files_loses_nothing_or_is_refused_where_it_is() {
    let life = three_segments(0, &[vec![0; 600]]);
    let mut place = Place::real();
    for (name, bytes) in life.files().iter().filter(|(name, _)| name.ends_with(".wal")) {
        for (offset, byte) in bytes.iter().enumerate() {
            let mask = if *byte == 0 { 0x80 } else { *byte };
            check_flip(&mut place, &life, name, offset, mask);
        }
    }
}

#[test]
fn a_write_cut_at_any_byte_of_real_files_is_recovered() {
    let life = three_segments(0, &[vec![1; 8]]);
    let mut place = Place::real();
    place.load(life.files());
    let wal = place.open().unwrap();
    let mut model = life.model.clone();
    let next = model.now().last().next().0;
    let group = [entry(next, 1, 10), entry(next + 1, 1, 700), entry(next + 2, 1, 0)];
    let state = HardState { term: Term(1), vote: None, commit: LogIndex(1) };
    model.append_many(&wal, Some(state), &group).unwrap();
    // A scan has to see it, so it is written; nobody asked for a sync.
    wal.read_all().unwrap();
    drop(wal);
    let (before, after) = (life.files().clone(), place.files());
    let name = life.names().pop().unwrap();
    let differs = |at: &usize| before[&name][*at] != after[&name][*at];
    let start = (0..after[&name].len()).find(differs).unwrap();
    let end = (0..after[&name].len()).rfind(differs).unwrap() + 1;
    let mut lengths = [Vec::new(), Vec::new()];
    for cut in start..=end {
        // What was not written reads as the zeros of reserved space, or is not there at all.
        for reserved in [true, false] {
            let mut files = after.clone();
            let bytes = files.get_mut(&name).unwrap();
            if reserved {
                bytes[cut..].fill(0);
            } else {
                bytes.truncate(cut);
            }
            place.load(&files);
            match place.check(&model, &format!("cut at {cut} of {start}..{end}, reserved: {reserved}")) {
                Outcome::Recovered { last, .. } => lengths[usize::from(reserved)].push(last),
                Outcome::Refused(refusal) => panic!("cut at {cut}: {}", refusal.message),
            }
        }
    }
    for lengths in lengths {
        assert!(lengths.is_sorted());
        assert_eq!((lengths[0], lengths.last()), (LogIndex(next - 1), Some(&LogIndex(next + 2))));
    }
}

fn places() -> [Place; 2] {
    [Place::fake(), Place::real()]
}

#[test]
fn every_dropped_segment_is_missed() {
    let life = three_segments(0, &[vec![9; 20]]);
    let (names, lasts) = (life.names(), life.last_indexes());
    for mut place in places() {
        for dropped in 1..7 {
            let is_dropped = |slot: usize| dropped >> slot & 1 == 1;
            let mut files = life.files().clone();
            for slot in (0..3).filter(|slot| is_dropped(*slot)) {
                files.remove(&names[slot]);
            }
            place.load(&files);
            let what = format!("dropped {dropped:#05b}");
            let refusal = place.check(&life.model, &what).refused(&what);
            // The hole before the last segment that is there, or the one behind it.
            let kept = (0..3).rfind(|slot| !is_dropped(*slot)).unwrap();
            let missing =
                if kept < 2 { kept + 1 } else { (0..kept).rfind(|slot| is_dropped(*slot)).unwrap() };
            assert_eq!(refusal.segment, Err(missing as u64 + 1), "{what}: {}", refusal.message);
            let before = (0..missing).rfind(|slot| !is_dropped(*slot));
            assert_eq!(refusal.index, before.map_or(LogIndex::ZERO, |slot| lasts[slot]), "{what}");
        }
    }
}

#[test]
fn a_log_of_which_no_segment_is_left_is_not_taken_for_a_new_one() {
    let life = three_segments(0, &[vec![9; 20]]);
    for mut place in places() {
        let mut files = life.files().clone();
        files.retain(|name, _| !name.ends_with(".wal"));
        place.load(&files);
        let refusal = place.check(&life.model, "no segment").refused("no segment");
        assert!(refusal.message.contains("no segment of it is left"), "{}", refusal.message);
        place.load(&Files::new());
        assert_eq!(place.open().unwrap().bounds().last, LogIndex::ZERO, "an empty directory is a new log");
    }
}

#[test]
fn a_copied_segment_is_refused_under_any_name() {
    let life = three_segments(0, &[vec![9; 20]]);
    let name = |sequence: u64, first: u64| format!("{sequence:016x}-{first:016x}.wal");
    for mut place in places() {
        for source in life.names() {
            let first = u64::from_str_radix(&source[17..33], 16).unwrap();
            let next = life.model.now().last().next().0;
            for copy in (1..=5)
                .flat_map(|sequence| [name(sequence, first), name(sequence, first + 1), name(sequence, next)])
                .chain([name(0xffff_ffff, first), name(9, u64::MAX)])
                .filter(|copy| !life.files().contains_key(copy))
            {
                let mut files = life.files().clone();
                files.insert(copy.clone(), files[&source].clone());
                place.load(&files);
                let what = format!("{source} copied as {copy}");
                let refusal = place.check(&life.model, &what).refused(&what);
                let named = refusal.segment.unwrap();
                assert!(named[..16] == copy[..16], "{what}: {}", refusal.message);
            }
            for copy in ["0000000000000004.new", "0000000000000001.free", "torn-0000000000000001-500.bin"] {
                let mut files = life.files().clone();
                files.insert(copy.to_owned(), files[&source].clone());
                place.load(&files);
                let what = format!("{source} copied as {copy}");
                let whole = Outcome::Recovered { torn: false, last: life.model.now().last() };
                assert_eq!(place.check(&life.model, &what), whole, "{what}");
            }
            for copy in ["segment.wal", "0000000000000004-00000000000000ZZ.wal", "4-1.wal"] {
                let mut files = life.files().clone();
                files.insert(copy.to_owned(), files[&source].clone());
                place.load(&files);
                let refusal = place.check(&life.model, copy).refused(copy);
                assert_eq!(refusal.segment.as_deref(), Ok(copy), "{}", refusal.message);
            }
        }
    }
}

#[test]
fn exchanged_segments_are_refused() {
    let life = three_segments(0, &[vec![9; 20]]);
    let names = life.names();
    for mut place in places() {
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            // Both ways, and only one of them: a copy over the other.
            for target in [None, Some(one), Some(other)] {
                let mut files = life.files().clone();
                let [first, second] = [&names[one], &names[other]].map(|name| life.files()[name].clone());
                if target != Some(other) {
                    files.insert(names[one].clone(), second);
                }
                if target != Some(one) {
                    files.insert(names[other].clone(), first);
                }
                place.load(&files);
                let what = format!("{one} and {other}, only {target:?}");
                let refusal = place.check(&life.model, &what).refused(&what);
                let damaged = target.unwrap_or(one);
                assert_eq!(refusal.segment, Ok(names[damaged].clone()), "{what}: {}", refusal.message);
            }
        }
    }
}

/// Each segment alone is without fault; it belongs to another life of the same log, or to an earlier time of this one.
#[test]
fn segments_of_another_life_and_of_an_earlier_time_are_refused() {
    let life = three_segments(0, &[vec![9; 20]]);
    let other = three_segments(0x40, &[vec![9; 20]]);
    let names = life.names();
    assert_eq!(names, other.names());
    for mut place in places() {
        for replaced in 1..7 {
            let mut files = life.files().clone();
            for slot in (0..3).filter(|slot| replaced >> slot & 1 == 1) {
                files.insert(names[slot].clone(), other.files()[&names[slot]].clone());
            }
            place.load(&files);
            let what = format!("another life's {replaced:#05b}");
            let refusal = place.check(&life.model, &what).refused(&what);
            // The chain breaks at the end of the segment before the border between the lives.
            let segment = refusal.segment.unwrap();
            assert!(segment == names[0] || segment == names[1], "{what}: {}", refusal.message);
        }
        for past in &life.past {
            for name in names.iter().take(2) {
                let Some(bytes) = past.get(name).filter(|bytes| **bytes != life.files()[name]) else {
                    continue;
                };
                let mut files = life.files().clone();
                files.insert(name.clone(), bytes.clone());
                place.load(&files);
                let what = format!("an earlier {name}");
                match place.check(&life.model, &what) {
                    // All that the earlier one lacks is its seal, and the next segment proves that.
                    Outcome::Recovered { torn, last } => {
                        assert_eq!((torn, last), (false, life.model.now().last()), "{what}");
                    }
                    Outcome::Refused(refusal) => assert_eq!(refusal.segment.as_ref(), Ok(name), "{what}"),
                }
            }
        }
    }
}

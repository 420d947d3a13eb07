//! What other times left behind the end of a log never becomes part of it: frames of other segments, of other lives of
//! the same segment, and of an earlier time of this one, at the places where they once stood.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of the functions that clippy exempts")]

#[path = "support/failing.rs"]
mod failing;
#[path = "support/model.rs"]
mod model;
#[path = "support/place.rs"]
mod place;

use harmony_types::Wal;

use model::{Model, entry};
use place::{Files, Outcome, Place};

/// Bytes of a frame around 200 bytes of data: header, type, data, trailer, padding.
const FRAME: usize = 240;

/// A log of `count` entries of one size, synced one by one, and what it must hold. The last segment is filled by half.
fn log(count: u64, term: u64) -> (Files, Model) {
    let place = Place::fake();
    let wal = place.open().unwrap();
    let mut model = Model::default();
    for index in 1..=count {
        model.append_many(&wal, None, &[entry(index, term, 200)]).unwrap();
        model.sync(&wal).unwrap();
    }
    drop(wal);
    (place.files(), model)
}

fn segments(files: &Files) -> Vec<String> {
    files.keys().filter(|name| name.ends_with(".wal")).cloned().collect()
}

/// Behind the last byte of the last frame of a segment.
fn end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// Puts `stale` behind the end of `files`' last segment, with holes at its start of all sizes, and checks what an open
/// makes of it. Returns how often it was recovered, and how often refused.
fn check(place: &mut Place, files: &Files, model: &Model, stale: &[u8], what: &str) -> [usize; 2] {
    let name = segments(files).pop().unwrap();
    let end = end(&files[&name]);
    let mut outcomes = [0, 0];
    for start in (end..stale.len()).step_by(8) {
        // All the rest of an older time, or a part of it as a file system keeps it.
        for upto in [stale.len(), start.next_multiple_of(512), (start + 1).next_multiple_of(512) + 512] {
            let mut files = files.clone();
            let upto = upto.min(stale.len());
            files.get_mut(&name).unwrap()[start..upto].copy_from_slice(&stale[start..upto]);
            place.load(&files);
            match place.check(model, &format!("{what} in {start}..{upto} behind {end}")) {
                Outcome::Recovered { last, .. } => {
                    assert_eq!(last, model.now().last(), "{what}");
                    outcomes[0] += 1;
                }
                Outcome::Refused(refusal) => {
                    assert_eq!((refusal.segment, refusal.offset), (Ok(name.clone()), end as u64), "{what}");
                    assert_eq!(refusal.index, model.now().last(), "{what}");
                    outcomes[1] += 1;
                }
            }
        }
    }
    outcomes
}

#[test]
fn frames_of_other_segments_and_lives_are_never_read() {
    let (files, model) = log(38, 1);
    let names = segments(&files);
    assert_eq!(names.len(), 3);
    let (other, _) = log(45, 2);
    assert_eq!(segments(&other), names);
    for mut place in [Place::fake(), Place::real()] {
        for (what, stale) in [
            ("the first segment", &files[&names[0]]),
            ("the second segment", &files[&names[1]]),
            ("the same segment of another life", &other[&names[2]]),
        ] {
            let outcomes = check(&mut place, &files, &model, stale, what);
            assert!(outcomes.iter().all(|count| 10 < *count), "{what}: {outcomes:?}");
        }
    }
}

/// The hardest case: the entries were in this segment, at these places, behind these very frames, and were synced. They
/// were cut or never belonged to the log that lies here.
#[test]
fn frames_of_an_earlier_time_of_the_same_segment_are_never_read_behind_a_hole() {
    let (files, model) = log(38, 1);
    let (longer, _) = log(45, 1);
    let name = segments(&files).pop().unwrap();
    let end = end(&files[&name]);
    assert_eq!(files[&name][..end], longer[&name][..end], "the longer log goes on where the other ends");
    for mut place in [Place::fake(), Place::real()] {
        // Behind an end that is followed by anything but the next frame itself.
        let mut stale = longer[&name].clone();
        stale[end..end + FRAME].fill(0);
        let outcomes = check(&mut place, &files, &model, &stale, "an earlier time");
        assert!(outcomes.iter().all(|count| 10 < *count), "{outcomes:?}");
    }
}

/// What is stale stands behind a write that was cut short: the tail is still told from damage, and nothing comes back.
#[test]
fn stale_frames_behind_a_torn_write_are_cut_or_refused_and_never_read() {
    let (files, model) = log(38, 1);
    let names = segments(&files);
    let (other, _) = log(45, 2);
    let name = &names[2];
    let mut place = Place::real();
    place.load(&files);
    let wal = place.open().unwrap();
    let mut torn_model = model.clone();
    torn_model.append_many(&wal, None, &[entry(39, 1, 200), entry(40, 1, 900)]).unwrap();
    wal.read_all().unwrap();
    drop(wal);
    let written = place.files()[name].clone();
    let (start, end) = (end(&files[name]), end(&written));
    let mut outcomes = [0, 0];
    for stale in [&files[&names[0]], &files[&names[1]], &other[name]] {
        for cut in (start..end).step_by(8) {
            // The disk shows what was there before where nothing was written.
            let mut files = files.clone();
            let bytes = files.get_mut(name).unwrap();
            bytes[start..cut].copy_from_slice(&written[start..cut]);
            bytes[cut..].copy_from_slice(&stale[cut..]);
            place.load(&files);
            match place.check(&torn_model, &format!("cut at {cut} of {start}..{end}")) {
                Outcome::Recovered { .. } => outcomes[0] += 1,
                Outcome::Refused(_) => outcomes[1] += 1,
            }
        }
    }
    // Zeros are what the log prepares its files to hold; with anything else there it refuses rather than guesses.
    assert!(0 < outcomes[1], "{outcomes:?}");
}

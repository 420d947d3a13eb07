//! Walks along a log made by hand, with what this release does not write itself.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;
use harmony_types::Revision;

use super::*;
use crate::tree::Visit;
use crate::tree::meta::Progress;
use crate::tree::record::Version;
use crate::view::{ReadRow, VisitWrite};

/// A log of one key `k`: what each revision made of it, and how it knows the version before.
#[derive(Default)]
struct Log(BTreeMap<WrittenAt, (VersionBuf, Replaced<VersionBuf>)>, Cell<usize>);

impl Reads for Log {
    fn progress(&self) -> &Progress {
        &Progress::EMPTY
    }

    fn newest(&self, key: &[u8], read: ReadVersion<'_>) -> Result<bool, StorageError> {
        match self.0.values().next_back() {
            Some((version, _)) if key == b"k" => read(version.borrowed()).map(|()| true),
            _ => Ok(false),
        }
    }

    fn scan(&self, _: &KeyRange, visit: VisitVersion<'_>) -> Result<(), StorageError> {
        self.newest(b"k", &mut |version| visit(b"k", version).map(|_| ())).map(|_| ())
    }

    fn event(
        &self,
        at: WrittenAt,
        read: &mut dyn FnMut(EventRef<'_>) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError> {
        self.1.set(self.1.get() + 1);
        let Some((version, replaced)) = self.0.get(&at) else { return Ok(false) };
        let replaced = match replaced {
            Replaced::None => Replaced::None,
            Replaced::Here(version) => Replaced::Here(version.borrowed()),
            Replaced::InLog(at) => Replaced::InLog(*at),
        };
        read(EventRef { key: b"k", version: version.borrowed(), replaced }).map(|()| true)
    }

    fn writes_from(&self, first: WrittenAt, visit: VisitWrite<'_>) -> Result<(), StorageError> {
        for at in self.0.range(first..).map(|(at, _)| *at) {
            self.1.set(self.1.get() + 1);
            if visit(b"k", at)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn state_row(&self, _: &[u8], _: ReadRow<'_>) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn state_rows(&self, _: &KeyRange, _: Visit<'_>) -> Result<(), StorageError> {
        Ok(())
    }
}

fn written(revision: u64) -> WrittenAt {
    WrittenAt { revision: Revision(revision), sub: 0 }
}

fn version(revision: u64) -> VersionBuf {
    let value = Bytes::from(revision.to_string());
    Version { written: written(revision), live: true, create: Revision(2), version: 1, lease: 0, value }
}

#[track_caller]
fn check(log: &Log, at: u64, expected: Option<&str>) {
    let mut found = None;
    live_version(log, b"k", At::Revision(Revision(at)), &mut |version| {
        found = Some(String::from_utf8(version.value.to_vec()).unwrap());
        Ok(())
    })
    .unwrap();
    assert_eq!(found.as_deref(), expected, "at {at}");
}

#[test]
fn versions_are_found_in_records_and_behind_pointers() {
    let mut log = Log::default();
    log.0.insert(written(2), (version(2), Replaced::None));
    log.0.insert(written(4), (version(4), Replaced::InLog(written(2))));
    log.0.insert(written(5), (VersionBuf::tombstone(written(5)), Replaced::Here(version(4))));
    log.0.insert(written(7), (version(7), Replaced::Here(VersionBuf::tombstone(written(5)))));
    for (at, expected) in
        [(1, None), (2, Some("2")), (3, Some("2")), (4, Some("4")), (5, None), (6, None), (7, Some("7"))]
    {
        check(&log, at, expected);
    }
}

#[test]
fn a_log_that_lacks_or_turns_round_events_is_an_error() {
    let lookup = |log: &Log| {
        let at = At::Revision(Revision(3));
        live_version(log, b"k", at, &mut |_| Ok(())).unwrap_err().to_string()
    };
    let mut log = Log::default();
    log.0.insert(written(6), (version(6), Replaced::Here(version(5))));
    assert!(lookup(&log).contains("revision 5 sub 0: the event is missing"));
    log.0.insert(written(5), (version(5), Replaced::InLog(written(4))));
    assert!(lookup(&log).contains("revision 4 sub 0: the event is missing"));
    log.0.insert(written(5), (version(5), Replaced::Here(version(6))));
    assert!(lookup(&log).contains("replaced a later version"));
}

#[test]
fn old_versions_of_a_hot_key_are_found_from_the_nearer_end() {
    let mut log = Log::default();
    log.0.insert(written(2), (version(2), Replaced::None));
    for revision in 3..=10_000 {
        log.0.insert(written(revision), (version(revision), Replaced::Here(version(revision - 1))));
    }
    for at in [2, 3, 500, 5_000, 9_000, 9_999] {
        log.1.set(0);
        check(&log, at, Some(&at.to_string()));
        assert!(log.1.get() < 200, "{} looks into the log for revision {at}", log.1.get());
    }
    check(&log, 1, None);
}

//! Watchers that are behind: who waits for a read, what one read brings to whom, and how much all of it may take.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use harmony_types::history::{Events, EventsRequest, HistoryPosition};
use harmony_types::planted::{self, Bug};
use harmony_types::{Event, KeyRange, KeyValue, Revision, StorageError};

use super::message::CancelReason;
use super::ring::{bytes_of, revision_of};
use super::state::State;
use super::watcher::{Piece, Token, Watcher};

/// Part of a piece's rows that are looked at in the ring: the hub's lock is held meanwhile.
const RING_ROWS_PART: u64 = 10;

/// Watchers that one read may serve: looking through those in line for them takes a moment under the hub's lock.
const COHORT_MAX: usize = 16_384;

/// Those who wait for a read, and what reads left with watchers.
#[derive(Debug, Default)]
pub(super) struct Reads {
    line: VecDeque<Token>,
    /// Reads of which some watcher still has its part, oldest first.
    kept: BTreeMap<u64, Kept>,
    kept_bytes: u64,
    number: u64,
    is_closed: bool,
}

/// What is left of a read.
#[derive(Debug)]
struct Kept {
    bytes: u64,
    holders: Vec<Token>,
    left: usize,
}

impl Reads {
    /// Puts a watcher, which has nothing, in line.
    pub(super) fn line_up(&mut self, watcher: &mut Watcher, token: Token) {
        if !self.is_closed && !std::mem::replace(&mut watcher.is_in_line, true) {
            self.line.push_back(token);
        }
    }

    /// A watcher has given away its part of a read.
    pub(super) fn released(&mut self, read: u64) {
        let Some(kept) = self.kept.get_mut(&read) else { return };
        kept.left -= 1;
        if kept.left == 0 {
            self.kept_bytes -= kept.bytes;
            self.kept.remove(&read);
        }
    }

    /// Nobody is in line from now on: a history that nobody will hear of is not read.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.line = VecDeque::new();
    }

    pub(super) fn has_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// Bytes of what reads brought and nobody took yet.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }
}

/// A read of the history to be made without the hub's lock.
pub(super) struct Plan {
    pub(super) request: EventsRequest,
    cohort: Vec<Token>,
}

/// What is to be done for those in line.
pub(super) enum Next {
    /// Nobody waits.
    Nothing,
    /// Somebody was served from the ring.
    Served,
    /// This is to be read, for [`State::take_read`].
    Read(Plan),
}

impl State {
    /// Serves the first in line, and all others whom the same events serve.
    pub(super) fn next_read(&mut self) -> Next {
        let first = loop {
            let Some(token) = self.reads.line.pop_front() else { return Next::Nothing };
            if self.get(token).is_some() {
                break token;
            }
        };
        let watcher = &self.watchers[first.slot];
        let from = watcher.reach;
        // Where an event of a revision that was begun stands in it, only the history knows.
        let may_be_in_ring = !watcher.is_fresh && from.sub == 0;
        let in_ring = may_be_in_ring && self.ring.first() <= from.revision;
        if may_be_in_ring && self.ring.next() <= from.revision {
            self.take_part(&[first], from, from, Vec::new());
            return Next::Served;
        }
        let rows_max = self.options.piece_rows / if in_ring { RING_ROWS_PART } else { 1 };
        let cohort = self.cohort(first, from, rows_max.max(1), in_ring);
        let bytes_max =
            if cohort.len() == 1 { self.options.piece_bytes } else { 4 * self.options.piece_bytes };
        if in_ring {
            let (mut events, mut bytes, mut revision) = (Vec::new(), 0, from.revision);
            while events.is_empty() || (events.len() as u64) < rows_max && bytes < bytes_max {
                let Some(together) = self.ring.get(revision) else { break };
                bytes += together.iter().map(|event| bytes_of(event)).sum::<u64>();
                events.extend_from_slice(together);
                revision = revision.next();
            }
            self.take_part(&cohort, from, revision.into(), events);
            return Next::Served;
        }
        let keys = self.hull(&cohort);
        let prev_kv = cohort.iter().any(|token| self.watchers[token.slot].prev_kv);
        Next::Read(Plan {
            request: EventsRequest { first: from, keys, prev_kv, bytes_max, rows_max },
            cohort,
        })
    }

    /// Takes those out of the line whom a read of `rows_max` rows from `from` on may serve, too. A revision has a row at
    /// least.
    fn cohort(&mut self, first: Token, from: HistoryPosition, rows_max: u64, in_ring: bool) -> Vec<Token> {
        let mut cohort = vec![first];
        let end = Revision(from.revision.0.saturating_add(rows_max));
        let watchers = &self.watchers;
        let mut looked = 0;
        self.reads.line.retain(|token| {
            looked += 1;
            if COHORT_MAX < looked {
                return true;
            }
            let Some(watcher) = watchers.get(token.slot).filter(|watcher| watcher.serial == token.serial)
            else {
                return false;
            };
            let reach = watcher.reach;
            let fits =
                reach == from || (reach.sub == 0 && from.sub == 0 && from <= reach && reach < end.into());
            let takes = fits && (!in_ring || !watcher.is_fresh);
            if takes {
                cohort.push(*token);
            }
            !takes
        });
        cohort
    }

    /// A range that holds all keys that these watch.
    fn hull(&self, cohort: &[Token]) -> KeyRange {
        let mut ranges = cohort.iter().map(|token| self.index.keys(self.watchers[token.slot].place));
        let Some(first) = ranges.next() else { return KeyRange::default() };
        ranges.fold(first.clone(), |hull, keys| if hull == *keys { hull } else { hull_of(&hull, keys) })
    }

    /// Takes what a planned read brought.
    pub(super) fn take_read(&mut self, plan: Plan, result: Result<Events, StorageError>) {
        let Plan { request, cohort } = plan;
        match result {
            Ok(Events { events, next, .. }) => {
                let events = events.into_iter().map(|event| Arc::new(detached(event))).collect();
                self.take_part(&cohort, request.first, next, events);
            }
            Err(error) => self.refuse(&cohort, &request, &error),
        }
        self.look_for_progress();
    }

    fn refuse(&mut self, cohort: &[Token], request: &EventsRequest, error: &StorageError) {
        let newest = Revision(self.ring.next().0 - 1);
        for token in cohort {
            let Some(watcher) = self.get(*token) else { continue };
            watcher.is_in_line = false;
            if let StorageError::Compacted { compacted, .. } = error
                && planted::is(Bug::WatchPastCompaction)
            {
                watcher.reach = watcher.reach.max(HistoryPosition::from(*compacted));
            }
            let reason = match error {
                // Those who are further on are asked for again, from where they are.
                StorageError::Compacted { compacted, .. } if *compacted <= watcher.reach.revision => {
                    self.line_up(*token);
                    continue;
                }
                StorageError::Compacted { compacted, .. } => CancelReason::Compacted(*compacted),
                error => {
                    tracing::error!(first = ?request.first, %error, "the history cannot be read");
                    CancelReason::Failed(error.to_string())
                }
            };
            self.end(*token, reason, newest);
        }
    }

    fn line_up(&mut self, token: Token) {
        self.reads.line_up(&mut self.watchers[token.slot], token);
    }

    /// Gives each watcher of the cohort its part of the events of `from..next`, whole revisions or a part of one.
    fn take_part(
        &mut self,
        cohort: &[Token],
        from: HistoryPosition,
        next: HistoryPosition,
        events: Vec<Arc<Event>>,
    ) {
        let mut parts: BTreeMap<Token, Vec<Arc<Event>>> = BTreeMap::new();
        for token in cohort {
            if let Some(watcher) = self.get(*token) {
                watcher.is_in_line = false;
                // Further on than the read came: to be read for again.
                if watcher.reach == from || watcher.reach < next {
                    parts.insert(*token, Vec::new());
                } else {
                    self.line_up(*token);
                }
            }
        }
        let mut bytes = 0;
        for event in events {
            let Some(kv) = &event.kv else { continue };
            let (mut is_taken, revision) = (false, revision_of(&event));
            self.index.find(&kv.key, &mut |token| {
                let watcher = &self.watchers[token.slot];
                if let Some(part) = parts.get_mut(&token)
                    && (watcher.reach == from || watcher.reach.revision <= revision)
                    && watcher.wants(&event)
                {
                    part.push(Arc::clone(&event));
                    is_taken = true;
                }
            });
            bytes += if is_taken { bytes_of(&event) } else { 0 };
        }
        self.hand_parts(parts, next, bytes);
    }

    fn hand_parts(&mut self, parts: BTreeMap<Token, Vec<Arc<Event>>>, next: HistoryPosition, bytes: u64) {
        self.reads.number += 1;
        let (read, more) = (self.reads.number, next.sub != 0);
        let (mut holders, mut kept_bytes) = (Vec::new(), bytes);
        for (token, mut events) in parts {
            let ring_next = self.ring.next();
            let watcher = &mut self.watchers[token.slot];
            let first = std::mem::replace(&mut watcher.reach, next);
            // Nothing was lost before `first`, so the ring serves from here on.
            watcher.is_fresh = false;
            let closes = watcher.is_open && !more;
            if !events.is_empty() || closes {
                events.shrink_to_fit();
                kept_bytes += 8 * events.len() as u64;
                holders.push(token);
                self.give(token, Piece { read, events, first, more });
            } else if ring_next <= next.revision {
                self.catch_up(token);
            } else {
                self.line_up(token);
            }
        }
        if !holders.is_empty() {
            let left = holders.len();
            self.reads.kept_bytes += kept_bytes;
            self.reads.kept.insert(read, Kept { bytes: kept_bytes, holders, left });
        }
        self.give_up_old_reads();
        self.look_for_progress();
    }

    /// Takes back the oldest pieces that nobody fetched while all of them take too much: they are read again when their
    /// streams ask for more.
    fn give_up_old_reads(&mut self) {
        while self.options.pieces_bytes < self.reads.kept_bytes && 1 < self.reads.kept.len() {
            let Some((read, kept)) = self.reads.kept.pop_first() else { return };
            self.reads.kept_bytes -= kept.bytes;
            for token in kept.holders {
                if let Some(watcher) = self.get(token)
                    && let Some(piece) = watcher.piece.take_if(|piece| piece.read == read)
                {
                    watcher.fall_behind(piece.first);
                }
            }
        }
    }
}

/// A range that holds both.
fn hull_of(one: &KeyRange, other: &KeyRange) -> KeyRange {
    let end = |keys: &KeyRange| match &keys.end[..] {
        [] => {
            // Behind a single key.
            let mut end = keys.key.to_vec();
            end.push(0);
            Some(Bytes::from(end))
        }
        [0] => None,
        _ => Some(keys.end.clone()),
    };
    let key = one.key.clone().min(other.key.clone());
    let end = match (end(one), end(other)) {
        (Some(one), Some(other)) => one.max(other),
        _ => Bytes::from_static(&[0]),
    };
    KeyRange { key, end }
}

/// An event that keeps no buffer but its own.
fn detached(event: Event) -> Event {
    let own = |kv: KeyValue| KeyValue {
        key: Bytes::copy_from_slice(&kv.key),
        value: Bytes::copy_from_slice(&kv.value),
        ..kv
    };
    Event { event_type: event.event_type, kv: event.kv.map(own), prev_kv: event.prev_kv.map(own) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hull_holds_both_ranges() {
        let check =
            |one: (&'static str, &'static str), other: (&'static str, &'static str), hull: (&str, &str)| {
                let range =
                    |(key, end): (&'static str, &'static str)| KeyRange { key: key.into(), end: end.into() };
                let found = hull_of(&range(one), &range(other));
                assert_eq!((&found.key[..], &found.end[..]), (hull.0.as_bytes(), hull.1.as_bytes()));
                assert_eq!(hull_of(&range(other), &range(one)), found);
            };
        check(("a", ""), ("b", ""), ("a", "b\0"));
        check(("a", "c"), ("b", ""), ("a", "c"));
        check(("a", "\0"), ("b", "d"), ("a", "\0"));
        check(("b", "d"), ("a", "c"), ("a", "d"));
    }
}

//! What watches promise, against the log of what happened.
//!
//! | property | a watch |
//! | --- | --- |
//! | ordered | is told events in the order of the log |
//! | unique | is told none twice |
//! | atomic | is told all of a revision in one response, unless it asked for fragments |
//! | reliable | misses nothing between its start and the last thing that it was told |
//! | resumable | that goes on for another one begins behind what that one was told |
//! | bookmarkable | was told all up to a progress notice's revision before it, and nothing of that behind it |
//! | filtered | is told nothing of other keys and of other kinds, and nothing from before its start |
//! | true | is told what the log says: key, value, lease, revisions |
//! | is_create | can tell a key that is new from one that was there |
//! | prev_kv | that asked for it is told what each event replaced, and no other is |
//! | causal | hears of nothing before it was asked for, nor of what its header's revision does not cover |
//! | canceled | ends once, and for a compaction only if it was behind it |

use harmony_types::{Event, EventType, KeyValue, Revision};

use super::Violation;
use super::log::{Log, called_at};
use crate::history::{History, Moment, Request, Watch, WatchMessage, WatchResponse};

/// Responses that are printed before the one that is wrong.
const BEFORE: usize = 4;

/// Checks every watch of a history.
///
/// # Errors
/// The first response that breaks a property, with those before it.
pub fn check(history: &History, log: &Log) -> Result<(), Violation> {
    let called = called_at(history);
    for watch in &history.watches {
        let mut told = Told::new(history, log, watch)?;
        for (place, response) in watch.responses.iter().enumerate() {
            told.check(response, |revision| called.get(&revision).copied())
                .map_err(|(property, reason)| report(watch, place, property, reason))?;
        }
    }
    Ok(())
}

/// Up to which revision a watch was told everything: from the next one on it is to be resumed. `None` before it exists.
#[must_use]
pub fn told_up_to(watch: &Watch) -> Option<Revision> {
    let mut told: Option<i64> = None;
    for response in &watch.responses {
        let header = response.revision.as_i64();
        match &response.message {
            WatchMessage::Created => {
                told = Some(watch.request.start.map_or(header, |start| start.as_i64() - 1));
            }
            WatchMessage::Progress => told = told.max(Some(header)),
            WatchMessage::Events { events, fragment } => {
                let last = events.last().map_or(0, revision_of);
                // A revision that is not whole is told again.
                told = told.max(Some(if *fragment { last - 1 } else { last }));
            }
            WatchMessage::Canceled { .. } => {}
        }
    }
    told.map(|revision| Revision(u64::try_from(revision).unwrap_or(0)))
}

fn report(watch: &Watch, place: usize, property: &'static str, reason: String) -> Violation {
    let head = Watch { responses: Vec::new(), ..watch.clone() };
    let first = place.saturating_sub(BEFORE);
    let mut window = vec![head.to_string()];
    if first > 0 {
        window.push(format!("  ({first} responses)"));
    }
    for (number, response) in watch.responses[first..=place].iter().enumerate() {
        let sign = if first + number == place { ">" } else { " " };
        window.push(format!("{sign} {response}"));
    }
    Violation::new(property, format!("as a watch: {reason}")).with_window(window)
}

type Broken = (&'static str, String);

/// One watch on its way.
struct Told<'a> {
    watch: &'a Watch,
    /// All that it is to be told, in order; begun once it is created.
    expected: Vec<&'a Event>,
    log: &'a Log,
    /// How many of those it was told.
    count: usize,
    is_created: bool,
    is_canceled: bool,
    /// From where on it is told.
    start: i64,
    /// The newest progress notice.
    bookmark: i64,
    /// The response before was a fragment: of this revision.
    open: Option<i64>,
    newest_header: i64,
    /// Compactions, with when they were asked for.
    compactions: Vec<(Moment, i64)>,
}

impl<'a> Told<'a> {
    fn new(history: &History, log: &'a Log, watch: &'a Watch) -> Result<Self, Violation> {
        if let Some(place) = watch.resumes {
            let resumed = history
                .watches
                .get(place)
                .ok_or_else(|| Violation::new("resumable", format!("there is no watch {place} to resume")))?;
            if let (Some(told), Some(start)) = (told_up_to(resumed), watch.request.start)
                && told.next() < start
            {
                let reason =
                    format!("as a watch: it begins at {start}, but {told} is all that was told before");
                return Err(Violation::new("resumable", reason).with_window(vec![watch.to_string()]));
            }
        }
        let compactions =
            history.operations.iter().filter(|operation| operation.may_have_changed_something());
        let compactions = compactions.filter_map(|operation| match operation.request {
            Request::Compact(revision) => Some((operation.called, revision.as_i64())),
            _ => None,
        });
        Ok(Self {
            watch,
            expected: Vec::new(),
            log,
            count: 0,
            is_created: false,
            is_canceled: false,
            start: 0,
            bookmark: 0,
            open: None,
            newest_header: 0,
            compactions: compactions.collect(),
        })
    }

    fn check(
        &mut self,
        response: &WatchResponse,
        called: impl Fn(i64) -> Option<Moment>,
    ) -> Result<(), Broken> {
        let header = response.revision.as_i64();
        if self.is_canceled {
            return Err(("canceled", "it was told something after its end".into()));
        }
        if header < self.newest_header {
            return Err(("ordered", format!("its header went back from {} to {header}", self.newest_header)));
        }
        self.newest_header = header;
        if self.log.last() < header {
            return Err((
                "causal",
                format!("its header says {header}, but the log ends at {}", self.log.last()),
            ));
        }
        if let Some(called) = called(header)
            && response.at < called
        {
            return Err(("causal", format!("revision {header} was asked for later, at {called}")));
        }
        match &response.message {
            WatchMessage::Created if self.is_created => Err(("unique", "it was created twice".into())),
            WatchMessage::Created => {
                self.create(header);
                Ok(())
            }
            WatchMessage::Canceled { compact_revision, .. } => self.cancel(response.at, *compact_revision),
            _ if !self.is_created => Err(("ordered", "it was told something before it existed".into())),
            WatchMessage::Progress => self.progress(header),
            WatchMessage::Events { events, fragment } => self.events(events, *fragment, header, response.at),
        }
    }

    fn create(&mut self, header: i64) {
        self.is_created = true;
        self.start = self.watch.request.start.map_or(header + 1, |start| start.as_i64());
        self.expected = self.log.from(self.start).filter(|event| self.is_wanted(event)).collect();
    }

    fn is_wanted(&self, event: &Event) -> bool {
        let request = &self.watch.request;
        let is_delete = is_delete(event);
        let is_of_kind = if is_delete { !request.no_delete } else { !request.no_put };
        is_of_kind && event.kv.as_ref().is_some_and(|kv| request.keys.contains(&kv.key))
    }

    fn cancel(&mut self, at: Moment, compact_revision: Option<Revision>) -> Result<(), Broken> {
        self.is_canceled = true;
        let Some(compacted) = compact_revision.map(Revision::as_i64) else { return Ok(()) };
        let asked = self.compactions.iter().any(|(called, revision)| *called <= at && *revision == compacted);
        if !asked {
            return Err(("canceled", format!("nobody had asked for a compaction at {compacted}")));
        }
        let behind = self.count.checked_sub(1).map_or(0, |last| revision_of(self.expected[last]));
        let next = self.start.max(self.bookmark + 1).max(behind + 1);
        if self.is_created && compacted <= next {
            let reason = format!("compacted up to {compacted}, it needed only what comes from {next} on");
            return Err(("canceled", reason));
        }
        Ok(())
    }

    fn progress(&mut self, header: i64) -> Result<(), Broken> {
        if let Some(open) = self.open {
            return Err(("atomic", format!("revision {open} was not told to its end")));
        }
        if let Some(missing) = self.expected.get(self.count).filter(|event| revision_of(event) <= header) {
            return Err((
                "bookmarkable",
                format!("all up to {header} was told, it says, but not {missing:?}"),
            ));
        }
        self.bookmark = header;
        Ok(())
    }

    fn events(&mut self, events: &[Event], fragment: bool, header: i64, at: Moment) -> Result<(), Broken> {
        if fragment && !self.watch.request.fragment {
            return Err(("atomic", "it is told in fragments and did not ask for that".into()));
        }
        if let (Some(open), Some(first)) = (self.open, events.first())
            && revision_of(first) != open
        {
            return Err(("atomic", format!("revision {open} was not told to its end")));
        }
        for event in events {
            self.event(event, at)?;
            let revision = revision_of(event);
            if header < revision {
                return Err((
                    "causal",
                    format!("revision {revision} stands in a response of revision {header}"),
                ));
            }
        }
        let Some(last) = events.last().map(revision_of) else {
            return Err(("reliable", "a response without any event".into()));
        };
        self.open = fragment.then_some(last);
        let is_split = self.expected.get(self.count).is_some_and(|next| revision_of(next) == last);
        if is_split && !fragment {
            return Err((
                "atomic",
                format!("revision {last} is not whole: {:?} is missing", self.expected[self.count]),
            ));
        }
        Ok(())
    }

    fn event(&mut self, told: &Event, at: Moment) -> Result<(), Broken> {
        let revision = revision_of(told);
        if !self.is_wanted(told) {
            return Err(("filtered", format!("it did not ask for {told:?}")));
        }
        if revision < self.start {
            return Err(("filtered", format!("{told:?} is from before its start at {}", self.start)));
        }
        if revision <= self.bookmark {
            return Err(("bookmarkable", format!("{told:?} comes behind a notice of {}", self.bookmark)));
        }
        let is_same = |event: &&Event| is_delete(event) == is_delete(told) && key_of(event) == key_of(told);
        let next = self.expected.get(self.count).copied();
        match next {
            Some(next) if revision_of(next) == revision && is_same(&next) => {
                self.count += 1;
                self.is_true(told, next, at)
            }
            _ if self.expected[..self.count]
                .iter()
                .any(|old| revision_of(old) == revision && is_same(old)) =>
            {
                Err(("unique", format!("it was told {told:?} before")))
            }
            _ if self.expected[self.count..]
                .iter()
                .any(|one| revision_of(one) == revision && is_same(one)) =>
            {
                let missing = next.expect("what is told is among what is expected");
                let property = if revision_of(missing) == revision { "ordered" } else { "reliable" };
                Err((property, format!("it was not told {missing:?} before {told:?}")))
            }
            _ if self
                .count
                .checked_sub(1)
                .is_some_and(|last| revision < revision_of(self.expected[last])) =>
            {
                Err(("ordered", format!("{told:?} comes too late")))
            }
            _ => Err(("true", format!("{told:?} never happened"))),
        }
    }

    fn is_true(&self, told: &Event, right: &Event, at: Moment) -> Result<(), Broken> {
        if told.kv != right.kv {
            let (told_kv, right_kv) = (told.kv.as_ref(), right.kv.as_ref());
            let is_create = |kv: Option<&KeyValue>| kv.map(|kv| (kv.create_revision, kv.version));
            let property = if is_create(told_kv) == is_create(right_kv) { "true" } else { "is_create" };
            return Err((property, format!("{told_kv:?} should be {right_kv:?}")));
        }
        match (&told.prev_kv, &right.prev_kv) {
            (Some(_), _) if !self.watch.request.prev_kv => {
                Err(("prev_kv", "it did not ask for what was replaced".into()))
            }
            (Some(told), right) if Some(told) != right.as_ref() => {
                Err(("prev_kv", format!("{told:?} was not replaced, but {right:?}")))
            }
            // What a compaction took away cannot be told.
            (None, Some(missing))
                if self.watch.request.prev_kv && !self.is_compacted(revision_of(told), at) =>
            {
                Err(("prev_kv", format!("it was not told of {missing:?}, which was replaced")))
            }
            _ => Ok(()),
        }
    }

    fn is_compacted(&self, revision: i64, at: Moment) -> bool {
        self.compactions.iter().any(|(called, compacted)| *called <= at && revision <= *compacted)
    }
}

fn is_delete(event: &Event) -> bool {
    EventType::try_from(event.event_type) == Ok(EventType::Delete)
}

fn key_of(event: &Event) -> &[u8] {
    event.kv.as_ref().map_or(&[], |kv| &kv.key)
}

fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

#[cfg(test)]
mod tests;

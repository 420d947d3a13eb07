//! What clients that watch do, and what they are told.

use std::sync::Arc;

use harmony_node::watch::WatchMessage;
use harmony_types::{NodeId, Revision};

use super::{Event, Phase, World};
use crate::check::watch::told_up_to;
use crate::simulation::probes::Probe;
use crate::simulation::time::{MS, SECOND, US};
use crate::simulation::trace::Digest;
use crate::simulation::watcher::{Stream, Wake, Watcher};

/// What one poll takes: a single event, some, or all that is there.
const POLL_BYTES: [u64; 3] = [1, 500, 1 << 20];

impl World {
    /// A client begins to watch, or goes on elsewhere.
    pub(super) fn watch(&mut self, watcher: usize) {
        let now = self.now.get();
        let members: Vec<NodeId> =
            self.members.values().filter(|member| member.gone.is_none()).map(|member| member.id).collect();
        if members.is_empty() || self.phase == Phase::Over {
            return;
        }
        let newest = Revision(self.told.revision());
        let client = &mut self.watchers[watcher];
        // The stream that it leaves ends as its connection does.
        client.stream = None;
        let (place, member) = client.next(now, newest, &members, &mut self.history);
        let connection = client.connection;
        if self.history.watches[place].resumes.is_some() {
            self.probe(Probe::WatchResumed);
        }
        self.trace.note(now, &[12, watcher as u64, place as u64, member.get()], || {
            format!("watch {place} {}", self.history.watches[place])
        });
        let way = self.pace.range(50 * US..2 * MS);
        self.schedule.push(now + way, Event::WatchArrives { watcher, connection, member });
    }

    /// The request is there.
    pub(super) fn watch_arrives(&mut self, watcher: usize, connection: u64, member: NodeId) {
        if self.watchers[watcher].connection != connection || self.is_cut_off(member) {
            return;
        }
        let event = Event::WatchArrives { watcher, connection, member };
        let Some(Event::WatchArrives { .. }) = self.hold(member, event) else { return };
        let now = self.now.get();
        let process = self.members.get(&member).and_then(|member| member.process.as_ref());
        let (Some(process), Some(place)) = (process, self.watchers[watcher].watch) else {
            self.schedule.push(now + MS, Event::WatchBroken { watcher, connection });
            return;
        };
        let woken = Arc::clone(&self.woken);
        let inner = process.hub.stream(Arc::new(Wake { woken, watcher, connection }));
        match inner.create(&Watcher::asked(&self.history.watches[place].request)) {
            Ok(id) => {
                self.watchers[watcher].stream = Some(Stream { member, inner, id, busy_until: now });
                self.poll_later(watcher, connection);
            }
            Err(refusal) => {
                self.trace.say(now, || format!("watch {place} is refused: {refusal}"));
                self.schedule.push(now + MS, Event::WatchBroken { watcher, connection });
            }
        }
        self.follow_up(member);
    }

    /// Streams that have something to read are read, a little later.
    pub(super) fn take_woken(&mut self) {
        for (watcher, connection) in self.woken.take() {
            self.poll_later(watcher, connection);
        }
    }

    fn poll_later(&mut self, watcher: usize, connection: u64) {
        // Some do not read for a while.
        let longest = if self.pace.chance(1, 20) { 2 * SECOND } else { MS };
        let after = self.pace.range(20 * US..longest);
        self.schedule.push(self.now.get() + after, Event::Poll { watcher, connection });
    }

    /// A member reads one of its streams and sends what it says.
    pub(super) fn poll(&mut self, watcher: usize, connection: u64) {
        let now = self.now.get();
        let client = &mut self.watchers[watcher];
        let Some(member) = client.stream.as_ref().filter(|_| client.connection == connection) else { return };
        let member = member.member;
        let Some(Event::Poll { .. }) = self.hold(member, Event::Poll { watcher, connection }) else { return };
        let client = &mut self.watchers[watcher];
        let bytes_max = POLL_BYTES[usize::try_from(client.draw(3)).unwrap_or(0)];
        let Some(stream) = &mut client.stream else { return };
        let messages = stream.inner.poll(bytes_max);
        let is_all = messages.is_empty();
        for message in messages {
            let at = stream.busy_until.max(now + self.pace.range(50 * US..2 * MS));
            stream.busy_until = at;
            self.schedule.push(at, Event::WatchTold { watcher, connection, message: Box::new(message) });
        }
        if !is_all {
            self.poll_later(watcher, connection);
        }
        self.follow_up(member);
    }

    /// A message is at its client.
    pub(super) fn watch_told(&mut self, watcher: usize, connection: u64, message: Box<WatchMessage>) {
        let now = self.now.get();
        let client = &mut self.watchers[watcher];
        let (Some(place), true) = (client.watch, client.connection == connection) else { return };
        let cut_off = client.stream.as_ref().map(|stream| stream.member);
        if cut_off.is_some_and(|member| self.is_cut_off(member)) {
            // This is lost, so nothing behind it comes over this connection.
            let client = &mut self.watchers[watcher];
            client.stream = None;
            client.connection += 1;
            let connection = client.connection;
            self.schedule.push(now + SECOND, Event::WatchBroken { watcher, connection });
            return;
        }
        let mut digest = Digest::EMPTY;
        digest.watch_message(&message);
        self.trace
            .note(now, &[13, watcher as u64, digest.0], || format!("watch {place} is told {message:?}"));
        let watch = &mut self.history.watches[place];
        let goes_on = self.watchers[watcher].hear(now, *message, watch);
        if !goes_on {
            let response = watch.responses.last().map(|response| &response.message);
            if let Some(crate::history::WatchMessage::Canceled { compact_revision: Some(_), .. }) = response {
                self.probe(Probe::WatchCompacted);
            }
            self.watch_broken(watcher, connection);
        }
    }

    /// A connection has ended: the client goes on elsewhere, soon.
    pub(super) fn watch_broken(&mut self, watcher: usize, connection: u64) {
        let client = &mut self.watchers[watcher];
        if client.connection != connection || client.has_ended {
            return;
        }
        client.stream = None;
        client.has_ended = true;
        // What still comes over it is not read.
        client.connection += 1;
        let after = self.pace.range(MS..300 * MS);
        self.schedule.push(self.now.get() + after, Event::Watch { watcher });
    }

    /// A member is gone: so are its streams.
    pub(super) fn break_watches(&mut self, member: NodeId) {
        let now = self.now.get();
        for (watcher, client) in self.watchers.iter_mut().enumerate() {
            if client.stream.take_if(|stream| stream.member == member).is_some() {
                let connection = client.connection;
                let after = self.pace.range(US..5 * MS);
                self.schedule.push(now + after, Event::WatchBroken { watcher, connection });
            }
        }
    }

    /// A client that watches asks how far it is, leaves, or ends its watch.
    pub(super) fn watch_deed(&mut self, watcher: usize) {
        let now = self.now.get();
        if self.phase == Phase::Over {
            return;
        }
        let client = &mut self.watchers[watcher];
        let deed = client.draw(100);
        let again = client.think();
        self.schedule.push(now + again, Event::WatchDeed { watcher });
        let client = &mut self.watchers[watcher];
        let connection = client.connection;
        let is_stuck = client.stream.is_none()
            && client.watch.is_some_and(|place| self.history.watches[place].called.0 + 3 * SECOND < now);
        if is_stuck {
            // Nobody answered.
            return self.watch_broken(watcher, connection);
        }
        let is_settling = !matches!(self.phase, Phase::Faults);
        let Some(stream) = &self.watchers[watcher].stream else { return };
        let member = stream.member;
        let runs = self.members.get(&member).is_some_and(|member| member.paused_until <= now);
        if !runs || self.is_cut_off(member) {
            return;
        }
        match deed {
            0..45 => stream.inner.request_progress(),
            45..75 => stream.inner.notify_progress(),
            75..85 if !is_settling => {
                stream.inner.cancel(stream.id);
            }
            85..100 if !is_settling => return self.watch_broken(watcher, connection),
            _ => return,
        }
        self.follow_up(member);
    }

    /// Whether every watch was told all that happened. Asks those that were not how far they are.
    pub(super) fn all_watches_told(&mut self) -> bool {
        let newest = self.members.values().filter_map(|member| member.process.as_ref());
        let newest = newest.map(|process| process.storage.revision()).max().unwrap_or_default();
        let mut all = true;
        let mut asked = Vec::new();
        for client in &self.watchers {
            let told = client.watch.and_then(|place| told_up_to(&self.history.watches[place]));
            if client.has_ended || told.is_none_or(|told| told < newest) {
                all = false;
                if let Some(stream) = &client.stream {
                    stream.inner.request_progress();
                    asked.push(stream.member);
                }
            }
        }
        for member in asked {
            self.follow_up(member);
        }
        all
    }
}

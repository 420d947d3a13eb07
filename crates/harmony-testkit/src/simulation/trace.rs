//! What happened, as one number: two runs that did the same have the same one. And as lines, for whoever debugs a seed.

use std::fmt;

use harmony_node::watch::WatchMessage;
use harmony_types::PeerMessage;

/// A hash over numbers and bytes, in order. Not for anything hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest(pub(super) u64);

impl Digest {
    pub(super) const EMPTY: Self = Self(0x5163_616d_6f6e_7921);

    pub(super) fn number(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
    }

    /// Everything in a message that a receiver could act on.
    pub(super) fn message(&mut self, message: &PeerMessage) {
        match message {
            PeerMessage::Raft(message) => {
                self.number(1 << 32 | u64::from(message.message_type as u8));
                for number in [
                    message.term.0,
                    message.log_term.0,
                    message.index.0,
                    message.commit.0,
                    u64::from(message.reject),
                    message.reject_hint.0,
                    message.entries.len() as u64,
                ] {
                    self.number(number);
                }
                for entry in &message.entries {
                    self.number(entry.index.0 ^ entry.term.0 << 40);
                    self.bytes(&entry.data);
                }
                self.bytes(&message.context);
            }
            PeerMessage::Propose { request, data } => {
                self.number(2 << 32);
                self.number(*request);
                self.bytes(data);
            }
            PeerMessage::ProposeReply { request, result } => {
                self.number(3 << 32);
                self.number(*request);
                match result {
                    Ok(forwarded) => self.number(forwarded.index.0),
                    Err(error) => self.number(1 << 40 | u64::from(*error as u8)),
                }
            }
            PeerMessage::Change { request, changes } => {
                self.number(4 << 32 | changes.len() as u64);
                self.number(*request);
            }
            PeerMessage::ChangeReply { request, result } => {
                self.number(5 << 32 | u64::from(result.is_ok()));
                self.number(*request);
            }
            PeerMessage::LeaseCall { request, id, renew } => {
                self.number(7 << 32 | u64::from(*renew));
                self.number(*request);
                self.number(id.0.cast_unsigned());
            }
            PeerMessage::LeaseReply { request, result } => {
                self.number(8 << 32);
                self.number(*request);
                match result {
                    Ok(None) => self.number(0),
                    Ok(Some(left)) => self.number(1 << 40 | left.remaining_s.cast_unsigned()),
                    Err(error) => self.number(1 << 41 | u64::from(*error as u8)),
                }
            }
            PeerMessage::Hashes { hashes, corrupt } => {
                self.number(9 << 32 | u64::from(*corrupt));
                for (index, hash) in hashes {
                    self.number(index.0);
                    self.number(u64::from(*hash));
                }
            }
            PeerMessage::Diverged { index, hash } => {
                self.number(10 << 32 | u64::from(*hash));
                self.number(index.0);
            }
            PeerMessage::Acknowledged { held } => {
                self.number(6 << 32);
                held.iter().for_each(|(id, index)| self.number(id.get() << 48 ^ index.0));
            }
        }
    }
}

impl Digest {
    /// What a watcher is told.
    pub(super) fn watch_message(&mut self, message: &WatchMessage) {
        match message {
            WatchMessage::Created { revision, .. } => self.number(1 << 32 | revision.0),
            WatchMessage::Events { events, revision, more, .. } => {
                self.number(2 << 32 | u64::from(*more));
                self.number(revision.0);
                for kv in events.iter().filter_map(|event| event.kv.as_ref()) {
                    self.number(kv.mod_revision.cast_unsigned());
                    self.bytes(&kv.key);
                    self.bytes(&kv.value);
                }
            }
            WatchMessage::Progress { revision, .. } => self.number(3 << 32 | revision.0),
            WatchMessage::Canceled { revision, .. } => self.number(4 << 32 | revision.0),
            WatchMessage::Closed => self.number(5 << 32),
        }
    }
}

/// The finalizer of splitmix64: every bit in changes half of those that come out.
pub(super) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// See the module.
pub(super) struct Trace {
    digest: Digest,
    events: u64,
    /// Kept when somebody wants to read them.
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(keep_lines: bool) -> Self {
        Self { digest: Digest::EMPTY, events: 0, lines: keep_lines.then(Vec::new) }
    }

    /// Takes in an event: what makes it differ from others, and how it reads.
    pub(super) fn note(&mut self, at: u64, numbers: &[u64], line: impl FnOnce() -> String) {
        self.digest.number(at);
        numbers.iter().for_each(|number| self.digest.number(*number));
        self.events += 1;
        self.say(at, line);
    }

    /// A line alone: what follows from events that were taken in.
    pub(super) fn say(&mut self, at: u64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>10}.{:03} {}", at / 1_000_000, at / 1_000 % 1_000, line()));
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.digest.0
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

/// A peer's message in a few words.
pub(super) struct Words<'a>(pub(super) &'a PeerMessage);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PeerMessage::Raft(message) => {
                write!(f, "{:?} term {}", message.message_type, message.term)?;
                if message.index.0 != 0 {
                    write!(f, " at {}@{}", message.index, message.log_term)?;
                }
                if message.commit.0 != 0 {
                    write!(f, " commit {}", message.commit)?;
                }
                if let (Some(first), Some(last)) = (message.entries.first(), message.entries.last())
                    && first.index.0 != 0
                {
                    write!(f, " entries {}..={}", first.index, last.index)?;
                }
                if message.reject { write!(f, " reject") } else { Ok(()) }
            }
            PeerMessage::Propose { request, .. } => write!(f, "Propose {request:#x}"),
            PeerMessage::ProposeReply { request, result } => {
                write!(f, "ProposeReply {request:#x} {:?}", result.as_ref().map(|forwarded| forwarded.index))
            }
            PeerMessage::Change { changes, .. } => write!(f, "Change of {} members", changes.len()),
            PeerMessage::ChangeReply { result, .. } => write!(f, "ChangeReply {result:?}"),
            PeerMessage::Acknowledged { .. } => write!(f, "Acknowledged"),
            PeerMessage::LeaseCall { id, renew: true, .. } => write!(f, "LeaseCall renew {id:?}"),
            PeerMessage::LeaseCall { id, .. } => write!(f, "LeaseCall look {id:?}"),
            PeerMessage::LeaseReply { result, .. } => write!(f, "LeaseReply {result:?}"),
            PeerMessage::Hashes { hashes, corrupt } => {
                write!(f, "Hashes up to {:?}", hashes.last().map(|(index, _)| index))?;
                if *corrupt { write!(f, " corrupt") } else { Ok(()) }
            }
            PeerMessage::Diverged { index, .. } => write!(f, "Diverged at {index}"),
        }
    }
}

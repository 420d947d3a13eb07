//! Linearizable reads: all that wait share one read index round, confirmed by a quorum's heartbeats.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use harmony_types::planted::{self, Bug};
use harmony_types::raft::ReadState;
use harmony_types::{LogIndex, NodeError, NodeId};

use crate::bounds;
use crate::core::event::Actions;
use crate::waiter::Waiter;

#[derive(Debug)]
struct Waiting {
    waiter: Waiter<()>,
    /// Tick at which it is given up.
    deadline: u64,
}

#[derive(Debug)]
struct Round {
    context: Bytes,
    started: u64,
    reads: Vec<Waiting>,
}

/// The reads of one node.
#[derive(Debug)]
pub(super) struct Reads {
    waiting: Vec<Waiting>,
    rounds: VecDeque<Round>,
    /// Confirmed, by the index that must be applied first.
    confirmed: BTreeMap<LogIndex, Vec<Waiting>>,
    /// Node id and boot nonce: contexts of two nodes, or of two lives of one, never meet.
    prefix: [u8; 16],
    counter: u64,
    retry_ticks: u64,
}

impl Reads {
    pub(super) fn new(node: NodeId, boot_nonce: u64, retry_ticks: u64) -> Self {
        let mut prefix = [0; 16];
        prefix[..8].copy_from_slice(&node.get().to_be_bytes());
        prefix[8..].copy_from_slice(&boot_nonce.to_be_bytes());
        Self {
            waiting: Vec::new(),
            rounds: VecDeque::new(),
            confirmed: BTreeMap::new(),
            prefix,
            counter: 0,
            retry_ticks: retry_ticks.max(1),
        }
    }

    pub(super) fn add(&mut self, waiter: Waiter<()>, deadline: u64, actions: &mut Actions<impl Sized>) {
        if bounds::READS_WAITING_MAX <= self.waiting.len() {
            actions.reads.push(waiter, Err(NodeError::Busy));
        } else {
            self.waiting.push(Waiting { waiter, deadline });
        }
    }

    /// Opens a round for all that wait and returns its context, never used before; `None` when there is nothing to ask.
    pub(super) fn open_round(&mut self, now: u64) -> Option<Bytes> {
        if self.waiting.is_empty() || bounds::READ_ROUNDS_MAX <= self.rounds.len() {
            return None;
        }
        self.counter += u64::from(!planted::is(Bug::ReuseReadContext));
        let mut context = BytesMut::with_capacity(24);
        context.put_slice(&self.prefix);
        context.put_u64(self.counter);
        let context = context.freeze();
        let reads = std::mem::take(&mut self.waiting);
        self.rounds.push_back(Round { context: context.clone(), started: now, reads });
        Some(context)
    }

    /// A quorum confirmed a round.
    pub(super) fn confirmed(&mut self, state: &ReadState) {
        if let Some(place) = self.rounds.iter().position(|round| round.context == state.context)
            && let Some(round) = self.rounds.remove(place)
        {
            self.confirmed.entry(state.index).or_default().extend(round.reads);
        }
    }

    /// Lets go what is confirmed up to the applied index; returns how many.
    pub(super) fn release(&mut self, applied: LogIndex, actions: &mut Actions<impl Sized>) -> u64 {
        let mut released = 0;
        while let Some(first) = self.confirmed.first_entry()
            && (*first.key() <= applied || planted::is(Bug::ReadBeforeApplied))
        {
            for read in first.remove() {
                actions.reads.push(read.waiter, Ok(()));
                released += 1;
            }
        }
        released
    }

    /// The leader or the term changed: whatever was asked is asked again, under new contexts.
    pub(super) fn restart(&mut self) -> u64 {
        let rounds = self.rounds.len() as u64;
        let mut reads: Vec<Waiting> = self.rounds.drain(..).flat_map(|round| round.reads).collect();
        reads.append(&mut self.waiting);
        if planted::is(Bug::ReadAcrossLeaders) {
            self.confirmed.entry(LogIndex::ZERO).or_default().append(&mut reads);
        }
        self.waiting = reads;
        rounds
    }

    /// Gives up what waited too long and asks again where no answer came; returns how many rounds.
    pub(super) fn tick(&mut self, now: u64, actions: &mut Actions<impl Sized>) -> u64 {
        let mut retried = 0;
        while let Some(round) = self.rounds.pop_front_if(|round| round.started + self.retry_ticks <= now) {
            self.waiting.extend(round.reads);
            retried += 1;
        }
        let mut expire = |reads: &mut Vec<Waiting>| {
            for read in reads.extract_if(.., |read| read.deadline <= now) {
                actions.reads.push(read.waiter, Err(NodeError::Timeout));
            }
        };
        expire(&mut self.waiting);
        self.confirmed.values_mut().for_each(expire);
        self.confirmed.retain(|_, reads| !reads.is_empty());
        retried
    }
}

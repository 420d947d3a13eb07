//! Election timeouts from a seed, for simulations.
//!
//! The `raft` crate draws one from the thread's generator whenever it enters a part or a term, and looks at it in a tick alone. So
//! setting it before each tick is enough. What is set is a function of the seed, the term, the part and the leader: nobody has
//! to know when the crate drew.

use ::raft::{Raft, Storage};

/// See the module.
#[derive(Debug)]
pub(super) struct Pinned {
    seed: u64,
    /// A timeout that was set on purpose, and the place at which it holds.
    expired: Option<(Place, usize)>,
}

/// Term, part and leader.
type Place = (u64, u8, u64);

impl Pinned {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, expired: None }
    }

    /// Keeps the timeout that is set now, until raft enters another part or term.
    pub(super) fn expire<S: Storage>(&mut self, raft: &Raft<S>) {
        self.expired = Some((place(raft), raft.randomized_election_timeout()));
    }

    /// Sets the timeout that the next tick looks at.
    pub(super) fn set<S: Storage>(&self, raft: &mut Raft<S>) {
        let place = place(raft);
        let timeout = match self.expired {
            Some((at, timeout)) if at == place => timeout,
            _ => {
                // As the crate draws it: from one election timeout to two.
                let ticks = raft.election_timeout();
                let drawn = mix(mix(mix(self.seed ^ place.0) ^ u64::from(place.1)) ^ place.2);
                ticks + usize::try_from(drawn % ticks as u64).unwrap_or(0)
            }
        };
        raft.set_randomized_election_timeout(timeout);
    }
}

fn place<S: Storage>(raft: &Raft<S>) -> Place {
    (raft.term, raft.state as u8, raft.leader_id)
}

/// The finalizer of splitmix64: every bit in changes half of those that come out.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

//! The search for an order: Wing and Gong's algorithm with Lowe's memory of states that led nowhere, as in porcupine.
//!
//! A history is linearizable when its operations can be put into one order that a sequential object would answer as they
//! were answered, and that keeps every operation before those that were called after it had returned. The search puts
//! together such an order from the front. At each place only operations may come next that were called before the first
//! return among those left. It is written for any object: see [`Model`].
//!
//! Two things make it fast where the object tells much:
//! - An operation that changes nothing wherever it stands, and was answered as the state says, is taken at once and for good:
//!   whatever order exists from here on, it may be moved to its front.
//! - An operation that can never be answered right from a state on ends that branch ([`Step::Never`]).

use std::collections::HashSet;

use super::store::hash_of;
use crate::history::Moment;

/// A sequential object in one state, which it can leave and come back to.
pub trait Model {
    /// A call with its answer.
    type Op;

    /// Runs one operation. Only [`Step::Changed`] leaves the state another one.
    fn step(&mut self, op: &Self::Op) -> Step;

    /// Takes back the newest step that changed the state and was not taken back.
    fn undo(&mut self);

    /// Equal for equal states and, but for chance, for no others.
    fn fingerprint(&self) -> u128;
}

/// What an operation does in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It was answered as the state says, and changes nothing, here and in every state that answers it so. A write of the value
    /// that is there is none of these.
    Unchanged,
    /// It was answered as the state says, and the state is another one now.
    Changed,
    /// It was not answered as this state says.
    NotNow,
    /// Nor as any state that can follow says.
    Never,
}

/// One operation of a history.
#[derive(Clone, Debug)]
pub struct Call<Op> {
    /// When it was called.
    pub called: Moment,
    /// When it had returned; `None`: it may take effect at any time after the call.
    pub returned: Option<Moment>,
    /// Whether it took effect for certain; else it may never have.
    pub is_certain: bool,
    /// The operation itself.
    pub op: Op,
}

/// How much a search may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps of the model.
    pub steps_max: u64,
    /// States that are remembered, of some 40 bytes each.
    pub states_max: usize,
}

impl Default for Limits {
    /// Some seconds and at most some 100 MB.
    fn default() -> Self {
        Self { steps_max: 20_000_000, states_max: 2_000_000 }
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An order: places in the list of calls.
    Order(Vec<usize>),
    /// There is none.
    Nothing {
        /// The longest order that was found from the front.
        longest: Vec<usize>,
        /// The operation that had returned and fits nowhere behind it.
        stuck: usize,
    },
    /// A limit was met first.
    Undecided {
        /// Steps taken.
        steps: u64,
        /// States remembered.
        states: usize,
    },
}

/// Looks for an order of all certain calls, and of those others that it takes.
pub fn search<M: Model>(model: &mut M, calls: &[Call<M::Op>], limits: Limits) -> Found {
    Search::new(calls).run(model, limits)
}

/// A list of calls and returns by time, from which calls are lifted and to which they are put back.
struct Search<'a, Op> {
    calls: &'a [Call<Op>],
    /// Entry 0 is the head; call `i` is entry `2 i + 1`, its return `2 i + 2`.
    next: Vec<usize>,
    before: Vec<usize>,
    /// Certain calls still in the list.
    certain: usize,
    /// The calls taken, in order.
    order: Vec<usize>,
    /// Which set of calls was taken.
    taken: u128,
    steps: u64,
    seen: HashSet<(u128, u128)>,
    /// The longest order that led to no other one, and what did not fit behind it.
    longest: Option<(Vec<usize>, usize)>,
}

/// A place in the order where there is a choice.
struct Choice {
    /// Calls taken before it.
    order_len: usize,
    /// What may come next, best last.
    candidates: Vec<usize>,
}

const HEAD: usize = 0;

const fn call_entry(call: usize) -> usize {
    2 * call + 1
}

const fn return_entry(call: usize) -> usize {
    2 * call + 2
}

impl<'a, Op> Search<'a, Op> {
    fn new(calls: &'a [Call<Op>]) -> Self {
        let mut entries: Vec<(Moment, bool, usize)> = Vec::with_capacity(2 * calls.len());
        for (position, call) in calls.iter().enumerate() {
            entries.push((call.called, false, call_entry(position)));
            if let Some(returned) = call.returned {
                entries.push((returned, true, return_entry(position)));
            }
        }
        // A call at the very moment of a return overlaps it.
        entries.sort_unstable();
        let mut next = vec![HEAD; 2 * calls.len() + 1];
        let mut before = next.clone();
        let mut last = HEAD;
        for (_, _, entry) in entries {
            next[last] = entry;
            before[entry] = last;
            last = entry;
        }
        before[HEAD] = last;
        Self {
            calls,
            next,
            before,
            certain: calls.iter().filter(|call| call.is_certain).count(),
            order: Vec::with_capacity(calls.len()),
            taken: 0,
            steps: 0,
            seen: HashSet::new(),
            longest: None,
        }
    }

    fn run<M: Model<Op = Op>>(mut self, model: &mut M, limits: Limits) -> Found {
        let mut choices: Vec<Choice> = Vec::new();
        loop {
            let order_len = self.order.len();
            let (candidates, stuck) = self.look_around(model);
            if self.certain == 0 {
                return Found::Order(self.order);
            }
            if candidates.is_empty() {
                self.note_dead_end(stuck);
            }
            choices.push(Choice { order_len, candidates });
            if !self.take_next(model, &mut choices) {
                let (longest, stuck) = self.longest.expect("a search ends in dead ends only");
                return Found::Nothing { longest, stuck };
            }
            if limits.steps_max < self.steps || limits.states_max < self.seen.len() {
                return Found::Undecided { steps: self.steps, states: self.seen.len() };
            }
        }
    }

    /// Takes what may be taken for good, and returns what may come next (nothing when the state leads nowhere), and whose
    /// return ends the choice.
    fn look_around<M: Model<Op = Op>>(&mut self, model: &mut M) -> (Vec<usize>, usize) {
        let (mut certain, mut uncertain) = (Vec::new(), Vec::new());
        let mut stuck = 0;
        let mut entry = self.next[HEAD];
        // Past the first return nothing may come next, as what returned has to come before it.
        while entry != HEAD && entry % 2 == 1 {
            let position = entry / 2;
            let is_certain = self.calls[position].is_certain;
            self.steps += 1;
            match model.step(&self.calls[position].op) {
                Step::Unchanged if is_certain => {
                    let before = self.before[entry];
                    self.lift(position);
                    entry = self.next[before];
                    continue;
                }
                Step::Changed => {
                    model.undo();
                    if is_certain { certain.push(position) } else { uncertain.push(position) }
                }
                Step::Never if is_certain => return (Vec::new(), position),
                Step::NotNow if is_certain => stuck = position,
                _ => {}
            }
            entry = self.next[entry];
        }
        if entry != HEAD {
            stuck = (entry - 1) / 2;
        }
        // Taken from the end: certain ones first, in the order of their calls.
        uncertain.reverse();
        certain.reverse();
        uncertain.extend(certain);
        (uncertain, stuck)
    }

    /// Goes one step on, back first where nothing is left to try. False when all was tried.
    fn take_next<M: Model<Op = Op>>(&mut self, model: &mut M, choices: &mut Vec<Choice>) -> bool {
        while let Some(choice) = choices.last_mut() {
            let Some(position) = choice.candidates.pop() else {
                let back_to = choice.order_len;
                choices.pop();
                while back_to < self.order.len() {
                    self.put_back();
                }
                // What led here was the last one taken before.
                if !choices.is_empty() {
                    self.put_back();
                    model.undo();
                }
                continue;
            };
            self.steps += 1;
            let step = model.step(&self.calls[position].op);
            assert_eq!(step, Step::Changed, "the model answers the same in the same state");
            self.lift(position);
            if self.seen.insert((self.taken, model.fingerprint())) {
                return true;
            }
            self.put_back();
            model.undo();
        }
        false
    }

    fn lift(&mut self, position: usize) {
        for entry in self.entries(position) {
            let (before, next) = (self.before[entry], self.next[entry]);
            self.next[before] = next;
            self.before[next] = before;
        }
        self.certain -= usize::from(self.calls[position].is_certain);
        self.order.push(position);
        self.taken ^= hash_of(&position);
    }

    /// Puts the call back that was lifted last.
    fn put_back(&mut self) {
        let position = self.order.pop().expect("only what was lifted is put back");
        for entry in self.entries(position).rev() {
            let (before, next) = (self.before[entry], self.next[entry]);
            self.next[before] = entry;
            self.before[next] = entry;
        }
        self.certain += usize::from(self.calls[position].is_certain);
        self.taken ^= hash_of(&position);
    }

    fn entries(&self, position: usize) -> impl DoubleEndedIterator<Item = usize> + use<Op> {
        let has_return = self.calls[position].returned.is_some();
        [call_entry(position), return_entry(position)].into_iter().take(1 + usize::from(has_return))
    }

    fn note_dead_end(&mut self, stuck: usize) {
        if self.longest.as_ref().is_none_or(|(longest, _)| longest.len() < self.order.len()) {
            self.longest = Some((self.order.clone(), stuck));
        }
    }
}

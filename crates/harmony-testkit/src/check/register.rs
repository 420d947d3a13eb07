//! Single keys as registers, each on its own: for histories without revisions, of another store say.
//!
//! Linearizability is local (Herlihy and Wing, 1990): a history of independent registers is linearizable when each register's
//! part is, so the keys are judged one by one. That holds only while no operation concerns two keys and no answer says
//! anything of the whole store. Revisions, versions and leases in answers are not looked at; [`super::linearizable`] does.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::search::{Call, Found, Limits, Model, Step, search};
use super::store::hash_of;
use super::window::minimize;
use super::{Verdict, Violation};
use crate::history::{History, Operation, OperationOutcome, Reply, Request};

const PROPERTY: &str = "linearizable";

/// Runs of the search that making a wrong history smaller may take.
const TRIALS_MAX: usize = 400;

/// What is done to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterOp {
    /// It has this value now; `None`: it is deleted.
    Write(Option<Bytes>),
    /// It was found with this value.
    Read(Option<Bytes>),
}

/// A key, missing at first.
#[derive(Debug, Default)]
pub struct Register {
    value: Option<Bytes>,
    /// The values before, for going back.
    before: Vec<Option<Bytes>>,
}

impl Model for Register {
    type Op = RegisterOp;

    fn step(&mut self, op: &RegisterOp) -> Step {
        match op {
            RegisterOp::Read(found) if *found != self.value => Step::NotNow,
            RegisterOp::Read(_) => Step::Unchanged,
            // Of the same value, too: elsewhere in the order it may be another one's.
            RegisterOp::Write(value) => {
                self.before.push(std::mem::replace(&mut self.value, value.clone()));
                Step::Changed
            }
        }
    }

    fn undo(&mut self) {
        self.value = self.before.pop().expect("every undo follows a change");
    }

    fn fingerprint(&self) -> u128 {
        hash_of(&self.value)
    }
}

/// Checks puts, deletes and linearizable reads of single keys, key by key.
///
/// [`Verdict::Undecided`] also when some operation concerns more than one key, a lease or the past.
#[must_use]
pub fn check(history: &History, limits: Limits) -> Verdict {
    let mut keys: BTreeMap<&Bytes, Vec<(usize, Call<RegisterOp>)>> = BTreeMap::new();
    for (position, operation) in history.operations.iter().enumerate() {
        match register_call(operation) {
            Ok(Some((key, call))) => keys.entry(key).or_default().push((position, call)),
            Ok(None) => {}
            Err(()) => return Verdict::Undecided(format!("not of one key alone: {operation}")),
        }
    }
    for calls in keys.into_values() {
        let verdict = check_key(history, &calls, limits);
        if verdict != Verdict::Holds {
            return verdict;
        }
    }
    Verdict::Holds
}

fn check_key(history: &History, calls: &[(usize, Call<RegisterOp>)], limits: Limits) -> Verdict {
    let run = |calls: &[(usize, Call<RegisterOp>)]| {
        let bare: Vec<_> = calls.iter().map(|(_, call)| call.clone()).collect();
        search(&mut Register::default(), &bare, limits)
    };
    match run(calls) {
        Found::Order(_) => return Verdict::Holds,
        Found::Undecided { steps, states } => {
            let why = format!("{} operations of one key: {steps} steps, {states} states", calls.len());
            return Verdict::Undecided(why);
        }
        Found::Nothing { .. } => {}
    }
    // A read is dropped; a write may have been at any time.
    let weaken = |(position, call): &(usize, Call<RegisterOp>)| match call.op {
        RegisterOp::Read(_) => None,
        RegisterOp::Write(_) => Some((*position, Call { returned: None, is_certain: false, ..call.clone() })),
    };
    let small = minimize(calls, weaken, |calls| matches!(run(calls), Found::Nothing { .. }), TRIALS_MAX);
    let mut window: Vec<(usize, bool)> =
        small.iter().map(|((position, _), is_strong)| (*position, *is_strong)).collect();
    window.sort_by_key(|(position, _)| history.operations[*position].called);
    let line = |(position, is_strong): (usize, bool)| {
        format!("{} {}", if is_strong { ">" } else { " " }, history.operations[position])
    };
    let reason = "no order of these operations explains what was read";
    Verdict::Violated(Violation::new(PROPERTY, reason).with_window(window.into_iter().map(line).collect()))
}

/// A key and what was done to it; `Ok(None)` for what says nothing.
fn register_call(operation: &Operation) -> Result<Option<(&Bytes, Call<RegisterOp>)>, ()> {
    let (key, op) = match (&operation.request, &operation.outcome) {
        (_, OperationOutcome::Refused(_)) | (Request::Range { serializable: true, .. }, _) => {
            return Ok(None);
        }
        (Request::Range { range, .. }, outcome) if range.range_end.is_empty() && is_plain(range) => {
            let OperationOutcome::Answered(answer) = outcome else { return Ok(None) };
            let Reply::Range(found) = &answer.reply else { return Err(()) };
            (&range.key, RegisterOp::Read(found.kvs.first().map(|kv| kv.value.clone())))
        }
        (Request::Put(put), _) if !put.ignore_value && put.lease == 0 && !put.prev_kv => {
            (&put.key, RegisterOp::Write(Some(put.value.clone())))
        }
        (Request::DeleteRange(delete), _) if delete.range_end.is_empty() && !delete.prev_kv => {
            (&delete.key, RegisterOp::Write(None))
        }
        _ => return Err(()),
    };
    let is_certain = !operation.is_unknown();
    let returned = operation.returned.filter(|_| is_certain);
    Ok(Some((key, Call { called: operation.called, returned, is_certain, op })))
}

fn is_plain(range: &harmony_types::txn::Range) -> bool {
    let plain = harmony_types::txn::Range { key: range.key.clone(), ..Default::default() };
    *range == plain
}

#[cfg(test)]
mod tests {
    use harmony_types::fake::seed::{SeededRng, for_each_seed};

    use super::*;
    use crate::history::text::parse;
    use crate::history::{Answer, ClientId, Moment, delete, put, read};

    fn verdict(text: &str) -> Verdict {
        check(&parse(text).unwrap(), Limits::default())
    }

    #[track_caller]
    fn violated(text: &str, words: &[&str]) {
        let Verdict::Violated(violation) = verdict(text) else { panic!("accepted: {text}") };
        for word in words {
            assert!(violation.to_string().contains(word), "{word:?} is missing in: {violation}");
        }
    }

    #[test]
    fn each_key_is_judged_alone() {
        let text = r#"op c1 n? 0..10 put "a" "1" -> @? put []
            op c2 n? 5..20 range "a" -> @? range ["a" "1"] count=1
            op c2 n? 25..30 range "b" -> @? range []
            op c1 n? 12..40 put "b" "1" -> @? put []
            op c3 n? 50.. delete "a" -> unknown
            op c4 n? 60..61 range "a" -> @? range ["a" "1"] count=1"#;
        assert_eq!(verdict(text), Verdict::Holds);
        let gone = format!("{text}\nop c4 n? 70..71 range \"a\" -> @? range []");
        assert_eq!(verdict(&gone), Verdict::Holds);
        violated(
            &format!("{gone}\nop c4 n? 80..81 range \"a\" -> @? range [\"a\" \"1\"] count=1"),
            &["> op c4 n? 70..71", "> op c4 n? 80..81"],
        );
    }

    #[test]
    fn stale_reads_lost_writes_and_inventions_are_caught() {
        let writes =
            "op c1 n? 0..10 put \"a\" \"1\" -> @? put []\nop c1 n? 20..30 put \"a\" \"2\" -> @? put []\n";
        let found = |at: &str, value: &str| {
            format!("op c2 n? {at} range \"a\" -> @? range [\"a\" \"{value}\"] count=1\n")
        };
        assert_eq!(verdict(&format!("{writes}{}", found("25..26", "1"))), Verdict::Holds);
        violated(&format!("{writes}{}", found("35..36", "1")), &["> op c1 n? 20..30", "> op c2 n? 35..36"]);
        violated(&format!("{writes}{}", found("35..36", "3")), &["> op c2 n? 35..36"]);
        violated(
            &format!("{writes}{}{}", found("21..22", "2"), found("23..24", "1")),
            &["> op c2 n? 23..24"],
        );
        violated(&format!("{writes}op c2 n? 35..36 range \"a\" -> @? range []"), &["> op c2 n? 35..36"]);
    }

    #[test]
    fn what_is_not_of_one_key_is_not_judged() {
        for line in [
            "op c1 n? 0..1 range \"a\" \"b\" -> @? range []",
            "op c1 n? 0..1 txn if [] then [] else [] -> @? txn then []",
            "op c1 n? 0..1 put \"a\" \"b\" lease=1 -> @? put []",
            "op c1 n? 0..1 compact 3 -> @? compact",
        ] {
            assert!(matches!(verdict(line), Verdict::Undecided(_)), "{line}");
        }
        assert_eq!(verdict("op c1 n? 0..1 range \"a\" \"b\" -> refused Compacted"), Verdict::Holds);
    }

    /// Any answers at all, so that about as many histories are wrong as right.
    fn any_history(rng: &mut SeededRng) -> History {
        let mut history = History::default();
        for client in 0..6 {
            let called = rng.below(8);
            let value = rng.pick(&["1", "2"]).to_string();
            let request = match rng.below(5) {
                0 | 1 => put("k", value.clone()),
                2 => delete("k"),
                _ => read("k", Bytes::new()),
            };
            let sent = Operation::sent(ClientId(client), Moment(called), request.clone());
            let mut found = harmony_types::txn::RangeOutcome::default();
            if rng.chance(3, 4) {
                let kv =
                    harmony_types::KeyValue { key: "k".into(), value: value.into(), ..Default::default() };
                found.kvs.push(kv);
            }
            let reply = match request {
                Request::Put(_) => Reply::Put(Default::default()),
                Request::DeleteRange(_) => Reply::DeleteRange(Default::default()),
                _ => Reply::Range(found),
            };
            if rng.chance(1, 5) {
                history.operations.push(sent);
                continue;
            }
            let answer = Answer { revision: None, reply };
            let returned = Some(Moment(called + 1 + rng.below(4)));
            history.operations.push(Operation {
                returned,
                outcome: OperationOutcome::Answered(answer),
                ..sent
            });
        }
        history
    }

    fn brute_force(calls: &[Call<RegisterOp>], value: &Option<Bytes>, left: &[usize]) -> bool {
        if left.iter().all(|one| !calls[*one].is_certain) {
            return true;
        }
        left.iter().any(|one| {
            let call = &calls[*one];
            let must_wait =
                left.iter().any(|other| calls[*other].returned.is_some_and(|at| at < call.called));
            let after = match &call.op {
                RegisterOp::Read(found) if found != value => return false,
                RegisterOp::Read(_) => value,
                RegisterOp::Write(value) => value,
            };
            let rest: Vec<usize> = left.iter().copied().filter(|other| other != one).collect();
            !must_wait && brute_force(calls, after, &rest)
        })
    }

    #[test]
    fn small_histories_are_judged_as_by_trying_every_order() {
        let (mut good, mut bad) = (0, 0);
        for_each_seed(0..3_000, 20, |_, rng| {
            let history = any_history(rng);
            let calls: Vec<_> = history
                .operations
                .iter()
                .filter_map(|one| register_call(one).unwrap())
                .map(|(_, call)| call)
                .collect();
            let all: Vec<usize> = (0..calls.len()).collect();
            let expected = brute_force(&calls, &None, &all);
            let verdict = check(&history, Limits::default());
            assert_eq!(verdict == Verdict::Holds, expected, "{verdict:?}\n{history}");
            if expected { good += 1 } else { bad += 1 }
        });
        assert!((good > 500 && bad > 500) || std::env::var_os("HARMONY_SEED").is_some(), "{good} and {bad}");
    }
}

use harmony_types::fake::seed::for_each_seed;

use super::*;
use crate::check::Verdict;
use crate::check::linearizable;
use crate::check::random::{Sample, Shape, sample, spoil};
use crate::check::search::Limits;
use crate::history::Operation;
use crate::history::text::parse;

const WRITES: &str = r#"op c1 n? 0..10 put "k" "1" -> @2 put []
op c1 n? 20..30 put "k" "2" -> @3 put []
op c1 n? 40..50 delete "k" -> @4 delete [] deleted=1
"#;

fn events(writes: &str) -> Vec<Event> {
    Log::of_history(&parse(writes).unwrap()).unwrap().from(2).cloned().collect()
}

#[track_caller]
fn broken(history: &str, events: &[Event], words: &str) {
    let log = Log::from_events(events.to_vec()).unwrap();
    let report = check(&parse(history).unwrap(), &log).expect_err(history).to_string();
    assert!(report.contains(words), "{words:?} is missing in: {report}");
}

#[test]
fn what_was_acknowledged_is_found_in_the_log() {
    let log = Log::from_events(events(WRITES)).unwrap();
    assert_eq!(log.last(), 4);
    check(&parse(WRITES).unwrap(), &log).unwrap();
    let read = r#"op c2 n? 60..70 range "k" revision=3 -> @4 range ["k" "2" c=2 m=3 v=2] count=1"#;
    check(&parse(&format!("{WRITES}{read}")).unwrap(), &log).unwrap();
    // What nobody was told of may be there.
    check(&parse(&WRITES.replace("@3 put []", "unknown")).unwrap(), &log).unwrap();
}

#[test]
fn what_is_lost_or_changed_is_caught() {
    let whole = events(WRITES);
    broken(WRITES, &whole[..2], "revision 4 is not in the log");
    broken(WRITES, &events(&WRITES.replace("\"2\"", "\"3\"")), "something else at its revision");
    broken(&WRITES.replace("put \"k\" \"2\"", "put \"l\" \"2\""), &whole, "something else at its revision");
    let stale = r#"op c2 n? 60..70 range "k" -> @4 range ["k" "2" c=2 m=3 v=2] count=1"#;
    broken(&format!("{WRITES}{stale}"), &whole, "with the log's state it would be range []");
    let before = r#"op c2 n? 5..6 range "k" -> @4 range []"#;
    broken(&format!("{WRITES}{before}"), &whole, "came before");
}

#[test]
fn a_log_that_no_store_wrote_is_refused() {
    let whole = events(WRITES);
    let error = |events: Vec<Event>| Log::from_events(events).unwrap_err().reason;
    assert!(error(whole[1..].to_vec()).contains("at revision 2: nothing happened"));
    assert!(error(vec![whole[0].clone(), whole[2].clone()]).contains("at revision 3"));
    assert!(error(vec![whole[1].clone(), whole[0].clone()]).contains("behind revision 3"));
    let mut changed = whole.clone();
    changed[1].kv.as_mut().unwrap().version = 1;
    assert!(error(changed).contains("version"));
    let mut changed = whole.clone();
    changed[0].event_type = 1;
    assert!(error(changed).contains("did not exist"));
    let mut changed = whole;
    changed[0].prev_kv = changed[1].kv.clone();
    assert!(error(changed).contains("replaced"));
    let holes = parse(&WRITES.replace("@3 put []", "unknown")).unwrap();
    assert!(Log::of_history(&holes).unwrap_err().reason.contains("revision 3"));
}

#[test]
fn a_write_that_nobody_asked_for_is_caught() {
    let whole = events(WRITES);
    let but_third = WRITES.replace("op c1 n? 20..30 put \"k\" \"2\" -> @3 put []\n", "");
    broken(&but_third, &whole, "nobody can have asked for what happened at revision 3");
    let asked = |line: &str| format!("{but_third}{line}\n");
    broken(&asked("op c2 n? 5.. put \"k\" \"9\" -> unknown"), &whole, "nobody can have asked");
    // Asked for in time, or when its effects had been seen.
    let log = Log::from_events(whole.clone()).unwrap();
    check(&parse(&asked("op c2 n? 5.. put \"k\" \"2\" -> unknown")).unwrap(), &log).unwrap();
    broken(&asked("op c2 n? 55.. put \"k\" \"2\" -> unknown"), &whole, "came before an operation was called");
    // A lease that ran out asks for nothing.
    let leased = |called: u32| {
        let text = format!(
            r#"op c1 n? {called}..20 grant 7 ttl=1 -> @1 grant ttl=1
            op c1 n? 20..21 put "k" "1" lease=7 -> @2 put []
            op c1 n? 30..31 range "k" -> @3 range []"#
        );
        parse(&text).unwrap()
    };
    let ended = events(
        r#"op c1 n? 2..3 put "k" "1" lease=7 -> @2 put []
        op c1 n? 4..5 delete "k" -> @3 delete [] deleted=1"#,
    );
    check(&leased(0), &Log::from_events(ended).unwrap()).unwrap();
}

#[test]
fn where_all_is_acknowledged_the_verdict_is_that_of_linearizability() {
    let (mut good, mut bad) = (0, 0);
    for_each_seed(0..400, 5, |_, rng| {
        let lost_one_in = *rng.pick(&[0, 8]);
        let shape =
            Shape { operations: 25, clients: 4, keys: 3, lost_one_in, everything: false, revisions: true };
        let Sample { mut history, events } = sample(rng, shape);
        let log = Log::from_events(events).unwrap();
        check(&history, &log).unwrap_or_else(|violation| panic!("{violation}\n{history}"));
        if history.operations.iter().any(Operation::is_unknown) {
            return;
        }
        spoil(rng, &mut history);
        if history.operations.iter().any(Operation::is_unknown) {
            return;
        }
        history.operations.retain(|operation| operation.returned.is_none_or(|at| operation.called <= at));
        let verdict = linearizable::check(&history, Limits::default());
        match check(&history, &log) {
            Ok(()) => {
                good += 1;
                assert_eq!(verdict, Verdict::Holds, "{history}");
            }
            Err(violation) => {
                bad += 1;
                assert!(verdict.is_violated(), "{violation}\n{history}");
            }
        }
    });
    assert!((good > 30 && bad > 30) || std::env::var_os("HARMONY_SEED").is_some(), "{good} and {bad}");
}

/// A log saves the search, and costs no verdict: whatever was acknowledged truly holds, whatever a search finds wrong is wrong.
#[test]
fn with_a_log_the_verdict_is_that_of_the_search_or_a_sharper_one() {
    let (mut good, mut bad) = (0, 0);
    for_each_seed(0..1_000, 50, |_, rng| {
        let (lost_one_in, everything) = (*rng.pick(&[0, 3, 8]), rng.chance(1, 2));
        let shape = Shape { operations: 20, clients: 4, keys: 3, lost_one_in, everything, revisions: true };
        let Sample { mut history, events } = sample(rng, shape);
        let log = Log::from_events(events).unwrap();
        let verdict = linearizable::check_with_log(&history, &log, Limits::default());
        assert_eq!(verdict, Verdict::Holds, "{history}");
        spoil(rng, &mut history);
        let search = linearizable::check(&history, Limits::default());
        let verdict = linearizable::check_with_log(&history, &log, Limits::default());
        if search.is_violated() {
            bad += 1;
            assert!(verdict.is_violated(), "{verdict:?}, but {search:?}\n{history}");
        } else {
            good += 1;
        }
    });
    assert!((good > 50 && bad > 50) || std::env::var_os("HARMONY_SEED").is_some(), "{good} and {bad}");
}

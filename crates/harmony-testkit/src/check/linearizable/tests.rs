use harmony_types::fake::seed::{SeededRng, for_each_seed};

use super::*;
use crate::check::calls::Place;
use crate::check::kv::is_answer;
use crate::check::random::{Sample, Shape, sample, spoil};
use crate::history::text::parse;

const SMALL: Shape =
    Shape { operations: 6, clients: 3, keys: 2, lost_one_in: 3, everything: false, revisions: true };

#[track_caller]
fn verdict(text: &str) -> Verdict {
    check(&parse(text).unwrap(), Limits::default())
}

#[track_caller]
fn holds(text: &str) {
    assert_eq!(verdict(text), Verdict::Holds, "{text}");
}

/// The report, which has to name what contradicts what.
#[track_caller]
fn violated(text: &str, words: &[&str]) {
    let Verdict::Violated(violation) = verdict(text) else { panic!("accepted: {text}") };
    let report = violation.to_string();
    for word in words {
        assert!(report.contains(word), "{word:?} is missing in: {report}");
    }
}

#[test]
fn overlapping_operations_may_stand_in_any_order() {
    holds("");
    holds(
        r#"op c1 n? 0..100 put "k" "a" -> @2 put []
        op c2 n? 0..100 put "k" "b" -> @3 put []
        op c3 n? 0..100 range "k" -> @1 range []
        op c4 n? 0..100 range "k" -> @2 range ["k" "a" c=2 m=2 v=1] count=1
        op c5 n? 50..200 range "k" -> @3 range ["k" "b" c=2 m=3 v=2] count=1"#,
    );
}

#[test]
fn a_stale_read_is_caught() {
    violated(
        r#"op c1 n? 0..10 put "k" "a" -> @2 put []
        op c1 n? 20..30 put "k" "b" -> @3 put []
        op c2 n? 40..50 range "k" -> @2 range ["k" "a" c=2 m=2 v=1] count=1"#,
        &["> op c1 n? 20..30 put", "> op c2 n? 40..50 range", "came before"],
    );
}

#[test]
fn a_read_of_what_was_overwritten_is_caught_at_its_revision() {
    violated(
        r#"op c1 n? 0..10 put "k" "a" -> @2 put []
        op c1 n? 20..30 put "k" "b" -> @3 put []
        op c1 n? 31..32 put "other" "b" -> @4 put []
        op c2 n? 40..50 range "k" -> @4 range ["k" "a" c=2 m=2 v=1] count=1"#,
        &["the store says range [\"k\" \"b\" c=2 m=3 v=2]", "> op c2 n? 40..50", "  op c1 n? 20..30 put"],
    );
}

#[test]
fn a_lost_write_is_caught() {
    // Acknowledged at revision 3, and never seen.
    violated(
        r#"op c1 n? 0..10 put "k" "a" -> @2 put []
        op c1 n? 20..30 put "k" "b" -> @3 put []
        op c2 n? 40..50 put "l" "c" -> @3 put []"#,
        &["two writes were acknowledged at revision 3"],
    );
    violated(
        r#"op c1 n? 0..10 put "k" "a" -> @2 put []
        op c2 n? 40..50 range "k" -> @2 range []"#,
        &["the answer is range []"],
    );
}

#[test]
fn a_revision_that_nobody_can_have_taken_is_caught() {
    violated(
        r#"op c1 n? 0..10 put "k" "a" -> @2 put []
        op c1 n? 20..30 put "k" "b" -> @4 put []"#,
        &["no operation can have taken revision 3"],
    );
    violated(r#"op c1 n? 0..10 range "k" -> @2 range []"#, &["revision 2"]);
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never_but_once() {
    let late = r#"op c1 n? 0.. put "k" "x" -> unknown
        op c2 n? 10..20 put "k" "a" -> @2 put []
        op c2 n? 30..40 range "k" -> @2 range ["k" "a" c=2 m=2 v=1] count=1
        op c2 n? 50..60 range "k" -> @3 range ["k" "x" c=2 m=3 v=2] count=1"#;
    holds(late);
    holds(&late[..late.rfind("op c2").unwrap()]);
    violated(
        &format!("{late}\nop c2 n? 70..80 range \"k\" -> @4 range [\"k\" \"x\" c=2 m=4 v=3] count=1"),
        &["> op c2 n? 70..80", "op c1 n? 0.. put"],
    );
    // Before it was called it has no effect.
    violated(
        r#"op c2 n? 10..20 range "k" -> @2 range ["k" "x" c=2 m=2 v=1] count=1
        op c1 n? 30.. put "k" "x" -> unknown"#,
        &["> op c2 n? 10..20"],
    );
}

#[test]
fn an_unknown_write_that_was_seen_stays_seen() {
    violated(
        r#"op c1 n? 0.. put "k" "x" -> unknown
        op c2 n? 10..20 range "k" -> @2 range ["k" "x" c=2 m=2 v=1] count=1
        op c2 n? 30..40 range "k" -> @2 range []"#,
        &["> op c2"],
    );
    violated(
        r#"op c1 n? 0.. put "k" "x" -> unknown
        op c2 n? 10..20 range "k" -> @2 range ["k" "x" c=2 m=2 v=1] count=1
        op c2 n? 30..40 range "k" -> @1 range []"#,
        &["> op c2 n? 10..20", "> op c2 n? 30..40"],
    );
}

#[test]
fn transactions_over_many_keys_are_strictly_serializable() {
    // Two that move the same thing away: only one can have seen it.
    let take = |client: u32, revision: u32, taken: &str| {
        format!(
            r#"op c{client} n? 20..30 txn if [version = 1 "a"] then [delete "a"; put "{client}" "a"] else [] -> @{revision} {taken}"#
        )
    };
    let first = r#"op c1 n? 0..10 put "a" "x" -> @2 put []"#;
    let taken = "txn then [delete [] deleted=1; put []]";
    holds(&format!("{first}\n{}\n{}", take(1, 3, taken), take(2, 3, "txn else []")));
    violated(
        &format!("{first}\n{}\n{}", take(1, 3, taken), take(2, 4, taken)),
        &["the store says txn else []"],
    );
    violated(&format!("{first}\n{}\n{}", take(1, 3, taken), take(2, 2, "txn else []")), &["> op c2"]);
}

#[test]
fn a_torn_transaction_is_caught() {
    let put_both =
        r#"op c1 n? 0..10 txn if [] then [put "a" "1"; put "b" "1"] else [] -> @2 txn then [put []; put []]"#;
    let half = r#"op c2 n? 20..30 range "a" "c" -> @2 range ["a" "1" c=2 m=2 v=1] count=1"#;
    violated(&format!("{put_both}\n{half}"), &["\"b\" \"1\" c=2 m=2 v=1"]);
    let across =
        r#"op c2 n? 20..30 range "a" "c" -> @3 range ["a" "1" c=2 m=2 v=1; "b" "1" c=3 m=3 v=1] count=2"#;
    violated(&format!("{put_both}\n{across}"), &["> op c2"]);
}

#[test]
fn write_skew_is_caught() {
    // Each reads the other's key as missing and writes its own.
    let skew = |client: u32, other: &str, own: &str, revision: u32| {
        format!(
            r#"op c{client} n? 0..50 txn if [version = 0 "{other}"] then [put "{own}" "x"] else [range "{other}"] -> @{revision} txn then [put []]"#
        )
    };
    violated(&format!("{}\n{}", skew(1, "a", "b", 2), skew(2, "b", "a", 3)), &["the store says txn else"]);
}

#[test]
fn a_real_time_order_across_keys_counts() {
    // Each key alone would be fine.
    violated(
        r#"op c1 n? 0..10 put "a" "1" -> @3 put []
        op c1 n? 20..30 put "b" "1" -> @2 put []"#,
        &["> op c1 n? 0..10", "> op c1 n? 20..30"],
    );
}

#[test]
fn leases_that_run_out_explain_a_key_that_is_gone() {
    let gone = r#"op c1 n? 0..1 grant 7 ttl=5 -> @1 grant ttl=5
        op c1 n? 2..3 put "k" "a" lease=7 -> @2 put []
        op c1 n? 9..10 range "k" -> @3 range []"#;
    holds(gone);
    violated(&gone.replace(" lease=7", ""), &["> op c1 n? 9..10"]);
    violated(&gone.replace("grant 7", "grant 8"), &["> op c1 n? 2..3 put"]);
    holds(&format!("{gone}\nop c1 n? 11..12 put \"k\" \"b\" lease=7 -> refused LeaseNotFound"));
    holds(&format!("{gone}\nop c1 n? 11..12 revoke 7 -> refused LeaseNotFound"));
    violated(
        &format!("{gone}\nop c1 n? 11..12 put \"k\" \"b\" lease=7 -> @4 put []"),
        &["> op c1 n? 11..12 put"],
    );
}

#[test]
fn a_compacted_revision_is_refused_from_then_on_only() {
    let compact = r#"op c1 n? 0..1 put "k" "a" -> @2 put []
        op c1 n? 2..3 put "k" "b" -> @3 put []
        op c1 n? 4..5 compact 3 -> @3 compact"#;
    let past = r#"range "k" revision=2 -> "#;
    let seen = r#"@3 range ["k" "a" c=2 m=2 v=1] count=1"#;
    holds(&format!("{compact}\nop c2 n? 3..9 {past}{seen}"));
    holds(&format!("{compact}\nop c2 n? 6..9 {past}refused Compacted"));
    violated(&format!("{compact}\nop c2 n? 6..9 {past}{seen}"), &["> op c2 n? 6..9", "> op c1 n? 4..5"]);
    violated(&format!("{compact}\nop c2 n? 2..3 {past}refused Compacted"), &["> op c2 n? 2..3"]);
}

#[test]
fn reads_without_a_revision_find_their_place() {
    let put = r#"op c1 n? 0..1 put "k" "a" -> @2 put []
        op c1 n? 5..6 put "k" "b" -> @3 put []"#;
    let old = r#"range "k" -> @? range ["k" "a" c=2 m=2 v=1] count=1"#;
    holds(&format!("{put}\nop c2 n? 5..9 {old}"));
    violated(&format!("{put}\nop c2 n? 7..9 {old}"), &["> op c2 n? 7..9"]);
    let new = r#"op c2 n? 5..6 range "k" -> @? range ["k" "b" c=2 m=3 v=2] count=1"#;
    violated(&format!("{put}\n{new}\nop c2 n? 7..9 {old}"), &["> op c2 n? 7..9"]);
}

#[test]
fn the_report_shows_what_contradicts_itself_and_little_else() {
    let mut text = String::new();
    for number in 0..300 {
        let (at, revision) = (10 * number, number + 2);
        text += &format!("op c1 n? {at}..{} put \"k{number}\" \"v\" -> @{revision} put []\n", at + 5);
    }
    // Of an unknown outcome, so that the search has to say it.
    text += "op c2 n? 0.. put \"late\" \"x\" -> unknown\n";
    text += "op c3 n? 3000..3001 range \"late\" -> @302 range [\"late\" \"x\" c=302 m=302 v=1] count=1\n";
    holds(&text);
    text += "op c3 n? 3002..3003 range \"late\" -> @303 range [\"late\" \"x\" c=303 m=303 v=1] count=1\n";
    let Verdict::Violated(violation) = verdict(&text) else { panic!("accepted") };
    assert!(violation.window.len() <= 4, "{violation}");
    assert!(violation.to_string().contains("> op c3 n? 3002..3003"), "{violation}");
}

#[test]
fn a_search_that_is_too_long_says_so() {
    let mut text = String::new();
    for number in 0..40 {
        text += &format!("op c{number} n? 0.. put \"k{number}\" \"v\" -> unknown\n");
    }
    // Nothing wrote it, and every order of the forty has to be tried to show that.
    text += "op c50 n? 50..60 txn if [value = \"no\" \"k1\"] then [] else [] -> @30 txn then []\n";
    let limits = Limits { steps_max: 50_000, states_max: 10_000 };
    let verdict = check(&parse(&text).unwrap(), limits);
    assert!(matches!(&verdict, Verdict::Undecided(why) if why.contains("40 of them")), "{verdict:?}");
    assert!(verdict.into_result().is_err());
}

#[test]
fn an_answer_from_before_the_call_is_refused() {
    violated("op c1 n? 5..4 range \"k\" -> @1 range []", &["before it was called"]);
}

/// Whether any order at all explains the answers: all of them, tried one by one on a store of its own.
fn brute_force(calls: &[StoreCall<'_>]) -> bool {
    fn go(calls: &[StoreCall<'_>], store: &mut Store, left: &mut Vec<usize>) -> bool {
        if left.iter().all(|position| !calls[*position].is_certain) {
            return true;
        }
        for place in 0..left.len() {
            let call = &calls[left[place]];
            let must_wait = left.iter().any(|other| {
                calls[*other]
                    .returned
                    .is_some_and(|returned| calls[*other].is_certain && returned < call.called)
            });
            if must_wait {
                continue;
            }
            let mark = store.mark();
            let reply = store.run(&call.op.request);
            let is_right = match (call.op.expected, &reply) {
                (Expected::Reply(told), Ok(reply)) => is_answer(told, reply),
                (Expected::Refused(told), Err(refusal)) => told == *refusal,
                (Expected::Anything, _) => true,
                _ => false,
            };
            let is_in_place = match call.op.place {
                Place::Write(revision) | Place::Behind(revision) | Place::Either(revision) => {
                    store.revision() == revision
                }
                Place::Anywhere => true,
            };
            if is_right && is_in_place {
                let taken = left.remove(place);
                if go(calls, store, left) {
                    return true;
                }
                left.insert(place, taken);
            }
            store.undo(mark);
        }
        false
    }
    go(calls, &mut Store::new(), &mut (0..calls.len()).collect())
}

#[track_caller]
fn agrees(history: &History) -> bool {
    let expected = brute_force(&calls(history));
    let verdict = check(history, Limits::default());
    assert_eq!(verdict == Verdict::Holds, expected, "{verdict:?}\n{history}");
    if let Verdict::Violated(violation) = verdict {
        assert!(!violation.window.is_empty(), "{violation}");
    }
    expected
}

fn some_shape(rng: &mut SeededRng) -> Shape {
    Shape { everything: rng.chance(1, 2), revisions: rng.chance(3, 4), keys: rng.range(1..4), ..SMALL }
}

#[test]
fn small_histories_are_judged_as_by_trying_every_order() {
    let (mut good, mut bad) = (0, 0);
    for_each_seed(0..1_500, 20, |_, rng| {
        let shape = some_shape(rng);
        let Sample { mut history, .. } = sample(rng, shape);
        assert!(agrees(&history), "a history of a sequential store was refused:\n{history}");
        for _ in 0..=rng.below(2) {
            spoil(rng, &mut history);
        }
        history.operations.retain(|operation| operation.returned.is_none_or(|at| operation.called <= at));
        match agrees(&history) {
            true => good += 1,
            false => bad += 1,
        }
    });
    if std::env::var_os("HARMONY_SEED").is_none() {
        assert!(300 < good && 300 < bad, "{good} were right and {bad} wrong");
    }
}

#[test]
fn large_histories_of_a_sequential_store_are_accepted() {
    for_each_seed(0..30, 5, |_, rng| {
        let lost_one_in = *rng.pick(&[0, 10, 40]);
        let shape = Shape {
            operations: 400,
            clients: 8,
            keys: 10,
            lost_one_in,
            everything: rng.chance(1, 2),
            revisions: true,
        };
        let Sample { history, .. } = sample(rng, shape);
        let verdict = check(&history, Limits::default());
        assert_eq!(verdict, Verdict::Holds, "{history}");
    });
}

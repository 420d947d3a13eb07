use super::*;
use crate::history::text::parse;

/// Seconds as the history counts them.
const S: &str = "000000000";

/// A lease of five seconds with a key, renewed in second 3, whose end is seen at `second`.
fn history(second: u32, extra: &str) -> History {
    let end = second + 1;
    let text = format!(
        r#"op c1 n1 1{S}..2{S} grant 7 ttl=5 -> @1 grant ttl=5
        op c1 n1 2{S}..2{S} put "k" "v" lease=7 -> @2 put []
        op c1 n1 3{S}..4{S} renew 7 -> @2 renew ttl=5
        op c2 n2 {second}{S}..{end}{S} put "x" "y" -> @4 put []
        {extra}"#
    );
    parse(&text).unwrap()
}

/// `k` comes at 2 and goes at 3, `x` comes at 4.
fn log() -> Log {
    let text = r#"op c1 n1 0..1 put "k" "v" lease=7 -> @2 put []
        op c1 n1 2..3 delete "k" -> @3 delete [] deleted=1
        op c1 n1 4..5 put "x" "y" -> @4 put []"#;
    Log::of_history(&parse(text).unwrap()).unwrap()
}

fn judge(history: &History) -> Result<(), Violation> {
    check(history, &log(), ClockError::default())
}

#[track_caller]
fn early(history: &History, words: &str) {
    let report = judge(history).unwrap_err().to_string();
    assert!(report.contains(words), "{words:?} is missing in: {report}");
}

#[test]
fn a_lease_that_lives_its_time_is_accepted() {
    // The renewal was asked for in second 3: until second 8.
    judge(&history(7, "")).unwrap();
    judge(&history(100, "")).unwrap();
}

#[test]
fn a_key_that_goes_early_is_caught() {
    early(&history(6, ""), "deletes b\"k\"");
    early(&history(5, ""), "> op c1 n1 3000000000..4000000000 renew 7");
    // Without the renewal it would have been right.
    let mut not_renewed = history(6, "");
    not_renewed.operations.retain(|operation| !matches!(operation.request, Request::LeaseRenew(_)));
    judge(&not_renewed).unwrap();
}

#[test]
fn a_watch_that_tells_of_it_counts() {
    let watch =
        format!("watch c3 n1 1{S} \"k\"\n at 2{S} @2 created\n at 5{S} @3 events [delete \"k\" \"\" m=3]");
    early(&history(100, &watch), "seen at 5000000000");
}

#[test]
fn a_lease_that_is_said_to_be_gone_early_is_caught() {
    for line in [
        format!("op c3 n1 5{S}..6{S} put \"l\" \"v\" lease=7 -> refused LeaseNotFound"),
        format!("op c3 n1 5{S}..6{S} revoke 7 -> refused LeaseNotFound"),
        format!("op c3 n1 5{S}..6{S} renew 7 -> @2 renew ttl=-1"),
    ] {
        early(&history(100, &line), "c3 n1 5");
        judge(&history(100, &line.replace("..6", "..8"))).unwrap();
        // Before it was granted it was not there.
        judge(&history(100, &line.replace("5000000000..6", "1000000000..6"))).unwrap();
    }
}

#[test]
fn a_lease_that_somebody_ended_is_excused() {
    let revoke = format!("op c3 n1 4{S}..5{S} revoke 7 -> @3 revoke");
    judge(&history(5, &revoke)).unwrap();
    judge(&history(5, &format!("op c3 n1 4{S}.. revoke 7 -> unknown"))).unwrap();
    judge(&history(5, &format!("op c3 n1 4{S}.. delete \"k\" -> unknown"))).unwrap();
    judge(&history(5, &format!("op c3 n1 4{S}..5{S} delete \"k\" -> @3 delete [] deleted=1"))).unwrap();
    early(&history(5, &format!("op c3 n1 9{S}..10{S} revoke 7 -> @9 revoke")), "is there until");
    early(&history(5, &format!("op c3 n1 4{S}.. delete \"l\" -> unknown")), "is there until");
}

#[test]
fn clocks_may_be_told_to_differ() {
    let fast = history(6, "");
    assert!(check(&fast, &log(), ClockError { per_mille: 100 }).is_err());
    check(&fast, &log(), ClockError { per_mille: 250 }).unwrap();
}

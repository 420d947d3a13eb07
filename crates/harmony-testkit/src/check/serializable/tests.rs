use super::*;
use crate::history::text::parse;

const WRITES: &str = r#"op c1 n2 0..10 put "k" "1" -> @2 put []
op c1 n2 20..30 put "k" "2" -> @3 put []
op c1 n2 40..50 put "l" "3" -> @4 put []
"#;

fn judge(reads: &str, restarts: &[(u64, u64)]) -> Result<(), Violation> {
    let history = parse(&format!("{WRITES}{reads}")).unwrap();
    let restarts: Vec<_> =
        restarts.iter().map(|(member, at)| (NodeId::new(*member).unwrap(), Moment(*at))).collect();
    check(&history, &Log::of_history(&history).unwrap(), &restarts)
}

#[track_caller]
fn broken(reads: &str, words: &str) {
    let report = judge(reads, &[]).expect_err(reads).to_string();
    assert!(report.contains(words), "{words:?} is missing in: {report}");
    assert!(report.contains("\n  > op"), "{report}");
}

const OLD: &str = r#"range "k" serializable -> @2 range ["k" "1" c=2 m=2 v=1] count=1"#;
const NEW: &str = r#"range "k" serializable -> @4 range ["k" "2" c=2 m=3 v=2] count=1"#;

#[test]
fn old_reads_are_accepted_as_long_as_they_are_true() {
    judge(&format!("op c2 n1 100..110 {OLD}"), &[]).unwrap();
    judge(&format!("op c2 n1 100..110 {OLD}\nop c2 n1 120..130 {NEW}\nop c3 n3 140..150 {OLD}"), &[])
        .unwrap();
    // They overlap.
    judge(&format!("op c2 n1 100..130 {NEW}\nop c3 n1 120..130 {OLD}"), &[]).unwrap();
    judge(
        r#"op c2 n1 100..110 range "k" revision=2 serializable -> @4 range ["k" "1" c=2 m=2 v=1] count=1"#,
        &[],
    )
    .unwrap();
}

#[test]
fn a_read_that_is_not_its_revisions_state_is_caught() {
    broken(&format!("op c2 n1 100..110 {}", OLD.replace("@2", "@3")), "the state at revision 3");
    broken(&format!("op c2 n1 100..110 {}", OLD.replace("\"1\"", "\"2\"")), "the state at revision 2");
    broken(r#"op c2 n1 100..110 range "k" serializable -> @3 range []"#, "the state at revision 3");
    broken(
        r#"op c2 n1 100..110 range "k" revision=2 serializable -> @4 range ["k" "2" c=2 m=3 v=2] count=1"#,
        "the state at revision 2",
    );
}

#[test]
fn a_read_of_the_future_is_caught() {
    broken(&format!("op c2 n1 100..110 {}", NEW.replace("@4", "@9")), "never was");
    broken(&format!("op c2 n1 10..12 {NEW}"), "asked for later");
    broken(
        r#"op c2 n1 100..110 range "k" revision=3 serializable -> @2 range ["k" "2" c=2 m=3 v=2] count=1"#,
        "did not exist",
    );
}

#[test]
fn a_member_that_answers_older_than_before_is_caught() {
    let back = format!("op c2 n1 100..110 {NEW}\nop c3 n1 120..130 {OLD}");
    broken(&back, "older state than before");
    judge(&back, &[(1, 115)]).unwrap();
    assert!(judge(&back, &[(1, 95), (3, 115)]).is_err(), "no restart of this member between");
    // A write that it acknowledged counts as well.
    broken(&format!("op c2 n2 60..70 {OLD}"), "older state than before");
}

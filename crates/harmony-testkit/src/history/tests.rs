use super::text::parse;

/// Each kind of line, with each field that it can have.
const EVERY_LINE: &str = r#"op c1 n2 100..250 put "k" "v" lease=7 prev_kv -> @5 put ["k" "u" c=2 m=4 v=2 l=9]
op c1 n? 100..250 put "k" "" ignore_value ignore_lease -> refused KeyNotFound
op c2 n8e9e 120..200 range "k" "\x00" limit=1 revision=4 sort_order=2 sort_target=4 min_mod=1 max_mod=2 min_create=3 max_create=4 keys_only serializable -> @4 range ["k" "" c=2 m=4 v=2; "l" "" c=2 m=4 v=2] count=3 more
op c2 n1 120..200 range "k" count_only -> @? range []
op c3 n1 130..160 txn if [mod = 4 "k"; value != "\"\xff" "a" "b"; version > 1 "k"; create < 2 "k"; lease = 0 "k"] then [put "k" "w"; delete "a" "b" prev_kv] else [range "k" revision=3; txn if [] then [] else []] -> unknown
op c3 n1 130..160 txn if [] then [] else [] -> @6 txn then [put []; delete ["a" "x" c=1 m=1 v=1] deleted=1; range [] count=2; txn else []]
op c4 n1 130.. compact 3 -> unknown
op c4 n1 130..131 compact 3 -> @9 compact
op c4 n1 130..131 grant 7 ttl=10 -> @9 grant ttl=10
op c4 n1 130..131 revoke 7 -> @9 revoke
op c4 n1 130..131 renew -7 -> @9 renew ttl=-1
watch c5 n3 90 "a" "z" start=2 no_put no_delete prev_kv fragment
  at 91 @7 created
  at 150 @5 events [put "k" "v" c=2 m=5 v=3 was "k" "u" c=2 m=4 v=2; delete "l" "" m=5] fragment
  at 170 @6 progress
  at 180 @7 canceled "compacted" compacted=3
watch c5 n? 200 "a" resumes=0
  at 201 @7 canceled "no leader"
"#;

#[test]
fn every_line_is_read_as_it_was_written() {
    let history = parse(EVERY_LINE).unwrap();
    assert_eq!((history.operations.len(), history.watches.len()), (11, 2));
    assert_eq!(history.to_string(), EVERY_LINE);
    let with_comments = EVERY_LINE.replace("\nop c4", "\n\n# why\nop c4");
    assert_eq!(parse(&with_comments).unwrap(), history);
}

#[test]
fn a_line_that_is_none_is_named_with_its_reason() {
    for (line, reason) in [
        ("put \"k\" \"v\"", "begins no line"),
        ("op x1 n1 1..2 compact 3 -> unknown", "c is missing"),
        ("op c1 n0 1..2 compact 3 -> unknown", "is no member"),
        ("op c1 n1 1.2 compact 3 -> unknown", "has no .."),
        ("op c1 n1 1..2 compact 3 -> unknown unknown", "too much"),
        ("op c1 n1 1..2 compact 3 unknown", "\"->\" is missing"),
        ("op c1 n1 1..2 put \"k\" -> unknown", "quoted bytes are missing"),
        ("op c1 n1 1..2 put \"k\" \"v -> unknown", "not closed"),
        ("op c1 n1 1..2 put \"k\" \"\\q\" -> unknown", "is no escape"),
        ("op c1 n1 1..2 put \"k\" \"v\" color=1 -> unknown", "color does not belong here"),
        ("op c1 n1 1..2 put \"k\" \"v\" lease=1 lease=2 -> unknown", "twice"),
        ("op c1 n1 1..2 put \"k\" \"v\" -> refused Politely", "is no refusal"),
        ("op c1 n1 1..2 txn if [mod ~ 3 \"k\"] then [] else [] -> unknown", "compares nothing"),
        ("op c1 n1 1..2 txn if [] then [] -> unknown", "\"else\" is missing"),
        ("at 3 @4 created", "before any watch"),
    ] {
        let error = parse(&format!("# first\n{line}")).unwrap_err();
        assert!(error.reason.contains(reason), "{line}: {error}");
        assert_eq!(error.line, 2);
    }
    let deep = format!("op c1 n1 1..2 {} -> unknown", "txn if [] then [".repeat(1000));
    assert!(parse(&deep).unwrap_err().reason.contains("within each other"));
}

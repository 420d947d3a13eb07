use harmony_types::fake::seed::{SeededRng, for_each_seed};
use harmony_types::{EventType, KeyRange};

use super::*;
use crate::check::random::{Sample, Shape, sample};
use crate::history::text::parse;
use crate::history::{ClientId, WatchRequest};

/// Four revisions: `k` is made and changed, `l` is made beside it, both go.
const WRITES: &str = r#"op c1 n? 0..10 put "k" "1" -> @2 put []
op c1 n? 20..30 put "k" "2" -> @3 put []
op c1 n? 40..50 txn if [] then [put "k" "3"; put "l" "1"] else [] -> @4 txn then [put []; put []]
op c1 n? 60..70 delete "k" "m" -> @5 delete [] deleted=2
op c1 n? 80..81 compact 4 -> @5 compact
"#;

const K2: &str = r#"put "k" "1" c=2 m=2 v=1"#;
const K3: &str = r#"put "k" "2" c=2 m=3 v=2"#;
const K4: &str = r#"put "k" "3" c=2 m=4 v=3"#;
const L4: &str = r#"put "l" "1" c=4 m=4 v=1"#;
const GONE: &str = r#"delete "k" "" m=5; delete "l" "" m=5"#;

fn judge(watch: &str) -> Result<(), Violation> {
    let history = parse(&format!("{WRITES}{watch}")).unwrap();
    check(&history, &Log::of_history(&history).unwrap())
}

#[track_caller]
fn holds(watch: &str) {
    if let Err(violation) = judge(watch) {
        panic!("{violation}");
    }
}

#[track_caller]
fn broken(watch: &str, property: &str) {
    let violation = judge(watch).expect_err(watch);
    assert_eq!(violation.property, property, "{violation}");
    assert!(violation.window.len() > 1 || property == "resumable", "{violation}");
}

/// A watch on `keys` that is told these messages, one a line, at 100 and later.
fn told(keys: &str, messages: &[String]) -> String {
    let mut text = format!("watch c9 n1 99 {keys}\n  at 100 @5 created\n");
    for (number, message) in messages.iter().enumerate() {
        text += &format!("  at {} {message}\n", 101 + number);
    }
    text
}

fn events(list: &[&str]) -> String {
    format!("@5 events [{}]", list.join("; "))
}

const FROM_2: &str = r#""a" "z" start=2"#;

#[test]
fn a_watch_that_is_told_everything_is_accepted() {
    holds(&told(FROM_2, &[events(&[K2, K3]), events(&[K4, L4, GONE]), "@5 progress".into()]));
    holds(&told(FROM_2, &[events(&[K2]), "@2 progress".into()]).replace("@5", "@2"));
    holds(&told(r#""k" start=3 no_delete"#, &[events(&[K3, K4]), "@5 progress".into()]));
    holds(&told(r#""l" start=2 no_put"#, &[events(&[r#"delete "l" "" m=5"#])]));
    holds(&told(r#""a" "z""#, &["@5 progress".into()]));
    holds(&told(r#""x" "z" start=2"#, &["@5 progress".into(), "@5 canceled \"no leader\"".into()]));
}

#[test]
fn an_event_that_is_missing_is_caught() {
    broken(&told(FROM_2, &[events(&[K2]), events(&[K4, L4])]), "reliable");
    broken(&told(FROM_2, &[events(&[K3])]), "reliable");
    broken(&told(r#""l" start=2"#, &[events(&[r#"delete "l" "" m=5"#])]), "reliable");
    broken(&told(FROM_2, &["@5 events []".into()]), "reliable");
}

#[test]
fn an_event_that_comes_twice_or_out_of_order_is_caught() {
    broken(&told(FROM_2, &[events(&[K2]), events(&[K2])]), "unique");
    broken(&told(FROM_2, &[events(&[K2, K2])]), "unique");
    broken(&told(FROM_2, &[events(&[K2, K3, L4, K4])]), "ordered");
    broken(&told(r#""a" "z" start=3"#, &["@5 progress".into(), "@4 progress".into()]), "bookmarkable");
    broken(&told(r#""x" "z" start=3"#, &["@5 progress".into(), "@4 progress".into()]), "ordered");
    broken("watch c9 n1 99 \"k\"\n at 100 @5 progress", "ordered");
    broken("watch c9 n1 99 \"k\"\n at 100 @5 created\n at 101 @5 created", "unique");
}

#[test]
fn a_revision_that_is_split_is_caught_unless_fragments_were_asked_for() {
    let halves = [events(&[K2, K3, K4]) + " fragment", events(&[L4])];
    holds(&told(&format!("{FROM_2} fragment"), &halves));
    broken(&told(FROM_2, &halves), "atomic");
    broken(&told(FROM_2, &[events(&[K2, K3, K4]), events(&[L4])]), "atomic");
    let asked = format!("{FROM_2} fragment");
    broken(&told(&asked, &[events(&[K2, K3, K4]), events(&[L4])]), "atomic");
    broken(&told(&asked, &[halves[0].clone(), events(&[GONE])]), "atomic");
    broken(&told(&asked, &[halves[0].clone(), "@5 progress".into()]), "atomic");
}

#[test]
fn a_notice_that_is_not_true_is_caught() {
    broken(&told(FROM_2, &[events(&[K2]), "@5 progress".into()]), "bookmarkable");
    broken(&told(FROM_2, &["@5 progress".into()]), "bookmarkable");
    let late = told(FROM_2, &["@2 progress".into(), events(&[K2])]).replace("created", "canceled \"x\"");
    broken(&late, "canceled");
}

#[test]
fn what_was_not_asked_for_is_caught() {
    broken(&told(r#""k" start=2"#, &[events(&[K2, K3, K4, L4])]), "filtered");
    broken(&told(r#""k" start=2 no_put"#, &[events(&[K2])]), "filtered");
    broken(&told(r#""k" start=2 no_delete"#, &[events(&[K2, K3, K4, r#"delete "k" "" m=5"#])]), "filtered");
    broken(&told(r#""a" "z" start=3"#, &[events(&[K2])]), "filtered");
    broken(&told(r#""a" "z""#, &[events(&[K2])]), "filtered");
}

#[test]
fn an_event_that_never_happened_is_caught() {
    broken(&told(FROM_2, &[events(&[r#"put "k" "9" c=2 m=2 v=1"#])]), "true");
    broken(&told(FROM_2, &[events(&[r#"put "k" "1" c=2 m=2 v=1 l=7"#])]), "true");
    broken(&told(FROM_2, &[events(&[r#"put "x" "1" c=2 m=2 v=1"#])]), "true");
    broken(&told(FROM_2, &[events(&[r#"delete "k" "" m=2"#])]), "true");
}

#[test]
fn an_event_that_hides_whether_its_key_is_new_is_caught() {
    broken(&told(FROM_2, &[events(&[K2, r#"put "k" "2" c=3 m=3 v=1"#])]), "is_create");
    broken(&told(FROM_2, &[events(&[r#"put "k" "1" c=2 m=2 v=2"#])]), "is_create");
}

#[test]
fn what_was_replaced_is_right_and_there_when_it_was_asked_for() {
    let asked = format!("{FROM_2} prev_kv");
    let before = [
        r#"put "k" "2" c=2 m=3 v=2 was "k" "1" c=2 m=2 v=1"#,
        r#"put "k" "2" c=2 m=3 v=2 was "k" "0" c=2 m=2 v=1"#,
    ];
    holds(&told(&asked, &[events(&[K2, before[0]])]));
    broken(&told(FROM_2, &[events(&[K2, before[0]])]), "prev_kv");
    broken(&told(&asked, &[events(&[K2, before[1]])]), "prev_kv");
    broken(&told(&asked, &[events(&[&format!(r#"{K2} was "k" "0" c=1 m=1 v=1"#)])]), "prev_kv");
    // At revision 3 it may be gone by a compaction at 4, at revision 5 not.
    holds(&told(&asked, &[events(&[K2, K3])]));
    broken(&told(r#""k" start=5 prev_kv"#, &[events(&[r#"delete "k" "" m=5"#])]), "prev_kv");
}

#[test]
fn what_comes_before_its_time_is_caught() {
    broken(&told(FROM_2, &[events(&[K2, K3]).replace("@5", "@2")]).replace("@5", "@2"), "causal");
    broken("watch c9 n1 5 \"k\" start=2\n at 6 @3 created", "causal");
    broken("watch c9 n1 5 \"k\" start=2\n at 100 @6 created", "causal");
}

#[test]
fn an_end_for_a_compaction_needs_one() {
    let canceled = |compacted: u64| format!("@5 canceled \"compacted\" compacted={compacted}");
    holds(&told(FROM_2, &[canceled(4)]));
    holds(&told(FROM_2, &[events(&[K2]), canceled(4)]));
    broken(&told(FROM_2, &[canceled(3)]), "canceled");
    broken(&told(r#""k" start=4"#, &[canceled(4)]), "canceled");
    broken(&told(FROM_2, &[events(&[K2, K3]), canceled(4)]), "canceled");
    broken(&told(FROM_2, &[canceled(4), canceled(4)]), "canceled");
}

#[test]
fn a_watch_goes_on_where_the_one_before_ended() {
    let first = told(FROM_2, &[events(&[K2])]);
    let again = |start: u32| format!("{first}watch c9 n2 110 \"a\" \"z\" start={start} resumes=0\n");
    holds(&again(3));
    holds(&again(2));
    broken(&again(4), "resumable");
    broken("watch c9 n2 110 \"a\" resumes=7\n", "resumable");
    let history = parse(&format!("{WRITES}{}", again(3))).unwrap();
    assert_eq!(told_up_to(&history.watches[0]), Some(Revision(2)));
    assert_eq!(told_up_to(&history.watches[1]), None);
}

/// A watch that is told the log by chance: in pieces, with notices between, not to its end.
fn honest(rng: &mut SeededRng, log: &Log) -> Watch {
    let last = u64::try_from(log.last()).unwrap();
    let start = rng.range(2..last + 1);
    let request = WatchRequest {
        keys: if rng.chance(1, 2) { KeyRange::all() } else { KeyRange::single("k0") },
        start: Some(Revision(start)),
        no_put: rng.chance(1, 6),
        no_delete: rng.chance(1, 6),
        prev_kv: rng.chance(1, 2),
        fragment: rng.chance(1, 2),
    };
    let mut watch = Watch {
        client: ClientId(1),
        member: None,
        called: Moment(u64::MAX),
        request,
        resumes: None,
        responses: Vec::new(),
    };
    let mut say = |message| {
        watch.responses.push(WatchResponse { at: Moment(u64::MAX), revision: Revision(last), message });
    };
    say(WatchMessage::Created);
    let request = watch.request.clone();
    let mut piece = Vec::new();
    let mut responses = Vec::new();
    for revision in start..=last {
        let mut events: Vec<Event> = log.at(i64::try_from(revision).unwrap()).to_vec();
        events.retain(|event| {
            let is_delete = event.event_type == i32::from(EventType::Delete);
            let key = &event.kv.as_ref().unwrap().key;
            request.keys.contains(key) && if is_delete { !request.no_delete } else { !request.no_put }
        });
        if !request.prev_kv {
            events.iter_mut().for_each(|event| event.prev_kv = None);
        }
        if request.fragment && events.len() > 1 && rng.chance(1, 2) {
            let rest = events.split_off(rng.index(1..events.len()));
            piece.append(&mut events);
            let events = std::mem::replace(&mut piece, rest);
            responses.push((last, WatchMessage::Events { events, fragment: true }));
        } else {
            piece.append(&mut events);
        }
        if !piece.is_empty() && rng.chance(1, 2) {
            let events = std::mem::take(&mut piece);
            responses.push((last, WatchMessage::Events { events, fragment: false }));
        }
    }
    if !piece.is_empty() {
        responses.push((last, WatchMessage::Events { events: piece, fragment: false }));
    }
    responses.push((last, WatchMessage::Progress));
    watch.responses.extend(responses.into_iter().map(|(revision, message)| WatchResponse {
        at: Moment(u64::MAX),
        revision: Revision(revision),
        message,
    }));
    watch
}

/// Does one thing that no honest watch does; false where there was nothing to do it to.
fn lie(rng: &mut SeededRng, watch: &mut Watch) -> bool {
    let with_events: Vec<usize> = (0..watch.responses.len())
        .filter(|place| matches!(watch.responses[*place].message, WatchMessage::Events { .. }))
        .collect();
    if with_events.is_empty() {
        return false;
    }
    let place = *rng.pick(&with_events);
    let copy = watch.responses[place].clone();
    let WatchMessage::Events { events, .. } = &mut watch.responses[place].message else { return false };
    let one = rng.index(0..events.len());
    match rng.below(7) {
        0 => {
            events.remove(one);
        }
        1 => {
            let twice = events[one].clone();
            events.insert(one, twice);
        }
        2 => watch.responses.insert(place, copy),
        3 => {
            watch.responses.remove(place);
        }
        4 => events[one].kv.as_mut().unwrap().version += 1,
        5 => {
            if events.len() < 2 {
                return false;
            }
            let other = (one + 1) % events.len();
            events.swap(one, other);
        }
        _ => events[one].kv.as_mut().unwrap().value = "nobody wrote this".into(),
    }
    true
}

#[test]
fn honest_watches_are_accepted_and_those_that_lie_are_not() {
    let mut lies = 0;
    for_each_seed(0..300, 5, |_, rng| {
        let shape =
            Shape { operations: 40, clients: 4, keys: 3, lost_one_in: 6, everything: false, revisions: true };
        let Sample { mut history, events } = sample(rng, shape);
        let log = Log::from_events(events).unwrap();
        if log.last() < 3 {
            return;
        }
        history.watches = vec![honest(rng, &log)];
        check(&history, &log).unwrap_or_else(|violation| panic!("{violation}"));
        if lie(rng, &mut history.watches[0]) {
            lies += 1;
            assert!(check(&history, &log).is_err(), "{}", history.watches[0]);
        }
    });
    assert!(lies > 100 || std::env::var_os("HARMONY_SEED").is_some());
}

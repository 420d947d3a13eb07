//! The examples do what they say, run twice in one directory too.

#[path = "../examples/event_log.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod event_log;
#[path = "../examples/follower.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod follower;
#[path = "../examples/standalone.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod standalone;

use harmony_wal::LogIndex;

#[test]
fn a_log_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(standalone::run(dir.path()).unwrap().last, LogIndex(990));
    let held = standalone::run(dir.path()).unwrap();
    assert_eq!(held.last, LogIndex(1_980));
    assert!(LogIndex(990) < held.boundary, "{held:?}");
}

#[test]
fn events_of_many_threads_are_all_there() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(event_log::run(dir.path()).unwrap(), 800);
    assert_eq!(event_log::run(dir.path()).unwrap(), 1_600);
}

#[test]
fn a_follower_ends_with_its_leaders_log() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(follower::run(dir.path()).unwrap(), [1, 1, 1, 2]);
}

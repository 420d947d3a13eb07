//! The rolling hash: what it tells apart, and that it is of the state, not of the way there.
#![allow(clippy::unwrap_used)] // helpers of tests, which the lint does not see as tests

mod common;

use bytes::Bytes;
use common::{Store, put};
use harmony_storage::AppliedHash;
use harmony_types::command::{Compact, PublishMember};
use harmony_types::{CommandKind, Entry, EntryType, LogIndex, Member, Membership, NodeId, Role, Storage};

fn hash(store: &Store) -> AppliedHash {
    store.storage().applied_hash()
}

fn compact(revision: i64) -> CommandKind {
    CommandKind::Compact(Compact { revision })
}

#[test]
fn members_that_applied_the_same_entries_agree_at_every_index() {
    let (mut one, mut other) = (Store::new(), Store::new());
    assert_eq!(hash(&one), AppliedHash { index: LogIndex(0), hash: 0 });
    let commands = [put("a", "1"), put("a", "2"), compact(2), put("b", "1"), compact(1), compact(4)];
    for (number, command) in commands.clone().into_iter().enumerate() {
        let before = hash(&one);
        one.run(command.clone());
        if number % 2 == 0 {
            one.storage().checkpoint().unwrap();
            while one.storage().drop_compacted().unwrap() {}
        }
        other.run(command);
        assert_eq!(hash(&one), hash(&other));
        assert_ne!(hash(&one).hash, before.hash, "each entry counts, a refused one, too");
    }
    let mut at_once = Store::new();
    at_once.run_all(commands);
    assert_eq!(hash(&at_once), hash(&one));
}

#[test]
fn a_state_that_parted_stays_apart() {
    let (mut one, mut other) = (Store::new(), Store::new());
    one.run(put("a", "1"));
    other.run(put("a", "2"));
    assert_ne!(hash(&one), hash(&other));
    for _ in 0..20 {
        one.run(put("a", "3"));
        other.run(put("a", "3"));
        assert_eq!(hash(&one).index, hash(&other).index);
        assert_ne!(hash(&one), hash(&other), "the same writes on top do not hide it");
    }
}

#[test]
fn the_hash_survives_restart_and_snapshot_and_goes_on() {
    let mut calm = Store::new();
    let mut store = Store::new();
    for round in 0..6 {
        for store in [&mut calm, &mut store] {
            store.run_all([put("a", &round.to_string()), put("b", "1")]);
        }
        match round {
            0 => store.restart(false).unwrap(),
            1 => store.restart(true).unwrap(),
            2 => store.move_by_snapshot(),
            3 => drop(store.storage().checkpoint().unwrap()),
            _ => {}
        }
        assert_eq!(hash(&store), hash(&calm), "round {round}");
    }
}

#[test]
fn changes_of_the_members_and_empty_entries_count() {
    let mut store = Store::new();
    let entry = |index, entry_type| Entry { index, entry_type, ..store_entry() };
    let mut hashes = vec![hash(&store)];
    for entry_type in [EntryType::Normal, EntryType::ConfChange] {
        let entry = entry(store.next, entry_type);
        store.save(std::slice::from_ref(&entry));
        store.storage().apply(&[entry]).unwrap();
        hashes.push(hash(&store));
    }
    let entry = entry(store.next, EntryType::ConfChangeV2);
    store.save(std::slice::from_ref(&entry));
    let before = hash(&store);
    store.storage().apply_membership(&entry, &Membership::default()).unwrap();
    hashes.push(hash(&store));
    let mut without = Store::new();
    for entry_type in [EntryType::Normal, EntryType::ConfChange, EntryType::ConfChangeV2] {
        let entry = Entry { index: without.next, entry_type, ..store_entry() };
        without.save(std::slice::from_ref(&entry));
        without.storage().apply(&[entry]).unwrap();
    }
    assert_eq!(before.index.next(), hash(&without).index);
    assert_ne!(hash(&store), hash(&without), "the members count");
    hashes.sort_by_key(|hash| hash.hash);
    hashes.dedup_by_key(|hash| hash.hash);
    assert_eq!(hashes.len(), 4);
}

/// One that joins by replaying the log begins with the members that it was told, later ones among them.
#[test]
fn the_members_that_one_began_with_do_not_count() {
    let member = |number: u64| Member {
        id: NodeId::new(number).unwrap(),
        name: String::new(),
        peer_urls: vec![format!("http://{number}:1")],
        client_urls: Vec::new(),
        role: Role::Voter,
    };
    let members = |count: u64| Membership::from_members((1..=count).map(member));
    let (mut founder, mut joiner) = (Store::new(), Store::new());
    founder.storage().bootstrap(&members(1)).unwrap();
    joiner.storage().bootstrap(&members(3)).unwrap();
    let publish = |id| {
        CommandKind::PublishMember(PublishMember { id, name: "it".to_owned(), ..PublishMember::default() })
    };
    let mut before = hash(&founder);
    for (number, data) in (2..=3).zip([&b"add 2"[..], b"add 3"]) {
        for (store, after) in [(&mut founder, members(number)), (&mut joiner, members(3))] {
            // The founder knows no third member yet: the same was said to it all the same.
            store.run(publish(3));
            let data = Bytes::from_static(data);
            let entry = Entry { index: store.next, entry_type: EntryType::ConfChange, data, ..store_entry() };
            store.save(std::slice::from_ref(&entry));
            store.storage().apply_membership(&entry, &after).unwrap();
        }
        assert_eq!(hash(&founder), hash(&joiner), "behind {number}");
        assert_ne!(hash(&founder).hash, std::mem::replace(&mut before, hash(&founder)).hash);
    }
    founder.run(publish(3));
    joiner.run(publish(3));
    assert_eq!(hash(&founder), hash(&joiner));
    assert_eq!(founder.storage().membership(), joiner.storage().membership());
    assert_eq!(founder.storage().hash().unwrap(), joiner.storage().hash().unwrap());
}

fn store_entry() -> Entry {
    Entry {
        term: harmony_types::Term(1),
        index: LogIndex(0),
        entry_type: EntryType::Normal,
        data: Bytes::new(),
    }
}

#[test]
fn a_failed_apply_leaves_the_hash() {
    let mut store = Store::new();
    store.run(put("a", "1"));
    let before = hash(&store);
    let mut entries = vec![store.entry(put("a", "2")), store.entry(put("a", "3"))];
    entries[1].data = Bytes::from_static(b"\xff\xff");
    store.storage().apply(&entries).unwrap_err();
    assert_eq!(hash(&store), before);
}

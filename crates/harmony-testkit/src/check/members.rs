//! What holds among the members themselves: one leader a term, committed entries that stay, equal states, nothing that goes
//! back.

use std::collections::BTreeMap;

use harmony_types::{LogIndex, Revision, Term};

use super::Violation;
use crate::history::observation::{CommittedEntry, Observation};

/// No two members lead in one term.
///
/// # Errors
/// The term and both leaders.
pub fn one_leader_a_term(observations: &[Observation]) -> Result<(), Violation> {
    let mut leaders: BTreeMap<Term, &Observation> = BTreeMap::new();
    for observation in observations.iter().filter(|observation| observation.is_leader) {
        let first = leaders.entry(observation.term).or_insert(observation);
        if first.member != observation.member {
            let reason = format!("{} and {} led in term {}", first.member, observation.member, first.term);
            return Err(violation("one leader a term", reason, &[first, observation]));
        }
    }
    Ok(())
}

/// A member's term never goes back, and within one life neither does what it has committed, applied and written.
///
/// # Errors
/// Two looks at one member.
pub fn never_back(observations: &[Observation]) -> Result<(), Violation> {
    let mut sorted: Vec<&Observation> = observations.iter().collect();
    sorted.sort_by_key(|observation| (observation.member, observation.life, observation.at));
    for pair in sorted.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        if before.member != after.member {
            continue;
        }
        if after.term < before.term {
            return Err(violation("always ahead", "the term went back", &[before, after]));
        }
        let progress = |one: &Observation| [one.committed.0, one.applied.0, one.revision.0];
        let went_back = progress(before).iter().zip(progress(after)).any(|(before, after)| after < *before);
        if before.life == after.life && before.at < after.at && went_back {
            return Err(violation("always ahead", "a member went back within its life", &[before, after]));
        }
    }
    Ok(())
}

/// Members that have applied the same entries have the same revision and the same state.
///
/// # Errors
/// Two members that differ.
pub fn identical(observations: &[Observation]) -> Result<(), Violation> {
    let mut revisions: BTreeMap<LogIndex, &Observation> = BTreeMap::new();
    let mut hashes: BTreeMap<LogIndex, &Observation> = BTreeMap::new();
    for observation in observations {
        let first = revisions.entry(observation.applied).or_insert(observation);
        if first.revision != observation.revision {
            let reason = format!("two revisions behind entry {}", first.applied);
            return Err(violation("members alike", reason, &[first, observation]));
        }
        if observation.state_hash.is_none() {
            continue;
        }
        let first = hashes.entry(observation.applied).or_insert(observation);
        if first.state_hash != observation.state_hash {
            let reason = format!("the states behind entry {} differ", first.applied);
            return Err(violation("members alike", reason, &[first, observation]));
        }
    }
    // More entries make no lower revision.
    let mut newest = Revision(0);
    for (index, observation) in &revisions {
        if observation.revision < newest {
            let reason =
                format!("revision {} behind entry {index}, and a higher one before", observation.revision);
            return Err(violation("members alike", reason, &[observation]));
        }
        newest = observation.revision;
    }
    Ok(())
}

/// An entry that one member knew to be committed is the same on all, for ever; and terms never go back along the log.
///
/// # Errors
/// Two members' entries at one index.
pub fn committed_never_changes(entries: &[CommittedEntry]) -> Result<(), Violation> {
    const PROPERTY: &str = "committed for ever";
    let mut log: BTreeMap<LogIndex, CommittedEntry> = BTreeMap::new();
    for entry in entries {
        let first = *log.entry(entry.index).or_insert(*entry);
        if (first.term, first.hash) != (entry.term, entry.hash) {
            let reason = format!("two entries were committed at index {}", entry.index);
            let window = vec![format!("{first:?}"), format!("{entry:?}")];
            return Err(Violation::new(PROPERTY, reason).with_window(window));
        }
    }
    for (before, after) in log.values().zip(log.values().skip(1)) {
        if after.term < before.term {
            let reason = format!("the term goes back along the log, at index {}", after.index);
            let window = vec![format!("{before:?}"), format!("{after:?}")];
            return Err(Violation::new(PROPERTY, reason).with_window(window));
        }
    }
    Ok(())
}

/// All four for what was seen of a cluster.
///
/// # Errors
/// The first that is broken.
pub fn check(observations: &[Observation], entries: &[CommittedEntry]) -> Result<(), Violation> {
    one_leader_a_term(observations)?;
    never_back(observations)?;
    identical(observations)?;
    committed_never_changes(entries)
}

fn violation(property: &'static str, reason: impl Into<String>, seen: &[&Observation]) -> Violation {
    Violation::new(property, reason).with_window(seen.iter().map(|one| format!("{one:?}")).collect())
}

#[cfg(test)]
mod tests {
    use harmony_types::NodeId;

    use super::*;
    use crate::history::Moment;

    fn seen(member: u64, at: u64, applied: u64) -> Observation {
        Observation {
            at: Moment(at),
            member: NodeId::new(member).unwrap(),
            life: 0,
            term: Term(2),
            is_leader: false,
            committed: LogIndex(applied),
            applied: LogIndex(applied),
            revision: Revision(applied + 1),
            state_hash: Some(applied * 77),
        }
    }

    #[track_caller]
    fn broken(result: Result<(), Violation>, property: &str) {
        assert_eq!(result.unwrap_err().property, property);
    }

    #[test]
    fn members_that_agree_are_accepted() {
        let leader = Observation { is_leader: true, ..seen(1, 5, 5) };
        let next = Observation { is_leader: true, term: Term(3), ..seen(2, 9, 5) };
        let restarted = Observation { life: 1, ..seen(1, 20, 3) };
        check(&[leader, leader, next, seen(3, 6, 3), Observation { term: Term(3), ..restarted }], &[])
            .unwrap();
    }

    #[test]
    fn two_leaders_in_a_term_are_caught() {
        let leader = |member| Observation { is_leader: true, ..seen(member, 5, 5) };
        broken(check(&[leader(1), seen(2, 5, 5), leader(3)], &[]), "one leader a term");
    }

    #[test]
    fn what_goes_back_is_caught() {
        let later = seen(1, 9, 5);
        for changed in [
            Observation { term: Term(1), ..later },
            Observation { committed: LogIndex(4), ..later },
            Observation { applied: LogIndex(4), ..later },
            Observation { revision: Revision(5), ..later },
        ] {
            broken(check(&[seen(1, 5, 5), changed], &[]), "always ahead");
            broken(check(&[changed, seen(1, 5, 5)], &[]), "always ahead");
            let other_life = Observation { life: 1, ..changed };
            assert_eq!(never_back(&[seen(1, 5, 5), other_life]).is_ok(), changed.term == Term(2));
        }
    }

    #[test]
    fn states_that_differ_are_caught() {
        let other = seen(2, 9, 5);
        broken(check(&[seen(1, 5, 5), Observation { state_hash: Some(1), ..other }], &[]), "members alike");
        broken(check(&[seen(1, 5, 5), Observation { revision: Revision(9), ..other }], &[]), "members alike");
        broken(
            check(
                &[seen(1, 5, 5), Observation { applied: LogIndex(6), revision: Revision(5), ..other }],
                &[],
            ),
            "members alike",
        );
        check(&[seen(1, 5, 5), Observation { state_hash: None, ..other }], &[]).unwrap();
    }

    #[test]
    fn a_committed_entry_that_changes_is_caught() {
        let entry = |member, index, term, hash| CommittedEntry {
            member: NodeId::new(member).unwrap(),
            index: LogIndex(index),
            term: Term(term),
            hash,
        };
        let log = [entry(1, 1, 1, 7), entry(1, 2, 2, 8)];
        check(&[], &[log[0], log[1], entry(2, 1, 1, 7)]).unwrap();
        for changed in [entry(2, 2, 2, 9), entry(2, 2, 3, 8), entry(2, 3, 1, 9)] {
            broken(check(&[], &[log[0], log[1], changed]), "committed for ever");
        }
    }
}

//! Commands to outcomes: the only place where the replicated state changes. No clock, no randomness: the same entries on
//! the same state give the same state and the same outcomes on every member.

use harmony_types::command::PublishMember;
use harmony_types::planted::{self, Bug};
use harmony_types::{
    Author, Command, CommandKind, Entry, EntryType, Member, Membership, NodeId, Outcome, OutcomeKind,
    Refusal, Role, StorageError,
};
use prost::Message as _;

use crate::alarm;
use crate::auth;
use crate::batch::Batch;
use crate::lease;
use crate::mvcc::{OpError, compact, txn, write};

/// What an entry asks for, and on whose behalf.
pub(crate) struct Asked {
    pub(crate) kind: CommandKind,
    author: Option<Author>,
}

/// An entry with its command; `None` for one of a membership change, and the empty one of a new leader: they change nothing.
pub(crate) struct Decoded<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) command: Option<Asked>,
}

/// Reads the command of an entry.
///
/// # Errors
/// [`StorageError::CorruptRecord`] for one that this release cannot read: skipping it would make this member differ from
/// the others.
pub(crate) fn decode(entry: &Entry) -> Result<Option<Asked>, StorageError> {
    if entry.entry_type != EntryType::Normal || entry.data.is_empty() {
        return Ok(None);
    }
    let unreadable = |reason: String| StorageError::CorruptRecord {
        place: format!("log entry {}, term {}", entry.index, entry.term),
        reason,
    };
    let Command { kind, author } = Command::decode(entry.data.clone())
        .map_err(|error| unreadable(format!("the command cannot be decoded: {error}")))?;
    match kind {
        Some(kind) => Ok(Some(Asked { kind, author })),
        None => Err(unreadable("a command of a kind that this release does not know".to_owned())),
    }
}

impl Decoded<'_> {
    /// What it asks for.
    pub(crate) fn kind(&self) -> Option<&CommandKind> {
        self.command.as_ref().map(|asked| &asked.kind)
    }
}

/// Applies the next entry to `batch`.
///
/// # Errors
/// [`StorageError::InvalidIndex`] when it is not the next one. Else this machine failed.
pub(crate) fn entry(batch: &mut Batch, decoded: &Decoded<'_>) -> Result<Outcome, StorageError> {
    let entry = decoded.entry;
    follows(batch, entry)?;
    let outcome = command(batch, decoded)?;
    let refusal = match outcome.kind {
        Some(OutcomeKind::Refused(refusal)) => Some(refusal),
        _ => None,
    };
    batch.end_entry(entry, refusal);
    Ok(outcome)
}

/// Applies the next entry, one of a membership change, to `batch`.
///
/// # Errors
/// [`StorageError::InvalidIndex`] when it is not the next one.
pub(crate) fn membership_change(
    batch: &mut Batch,
    entry: &Entry,
    membership: &Membership,
) -> Result<(), StorageError> {
    follows(batch, entry)?;
    batch.progress.state_hash.membership_change(entry);
    batch.set_membership(membership.clone());
    batch.end_entry(entry, None);
    Ok(())
}

/// Whether `entry` is the next one.
fn follows(batch: &Batch, entry: &Entry) -> Result<(), StorageError> {
    let next = batch.progress.applied.index.next();
    if entry.index == next {
        return Ok(());
    }
    Err(StorageError::InvalidIndex {
        index: entry.index,
        reason: format!("the entry to apply next is {next}"),
    })
}

fn command(batch: &mut Batch, decoded: &Decoded<'_>) -> Result<Outcome, StorageError> {
    let Some(Asked { kind, author }) = &decoded.command else {
        return Ok(Outcome { revision: batch.progress.revision.as_i64(), kind: None });
    };
    if planted::is(Bug::ApplyTwice) && run(batch, kind, author.as_ref()).is_ok() {
        batch.end_command();
    }
    let done = run(batch, kind, author.as_ref());
    let revision = batch.end_command().as_i64();
    match done {
        Ok(kind) => Ok(Outcome { revision, kind: Some(kind) }),
        Err(OpError::Refused(refusal)) => Ok(Outcome::refused(revision, refusal)),
        Err(OpError::Failed(error)) => Err(error),
    }
}

/// Runs a command. A refusal comes before its first write.
fn run(batch: &mut Batch, kind: &CommandKind, author: Option<&Author>) -> Result<OutcomeKind, OpError> {
    const INVALID: OpError = OpError::Refused(Refusal::Invalid);
    batch.settings().alarms.admit(kind).map_err(OpError::Refused)?;
    auth::check(batch, author, kind)?;
    match kind {
        CommandKind::Put(put) => {
            put.validate().map_err(|_| INVALID)?;
            // etcd refuses a put of its own for its lease first, one in a transaction for its key.
            lease::require(batch, put.lease)?;
            write::check_put(batch, put)?;
            Ok(OutcomeKind::Put(write::put(batch, put)?))
        }
        CommandKind::DeleteRange(delete) => {
            delete.validate().map_err(|_| INVALID)?;
            Ok(OutcomeKind::DeleteRange(write::delete_range(batch, delete)?))
        }
        CommandKind::Txn(request) => Ok(OutcomeKind::Txn(txn::txn(batch, request)?)),
        CommandKind::Compact(request) => {
            compact::compact(&mut batch.progress, request.revision)?;
            Ok(OutcomeKind::Compact(request.revision))
        }
        CommandKind::PublishMember(member) => Ok(OutcomeKind::PublishMember(publish_member(batch, member))),
        CommandKind::LeaseGrant(request) => Ok(OutcomeKind::LeaseGrant(lease::grant(batch, request)?)),
        CommandKind::LeaseRevoke(request) => Ok(OutcomeKind::LeaseRevoke(lease::revoke(batch, request)?)),
        CommandKind::LeaseCheckpoint(request) => {
            Ok(OutcomeKind::LeaseCheckpoint(lease::checkpoint(batch, request)?))
        }
        CommandKind::Alarm(request) => {
            Ok(OutcomeKind::Alarm(alarm::change(batch, request).map_err(OpError::Refused)?))
        }
        CommandKind::Auth(request) => Ok(OutcomeKind::Auth(auth::change(batch, request)?)),
    }
}

/// Takes a member's name and addresses in; false when there is no such member (any more).
fn publish_member(batch: &mut Batch, published: &PublishMember) -> bool {
    batch.progress.state_hash.published(published);
    let Some(id) = NodeId::new(published.id) else { return false };
    if !batch.settings().membership.contains(id) {
        return false;
    }
    let mut membership = Membership::clone(&batch.settings().membership);
    let role = if membership.is_voter(id) { Role::Voter } else { Role::Learner };
    let member = membership.members.entry(id).or_insert_with(|| Member {
        id,
        name: String::new(),
        peer_urls: Vec::new(),
        client_urls: Vec::new(),
        role,
    });
    member.name.clone_from(&published.name);
    member.client_urls.clone_from(&published.client_urls);
    if !published.peer_urls.is_empty() {
        member.peer_urls.clone_from(&published.peer_urls);
    }
    batch.set_membership(membership);
    true
}

//! Whether the author of a command may do what it does: what the command needs, and whether its author has it.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;

use super::{AuthState, Author, Permission, PermissionType, ROOT_ROLE, User};
use crate::command::{CommandKind, Refusal};
use crate::id::LeaseId;
use crate::kv::KeyRange;
use crate::txn::{DeleteRange, Put, Txn, TxnOp, TxnOpKind};

/// How a range of keys is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    /// It is read.
    Read,
    /// It is written.
    Write,
}

/// What the author of a command needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: no client proposes it.
    Nothing,
    /// The root role.
    Admin,
    /// To be a user, with these permissions.
    User(Vec<Need>),
}

/// One permission that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// On a range of keys.
    Range(Access, KeyRange),
    /// To write every key attached to a lease, if there is such a lease.
    Lease(LeaseId),
}

impl Needs {
    /// What a command needs. Of a transaction both branches count, and all that is within, whichever will run.
    #[must_use]
    pub fn of(command: &CommandKind) -> Self {
        let mut needs = Vec::new();
        match command {
            CommandKind::Put(put) => of_put(put, &mut needs),
            CommandKind::DeleteRange(delete) => of_delete(delete, &mut needs),
            CommandKind::Txn(txn) => of_txn(txn, &mut needs),
            CommandKind::LeaseGrant(_) => {}
            CommandKind::LeaseRevoke(revoke) => needs.push(Need::Lease(LeaseId(revoke.id))),
            CommandKind::Compact(_) | CommandKind::Alarm(_) | CommandKind::Auth(_) => return Self::Admin,
            CommandKind::PublishMember(_) | CommandKind::LeaseCheckpoint(_) => return Self::Nothing,
        }
        Self::User(needs)
    }

    /// What a read of a range needs.
    #[must_use]
    pub fn read(range: KeyRange) -> Self {
        Self::User(vec![Need::Range(Access::Read, range)])
    }
}

fn of_put(put: &Put, needs: &mut Vec<Need>) {
    let key = || KeyRange::single(put.key.clone());
    needs.push(Need::Range(Access::Write, key()));
    if put.prev_kv {
        needs.push(Need::Range(Access::Read, key()));
    }
    if put.lease != 0 {
        needs.push(Need::Lease(LeaseId(put.lease)));
    }
}

fn of_delete(delete: &DeleteRange, needs: &mut Vec<Need>) {
    needs.push(Need::Range(Access::Write, delete.range()));
    if delete.prev_kv {
        needs.push(Need::Range(Access::Read, delete.range()));
    }
}

fn of_txn(txn: &Txn, needs: &mut Vec<Need>) {
    needs.extend(txn.compare.iter().map(|compare| Need::Range(Access::Read, compare.range())));
    for TxnOp { kind } in txn.success.iter().chain(&txn.failure) {
        match kind {
            Some(TxnOpKind::Range(range)) => needs.push(Need::Range(Access::Read, range.range())),
            Some(TxnOpKind::Put(put)) => of_put(put, needs),
            Some(TxnOpKind::DeleteRange(delete)) => of_delete(delete, needs),
            Some(TxnOpKind::Txn(inner)) => of_txn(inner, needs),
            None => {}
        }
    }
}

impl AuthState {
    /// Checks that `author` has what is needed, whether that is now or in the middle of the log: it depends on nothing else.
    /// `keys_of` names the keys attached to a lease, none when there is no such lease.
    ///
    /// Whoever proved to be a user under an older revision has to do so again: a change since may have been meant for them.
    /// What needs the root role is judged by the state alone, as it may be one of several such changes on their way.
    ///
    /// # Errors
    /// The refusal as the inner error, the outer one is that of `keys_of`: [`Refusal::UserNameEmpty`] for nobody,
    /// [`Refusal::AuthRevisionOld`], [`Refusal::UserNotFound`] (only where the root role is needed),
    /// [`Refusal::PermissionDenied`].
    pub fn check<E>(
        &self,
        author: Option<&Author>,
        needs: &Needs,
        mut keys_of: impl FnMut(LeaseId) -> Result<Vec<Bytes>, E>,
    ) -> Result<Result<(), Refusal>, E> {
        if !self.enabled || *needs == Needs::Nothing || author.is_some_and(|author| author.by_member) {
            return Ok(Ok(()));
        }
        let Some(author) = author.filter(|author| !author.user.is_empty()) else {
            return Ok(Err(Refusal::UserNameEmpty));
        };
        let user = self.users.get(&author.user);
        let Needs::User(needs) = needs else {
            return Ok(match user {
                Some(user) if user.has_role(ROOT_ROLE) => Ok(()),
                Some(_) => Err(Refusal::PermissionDenied),
                None => Err(Refusal::UserNotFound),
            });
        };
        if author.auth_revision < self.revision {
            return Ok(Err(Refusal::AuthRevisionOld));
        }
        let Some(user) = user else { return Ok(Err(Refusal::PermissionDenied)) };
        if user.has_role(ROOT_ROLE) {
            return Ok(Ok(()));
        }
        for need in needs {
            let has = match need {
                Need::Range(access, range) => self.permits(user, *access, range),
                Need::Lease(lease) => {
                    let writable = |key| self.permits(user, Access::Write, &KeyRange::single(key));
                    keys_of(*lease)?.into_iter().all(writable)
                }
            };
            if !has {
                return Ok(Err(Refusal::PermissionDenied));
            }
        }
        Ok(Ok(()))
    }

    /// Whether every key of `range` is in a permission of one of the user's roles; different keys may be in different ones.
    /// A range that can hold no key needs none.
    #[must_use]
    pub fn permits(&self, user: &User, access: Access, range: &KeyRange) -> bool {
        if user.has_role(ROOT_ROLE) || range.is_empty() {
            return true;
        }
        let roles = user.roles.iter().filter_map(|name| self.roles.get(name));
        let granted = roles.flat_map(|role| &role.permissions).filter(|granted| granted.allows(access));
        if range.is_single() {
            return granted.map(Permission::range).any(|granted| granted.contains(&range.key));
        }
        // By their first keys: the next one must begin where those before it end, or earlier.
        let spans: BTreeSet<Span> = granted.map(|granted| Span::of(&granted.range())).collect();
        let wanted = Span::of(range);
        let mut covered = wanted.first.clone();
        for span in spans {
            if covered < span.first {
                return false;
            }
            match span.end {
                End::Open => return true,
                End::Before(end) => covered = covered.max(end),
            }
            if wanted.end <= End::Before(covered.clone()) {
                return true;
            }
        }
        false
    }
}

impl Permission {
    fn allows(&self, access: Access) -> bool {
        match PermissionType::try_from(self.permission) {
            Ok(PermissionType::ReadWrite) => true,
            Ok(PermissionType::Read) => access == Access::Read,
            Ok(PermissionType::Write) => access == Access::Write,
            Err(_) => false,
        }
    }
}

/// A range by its ends: a single key ends before its smallest successor.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    first: Bytes,
    end: End,
}

/// The order of the variants is that of the ends.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Open,
}

impl Span {
    fn of(range: &KeyRange) -> Self {
        let end = match range.bounds().1 {
            Bound::Excluded(end) => End::Before(Bytes::copy_from_slice(end)),
            Bound::Included(last) => End::Before([last, &[0]].concat().into()),
            Bound::Unbounded => End::Open,
        };
        Self { first: range.key.clone(), end }
    }
}

#[cfg(test)]
mod tests;

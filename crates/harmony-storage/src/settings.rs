//! What of the replicated state is small and looked at by every command: held decoded, and shared between batches and
//! views. On disk it is rows of `state` as everything else there.

use std::sync::Arc;

use harmony_types::{Alarms, AuthState, Membership, StorageError};

use crate::tree::{KvView, meta, rows};

/// See the module. Copies share what did not change.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The members.
    pub(crate) membership: Arc<Membership>,
    /// The alarms that are raised.
    pub(crate) alarms: Arc<Alarms>,
    /// Users and roles.
    pub(crate) auth: Arc<AuthState>,
}

impl Settings {
    /// As a tree's rows have them.
    ///
    /// # Errors
    /// What reading reports.
    pub(crate) fn read(tree: &dyn KvView) -> Result<Self, StorageError> {
        Ok(Self {
            membership: Arc::new(meta::read_membership(tree)?),
            alarms: Arc::new(rows::read_alarms(tree)?),
            auth: Arc::new(rows::read_auth(tree)?),
        })
    }

    /// Whether nothing changed from one to the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.membership, &other.membership)
            && Arc::ptr_eq(&self.alarms, &other.alarms)
            && Arc::ptr_eq(&self.auth, &other.auth)
    }
}

//! The data model on top of the two tables. A worked example, with a store at revision 1:
//!
//! ```text
//! put a=x      revision 2   latest: a -> (2.0, create 2, version 1, x)         log 2.0: a=x
//! put a=y      revision 3   latest: a -> (3.0, create 2, version 2, y)         log 3.0: a=y, replaced (2.0, x)
//! delete a     revision 4   latest: a -> (4.0, tombstone)                      log 4.0: a deleted, replaced (3.0, y)
//!
//! get a        the row is a tombstone: nothing
//! get a at 3   the row is newer than 3; log 4.0 replaced (3.0, y): y
//! get a at 2   log 4.0 replaced 3.0, newer than 2; log 3.0 replaced (2.0, x): x
//! compact 4    log 2.0 and 3.0 go; log 4.0 stays, so that a watch from 4 sees the delete, and so does the tombstone
//! compact 5    log 4.0 goes, and with it the tombstone (unless the key was put again)
//! ```

pub(crate) mod chunks;
pub(crate) mod compact;
pub(crate) mod hash;
pub(crate) mod history;
pub(crate) mod range;
pub(crate) mod txn;
pub(crate) mod write;

use harmony_types::{Refusal, Revision, StorageError};

use crate::tree::meta::Progress;

/// Why an operation came to nothing.
#[derive(Debug)]
pub(crate) enum OpError {
    /// The command is refused, the same on every member, before it wrote anything.
    Refused(Refusal),
    /// This machine failed.
    Failed(StorageError),
}

impl From<StorageError> for OpError {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

/// At which revision a read is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The newest, writes of the command under way included.
    Newest,
    /// This one.
    Revision(Revision),
}

impl At {
    /// What a request's revision number means: 0 or less is the newest.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] below the compact revision, [`Refusal::FutureRevision`] past the newest.
    pub(crate) fn requested(revision: i64, progress: &Progress) -> Result<Self, Refusal> {
        let revision = match u64::try_from(revision) {
            Ok(0) | Err(_) => return Ok(Self::Newest),
            Ok(number) => Revision(number),
        };
        if progress.revision < revision {
            Err(Refusal::FutureRevision)
        } else if revision < progress.compact {
            Err(Refusal::Compacted)
        } else {
            Ok(Self::Revision(revision))
        }
    }

    /// Whether a version written then is there already.
    pub(crate) fn sees(self, written: Revision) -> bool {
        match self {
            Self::Newest => true,
            Self::Revision(at) => written <= at,
        }
    }
}

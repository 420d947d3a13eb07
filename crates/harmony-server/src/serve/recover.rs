//! A new cluster of one member out of what a member of a lost majority has.
//!
//! What is committed here is taken as a backup is. Behind it may stand entries of which this member never heard whether they were committed:
//! they are taken, too, as some may have been acknowledged, and the clients of the others were told that nobody knows. What only the
//! lost members had is lost. The old directory is left as a start and a stop would leave it: should the others come back, it can go on
//! with them.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use harmony_node::Witness;
use harmony_storage::UnifiedStorage;
use harmony_types::config::{Identity, StorageConfig, WalConfig};
use harmony_types::{
    Applied, ClusterId, Command, CommandKind, Entry, EntryType, HardState, LogIndex, Membership, NodeId,
    Revision, Storage as _, StorageError,
};
use harmony_wal::OsFileSystem;
use prost::Message as _;

use super::Ids;
use super::data_dir::DataDir;
use super::restore::{Changes, RestoreError, restore_with, storage_options};
use crate::config::Config;

/// Name of the report in the new data directory.
pub(crate) const REPORT: &str = "unsafe-recover.txt";

/// Entry data that is read and applied at once, bytes.
const PART_BYTES: u64 = 4 << 20;

/// A member whose cluster is lost, held open and locked.
pub(crate) struct Survivor {
    storage: UnifiedStorage,
    pub(crate) found: Found,
    // Last: the lock goes when nothing uses the directory any more.
    _data_dir: DataDir,
}

/// What it is, and what it has.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) cluster: ClusterId,
    pub(crate) member: NodeId,
    pub(crate) membership: Membership,
    /// Committed as far as this member heard, with the term, and the revision there.
    pub(crate) committed: Applied,
    pub(crate) revision: Revision,
    /// The last entry of the log.
    pub(crate) last: LogIndex,
    /// Up to where some member is known to have acknowledged what is committed.
    pub(crate) acknowledged: LogIndex,
}

/// The cluster that is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) cluster: ClusterId,
    pub(crate) member: NodeId,
}

impl Made {
    /// Who the member of `config` is, for a cluster that is another than the lost one.
    ///
    /// # Errors
    /// [`RestoreError::SameCluster`].
    pub(crate) fn of(config: &Config, found: &Found) -> Result<Self, RestoreError> {
        let Ids { cluster, member } = Ids::of(config);
        if cluster == found.cluster {
            Err(RestoreError::SameCluster { cluster })
        } else {
            Ok(Self { cluster, member })
        }
    }
}

impl Survivor {
    /// Opens the data directory of a member that does not run.
    ///
    /// # Errors
    /// [`RestoreError`]: there is none, it is in use, or damaged.
    pub(crate) fn open(path: &Path) -> Result<Self, RestoreError> {
        let no_member = || RestoreError::NoMember { path: path.to_owned() };
        // Nothing is made where nothing is.
        if !path.join("member/wal").is_dir() {
            return Err(no_member());
        }
        let data_dir = DataDir::open(path)?;
        let fs = OsFileSystem::new();
        let identity = harmony_wal::identity_of(&*fs, &data_dir.wal()).map_err(StorageError::from)?;
        let Some(Identity { cluster, node: Some(member) }) = identity else { return Err(no_member()) };
        let options = StorageConfig {
            wal: WalConfig { identity: Identity { cluster, node: Some(member) }, ..WalConfig::default() },
            ..StorageConfig::default()
        };
        let storage = UnifiedStorage::open(Arc::clone(&fs) as _, &data_dir.wal(), &data_dir.tree(), options)?;
        let found = Found {
            cluster,
            member,
            membership: storage.membership(),
            committed: storage.applied(),
            revision: storage.revision(),
            last: storage.bounds().last,
            acknowledged: Witness::open(fs, data_dir.member())?.highest(),
        };
        Ok(Self { storage, found, _data_dir: data_dir })
    }

    /// Makes the data directory that `config` names, with `report` in it. Returns the revision.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing is left then.
    pub(crate) fn recover(
        &self,
        config: &Config,
        changes: Changes,
        report: impl FnOnce(Revision) -> String,
    ) -> Result<Revision, RestoreError> {
        let stream = self.storage.create_snapshot()?.data.into_reader();
        restore_with(config, stream, changes, |data_dir, revision| {
            let revision = self.add_tail(config, data_dir)?.unwrap_or(revision);
            let path = data_dir.path().join(REPORT);
            let written = File::create(&path).and_then(|mut file| {
                file.write_all(report(revision).as_bytes())?;
                file.sync_all()
            });
            written.map_err(|source| RestoreError::Io { action: "write", path, source })?;
            Ok(revision)
        })
    }

    /// Adds the commands behind the commit index to the new member, as committed. `None`: there are none.
    fn add_tail(&self, config: &Config, data_dir: &DataDir) -> Result<Option<Revision>, RestoreError> {
        let mut next = self.found.committed.index.next();
        let end = self.found.last.next();
        if next == end {
            return Ok(None);
        }
        let options = storage_options(config);
        let new = UnifiedStorage::open(OsFileSystem::new(), &data_dir.wal(), &data_dir.tree(), options)?;
        let Applied { mut index, term } = new.applied();
        while next < end {
            let part = self.storage.entries(next..end, PART_BYTES)?;
            let Some(last) = part.last() else { break };
            next = last.index.next();
            let mut entries = Vec::with_capacity(part.len());
            for entry in part.into_iter().filter(is_kept) {
                index = index.next();
                entries.push(Entry { index, term, ..entry });
            }
            let state = HardState { term, commit: index, ..HardState::default() };
            new.save(Some(&state), &entries)?;
            new.sync()?;
            new.apply(&entries)?;
        }
        let revision = new.revision();
        new.close()?;
        Ok(Some(revision))
    }
}

/// Commands of clients: the members that others were about to become, and their alarms, are gone.
fn is_kept(entry: &Entry) -> bool {
    let is_alarm = || {
        let command = Command::decode(entry.data.clone());
        command.is_ok_and(|command| matches!(command.kind, Some(CommandKind::Alarm(_))))
    };
    entry.entry_type == EntryType::Normal && !entry.data.is_empty() && !is_alarm()
}

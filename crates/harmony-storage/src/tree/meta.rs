//! The rows of the `state` table that say what the file is and how far it is; those that commands change are in
//! [`super::rows`].
//!
//! | row | value (integers big endian) |
//! | --- | --- |
//! | `format` | version of the whole file, u32; 3, as in the file's head, see [`super::pages`] |
//! | `identity` | cluster id u64, member id u64 (0: none) |
//! | `progress` | applied index, applied term, revision, compact revision (0: never), dropped revision, bytes in `latest`, bytes in `log`, bytes of replicated rows in `state` (u64 each), state hash u32, flags u8 (bit 0: see [`Progress::boundary_pending`], bit 1: see [`Progress::lost`]) |
//! | `membership` | a [`MembershipRow`] as protobuf |
//!
//! Each value ends with a checksum as in [`super::record`]. `format` is read first; any other one is refused.

use std::collections::{BTreeMap, BTreeSet};

use harmony_types::config::Identity;
use harmony_types::{
    Applied, ClusterId, LogIndex, Member, Membership, NodeId, Revision, Role, StorageError, Term,
};
use prost::Message as _;

use super::pages::FORMAT_VERSION;
use super::record::{check_crc, corrupt, put_crc};
use super::{KvView, KvWriter, Table};
use crate::state_hash::StateHash;

const FORMAT: &[u8] = b"format";
const IDENTITY: &[u8] = b"identity";
const PROGRESS: &[u8] = b"progress";
const MEMBERSHIP: &[u8] = b"membership";

/// How far the state machine is; changes with every commit.
///
/// Invariants: `dropped <= compact <= revision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Last entry applied.
    pub(crate) applied: Applied,
    /// The newest revision.
    pub(crate) revision: Revision,
    /// The compact revision, 0 for never.
    pub(crate) compact: Revision,
    /// The compact revision up to which the history is really gone.
    pub(crate) dropped: Revision,
    /// Bytes of keys and values in `latest`.
    pub(crate) latest_bytes: u64,
    /// Bytes of keys and values in `log`.
    pub(crate) log_bytes: u64,
    /// Bytes of keys and values of the replicated rows in `state`.
    pub(crate) state_bytes: u64,
    /// What the entries applied so far did.
    pub(crate) state_hash: StateHash,
    /// The file came as a snapshot and the write-ahead log may not know yet that it starts behind it.
    pub(crate) boundary_pending: bool,
    /// There is no state here: what was is damaged, and the tree stands for it until a snapshot takes its place. `applied` is
    /// where the log begins, so that both fit together, and says nothing about the rows.
    pub(crate) lost: bool,
}

impl Progress {
    /// Of a state machine that applied nothing.
    pub(crate) const EMPTY: Self = Self {
        applied: Applied { index: LogIndex::ZERO, term: Term(0) },
        revision: Revision::EMPTY,
        compact: Revision(0),
        dropped: Revision(0),
        latest_bytes: 0,
        log_bytes: 0,
        state_bytes: 0,
        state_hash: StateHash::EMPTY,
        boundary_pending: false,
        lost: false,
    };

    /// Takes in what is about the rows of one tree, and not about the state that they stand for.
    pub(crate) fn take_counts(&mut self, tree: &Self) {
        self.dropped = tree.dropped;
        (self.latest_bytes, self.log_bytes) = (tree.latest_bytes, tree.log_bytes);
        self.state_bytes = tree.state_bytes;
    }

    fn check(&self) {
        assert!(
            self.dropped <= self.compact,
            "dropped {} beyond compact revision {}",
            self.dropped,
            self.compact
        );
        assert!(self.compact <= self.revision, "compact revision {} beyond {}", self.compact, self.revision);
    }

    pub(crate) fn write(&self, writer: &mut dyn KvWriter) -> Result<(), StorageError> {
        self.check();
        let mut row = Vec::with_capacity(80);
        for number in [
            self.applied.index.0,
            self.applied.term.0,
            self.revision.0,
            self.compact.0,
            self.dropped.0,
            self.latest_bytes,
            self.log_bytes,
            self.state_bytes,
        ] {
            row.extend_from_slice(&number.to_be_bytes());
        }
        row.extend_from_slice(&self.state_hash.0.to_be_bytes());
        row.push(u8::from(self.boundary_pending) | u8::from(self.lost) << 1);
        put_row(writer, PROGRESS, row).map(drop)
    }

    pub(crate) fn read(view: &dyn KvView) -> Result<Self, StorageError> {
        let row = get_row(view, PROGRESS)?;
        let parts = row.split_last().and_then(|(flags, rest)| {
            let (numbers, hash) = rest.split_last_chunk::<4>()?;
            (numbers.len() == 64 && *flags <= 3).then_some((numbers, u32::from_be_bytes(*hash), *flags))
        });
        let (numbers, hash, flags) =
            parts.ok_or_else(|| corrupt(Table::State, PROGRESS, "the row makes no sense"))?;
        let number = |slot: usize| u64_at(numbers, slot);
        let progress = Self {
            applied: Applied { index: LogIndex(number(0)), term: Term(number(1)) },
            revision: Revision(number(2)),
            compact: Revision(number(3)),
            dropped: Revision(number(4)),
            latest_bytes: number(5),
            log_bytes: number(6),
            state_bytes: number(7),
            state_hash: StateHash(hash),
            boundary_pending: flags & 1 != 0,
            lost: flags & 2 != 0,
        };
        progress.check();
        Ok(progress)
    }
}

fn u64_at(row: &[u8], slot: usize) -> u64 {
    u64::from_be_bytes(row[slot * 8..slot * 8 + 8].try_into().expect("the caller checked the length"))
}

/// Writes what a new tree starts with.
pub(crate) fn write_head(writer: &mut dyn KvWriter, identity: Identity) -> Result<(), StorageError> {
    put_row(writer, FORMAT, FORMAT_VERSION.to_be_bytes().to_vec())?;
    let mut row = identity.cluster.0.to_be_bytes().to_vec();
    row.extend_from_slice(&NodeId::or_zero(identity.node).to_be_bytes());
    put_row(writer, IDENTITY, row).map(drop)
}

/// Refuses a tree of another format; then returns whose it is: cluster, and member or 0.
pub(crate) fn read_head(view: &dyn KvView, file: &str) -> Result<(ClusterId, u64), StorageError> {
    let format = get_row(view, FORMAT)?;
    let format: [u8; 4] =
        format.as_slice().try_into().map_err(|_| corrupt(Table::State, FORMAT, "the row is not 4 bytes"))?;
    let found = u32::from_be_bytes(format);
    if found != FORMAT_VERSION {
        return Err(StorageError::UnsupportedVersion {
            place: file.to_owned(),
            found,
            supported: FORMAT_VERSION,
        });
    }
    let identity = get_row(view, IDENTITY)?;
    if identity.len() != 16 {
        return Err(corrupt(Table::State, IDENTITY, "the row is not 16 bytes"));
    }
    Ok((ClusterId(u64_at(&identity, 0)), u64_at(&identity, 1)))
}

pub(crate) fn write_membership(
    writer: &mut dyn KvWriter,
    membership: &Membership,
) -> Result<(), StorageError> {
    put_row(writer, MEMBERSHIP, encode_membership(membership)).map(drop)
}

/// The bytes of a [`MembershipRow`]: the same for the same members.
pub(crate) fn encode_membership(membership: &Membership) -> Vec<u8> {
    MembershipRow::from(membership).encode_to_vec()
}

pub(crate) fn read_membership(view: &dyn KvView) -> Result<Membership, StorageError> {
    let row = MembershipRow::decode(get_row(view, MEMBERSHIP)?.as_slice())
        .map_err(|error| corrupt(Table::State, MEMBERSHIP, &error.to_string()))?;
    row.try_into().map_err(|reason: String| corrupt(Table::State, MEMBERSHIP, &reason))
}

/// Writes a row of `state` with its checksum; returns how many bytes it takes, and how many it replaced.
pub(crate) fn put_row(
    writer: &mut dyn KvWriter,
    name: &[u8],
    mut row: Vec<u8>,
) -> Result<(usize, Option<usize>), StorageError> {
    put_crc(name, &mut row);
    let replaced = writer.put(Table::State, name, &row)?;
    Ok((row.len(), replaced))
}

fn get_row(view: &dyn KvView, name: &[u8]) -> Result<Vec<u8>, StorageError> {
    let mut found = Vec::new();
    let exists = view.get(Table::State, name, &mut |row| {
        found = check_crc(Table::State, name, row)?.to_vec();
        Ok(())
    })?;
    if exists { Ok(found) } else { Err(corrupt(Table::State, name, "the row is missing")) }
}

/// A membership on disk and in a snapshot stream.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MembershipRow {
    #[prost(message, repeated, tag = "1")]
    members: Vec<MemberRow>,
    #[prost(uint64, repeated, tag = "2")]
    voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    learners: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    voters_outgoing: Vec<u64>,
    #[prost(uint64, repeated, tag = "5")]
    learners_next: Vec<u64>,
    #[prost(bool, tag = "6")]
    auto_leave: bool,
    #[prost(uint64, repeated, tag = "7")]
    removed: Vec<u64>,
    #[prost(uint64, repeated, tag = "8")]
    joining: Vec<u64>,
}

/// A member on disk and in a snapshot stream.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MemberRow {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    peer_urls: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    client_urls: Vec<String>,
    #[prost(bool, tag = "5")]
    learner: bool,
}

impl From<&Membership> for MembershipRow {
    fn from(membership: &Membership) -> Self {
        let numbers = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| id.get()).collect();
        Self {
            members: membership.members.values().map(MemberRow::from).collect(),
            voters: numbers(&membership.voters),
            learners: numbers(&membership.learners),
            voters_outgoing: numbers(&membership.voters_outgoing),
            learners_next: numbers(&membership.learners_next),
            auto_leave: membership.auto_leave,
            removed: numbers(&membership.removed),
            joining: numbers(&membership.joining),
        }
    }
}

impl From<&Member> for MemberRow {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id.get(),
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            learner: member.role == Role::Learner,
        }
    }
}

fn node_id(number: u64) -> Result<NodeId, String> {
    NodeId::new(number).ok_or_else(|| "a member has id 0".to_owned())
}

impl TryFrom<MembershipRow> for Membership {
    type Error = String;

    fn try_from(row: MembershipRow) -> Result<Self, String> {
        let ids = |numbers: Vec<u64>| numbers.into_iter().map(node_id).collect::<Result<_, _>>();
        let mut members = BTreeMap::new();
        for member in row.members {
            let id = node_id(member.id)?;
            let role = if member.learner { Role::Learner } else { Role::Voter };
            let MemberRow { name, peer_urls, client_urls, .. } = member;
            members.insert(id, Member { id, name, peer_urls, client_urls, role });
        }
        let membership = Self {
            members,
            voters: ids(row.voters)?,
            learners: ids(row.learners)?,
            voters_outgoing: ids(row.voters_outgoing)?,
            learners_next: ids(row.learners_next)?,
            auto_leave: row.auto_leave,
            removed: ids(row.removed)?,
            joining: ids(row.joining)?,
        };
        membership.check()?;
        Ok(membership)
    }
}

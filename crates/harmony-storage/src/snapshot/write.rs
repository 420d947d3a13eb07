//! A snapshot out of a view. The view stands still, so nobody waits for the reader of the stream; it holds pages of the
//! tree until it is dropped, or ended because it holds too many: then the stream fails, and goes on failing.

use std::io::{self, Read};

use harmony_types::{ClusterId, StorageError};
use prost::Message as _;

use super::{
    FRAME_BYTES, Head, KIND_END, KIND_HEAD, KIND_LATEST, KIND_LOG, KIND_STATE, MAGIC, STREAM_VERSION,
    frame_crc,
};
use crate::batch::Base;
use crate::canonical;
use crate::tree::meta::MembershipRow;
use crate::tree::{NEXT, STOP, Table};
use crate::view::View;
use crate::views::Pin;

/// The stream. Reads fail with an [`io::Error`] around the [`StorageError`] when the tree is damaged.
pub(crate) struct SnapshotStream {
    pin: Pin,
    next: Next,
    rows: [u64; 3],
    frame: Vec<u8>,
    read: usize,
}

/// Which frame comes next.
enum Next {
    Head(ClusterId),
    Rows { table: Table, after: Option<Vec<u8>> },
    End,
    Nothing,
    Failed,
}

impl SnapshotStream {
    /// `pin` holds a view of the tree.
    pub(crate) fn new(pin: Pin, cluster: ClusterId) -> Self {
        Self { pin, next: Next::Head(cluster), rows: [0; 3], frame: Vec::new(), read: 0 }
    }

    fn fill(&mut self) -> Result<(), StorageError> {
        self.frame.clear();
        self.read = 0;
        let Base::Tree(view) = self.pin.base()? else {
            unreachable!("a view of the tree never becomes one of memory")
        };
        // A reader that goes on after an error must not take it for the end.
        self.next = match std::mem::replace(&mut self.next, Next::Failed) {
            Next::Head(cluster) => {
                put_head(&mut self.frame, &head(&view, cluster));
                Next::Rows { table: Table::Latest, after: None }
            }
            Next::Rows { table, after } => self.fill_rows(&view, table, after)?,
            Next::End => {
                put_end(&mut self.frame, self.rows);
                Next::Nothing
            }
            Next::Nothing => Next::Nothing,
            Next::Failed => {
                let reason = "it failed before".to_owned();
                return Err(StorageError::CorruptRecord { place: "snapshot stream".to_owned(), reason });
            }
        };
        Ok(())
    }

    fn fill_rows(&mut self, view: &View, table: Table, after: Option<Vec<u8>>) -> Result<Next, StorageError> {
        let mut payload = Vec::with_capacity(FRAME_BYTES);
        let mut last = None;
        let mut rows = 0;
        canonical::rows(view, table, after.as_deref(), &mut |key, row| {
            if FRAME_BYTES <= payload.len() {
                return Ok(STOP);
            }
            put_bytes(&mut payload, key);
            put_bytes(&mut payload, row);
            rows += 1;
            last = Some(key.to_vec());
            Ok(NEXT)
        })?;
        let (kind, slot, behind) = match table {
            Table::Latest => (KIND_LATEST, 0, Next::Rows { table: Table::Log, after: None }),
            Table::Log => (KIND_LOG, 1, Next::Rows { table: Table::State, after: None }),
            Table::State => (KIND_STATE, 2, Next::End),
        };
        self.rows[slot] += rows;
        if last.is_none() {
            return Ok(behind);
        }
        put_frame(&mut self.frame, kind, &payload);
        Ok(Next::Rows { table, after: last })
    }
}

impl Read for SnapshotStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.frame.len() {
            if let Next::Nothing = self.next {
                return Ok(0);
            }
            self.fill().map_err(io::Error::other)?;
        }
        let bytes = buffer.len().min(self.frame.len() - self.read);
        buffer[..bytes].copy_from_slice(&self.frame[self.read..self.read + bytes]);
        self.read += bytes;
        Ok(bytes)
    }
}

fn head(view: &View, cluster: ClusterId) -> Head {
    Head {
        cluster: cluster.0,
        index: view.snapshot_index().0,
        term: view.progress.applied.term.0,
        revision: view.progress.revision.0,
        compact: view.progress.compact.0,
        membership: Some(MembershipRow::from(&*view.settings.membership)),
        state_hash: view.progress.state_hash.0,
    }
}

/// How a stream begins.
pub(super) fn put_head(out: &mut Vec<u8>, head: &Head) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&STREAM_VERSION.to_be_bytes());
    put_frame(out, KIND_HEAD, &head.encode_to_vec());
}

/// How it ends: rows of each table.
pub(super) fn put_end(out: &mut Vec<u8>, rows: [u64; 3]) {
    let end = rows.iter().flat_map(|rows| rows.to_be_bytes()).collect::<Vec<u8>>();
    put_frame(out, KIND_END, &end);
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("keys, rows and frames are far below 4 GiB").to_be_bytes()
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&length(bytes));
    out.extend_from_slice(bytes);
}

pub(super) fn put_frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.extend_from_slice(&length(payload));
    out.extend_from_slice(&frame_crc(kind, payload).to_be_bytes());
    out.push(kind);
    out.extend_from_slice(payload);
}

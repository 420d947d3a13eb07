//! What a batch lies on.

use std::sync::Arc;

use harmony_types::{KeyRange, StorageError};

use super::{Batch, Event};
use crate::settings::Settings;
use crate::tree::Visit;
use crate::tree::meta::Progress;
use crate::tree::record::{EventRef, WrittenAt};
use crate::view::{ReadRow, ReadVersion, Reads, View, VisitVersion, VisitWrite};

/// What a batch lies on: the tree, or a batch that is on its way into the tree. Never changes, so it is a view, too.
#[derive(Clone)]
pub(crate) enum Base {
    /// The tree.
    Tree(Arc<View>),
    /// A batch that takes no more writes.
    Frozen(Arc<Batch>),
}

impl Base {
    fn reads(&self) -> &dyn Reads {
        match self {
            Self::Tree(view) => &**view,
            Self::Frozen(batch) => &**batch,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        match self {
            Self::Tree(view) => &view.settings,
            Self::Frozen(batch) => &batch.settings,
        }
    }

    /// The last write of a key in memory.
    pub(super) fn written(&self, key: &[u8]) -> Option<&Event> {
        match self {
            Self::Tree(_) => None,
            Self::Frozen(batch) => batch.written(key),
        }
    }

    /// What lies below all that is in memory.
    pub(super) fn tree(&self) -> &Arc<View> {
        match self {
            Self::Tree(view) => view,
            Self::Frozen(batch) => batch.tree(),
        }
    }
}

impl Reads for Base {
    fn progress(&self) -> &Progress {
        self.reads().progress()
    }

    fn newest(&self, key: &[u8], read: ReadVersion<'_>) -> Result<bool, StorageError> {
        self.reads().newest(key, read)
    }

    fn scan(&self, range: &KeyRange, visit: VisitVersion<'_>) -> Result<(), StorageError> {
        self.reads().scan(range, visit)
    }

    fn event(
        &self,
        at: WrittenAt,
        read: &mut dyn FnMut(EventRef<'_>) -> Result<(), StorageError>,
    ) -> Result<bool, StorageError> {
        self.reads().event(at, read)
    }

    fn writes_from(&self, first: WrittenAt, visit: VisitWrite<'_>) -> Result<(), StorageError> {
        self.reads().writes_from(first, visit)
    }

    fn state_row(&self, name: &[u8], read: ReadRow<'_>) -> Result<bool, StorageError> {
        self.reads().state_row(name, read)
    }

    fn state_rows(&self, names: &KeyRange, visit: Visit<'_>) -> Result<(), StorageError> {
        self.reads().state_rows(names, visit)
    }
}

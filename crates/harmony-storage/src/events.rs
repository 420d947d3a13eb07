//! History: the events from a revision on, in order, with what they replaced, as watches need them.
//!
//! No view is held from one answer to the next, and none while memory is read: what the tree holds is scanned there, what
//! it does not hold yet is taken from memory, some thousand events under the lock at a time, and what those replaced in the
//! tree is read there behind it. Apply waits for no reader of the history, and however slow one is, it keeps no page of the
//! tree.
//!
//! At the compact revision C: the events at C itself are there, deletes included, and those below are gone. What an event
//! at C replaced could be read below C only, so it is left out, as etcd does.

mod collect;

use harmony_types::history::{Events, EventsRequest, HistoryPosition};
use harmony_types::{Revision, StorageError};

use crate::batch::{Base, Batch};
use crate::memory::ROWS_MAX;
use crate::tree::meta::Progress;
use crate::tree::record::WrittenAt;
use crate::unified::UnifiedStorage;
use crate::view::Reads as _;
use collect::Collector;
pub(crate) use collect::Written;

impl From<HistoryPosition> for WrittenAt {
    fn from(HistoryPosition { revision, sub }: HistoryPosition) -> Self {
        Self { revision, sub }
    }
}

/// What is to be done after a look at the memory on top.
enum Step {
    /// Nothing: the answer is complete, or full. The newest revision.
    Done(Revision),
    /// Another look: the lock was held for long enough.
    Again,
    /// What comes next lies below.
    Below(Base),
}

impl UnifiedStorage {
    /// Reads the history from a position on. Local: complete up to what was applied here.
    ///
    /// A position in the future is no error: there is nothing yet, and `next` stays there.
    ///
    /// # Errors
    /// [`StorageError::Compacted`] below the compact revision; at the compact revision itself all events are there.
    /// [`StorageError::CrcMismatch`] and the like: nothing damaged is handed out.
    pub fn events(&self, request: &EventsRequest) -> Result<Events, StorageError> {
        self.check_open()?;
        let memory = self.memory();
        let (compact, end) = memory.with_top(|top| (top.progress.compact, top.progress.revision));
        check_compacted(request, compact)?;
        let mut collector = Collector::new(request, compact);
        loop {
            let step = memory.with_top(|top| step(top, end, &mut collector))?;
            collector.read_before()?;
            match step {
                Step::Done(revision) => return Ok(collector.finish(revision)),
                Step::Again => {}
                Step::Below(base) => below(&base, &mut collector)?,
            }
        }
    }
}

/// # Errors
/// [`StorageError::Compacted`].
pub(crate) fn check_compacted(request: &EventsRequest, compact: Revision) -> Result<(), StorageError> {
    let requested = request.first.revision;
    if requested < compact { Err(StorageError::Compacted { requested, compacted: compact }) } else { Ok(()) }
}

/// Reads the history in what stands still.
///
/// # Errors
/// What reading reports.
pub(crate) fn of_view(base: &Base, request: &EventsRequest) -> Result<Events, StorageError> {
    let Progress { compact, revision, .. } = *base.progress();
    let mut collector = Collector::new(request, compact);
    if request.first.revision <= revision {
        below(base, &mut collector)?;
    }
    Ok(collector.finish(revision))
}

/// All that commands wrote to a batch from `request.first` on; `None` when it is more than an answer holds.
///
/// # Errors
/// What reading reports.
pub(crate) fn written(batch: &Batch, request: &EventsRequest) -> Result<Option<Written>, StorageError> {
    // As before any compaction: what was replaced is at hand.
    let mut collector = Collector::new(request, Revision::default());
    own_events(batch, &mut collector, |_| true)?;
    Ok(collector.into_written(batch.progress.revision))
}

/// Collects from the batch that commands write to, up to the revision `end` at least. The lock is held.
fn step(top: &Batch, end: Revision, collector: &mut Collector<'_>) -> Result<Step, StorageError> {
    let Progress { compact, revision, .. } = top.progress;
    let next = collector.next();
    if collector.is_full() || end < next.revision {
        return Ok(Step::Done(revision));
    }
    if next.revision < compact {
        // Compacted meanwhile. What was read before stands; the next answer is the refusal.
        return if collector.is_empty() {
            Err(StorageError::Compacted { requested: next.revision, compacted: compact })
        } else {
            Ok(Step::Done(revision))
        };
    }
    if next.revision <= top.base().progress().revision {
        return Ok(Step::Below(top.base().clone()));
    }
    let rows_end = collector.rows() + u64::from(ROWS_MAX);
    own_events(top, collector, |collector| collector.rows() < rows_end)?;
    Ok(Step::Again)
}

/// Collects from what stands still.
fn below(base: &Base, collector: &mut Collector<'_>) -> Result<(), StorageError> {
    match base {
        Base::Tree(view) => {
            collector.scan(view)?;
            collector.reached(view.progress.revision);
            Ok(())
        }
        Base::Frozen(batch) => {
            if collector.next().revision <= batch.base().progress().revision {
                below(batch.base(), collector)?;
            }
            own_events(batch, collector, |_| true)?;
            collector.read_before()
        }
    }
}

/// Collects from a batch alone, whose base holds nothing more of what is wanted, while `go_on` says so.
fn own_events(
    batch: &Batch,
    collector: &mut Collector<'_>,
    go_on: impl Fn(&Collector<'_>) -> bool,
) -> Result<(), StorageError> {
    if collector.is_full() {
        return Ok(());
    }
    for event in batch.own_events(collector.next().into()) {
        if collector.share(batch, event)?.is_break() || !go_on(collector) {
            return Ok(());
        }
    }
    collector.reached(batch.progress.revision);
    Ok(())
}

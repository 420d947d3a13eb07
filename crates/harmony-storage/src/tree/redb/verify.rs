//! Reading what the last durable commit holds from the file, see [`super::durable`], to check it. Its pages stay as they are
//! while nobody commits.

use std::ops::Bound;

use harmony_types::StorageError;
use redb::{ReadableDatabase, TableDefinition};

use super::durable::Durable;
use super::{LATEST, LOG, RedbTree, STATE, failed, scan};
use crate::tree::record::{EventRef, VersionRef, check_crc};
use crate::tree::{NEXT, STOP, Table};

const TABLES: [Table; 3] = [Table::State, Table::Latest, Table::Log];

/// How far a pass over all tables is: a table, and the last key seen in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    table: usize,
    behind: Option<Vec<u8>>,
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where to go on; `None` at the end of all tables.
    pub(crate) next: Option<Cursor>,
    /// Pages that it read.
    pub(crate) pages: u64,
}

impl RedbTree {
    /// Reads and checks rows from `cursor` on, until some `pages_max` pages were read. Nobody may commit meanwhile.
    ///
    /// # Errors
    /// [`StorageError::CrcMismatch`], [`StorageError::CorruptRecord`]; the system's.
    pub(crate) fn verify(&self, cursor: Cursor, pages_max: u64) -> Result<Step, StorageError> {
        // Behind a repair, until the next durable commit.
        let Some(Durable { database, overlay, file }) = self.open_durable()? else {
            return Ok(Step { next: Some(cursor), pages: 0 });
        };
        // The list of free pages, which redb reads whenever it opens: not a part of the pass.
        overlay.take_read();
        let transaction = database.begin_read().map_err(failed("begin a view", &file))?;
        let Cursor { table: first, mut behind } = cursor;
        for (number, table) in TABLES.into_iter().enumerate().skip(first) {
            let rows = transaction.open_table(definition(table)).map_err(failed("open a table", &file))?;
            let from = behind.take();
            let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut last = None;
            scan(&rows, (from, Bound::Unbounded), &file, &mut |key, row| {
                check(table, key, row)?;
                if overlay.count_read() < pages_max {
                    return Ok(NEXT);
                }
                last = Some(key.to_vec());
                Ok(STOP)
            })?;
            if last.is_some() {
                let next = Some(Cursor { table: number, behind: last });
                return Ok(Step { next, pages: overlay.count_read() });
            }
        }
        Ok(Step { next: None, pages: overlay.count_read() })
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    match table {
        Table::Latest => LATEST,
        Table::Log => LOG,
        Table::State => STATE,
    }
}

fn check(table: Table, key: &[u8], row: &[u8]) -> Result<(), StorageError> {
    match table {
        Table::Latest => VersionRef::decode_latest(key, row).map(drop),
        Table::Log => EventRef::decode(key, row).map(drop),
        Table::State => check_crc(table, key, row).map(drop),
    }
}

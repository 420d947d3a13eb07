//! A tree that no process uses, as text: one line a row, to be read by people.

use std::io::Write;
use std::path::Path;

use harmony_types::{FileSystem, StorageError};

use crate::canonical::EVERYTHING;
use crate::tree::record::{EventRef, Replaced, VersionRef, check_crc};
use crate::tree::redb::Unchanged;
use crate::tree::{KvEngine, NEXT, STOP, Table};
use crate::unified::TREE_FILE;

/// A table of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeTable {
    /// The newest version of each key.
    Latest,
    /// The events, by revision.
    Log,
    /// What else belongs to the state machine, by name.
    State,
}

impl TreeTable {
    /// All, in the order in which they are dumped.
    pub const ALL: [Self; 3] = [Self::State, Self::Latest, Self::Log];

    fn inner(self) -> Table {
        match self {
            Self::Latest => Table::Latest,
            Self::Log => Table::Log,
            Self::State => Table::State,
        }
    }
}

/// What a dump shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpOptions {
    /// These tables, in this order.
    pub tables: Vec<TreeTable>,
    /// So many rows of each.
    pub rows_max: u64,
    /// So many bytes of each value and state row; 0 shows its length alone.
    pub value_bytes_max: usize,
}

impl Default for DumpOptions {
    fn default() -> Self {
        Self { tables: TreeTable::ALL.to_vec(), rows_max: u64::MAX, value_bytes_max: 0 }
    }
}

/// Writes one line for each row to `out`, up to the limits or the first damage. Each row shown has passed its checksums.
///
/// # Errors
/// As [`crate::check`], as far as damage is met; what stands before it has been written then. [`StorageError::Io`] when
/// `out` fails.
pub fn dump(
    fs: &dyn FileSystem,
    dir: &Path,
    out: &mut dyn Write,
    options: &DumpOptions,
) -> Result<(), StorageError> {
    let opened = Unchanged::open(fs, &dir.join(TREE_FILE))?;
    let view = opened.tree.view()?;
    let failed = || StorageError::io("write the dump of", dir);
    for table in options.tables.iter().map(|table| table.inner()) {
        let mut rows = 0;
        view.scan(table, EVERYTHING, &mut |key, row| {
            if rows == options.rows_max {
                writeln!(out, "{}: more rows follow", name(table)).map_err(failed())?;
                return Ok(STOP);
            }
            rows += 1;
            let text = text(table, key, row, options.value_bytes_max)?;
            writeln!(out, "{} {text}", name(table)).map_err(failed())?;
            Ok(NEXT)
        })?;
    }
    out.flush().map_err(failed())
}

fn name(table: Table) -> &'static str {
    match table {
        Table::Latest => "latest",
        Table::Log => "log",
        Table::State => "state",
    }
}

fn text(table: Table, key: &[u8], row: &[u8], bytes_max: usize) -> Result<String, StorageError> {
    Ok(match table {
        Table::Latest => {
            let version = VersionRef::decode_latest(key, row)?;
            format!("\"{}\" {}", key.escape_ascii(), version_text(&version, bytes_max))
        }
        Table::Log => {
            let event = EventRef::decode(key, row)?;
            let replaced = match &event.replaced {
                Replaced::None => "nothing".to_owned(),
                Replaced::Here(version) if version.live => format!("version {}", version.version),
                Replaced::Here(_) => "a delete".to_owned(),
                Replaced::InLog(at) => format!("what revision {} sub {} wrote", at.revision, at.sub),
            };
            let version = version_text(&event.version, bytes_max);
            format!("{version} of \"{}\", replaced {replaced}", event.key.escape_ascii())
        }
        Table::State => {
            let body = check_crc(table, key, row)?;
            format!("\"{}\" {}", key.escape_ascii(), bytes_text(body, bytes_max))
        }
    })
}

fn version_text(version: &VersionRef<'_>, bytes_max: usize) -> String {
    let (revision, sub) = (version.written.revision, version.written.sub);
    if !version.live {
        return format!("revision {revision} sub {sub} delete");
    }
    let lease = if version.lease == 0 { String::new() } else { format!(" lease {:x}", version.lease) };
    format!(
        "revision {revision} sub {sub} version {} created {}{lease} {}",
        version.version,
        version.create,
        bytes_text(version.value, bytes_max)
    )
}

fn bytes_text(bytes: &[u8], bytes_max: usize) -> String {
    let shown = &bytes[..bytes.len().min(bytes_max)];
    if bytes_max == 0 {
        return format!("({} bytes)", bytes.len());
    }
    let rest = if shown.len() < bytes.len() { "..." } else { "" };
    format!("({} bytes) \"{}\"{rest}", bytes.len(), shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_where_they_say_so() {
        assert_eq!(bytes_text(b"abc", 0), "(3 bytes)");
        assert_eq!(bytes_text(b"abc", 2), "(3 bytes) \"ab\"...");
        assert_eq!(bytes_text(b"a\n\xff", 9), "(3 bytes) \"a\\n\\xff\"");
        assert_eq!(bytes_text(b"", 9), "(0 bytes) \"\"");
    }
}

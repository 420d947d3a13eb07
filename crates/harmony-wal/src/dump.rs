//! A log as text, and its verdict: for a directory that nobody uses. Nothing is changed, not even a torn tail.

use std::io::{self, Write};
use std::path::Path;

use harmony_types::{
    ClusterId, FileSystem, HardState, LogBounds, LogIndex, NodeId, RecordType, WalError, WalOffset,
};

use crate::directory;
use crate::frame::{Header, Kind};
use crate::record;
use crate::recovery::{self, Seen, TornTail};

/// What a healthy log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Whose log it is.
    pub cluster: ClusterId,
    /// Of which member; `None` for a log used alone.
    pub node: Option<NodeId>,
    /// Segments needed.
    pub segments: usize,
    /// Records, those that the log writes for itself included.
    pub records: u64,
    /// Entries held.
    pub bounds: LogBounds,
    /// Newest hard state.
    pub hard_state: HardState,
    /// Where the log ends.
    pub end: WalOffset,
    /// Bytes that the next open would cut and keep aside: no sync had acknowledged them.
    pub torn: Option<TornTail>,
}

/// What a dump shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpOptions {
    /// Bytes of each entry's data shown in hexadecimal; 0 shows its length alone.
    pub data_bytes_max: usize,
}

/// Reads and checks a whole log. Its cluster and member are reported, not compared.
///
/// # Errors
/// What [`FileWal::open`](crate::FileWal::open) would refuse it for; [`WalError::Locked`] while a process uses
/// it; [`WalError::Io`] of kind `NotFound` when there is no log.
pub fn verify(fs: &dyn FileSystem, dir: &Path) -> Result<VerifyReport, WalError> {
    let _lock = directory::lock_existing(fs, dir)?;
    inspect(fs, dir, &mut |_| {})
}

/// Writes one line for each segment and record to `out`, in order, up to the end or the first damage, then a line
/// with the verdict.
///
/// # Errors
/// As [`verify`]; what stands before the damage has been written then. [`WalError::Io`] when `out` fails.
pub fn dump(
    fs: &dyn FileSystem,
    dir: &Path,
    out: &mut dyn Write,
    options: DumpOptions,
) -> Result<VerifyReport, WalError> {
    let _lock = directory::lock_existing(fs, dir)?;
    let mut written = Ok(());
    let report = inspect(fs, dir, &mut |seen| {
        if written.is_ok() {
            written = line(out, &seen, options);
        }
    });
    let verdict = match &report {
        Ok(report) => match &report.torn {
            None => format!("end {}: clean", report.end),
            Some(torn) => {
                format!("end {}: torn tail of {} bytes, never acknowledged", report.end, torn.bytes)
            }
        },
        Err(error) => format!("refused: {error}"),
    };
    written.and_then(|()| writeln!(out, "{verdict}")).map_err(WalError::io("write the dump of", dir))?;
    report
}

fn inspect(
    fs: &dyn FileSystem,
    dir: &Path,
    visit: &mut dyn FnMut(Seen<'_>),
) -> Result<VerifyReport, WalError> {
    let Some(scan) = recovery::scan(fs, dir, None, Some(visit))? else {
        let error = io::Error::new(io::ErrorKind::NotFound, "the directory has no segment");
        return Err(WalError::io("read the log in", dir)(error));
    };
    let head = &scan.segments.last().expect("a scan has a segment").head;
    Ok(VerifyReport {
        cluster: ClusterId(head.cluster),
        node: NodeId::new(head.node),
        segments: scan.segments.len(),
        records: scan.records,
        bounds: scan.index.bounds(),
        hard_state: scan.state,
        end: scan.end,
        torn: scan.torn(dir),
    })
}

fn line(out: &mut dyn Write, seen: &Seen<'_>, options: DumpOptions) -> io::Result<()> {
    match seen {
        Seen::Segment(found) => {
            let head = &found.head;
            let node = NodeId::new(head.node).map_or_else(|| "none".to_owned(), |node| node.to_string());
            writeln!(
                out,
                "segment {} cluster {} member {node} boundary {} term {} ({} bytes)",
                found.name,
                ClusterId(head.cluster),
                head.boundary,
                head.boundary_term,
                found.file_bytes
            )
        }
        Seen::Frame(at, header, payload) => {
            writeln!(out, "{at} {} crc {:08x}", frame_text(header, payload, options), header.crc)
        }
    }
}

fn frame_text(header: &Header, payload: &[u8], options: DumpOptions) -> String {
    let Header { index, term, .. } = header;
    match Kind::from_u8(header.kind) {
        None => format!("unknown kind {}", header.kind),
        Some(Kind::Seal) => format!("seal, goes on in segment {index}"),
        Some(Kind::Release) => format!("release, oldest segment needed is {index}"),
        Some(Kind::Record(RecordType::Entry)) => entry_text(header, payload, options),
        Some(Kind::Record(RecordType::State)) => match record::decode_state(*index, *term, payload) {
            Some(state) => {
                let vote = state.vote.map_or_else(|| "nobody".to_owned(), |node| node.to_string());
                format!("state term {term} vote {vote} commit {index}")
            }
            None => "state that cannot be read".to_owned(),
        },
        Some(Kind::Record(RecordType::Snapshot)) => format!("snapshot {index} term {term}"),
        Some(Kind::Record(RecordType::Crc)) => format!("crc, behind index {index} term {term}"),
        Some(Kind::Record(RecordType::Truncate)) => format!("truncate from {index}"),
    }
}

fn entry_text(header: &Header, payload: &[u8], options: DumpOptions) -> String {
    let LogIndex(index) = header.index;
    let (entry_type, data) = payload.split_first().map_or((0, payload), |(first, rest)| (*first, rest));
    let mut text = format!("entry {index} term {} type {entry_type} {} bytes", header.term, data.len());
    if 0 < options.data_bytes_max && !data.is_empty() {
        text.push(' ');
        for byte in data.iter().take(options.data_bytes_max) {
            text.push_str(&format!("{byte:02x}"));
        }
        if options.data_bytes_max < data.len() {
            text.push('…');
        }
    }
    text
}

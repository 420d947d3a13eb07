//! The tree's file, cut into pages with a checksum each, so that no damaged byte reaches the tree.
//!
//! The tree sees a plain file of pages of 4 KiB, numbered from 0; [`layout`] says where they really are. Every page that is
//! read is compared with its checksum, CRC-32 over the page's number and its bytes; what does not match is a
//! [`PageDamage`], and the tree gets nothing of it. A page that was never written has checksum 0 and must read as zeros.
//!
//! # Page 0
//!
//! The tree begins every file with its own header, which it overwrites in place: where the roots are, and which one of two
//! counts. It is shorter than a sector, so it carries its checksum with it. A disk writes a sector whole or not at all, so a
//! crash leaves an old header or a new one, each with its checksum.
//!
//! | offset | size | meaning |
//! | --- | --- | --- |
//! | 0 | 504 | the tree's header, then zeros |
//! | 504 | 4 | count of the writes of this sector, little endian |
//! | 508 | 4 | checksum of page number 0 and the bytes before |
//! | 512 | | not used |
//!
//! The place of page 0 among the checksums holds the count of the header that the last sync but one had made durable. A
//! header with a smaller count is one whose later writes the disk acknowledged and lost: it is refused. Only the very last
//! write may be lost unseen; that shows the commit before, as a crash does, and the log beside the tree knows the rest.
//!
//! # Why a crash never makes a good file look damaged
//!
//! All other checksums stand in pages of their own, which are written when the tree syncs, before the file is synced. A
//! crash may keep or lose any sector that was written since the last sync, so a page and its checksum may come from
//! different times. That hurts nobody, because the tree is copy-on-write and commits in two phases:
//! - a page of the last durable commit is never overwritten before a later commit is durable, so neither it nor its
//!   checksum changes, whichever version of the other checksums around it the disk kept;
//! - all pages of a commit, and with them their checksums, are synced before the header that makes the commit count is
//!   written, and that header is synced before pages that it gave up are used again;
//! - pages of no durable commit are never read before they are written again, whole.
//!
//! So every commit must be one of two phases: `tree/redb.rs` asks for nothing else, and a test looks at the header's bit.
//! A process that is killed loses less than a power loss does: all that it wrote is kept.
//!
//! # What a checksum cannot find
//!
//! A disk that acknowledged a sync and kept neither the page nor the checksum in another place shows both as they were.
//! Such a page is found only by the tree's own chain of checksums, which `check` follows and reads do not.

mod layout;
mod look;
mod space;
mod sums;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use harmony_types::{File, StorageError};

use layout::GROUP_SLOTS;
pub(crate) use layout::{FORMAT_VERSION, PAGE_BYTES};
pub(crate) use look::PageState;
use sums::{Group, UNWRITTEN, sum};

/// Bytes at the start of page 0 that are written in one piece.
const SECTOR_BYTES: usize = 512;
/// Bytes of page 0 that the tree may use.
pub(crate) const HEADER_BYTES: usize = SECTOR_BYTES - 8;
/// Bytes of page 0 that its checksum is about.
const HEADER_SUMMED_BYTES: usize = SECTOR_BYTES - 4;

const PAGE: u64 = PAGE_BYTES as u64;

/// A page that is not what was written. `expected` is the checksum of what was found, `found` the one that stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageDamage {
    /// The page.
    pub(crate) page: u64,
    /// Where it is in the file.
    pub(crate) offset: u64,
    /// Checksum of the bytes that were found.
    pub(crate) expected: u32,
    /// Checksum that was written for them.
    pub(crate) found: u32,
}

impl fmt::Display for PageDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { page, offset, expected, found } = self;
        write!(f, "page {page} at byte {offset}: checksum {found:#010x}, expected {expected:#010x}")
    }
}

impl std::error::Error for PageDamage {}

impl PageDamage {
    /// The damage that an error of [`PagedFile::read`] is about.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The error for those who asked the tree.
    pub(crate) fn to_error(&self, path: &Path) -> StorageError {
        StorageError::CrcMismatch {
            place: format!("{}: page {} at byte {}", path.display(), self.page, self.offset),
            expected: self.expected,
            found: self.found,
        }
    }
}

impl From<PageDamage> for io::Error {
    fn from(damage: PageDamage) -> Self {
        Self::new(io::ErrorKind::InvalidData, damage)
    }
}

/// See the module. Pages may be read by many threads while one writes others, never the same.
pub(crate) struct PagedFile {
    file: Arc<dyn File>,
    pages: AtomicU64,
    groups: RwLock<Vec<Arc<Group>>>,
    /// Writes of the header so far.
    header_count: AtomicU32,
    /// Those of them that a sync covered.
    header_durable: AtomicU32,
    /// Bytes of pages written so far.
    written_bytes: AtomicU64,
    /// Pages from the first one on whose place on the disk is taken, written or not.
    in_place: AtomicU64,
    /// Nothing is written any more.
    abandoned: AtomicBool,
}

/// Making one, and its length.
impl PagedFile {
    /// Makes an empty file into one without pages. Durable with the first sync.
    ///
    /// # Errors
    /// What the system reports.
    pub(crate) fn create(file: Arc<dyn File>) -> io::Result<Self> {
        file.write_at(&layout::encode_head(), 0)?;
        Ok(Self::of(file, 0))
    }

    /// Opens a file. `path` is for errors.
    ///
    /// # Errors
    /// [`StorageError::Io`]; [`StorageError::CorruptRecord`], [`StorageError::CrcMismatch`] and
    /// [`StorageError::UnsupportedVersion`] for a file that is not one of ours, or not whole.
    pub(crate) fn open(file: Arc<dyn File>, path: &Path) -> Result<Self, StorageError> {
        let bytes = file.len().map_err(StorageError::io("read the length of", path))?;
        let mut head = vec![0; PAGE_BYTES.min(usize::try_from(bytes).unwrap_or(PAGE_BYTES))];
        read_exact(&*file, &mut head, 0).map_err(StorageError::io("read", path))?;
        layout::check_head(&head, path)?;
        // Without a page it would pass for a new one.
        let pages = layout::pages_in(bytes).filter(|pages| *pages != 0).ok_or_else(|| {
            StorageError::CorruptRecord {
                place: path.display().to_string(),
                reason: format!("no tree is {bytes} bytes long: the file was cut or extended"),
            }
        })?;
        let opened = Self::of(file, pages);
        opened.check_header(path)?;
        Ok(opened)
    }

    /// Refuses a header that the disk made an older one of.
    fn check_header(&self, path: &Path) -> Result<(), StorageError> {
        let failed = |error: io::Error| match PageDamage::of(&error) {
            Some(damage) => damage.to_error(path),
            None => StorageError::io("read", path)(error),
        };
        let header = self.read_header().map_err(failed)?;
        let (group, number, slot) = self.group(0).map_err(failed)?;
        let durable = group.get(&*self.file, number, slot).map_err(failed)?;
        if header.count < durable {
            return Err(StorageError::CorruptRecord {
                place: format!("{}: page 0 at byte {}", path.display(), layout::page_offset(0)),
                reason: format!(
                    "write {} of the header, but {durable} were synced: the disk lost some",
                    header.count
                ),
            });
        }
        self.header_count.store(header.count, Ordering::Release);
        // A process that was killed may have left this header in the system's memory alone.
        self.header_durable.store(durable, Ordering::Release);
        Ok(())
    }

    fn of(file: Arc<dyn File>, pages: u64) -> Self {
        let groups = pages.div_ceil(GROUP_SLOTS as u64);
        Self {
            file,
            pages: AtomicU64::new(pages),
            groups: RwLock::new((0..groups).map(|_| Arc::new(Group::on_disk())).collect()),
            header_count: AtomicU32::new(0),
            header_durable: AtomicU32::new(0),
            written_bytes: AtomicU64::new(0),
            in_place: AtomicU64::new(0),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Length as the tree sees it, bytes.
    pub(crate) fn len(&self) -> u64 {
        self.pages.load(Ordering::Acquire) * PAGE
    }

    /// Length on disk, bytes.
    ///
    /// # Errors
    /// What the system reports.
    pub(crate) fn file_bytes(&self) -> io::Result<u64> {
        self.file.len()
    }

    /// Bytes of pages written since it was opened.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Acquire)
    }

    /// Cuts or extends, new pages reading as zeros.
    ///
    /// # Errors
    /// What the system reports; nothing can be written any more then.
    pub(crate) fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        if !bytes.is_multiple_of(PAGE) {
            return Err(unsupported("a length that is not one of whole pages"));
        }
        let pages = bytes / PAGE;
        self.or_give_up(self.file.set_len(layout::file_bytes(pages)))?;
        let before = self.pages.swap(pages, Ordering::AcqRel);
        self.in_place.fetch_min(pages, Ordering::AcqRel);
        let groups_after = pages.div_ceil(GROUP_SLOTS as u64);
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        while (groups.len() as u64) < groups_after {
            groups.push(Arc::new(Group::new()));
        }
        while groups_after < groups.len() as u64 {
            groups.pop();
        }
        // What stands behind the end of a group that is not full would be wrong for pages that come there later.
        let (group, slot) = layout::place(before.min(pages));
        if slot != 0
            && let Some(last) = groups.get(group)
        {
            let forgotten = std::iter::repeat_n(UNWRITTEN, GROUP_SLOTS - slot);
            self.or_give_up(last.set(&*self.file, group, slot, forgotten))?;
        }
        Ok(())
    }

    /// Writes nothing more: the file stays as the last sync left it, or as what came behind it did.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.abandoned.load(Ordering::Acquire) {
            return Err(io::Error::other("the tree was given up without being closed"));
        }
        Ok(())
    }

    /// A failure behind which nobody knows what is on disk is the last thing that happens to a file.
    fn or_give_up<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.abandon();
        }
        result
    }
}

/// A piece of a read or a write that is treated in one go.
enum Piece {
    /// Within the tree's header.
    Header { within: usize, bytes: usize },
    /// Whole pages of one group.
    Pages { first: u64, bytes: usize },
    /// A part of a page.
    Part { page: u64, within: usize, bytes: usize },
}

impl Piece {
    /// The first piece of `bytes` at `offset`.
    fn first(offset: u64, bytes: usize) -> io::Result<Self> {
        let page = offset / PAGE;
        let within = usize::try_from(offset % PAGE).expect("less than a page");
        if page == 0 {
            if HEADER_BYTES < within + bytes {
                return Err(unsupported("more of the first page than its header"));
            }
            return Ok(Self::Header { within, bytes });
        }
        if within == 0 && PAGE_BYTES <= bytes {
            let left = GROUP_SLOTS - layout::place(page).1;
            return Ok(Self::Pages { first: page, bytes: (bytes / PAGE_BYTES).min(left) * PAGE_BYTES });
        }
        Ok(Self::Part { page, within, bytes: bytes.min(PAGE_BYTES - within) })
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Header { bytes, .. } | Self::Pages { bytes, .. } | Self::Part { bytes, .. } => *bytes,
        }
    }
}

/// Reading and writing.
impl PagedFile {
    /// Fills `out` from `offset`, of pages that are all as they were written.
    ///
    /// # Errors
    /// One that [`PageDamage::of`] knows; `UnexpectedEof` behind the end; what the system reports.
    pub(crate) fn read(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        self.check_within(offset, out.len())?;
        while !out.is_empty() {
            let piece = Piece::first(offset, out.len())?;
            let (now, later) = out.split_at_mut(piece.bytes());
            match piece {
                Piece::Header { within, bytes } => {
                    now.copy_from_slice(&self.read_header()?.bytes[within..within + bytes]);
                }
                Piece::Pages { first, .. } => self.read_pages(first, now)?,
                Piece::Part { page, within, bytes } => {
                    let mut whole = [0; PAGE_BYTES];
                    self.read_pages(page, &mut whole)?;
                    now.copy_from_slice(&whole[within..within + bytes]);
                }
            }
            offset += now.len() as u64;
            out = later;
        }
        Ok(())
    }

    /// Writes `bytes` at `offset`, durable after [`PagedFile::sync`]. What the header had behind them becomes zeros.
    ///
    /// # Errors
    /// What the system reports: what is on disk of the pages written is unknown then.
    pub(crate) fn write(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        self.check_within(offset, bytes.len())?;
        while !bytes.is_empty() {
            let piece = Piece::first(offset, bytes.len())?;
            let (now, later) = bytes.split_at(piece.bytes());
            match piece {
                Piece::Header { within: 0, .. } => self.write_header(now)?,
                Piece::Header { .. } => return Err(unsupported("a part of the header")),
                Piece::Pages { first, .. } => self.write_pages(first, now)?,
                Piece::Part { page, within, bytes } => {
                    let mut whole = [0; PAGE_BYTES];
                    self.read_pages(page, &mut whole)?;
                    whole[within..within + bytes].copy_from_slice(now);
                    self.write_pages(page, &whole)?;
                }
            }
            offset += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Makes all that was written durable, checksums first: their pages and the others reach the disk in one sync.
    ///
    /// # Errors
    /// What the system reports; nothing can be written any more then.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.check_writable()?;
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (count, durable) =
            (self.header_count.load(Ordering::Acquire), self.header_durable.load(Ordering::Acquire));
        if let Some(first) = groups.first()
            && durable != UNWRITTEN
        {
            self.or_give_up(first.set(&*self.file, 0, 0, std::iter::once(durable)))?;
        }
        for (number, group) in groups.iter().enumerate() {
            self.or_give_up(group.write_back(&*self.file, number))?;
        }
        self.or_give_up(self.file.sync_data())?;
        self.header_durable.store(count, Ordering::Release);
        Ok(())
    }

    fn check_within(&self, offset: u64, bytes: usize) -> io::Result<()> {
        match offset.checked_add(bytes as u64) {
            Some(end) if end <= self.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn group(&self, page: u64) -> io::Result<(Arc<Group>, usize, usize)> {
        let (number, slot) = layout::place(page);
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let group = groups.get(number).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((Arc::clone(group), number, slot))
    }

    /// Reads whole pages of one group.
    fn read_pages(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        let (group, number, slot) = self.group(first)?;
        read_exact(&*self.file, out, layout::page_offset(first))?;
        for (n, bytes) in out.chunks_exact(PAGE_BYTES).enumerate() {
            check_page(first + n as u64, bytes, group.get(&*self.file, number, slot + n)?)?;
        }
        Ok(())
    }

    /// Writes whole pages of one group.
    fn write_pages(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        let (group, number, slot) = self.group(first)?;
        let _writing = group.writing();
        self.file.write_at(bytes, layout::page_offset(first))?;
        self.written_bytes.fetch_add(bytes.len() as u64, Ordering::AcqRel);
        let sums = bytes.chunks_exact(PAGE_BYTES).zip(first..).map(|(bytes, page)| sum(page, bytes));
        group.set(&*self.file, number, slot, sums)
    }

    fn read_header(&self) -> io::Result<Header> {
        let mut sector = [0; SECTOR_BYTES];
        let offset = layout::page_offset(0);
        read_exact(&*self.file, &mut sector, offset)?;
        let expected = sum(0, &sector[..HEADER_SUMMED_BYTES]);
        let [bytes @ .., c0, c1, c2, c3, s0, s1, s2, s3] = sector;
        let found = u32::from_le_bytes([s0, s1, s2, s3]);
        if expected != found {
            return Err(PageDamage { page: 0, offset, expected, found }.into());
        }
        Ok(Header { bytes, count: u32::from_le_bytes([c0, c1, c2, c3]) })
    }

    /// Only whoever commits writes the header, and syncs.
    fn write_header(&self, header: &[u8]) -> io::Result<()> {
        // Enough for a commit every second over 30 years; then old headers pass for new ones again.
        let count = self.header_count.load(Ordering::Acquire).saturating_add(1);
        let mut sector = [0; SECTOR_BYTES];
        sector[..header.len()].copy_from_slice(header);
        sector[HEADER_BYTES..HEADER_SUMMED_BYTES].copy_from_slice(&count.to_le_bytes());
        let crc = sum(0, &sector[..HEADER_SUMMED_BYTES]);
        sector[HEADER_SUMMED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(&sector, layout::page_offset(0))?;
        self.header_count.store(count, Ordering::Release);
        Ok(())
    }
}

/// The first sector of page 0, checked.
struct Header {
    /// The tree's.
    bytes: [u8; HEADER_BYTES],
    /// See the module.
    count: u32,
}

fn check_page(page: u64, bytes: &[u8], written: u32) -> io::Result<()> {
    let is_good = match written {
        UNWRITTEN => bytes.iter().all(|byte| *byte == 0),
        written => sum(page, bytes) == written,
    };
    if is_good {
        return Ok(());
    }
    let offset = layout::page_offset(page);
    Err(PageDamage { page, offset, expected: sum(page, bytes), found: written }.into())
}

/// Fills `out` from `offset`.
fn read_exact(file: &dyn File, out: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(&mut out[done..], offset + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(())
}

/// What the tree never asks for.
fn unsupported(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

/// Where the tree's header is in the file.
#[cfg(test)]
pub(crate) fn header_offset() -> u64 {
    layout::page_offset(0)
}

#[cfg(test)]
mod tests;

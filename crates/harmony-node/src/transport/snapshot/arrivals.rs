//! The one snapshot that may arrive at a time: the node installs only one, and the spool stays bounded.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use harmony_types::{NodeId, Term};

use super::{PIECE_BYTES, RESUME_PATIENCE};

/// Which transfer of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) from: NodeId,
    pub(super) number: u64,
}

/// What has arrived, in a file that vanishes when it is closed.
#[derive(Debug)]
pub(super) struct Content {
    file: File,
    pub(super) bytes: u64,
}

/// Why a transfer cannot begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupied {
    /// Its own connection of before was told to end; soon it will have.
    BySelf,
    /// Another snapshot is arriving.
    ByOther,
    /// It has arrived and was taken: only the last word was lost.
    Done,
}

#[derive(Debug)]
enum Slot {
    Empty,
    Arriving { transfer: Transfer, term: Term, socket: TcpStream },
    Interrupted { transfer: Transfer, content: Content, since: Duration },
}

/// The place for a snapshot that arrives.
#[derive(Debug)]
pub(in crate::transport) struct Arrivals {
    spool_dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    slot: Slot,
    taken_last: Option<Transfer>,
}

impl Arrivals {
    pub(in crate::transport) fn new(spool_dir: PathBuf) -> Self {
        Self { spool_dir, state: Mutex::new(State { slot: Slot::Empty, taken_last: None }) }
    }

    /// Begins a transfer, or goes on with it. A connection that is in the way because its end was not noticed yet, or as its
    /// sender leads no more, is ended.
    ///
    /// # Errors
    /// Outer: no file can be made. Inner: the place is taken.
    pub(super) fn begin(
        &self,
        transfer: Transfer,
        term: Term,
        socket: TcpStream,
    ) -> io::Result<Result<Arriving<'_>, Occupied>> {
        let mut state = self.lock();
        if state.taken_last == Some(transfer) {
            return Ok(Err(Occupied::Done));
        }
        let content = match std::mem::replace(&mut state.slot, Slot::Empty) {
            Slot::Arriving { transfer: other, term: other_term, socket: other_socket } => {
                let by_self = other == transfer;
                if by_self || other_term < term {
                    // Its thread wakes with an error and leaves.
                    let _ = other_socket.shutdown(Shutdown::Both);
                }
                state.slot = Slot::Arriving { transfer: other, term: other_term, socket: other_socket };
                return Ok(Err(if by_self { Occupied::BySelf } else { Occupied::ByOther }));
            }
            Slot::Interrupted { transfer: other, content, .. } if other == transfer => content,
            Slot::Interrupted { .. } | Slot::Empty => Content::new(&self.spool_dir, transfer.from)?,
        };
        state.slot = Slot::Arriving { transfer, term, socket };
        Ok(Ok(Arriving { arrivals: self, transfer, content: Some(content) }))
    }

    /// Gives up what was interrupted and did not go on.
    pub(in crate::transport) fn expire(&self, now: Duration) {
        let mut state = self.lock();
        if let Slot::Interrupted { since, .. } = &state.slot
            && *since + RESUME_PATIENCE <= now
        {
            state.slot = Slot::Empty;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A snapshot that arrives. Dropped, it is forgotten.
#[derive(Debug)]
pub(super) struct Arriving<'a> {
    arrivals: &'a Arrivals,
    transfer: Transfer,
    content: Option<Content>,
}

impl Arriving<'_> {
    pub(super) fn content(&mut self) -> &mut Content {
        self.content.as_mut().expect("it is given away only with the whole")
    }

    /// Keeps what is there for another connection.
    pub(super) fn interrupted(mut self, now: Duration) {
        if let Some(content) = self.content.take().filter(|content| content.bytes != 0) {
            let transfer = self.transfer;
            self.arrivals.lock().slot = Slot::Interrupted { transfer, content, since: now };
            // The place is occupied on purpose.
            std::mem::forget(self);
        }
    }

    /// Everything is there: checks it and gives the file away, which is still in its place until this is dropped.
    ///
    /// # Errors
    /// The bytes are not those that were sent.
    pub(super) fn whole(&mut self, checksum: u32) -> io::Result<File> {
        let content = self.content.take().expect("it is given away once");
        content.check(checksum)
    }

    /// It was taken by the node.
    pub(super) fn taken(self) {
        self.arrivals.lock().taken_last = Some(self.transfer);
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.arrivals.lock().slot = Slot::Empty;
    }
}

impl Content {
    /// A file without a name: whatever happens, it vanishes when it is closed.
    fn new(dir: &Path, from: NodeId) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join(format!("snapshot-from-{from}.part"));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, bytes: 0 })
    }

    pub(super) fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)?;
        self.bytes += data.len() as u64;
        Ok(())
    }

    /// Reads everything back and compares: what the disk changed is not installed.
    fn check(mut self, checksum: u32) -> io::Result<File> {
        self.file.rewind()?;
        let mut found = crc32fast::Hasher::new();
        let mut buffer = vec![0; PIECE_BYTES];
        let mut bytes = 0;
        loop {
            match self.file.read(&mut buffer)? {
                0 => break,
                read => {
                    found.update(&buffer[..read]);
                    bytes += read as u64;
                }
            }
        }
        let found = found.finalize();
        if (found, bytes) != (checksum, self.bytes) {
            return Err(super::super::handshake::invalid(format!(
                "the snapshot has checksum {found:#010x} over {bytes} bytes, expected {checksum:#010x} over {}",
                self.bytes
            )));
        }
        self.file.rewind()?;
        Ok(self.file)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn transfer(from: u64, number: u64) -> Transfer {
        Transfer { from: NodeId::new(from).unwrap(), number }
    }

    /// Two ends of a connection.
    fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    fn arrivals() -> (tempfile::TempDir, Arrivals) {
        let dir = tempfile::tempdir().unwrap();
        let arrivals = Arrivals::new(dir.path().join("spool"));
        (dir, arrivals)
    }

    fn begin(arrivals: &Arrivals, transfer: Transfer, term: u64) -> Result<Arriving<'_>, Occupied> {
        arrivals.begin(transfer, Term(term), sockets().0).unwrap()
    }

    #[test]
    fn what_was_interrupted_goes_on_and_nothing_else_does() {
        let (_dir, arrivals) = arrivals();
        let mut one = begin(&arrivals, transfer(1, 1), 5).unwrap();
        one.content().append(b"half ").unwrap();
        one.interrupted(NOW);
        let mut one = begin(&arrivals, transfer(1, 1), 5).unwrap();
        assert_eq!(one.content().bytes, 5);
        one.content().append(b"whole").unwrap();
        let mut file = one.whole(crc32fast::hash(b"half whole")).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "half whole");
        one.taken();
        // Only the last word may have been lost.
        assert_eq!(begin(&arrivals, transfer(1, 1), 5).unwrap_err(), Occupied::Done);

        let mut two = begin(&arrivals, transfer(1, 2), 5).unwrap();
        two.content().append(b"half").unwrap();
        two.interrupted(NOW);
        assert_eq!(begin(&arrivals, transfer(1, 3), 5).unwrap().content().bytes, 0);
        assert_eq!(begin(&arrivals, transfer(1, 2), 5).unwrap().content().bytes, 0, "it gave way");
    }

    #[test]
    fn what_does_not_go_on_in_time_is_forgotten() {
        let (_dir, arrivals) = arrivals();
        let interrupt = || {
            let mut one = begin(&arrivals, transfer(1, 1), 5).unwrap();
            one.content().append(b"half").unwrap();
            one.interrupted(NOW);
        };
        interrupt();
        arrivals.expire(NOW + RESUME_PATIENCE - Duration::from_millis(1));
        assert_eq!(begin(&arrivals, transfer(1, 1), 5).unwrap().content().bytes, 4);
        interrupt();
        arrivals.expire(NOW + RESUME_PATIENCE);
        assert_eq!(begin(&arrivals, transfer(1, 1), 5).unwrap().content().bytes, 0);
    }

    #[test]
    fn one_arrives_at_a_time_and_a_newer_leader_ends_an_older_ones() {
        let (_dir, arrivals) = arrivals();
        let (near, mut far) = sockets();
        let one = arrivals.begin(transfer(1, 1), Term(5), near).unwrap().unwrap();
        assert_eq!(begin(&arrivals, transfer(2, 1), 5).unwrap_err(), Occupied::ByOther);
        far.set_nonblocking(true).unwrap();
        let end = far.read(&mut [0]).unwrap_err().kind();
        assert_eq!(end, io::ErrorKind::WouldBlock, "nobody ended it");
        far.set_nonblocking(false).unwrap();
        assert_eq!(begin(&arrivals, transfer(2, 1), 6).unwrap_err(), Occupied::ByOther);
        assert_eq!(far.read(&mut [0]).unwrap(), 0, "its connection was ended");
        drop(one);
        begin(&arrivals, transfer(2, 1), 6).unwrap();
    }

    #[test]
    fn a_second_connection_of_a_transfer_ends_the_first() {
        let (_dir, arrivals) = arrivals();
        let (near, mut far) = sockets();
        let mut one = arrivals.begin(transfer(1, 1), Term(5), near).unwrap().unwrap();
        assert_eq!(begin(&arrivals, transfer(1, 1), 5).unwrap_err(), Occupied::BySelf);
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
        one.content().append(b"half").unwrap();
        one.interrupted(NOW);
        assert_eq!(begin(&arrivals, transfer(1, 1), 5).unwrap().content().bytes, 4);
    }

    #[test]
    fn what_the_disk_changed_is_noticed() {
        let (_dir, arrivals) = arrivals();
        let mut one = begin(&arrivals, transfer(1, 1), 5).unwrap();
        one.content().append(b"content").unwrap();
        one.content().file.rewind().unwrap();
        one.content().file.write_all(b"C").unwrap();
        let error = one.whole(crc32fast::hash(b"content")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        drop(one);
        let mut two = begin(&arrivals, transfer(1, 1), 5).unwrap();
        assert_eq!(two.content().bytes, 0);
        two.content().append(b"content").unwrap();
        two.content().file.set_len(3).unwrap();
        assert!(two.whole(crc32fast::hash(b"con")).is_err(), "cut short");
    }
}

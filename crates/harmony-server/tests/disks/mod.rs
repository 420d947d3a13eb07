//! File systems of members' own, which hang, fill up, and go away when the test ends. For them a test must be root: otherwise it says so
//! and is skipped.

#![allow(dead_code, reason = "every test uses a part of it")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harmony_testkit::ProcessCluster;
use harmony_types::{NodeId, TestCluster};

fn runs(program: &str, args: &[&str], path: &Path) -> bool {
    Command::new(program).args(args).arg(path).output().is_ok_and(|output| output.status.success())
}

/// Copies a directory.
pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = runs("cp", &["-a", "-T", from.to_str().unwrap()], to);
    assert!(copied, "copy {} to {}", from.display(), to.display());
}

/// A file system on a directory. A process on one that is frozen cannot even be killed, so it is declared behind its cluster, and
/// thawed when dropped.
pub(crate) struct Disk {
    dir: PathBuf,
    image: Option<tempfile::NamedTempFile>,
}

impl Disk {
    /// One in memory of this size.
    pub(crate) fn in_memory(dir: &Path, bytes: u64) -> Option<Self> {
        let size = format!("size={bytes}");
        runs("mount", &["-t", "tmpfs", "-o", &size, "none"], dir)
            .then(|| Self { dir: dir.to_owned(), image: None })
    }

    /// One in a file, which can be frozen: every write and sync waits in the kernel then.
    pub(crate) fn in_a_file(dir: &Path) -> Option<Self> {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(192 << 20).unwrap();
        let path = image.path().to_str().unwrap();
        let mounted =
            runs("mkfs.ext4", &["-q", "-F"], image.path()) && runs("mount", &["-o", "loop", path], dir);
        mounted.then(|| Self { dir: dir.to_owned(), image: Some(image) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn freeze(&self) {
        assert!(runs("fsfreeze", &["-f"], &self.dir));
    }

    pub(crate) fn thaw(&self) {
        assert!(runs("fsfreeze", &["-u"], &self.dir));
    }

    /// Bytes that can still be written.
    pub(crate) fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.dir).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Somebody else's file, which leaves so many bytes. A process may write meanwhile: what it takes first is not there to be filled.
    pub(crate) fn fill(&self, left: u64) -> PathBuf {
        let path = self.dir.join("ballast");
        let file = fs::File::create(&path).unwrap();
        let bytes = self.free().saturating_sub(left);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
        path
    }

    /// A second file with all that is left.
    pub(crate) fn fill_the_rest(&self) -> PathBuf {
        let path = self.dir.join("the rest");
        // Ends with an error when the disk is full, as it should.
        drop(fs::write(&path, vec![7; usize::try_from(self.free()).unwrap()]));
        assert_eq!(self.free(), 0);
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.image.is_some() {
            // It is thawed already when the test went well.
            let _thawed = runs("fsfreeze", &["-u"], &self.dir);
        }
        let _ended = runs("umount", &["-l"], &self.dir);
    }
}

/// Moves the data of a member to a disk that `mount` makes, while it is down; `None` where this process may not mount.
pub(crate) fn on_its_own(
    cluster: &mut ProcessCluster,
    id: NodeId,
    mount: impl FnOnce(&Path) -> Option<Disk>,
) -> Option<Disk> {
    let dir = cluster.node(id).unwrap().data_dir();
    cluster.kill_node(id).unwrap();
    let aside = dir.with_extension("aside");
    fs::rename(&dir, &aside).unwrap();
    fs::create_dir(&dir).unwrap();
    let Some(disk) = mount(&dir) else {
        println!("skipped: this process may not mount a file system");
        return None;
    };
    copy(&aside, &dir);
    cluster.restart_node(id).unwrap();
    Some(disk)
}

use std::thread;

use super::*;
use crate::fake::seed::{Seed, for_each_seed};

const DIR: &str = "/data";
const A: &str = "/data/a";
const B: &str = "/data/b";

fn disk() -> MemoryFileSystem {
    MemoryFileSystem::with_dir(DIR)
}

fn open(disk: &MemoryFileSystem, path: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
    disk.open(Path::new(path), mode)
}

/// A new file whose name is durable.
fn durable(disk: &MemoryFileSystem, path: &str) -> Arc<dyn File> {
    let file = open(disk, path, OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    file
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn text(disk: &MemoryFileSystem, path: &str) -> Option<String> {
    disk.read_file(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn only_synced_bytes_survive_a_power_loss() {
    let disk = disk();
    let file = durable(&disk, A);
    file.write_at(b"one", 0).unwrap();
    file.sync_data().unwrap();
    file.write_at(b"two", 3).unwrap();
    file.write_at(b"O", 0).unwrap();

    assert_eq!(text(&disk, A).unwrap(), "Onetwo");
    assert_eq!(text(&disk.crash_image(Crash::LoseUnsynced), A).unwrap(), "one");
    assert_eq!(text(&disk.crash_image(Crash::KeepAll), A).unwrap(), "Onetwo");
    assert_eq!(disk.unsynced().len(), 2);
    file.sync_all().unwrap();
    assert_eq!(disk.unsynced(), []);
    assert_eq!(text(&disk.crash_image(Crash::LoseUnsynced), A).unwrap(), "Onetwo");
}

#[test]
fn a_prefix_cuts_the_last_write_at_any_byte() {
    let disk = disk();
    let file = durable(&disk, A);
    file.write_at(b"one", 0).unwrap();
    file.write_at(b"two", 3).unwrap();
    file.set_len(4).unwrap();

    let left = |whole, torn_bytes| text(&disk.crash_image(Crash::Prefix { whole, torn_bytes }), A).unwrap();
    assert_eq!((left(0, 0), left(0, 2), left(1, 0)), (String::new(), "on".into(), "one".into()));
    assert_eq!(
        (left(1, 1), left(1, 9), left(2, 9), left(3, 0)),
        ("onet".into(), "onetwo".into(), "onetwo".into(), "onet".into())
    );
}

#[test]
fn later_writes_may_survive_without_earlier_ones() {
    let disk = disk();
    let file = durable(&disk, A);
    file.write_at(b"one", 0).unwrap();
    file.write_at(b"two", 3).unwrap();
    let image = disk.crash_image_with(|position, _| if position == 1 { Fate::Keep } else { Fate::Lose });
    assert_eq!(image.read_file(A).unwrap(), b"\0\0\0two");
}

#[test]
fn a_name_needs_its_directory_synced() {
    let disk = disk();
    let file = open(&disk, A, OpenMode::CreateNew).unwrap();
    file.write_at(b"one", 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(disk.crash_image(Crash::LoseUnsynced).files(), Vec::<PathBuf>::new());
    disk.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(text(&disk.crash_image(Crash::LoseUnsynced), A).unwrap(), "one");
}

#[test]
fn a_directory_needs_its_parent_synced() {
    let disk = MemoryFileSystem::new();
    disk.create_dir_all(Path::new("/x/y")).unwrap();
    open(&disk, "/x/y/f", OpenMode::Create).unwrap();
    disk.sync_dir(Path::new("/x/y")).unwrap();
    disk.sync_dir(Path::new("/x")).unwrap();
    let lost = disk.crash_image(Crash::LoseUnsynced);
    assert!(!lost.exists(Path::new("/x")).unwrap());
    assert_eq!(lost.files(), Vec::<PathBuf>::new());
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(disk.crash_image(Crash::LoseUnsynced).files(), [PathBuf::from("/x/y/f")]);
}

#[test]
fn a_rename_happens_whole_or_not_at_all() {
    let disk = disk();
    durable(&disk, A).write_at(b"old", 0).unwrap();
    durable(&disk, B).write_at(b"new", 0).unwrap();
    disk.sync_everything();
    disk.rename(Path::new(B), Path::new(A)).unwrap();

    assert_eq!((text(&disk, A), text(&disk, B)), (Some("new".into()), None));
    let lost = disk.crash_image(Crash::LoseUnsynced);
    assert_eq!((text(&lost, A), text(&lost, B)), (Some("old".into()), Some("new".into())));
    disk.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(disk.crash_image(Crash::LoseUnsynced).files(), [PathBuf::from(A)]);
}

#[test]
fn a_rename_between_directories_never_leaves_two_names() {
    for_each_seed(0..50, 0, |seed, _| {
        let disk = disk();
        disk.create_dir_all(Path::new("/other")).unwrap();
        disk.sync_everything();
        open(&disk, "/other/f", OpenMode::CreateNew).unwrap();
        disk.rename(Path::new("/other/f"), Path::new(A)).unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        assert_eq!(disk.crash_image(Crash::Seeded(seed)).files(), [PathBuf::from(A)]);
    });
}

#[test]
fn a_removed_name_comes_back_until_the_directory_is_synced() {
    let disk = disk();
    let file = durable(&disk, A);
    file.write_at(b"one", 0).unwrap();
    file.sync_data().unwrap();
    disk.remove_file(Path::new(A)).unwrap();
    assert_eq!(disk.read_file(A), None);
    assert_eq!(text(&disk.crash_image(Crash::LoseUnsynced), A).unwrap(), "one");
    // An open handle still works on the file without a name.
    file.write_at(b"two", 0).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(disk.crash_image(Crash::KeepAll).files(), Vec::<PathBuf>::new());
    assert_eq!(disk.used_bytes(), 3);
    drop(file);
    assert_eq!(disk.used_bytes(), 0);
}

#[test]
fn seeded_crashes_repeat_differ_and_keep_what_was_synced() {
    let disk = disk();
    let file = durable(&disk, A);
    file.write_at(&[1; 4096], 0).unwrap();
    file.sync_data().unwrap();
    for at in 8..16u64 {
        file.write_at(&[2; 1024], at * 512).unwrap();
    }
    open(&disk, B, OpenMode::CreateNew).unwrap();

    let (mut torn, mut named, mut reordered) = (0, 0, 0);
    for_each_seed(0..200, 0, |seed, _| {
        let image = disk.crash_image(Crash::Seeded(seed));
        let bytes = image.read_file(A).unwrap();
        assert!(bytes == disk.crash_image(Crash::Seeded(seed)).read_file(A).unwrap(), "not repeated");
        assert!(bytes[..4096] == [1; 4096], "synced bytes are gone");
        let sectors: Vec<u8> = bytes[4096..].chunks(512).map(|sector| sector[0]).collect();
        assert!(bytes[4096..].chunks(512).zip(&sectors).all(|(sector, byte)| sector == [*byte; 512]));
        reordered += u32::from(sectors.windows(2).any(|pair| pair == [0, 2]));
        torn += u32::from(sectors.len() < 9);
        named += u32::from(image.read_file(B).is_some());
    });
    if Seed::from_env().is_none() {
        assert!(
            [torn, named, reordered].iter().all(|count| (20..180).contains(count)),
            "{torn} {named} {reordered}"
        );
    }
}

#[test]
fn a_crash_image_is_a_disk_of_its_own() {
    let disk = disk();
    let file = durable(&disk, A);
    file.write_at(b"one", 0).unwrap();
    assert!(file.try_lock().unwrap());
    disk.inject(Fault::on(CallKind::ALL).lasting());

    let image = disk.crash_image(Crash::KeepAll);
    let again = open(&image, A, OpenMode::ReadWrite).unwrap();
    assert!(again.try_lock().unwrap(), "a power loss frees every lock");
    again.write_at(b"two", 0).unwrap();
    assert_eq!((text(&disk, A).unwrap(), text(&image, A).unwrap()), ("one".into(), "two".into()));
    assert_eq!(text(&image.crash_image(Crash::LoseUnsynced), A).unwrap(), "one", "what survived is durable");
}

#[test]
fn what_a_failed_sync_covered_is_not_saved_by_a_later_one() {
    let disk = disk();
    let file = durable(&disk, A);
    file.write_at(b"one", 0).unwrap();
    disk.inject(Fault::on([CallKind::Sync]));
    assert_eq!(errno(file.sync_data()), Some(EIO));
    file.write_at(b"two", 3).unwrap();
    file.sync_data().unwrap();
    assert_eq!(text(&disk, A).unwrap(), "onetwo", "readers see it all the same");
    assert_eq!(disk.crash_image(Crash::KeepAll).read_file(A).unwrap(), b"\0\0\0two");
}

#[test]
fn the_nth_call_fails_and_only_that() {
    let disk = disk();
    let file = durable(&disk, A);
    disk.inject(Fault::on([CallKind::Write]).nth(2).errno(ENOSPC).short_write(2));
    file.write_at(b"one", 0).unwrap();
    assert_eq!(errno(file.write_at(b"two", 3)), Some(ENOSPC));
    assert_eq!(text(&disk, A).unwrap(), "onetw");
    file.write_at(b"two", 3).unwrap();
    assert_eq!(disk.faults_struck(), 1);
    assert_eq!(disk.calls(CallKind::Write), 3);
}

#[test]
fn every_kind_of_call_can_fail_and_then_changes_nothing() {
    for kind in CallKind::ALL {
        let disk = disk();
        let file = durable(&disk, A);
        file.write_at(b"one", 0).unwrap();
        file.sync_data().unwrap();
        let before = (disk.files(), disk.read_file(A), disk.unsynced());
        disk.inject(Fault::on([kind]));
        let failed = match kind {
            CallKind::Open => errno(open(&disk, B, OpenMode::Create)),
            CallKind::Read => errno(file.read_at(&mut [0; 3], 0)),
            CallKind::Write => errno(file.write_at(b"two", 0)),
            CallKind::SetLen => errno(file.set_len(0)),
            CallKind::Allocate => errno(file.allocate(100)),
            CallKind::Sync => errno(file.sync_all()),
            CallKind::Lock => errno(file.try_lock()),
            CallKind::Rename => errno(disk.rename(Path::new(A), Path::new(B))),
            CallKind::Remove => errno(disk.remove_file(Path::new(A))),
            CallKind::List => errno(disk.list_dir(Path::new(DIR))),
            CallKind::CreateDir => errno(disk.create_dir_all(Path::new("/x"))),
            CallKind::SyncDir => errno(disk.sync_dir(Path::new(DIR))),
        };
        assert_eq!(failed, Some(EIO), "{kind:?}");
        assert_eq!((disk.files(), disk.read_file(A), disk.unsynced()), before, "{kind:?}");
    }
}

#[test]
fn a_lasting_fault_stays_until_it_is_cleared_and_minds_the_path() {
    let disk = disk();
    let (a, b) = (durable(&disk, A), durable(&disk, B));
    disk.inject(Fault::on([CallKind::Write, CallKind::Sync]).on_path("/a").lasting());
    for _ in 0..3 {
        assert_eq!(errno(a.write_at(b"x", 0)), Some(EIO));
        b.write_at(b"x", 0).unwrap();
    }
    assert_eq!(errno(a.sync_data()), Some(EIO));
    disk.clear_faults();
    a.write_at(b"x", 0).unwrap();
}

#[test]
fn a_full_disk_writes_what_fits_and_has_room_again_later() {
    let disk = disk();
    disk.set_capacity(Some(10));
    let (a, b) = (durable(&disk, A), durable(&disk, B));
    a.allocate(6).unwrap();
    assert_eq!(disk.free_bytes(Path::new(DIR)).unwrap(), 4);
    assert_eq!(errno(b.write_at(b"123456", 0)), Some(ENOSPC));
    assert_eq!(text(&disk, B).unwrap(), "1234");
    assert_eq!(errno(b.write_at(b"5", 4)), Some(ENOSPC));
    assert_eq!(errno(a.allocate(7)), Some(ENOSPC));
    a.set_len(7).unwrap();
    assert_eq!(errno(a.write_at(b"abcdefg", 0)), Some(ENOSPC), "a hole needs space when it is written");
    a.write_at(b"abcdef", 0).unwrap();
    b.write_at(b"4321", 0).unwrap();
    a.set_len(2).unwrap();
    b.write_at(b"5678", 4).unwrap();
    assert_eq!(disk.used_bytes(), 10);
}

#[test]
fn one_handle_holds_the_lock_until_it_is_dropped() {
    let disk = disk();
    let first = durable(&disk, A);
    let second = open(&disk, A, OpenMode::Read).unwrap();
    assert!(first.try_lock().unwrap() && first.try_lock().unwrap());
    assert!(!second.try_lock().unwrap());
    drop(first);
    assert!(second.try_lock().unwrap());
}

#[test]
fn refuses_what_a_system_refuses() {
    let disk = disk();
    let file = durable(&disk, A);
    assert_eq!(errno(open(&disk, A, OpenMode::CreateNew)), Some(17));
    assert_eq!(errno(open(&disk, B, OpenMode::Read)), Some(2));
    assert_eq!(errno(open(&disk, B, OpenMode::ReadWrite)), Some(2));
    assert_eq!(errno(open(&disk, DIR, OpenMode::Create)), Some(21));
    assert_eq!(errno(open(&disk, "/none/f", OpenMode::Create)), Some(2));
    assert_eq!(errno(open(&disk, "/data/a/f", OpenMode::Create)), Some(20));
    assert_eq!(errno(disk.rename(Path::new(B), Path::new(A))), Some(2));
    assert_eq!(errno(disk.rename(Path::new(A), Path::new(DIR))), Some(21));
    assert_eq!(errno(disk.remove_file(Path::new(DIR))), Some(21));
    assert_eq!(errno(disk.list_dir(Path::new("/none"))), Some(2));
    assert_eq!(errno(disk.sync_dir(Path::new(A))), Some(20));
    assert_eq!(errno(disk.create_dir_all(Path::new("/data/a/b"))), Some(20));
    let reader = open(&disk, A, OpenMode::Read).unwrap();
    assert_eq!(errno(reader.write_at(b"x", 0)), Some(9));
    assert_eq!((errno(reader.set_len(0)), errno(reader.allocate(1))), (Some(9), Some(9)));
    assert_eq!(errno(file.write_at(b"x", u64::MAX)), Some(27));
    assert_eq!(errno(file.set_len(u64::MAX)), Some(27));
}

#[test]
fn lists_the_files_of_one_directory() {
    let disk = disk();
    disk.create_dir_all(Path::new("/data/sub")).unwrap();
    for path in [B, A, "/data/sub/c", "/top"] {
        open(&disk, path, OpenMode::Create).unwrap();
    }
    assert_eq!(disk.list_dir(Path::new(DIR)).unwrap(), [PathBuf::from("a"), PathBuf::from("b")]);
    assert_eq!(disk.list_dir(Path::new("data/./sub/..")).unwrap().len(), 2);
    assert!(disk.exists(Path::new("/data/sub")).unwrap() && disk.exists(Path::new("top")).unwrap());
    assert!(!disk.exists(Path::new("/data/c")).unwrap());
    assert_eq!(disk.files().len(), 4);
}

#[test]
fn damage_reaches_readers_and_the_disk() {
    let disk = disk();
    let file = durable(&disk, A);
    file.write_at(b"abc", 0).unwrap();
    file.sync_data().unwrap();
    disk.flip(A, 1, 0x20).unwrap();
    disk.overwrite(A, 4, b"!").unwrap();
    for image in [disk.clone(), disk.crash_image(Crash::LoseUnsynced)] {
        assert_eq!(image.read_file(A).unwrap(), b"aBc\0!");
    }
    disk.resize(A, 1).unwrap();
    assert_eq!(file.len().unwrap(), 1);
    assert_eq!(disk.flip(A, 1, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(disk.flip(B, 0, 1).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_trace_names_calls_and_failures() {
    let disk = disk();
    disk.start_trace(CallKind::ALL);
    let file = durable(&disk, A);
    file.write_at(b"one", 7).unwrap();
    disk.inject(Fault::on([CallKind::Sync]));
    file.sync_data().unwrap_err();
    disk.rename(Path::new(A), Path::new(B)).unwrap();
    file.read_at(&mut [0; 4], 7).unwrap();
    let trace = disk.take_trace();
    assert_eq!(trace[..3], ["open /data/a", "sync_dir /data", "write /data/a 7+3"]);
    assert!(trace[3].starts_with("sync /data/a: ") && trace[3].contains("os error 5"), "{}", trace[3]);
    assert_eq!(trace[4..], ["rename /data/a -> /data/b", "read /data/b 7+4"]);
    assert_eq!(disk.take_trace(), Vec::<String>::new());
}

#[test]
fn held_calls_wait_until_they_are_let_go() {
    let disk = disk();
    let file = durable(&disk, A);
    let hold = disk.hold([CallKind::Sync]);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| file.sync_data().unwrap());
        }
        hold.wait_for(2);
        file.write_at(b"free", 0).unwrap();
        assert_eq!(disk.calls(CallKind::Sync), 0);
        drop(hold);
    });
    assert_eq!(disk.calls(CallKind::Sync), 2);
}

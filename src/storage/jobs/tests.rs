use std::io::IoSlice;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::base::storage::{FaultKind, Storage};
use crate::storage::Settings;
use crate::storage::state::StateDir;
use crate::storage::tests::{bytes, content, finish, run};

fn ended(storage: &mut FileStorage) -> Vec<u64> {
    std::iter::from_fn(|| storage.poll_job()).map(|(id, _)| id.0).collect()
}

#[test]
fn a_long_job_of_one_content_holds_up_no_other() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut storage = FileStorage::without_state();
    let long = storage.open(content(&temp.path().join("long"), &[("a", 640 << 20, false)]));
    let short = storage.open(content(&temp.path().join("short"), &[("b", 100, false)]));
    storage.write(short, 0, &[IoSlice::new(&[1; 100])]).unwrap();
    storage.start(JobId(1), Job::Allocate { store: long });
    storage.start(JobId(2), Job::Sync { store: short });
    storage.start(JobId(3), Job::Save { name: "x".into(), bytes: vec![1] });
    for _ in 0..20 {
        storage.work();
    }
    let mut early = ended(&mut storage);
    early.sort_unstable();
    assert_eq!(early, [2, 3], "40 slices of allocation are not over yet");
    finish(&mut storage);
    assert_eq!(ended(&mut storage), [1]);
}

#[test]
fn jobs_of_one_content_keep_their_order() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(temp.path(), &[("a", 100, false), ("b", 100, false)]));
    storage.write(store, 0, &[IoSlice::new(&[1; 200])]).unwrap();
    storage.start(JobId(1), Job::Sync { store });
    storage.start(JobId(2), Job::Move { store, dir: temp.path().join("there") });
    storage.start(JobId(3), Job::Delete { store });
    finish(&mut storage);
    assert_eq!(ended(&mut storage), [1, 2, 3]);
    assert!(!temp.path().join("a").exists() && !temp.path().join("there/a").exists());
}

#[test]
fn a_sync_neither_makes_a_deleted_file_anew_nor_leaves_the_others_out() {
    let temp = tempfile::tempdir().unwrap();
    let settings = Settings { files_max: 1, ..Settings::default() };
    let mut storage = FileStorage::new(settings, None);
    let store = storage.open(content(temp.path(), &[("d/a", 100, false), ("b", 100, false), ("c", 100, false)]));
    storage.write(store, 0, &[IoSlice::new(&[1; 300])]).unwrap();
    std::fs::remove_file(temp.path().join("b")).unwrap();
    let fault = run(&mut storage, Job::Sync { store }).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Gone);
    assert!(!temp.path().join("b").exists());
    assert_eq!(storage.jobs.written.take(store), (vec![], vec![]), "nothing is left to sync");
    run(&mut storage, Job::Sync { store }).unwrap();
}

#[test]
fn what_another_run_wrote_is_synced_once_it_was_read_and_not_when_it_is_sent() {
    let temp = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        std::fs::write(temp.path().join(name), bytes(100)).unwrap();
    }
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(temp.path(), &[("a", 100, false), ("pad", 50, true), ("b", 100, false)]));
    storage.fetch(store, 0, &mut [0; 250]).unwrap();
    assert_eq!(storage.jobs.written.take(store), (vec![], vec![]));
    storage.read(store, 20, &mut [0; 230]).unwrap();
    assert_eq!(storage.jobs.written.take(store), (vec![0, 2], vec![]));
    storage.read(store, 0, &mut [0; 250]).unwrap();
    run(&mut storage, Job::Sync { store }).unwrap();
    assert_eq!(storage.jobs.written.take(store), (vec![], vec![]));
}

#[test]
fn a_disk_too_small_is_told_before_anything_is_allocated() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(temp.path(), &[("a", 1 << 20, false), ("b", 1 << 50, false)]));
    let fault = run(&mut storage, Job::Allocate { store }).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Full);
    assert!(!temp.path().join("a").exists());
}

#[test]
fn what_has_room_needs_no_space() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(temp.path(), &[("a", 1 << 20, false)]));
    run(&mut storage, Job::Allocate { store }).unwrap();
    storage.settings.min_free_bytes = u64::MAX;
    let span = crate::base::geometry::Span { offset: 0, len: 1 << 20 };
    storage.prepare(store, span).unwrap();
    run(&mut storage, Job::Allocate { store }).unwrap();
    let other = storage.open(content(temp.path(), &[("b", 1 << 20, false)]));
    assert_eq!(storage.prepare(other, span).unwrap_err().kind, FaultKind::Full);
}

#[test]
fn a_copy_keeps_holes_and_ends_well_even_if_its_torrent_is_removed() {
    let temp = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(temp.path(), &[("a", 64 << 20, false), ("b", 10, false)]));
    storage.write(store, 32 << 20, &[IoSlice::new(&bytes(100_000))]).unwrap();
    storage.write(store, 64 << 20, &[IoSlice::new(&bytes(10))]).unwrap();
    std::fs::File::options().write(true).open(temp.path().join("a")).unwrap().set_len(64 << 20).unwrap();
    storage.start(JobId(1), Job::Move { store, dir: other.path().to_owned() });
    for _ in 0..3 {
        storage.work();
    }
    storage.close(store);
    finish(&mut storage);
    assert_eq!(storage.poll_job(), Some((JobId(1), Ok(()))));
    let metadata = other.path().join("a").metadata().unwrap();
    assert!(metadata.len() == 64 << 20 && metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let copied = std::fs::read(other.path().join("a")).unwrap();
    assert!(copied[32 << 20..][..100_000] == bytes(100_000));
    assert!(other.path().join("b").exists() && !temp.path().join("a").exists() && !temp.path().join("b").exists());
}

#[test]
fn records_that_wait_together_are_written_together_and_the_journal_stays_small() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (state, _) = StateDir::open(temp.path()).unwrap();
    let mut storage = FileStorage::new(Settings::default(), Some(state));
    let record = |name: u64, len| Job::Record { name: name.to_string(), value: Some(vec![7; len]) };
    (0..1000).for_each(|id| storage.start(JobId(id), record(id, 100)));
    for _ in 0..2 {
        storage.work();
    }
    assert_eq!(ended(&mut storage), (0..1000).collect::<Vec<_>>(), "written, then synced");
    for id in 0..100 {
        storage.start(JobId(id), record(id % 3, 1 << 20));
    }
    storage.start(JobId(100), Job::Record { name: "3".into(), value: None });
    finish(&mut storage);
    assert_eq!(ended(&mut storage), (0..=100).collect::<Vec<_>>());
    drop(storage);
    let len = std::fs::metadata(temp.path().join("journal")).unwrap().len();
    assert!(len < 9 << 20, "{len} bytes for three MiB");
    let (_, records) = StateDir::open(temp.path()).unwrap();
    assert_eq!(records.with_prefix("").count(), 999);
    assert_eq!(records.get("0").map(<[u8]>::len), Some(1 << 20));
}

#[test]
fn a_pipe_in_the_state_directory_stops_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let (state, _) = StateDir::open(temp.path()).unwrap();
    let hash = crate::base::hash::InfoHash::of(b"a");
    let piped = format!("torrents/{hash}.meta");
    for name in [piped.as_str(), "b.tmp"] {
        mknodat(CWD, temp.path().join(name), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    }
    assert_eq!(state.read(Path::new(&piped)), None);
    let mut storage = FileStorage::new(Settings::default(), Some(state));
    let save = |name: &str| Job::Save { name: Path::new(name).into(), bytes: vec![1] };
    assert!(run(&mut storage, save("b")).is_err());
    run(&mut storage, save("c")).unwrap();
    assert_eq!(std::fs::read(temp.path().join("c")).unwrap(), [1]);
}

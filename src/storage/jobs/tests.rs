use std::io::IoSlice;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::base::storage::{FaultKind, Storage};
use crate::storage::Settings;
use crate::storage::state::StateDir;
use crate::storage::tests::{bytes, content, finish, moving, run};

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
    storage.start(JobId(2), Job::Sync { store: short, finish: Vec::new() });
    storage.start(JobId(3), Job::Save { name: "x".into(), bytes: vec![1].into() });
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
    storage.start(JobId(1), Job::Sync { store, finish: Vec::new() });
    storage.start(JobId(2), moving(store, temp.path().join("there")));
    storage.start(JobId(3), Job::Delete { store, keep: vec![] });
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
    let fault = run(&mut storage, Job::Sync { store, finish: Vec::new() }).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Gone);
    assert!(!temp.path().join("b").exists());
    assert_eq!(storage.jobs.written.take(store), (vec![], vec![]), "nothing is left to sync");
    run(&mut storage, Job::Sync { store, finish: Vec::new() }).unwrap();
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
    run(&mut storage, Job::Sync { store, finish: Vec::new() }).unwrap();
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
fn a_copy_keeps_holes_and_times_and_is_read_from_either_place() {
    let temp = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(temp.path(), &[("a", 64 << 20, false), ("b", 10, false)]));
    storage.write(store, 32 << 20, &[IoSlice::new(&bytes(100_000))]).unwrap();
    storage.write(store, 64 << 20, &[IoSlice::new(&bytes(10))]).unwrap();
    std::fs::File::options().write(true).open(temp.path().join("a")).unwrap().set_len(64 << 20).unwrap();
    storage.start(JobId(1), moving(store, other.path().to_owned()));
    let before = temp.path().join("a").metadata().unwrap().modified().unwrap();
    for _ in 0..3 {
        storage.work();
        storage.forget_file(store, 0);
        storage.read(store, 32 << 20, &mut [0; 100_000]).unwrap();
    }
    finish(&mut storage);
    assert_eq!(storage.poll_job(), Some((JobId(1), Ok(()))));
    let metadata = other.path().join("a").metadata().unwrap();
    assert!(metadata.len() == 64 << 20 && metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let copied = std::fs::read(other.path().join("a")).unwrap();
    assert!(copied[32 << 20..][..100_000] == bytes(100_000));
    assert_eq!(metadata.modified().unwrap(), before);
    run(&mut storage, Job::Clear { store, from: temp.path().to_owned() }).unwrap();
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 2, "nothing else is left");
    assert!(other.path().join("b").exists() && !temp.path().join("a").exists() && !temp.path().join("b").exists());
}

fn record(name: &str, value: Option<&[u8]>) -> Job {
    Job::Record { name: name.to_owned(), value: value.map(<[u8]>::to_vec) }
}

fn meta(number: u64) -> PathBuf {
    format!("torrents/{}.meta", crate::base::hash::InfoHash::of(&number.to_be_bytes())).into()
}

#[test]
fn records_that_wait_together_are_written_together_and_the_journal_stays_small() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (state, _) = StateDir::open(temp.path()).unwrap();
    let mut storage = FileStorage::new(Settings::default(), Some(state));
    (0..1000_u64).for_each(|id| storage.start(JobId(id), record(&id.to_string(), Some(&[7; 100]))));
    for _ in 0..2 {
        storage.work();
    }
    assert_eq!(ended(&mut storage), (0..1000).collect::<Vec<_>>(), "written, then synced");
    for id in 0..100_u64 {
        storage.start(JobId(id), record(&(id % 3).to_string(), Some(&[7; 1 << 20])));
        if id % 10 == 9 {
            finish(&mut storage);
        }
    }
    storage.start(JobId(100), record("3", None));
    finish(&mut storage);
    assert_eq!(ended(&mut storage), (0..=100).collect::<Vec<_>>());
    drop(storage);
    let len = std::fs::metadata(temp.path().join("journal")).unwrap().len();
    assert!(len < 20 << 20, "{len} bytes for three MiB");
    let (_, records) = StateDir::open(temp.path()).unwrap();
    assert_eq!(records.with_prefix("").count(), 999);
    assert_eq!(records.get("0").map(<[u8]>::len), Some(1 << 20));
}

#[test]
fn many_new_torrents_cost_few_syncs_and_so_do_many_that_go() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (state, _) = StateDir::open(temp.path()).unwrap();
    let mut storage = FileStorage::new(Settings::default(), Some(state));
    let torrents = 10_000_u64;
    for number in 0..torrents {
        storage.start(JobId(2 * number), record(&number.to_string(), Some(&[7; 1000])));
        storage.start(JobId(2 * number + 1), Job::Save { name: meta(number), bytes: vec![7; 20_000].into() });
    }
    // Two slices, one of which is a sync, for each file and batch of 2 MiB; and the slices of compaction.
    let slices = |storage: &mut FileStorage| (0..).find(|_| storage.work() == Work::Idle).unwrap();
    let few = slices(&mut storage);
    assert!(few < 1000, "{few} slices");
    assert_eq!(ended(&mut storage).len(), 20_000);
    assert_eq!(storage.saved(&meta(9999)), Some(vec![7; 20_000]));
    for number in 0..torrents {
        storage.start(JobId(2 * number), Job::Erase { name: meta(number) });
        storage.start(JobId(2 * number + 1), record(&number.to_string(), None));
    }
    let few = slices(&mut storage);
    assert!(few < 200, "{few} slices");
    assert_eq!(ended(&mut storage).len(), 20_000);
    assert_eq!(storage.saved(&meta(9999)), None);
    drop(storage);
    let (state, records) = StateDir::open(temp.path()).unwrap();
    assert!(state.torrents().is_empty() && records.with_prefix("").next().is_none());
    assert!(temp.path().join("metainfo").metadata().unwrap().len() < 3 << 20, "the pack was compacted");
}

#[test]
fn changes_that_are_cut_off_anywhere_leave_whole_torrents_or_what_is_ignored() {
    let hash = |number: u64| crate::base::hash::InfoHash::of(&number.to_be_bytes());
    // By the number of slices after which everything ends.
    for slices in 0.. {
        let temp = tempfile::tempdir_in("/dev/shm").unwrap();
        let (state, _) = StateDir::open(temp.path()).unwrap();
        let mut storage = FileStorage::new(Settings::default(), Some(state));
        for number in 0..3_u64 {
            storage.start(JobId(number), record(&number.to_string(), Some(b"1")));
            storage.start(JobId(number), Job::Save { name: meta(number), bytes: vec![1].into() });
        }
        finish(&mut storage);
        let done = ended(&mut storage).len();
        assert_eq!(done, 6);
        // 0 goes, 1 goes and comes again, 2 changes, 3 comes, 4 comes and goes.
        let jobs = [
            Job::Erase { name: meta(0) },
            record("0", None),
            Job::Erase { name: meta(1) },
            record("1", None),
            record("1", Some(b"2")),
            Job::Save { name: meta(1), bytes: vec![2].into() },
            record("2", Some(b"2")),
            Job::Save { name: meta(2), bytes: vec![2].into() },
            record("3", Some(b"2")),
            Job::Save { name: meta(3), bytes: vec![2].into() },
            record("4", Some(b"2")),
            Job::Save { name: meta(4), bytes: vec![2].into() },
            Job::Erase { name: meta(4) },
            record("4", None),
            // 5 comes, and has more soon after.
            record("5", Some(b"2")),
            Job::Save { name: meta(5), bytes: vec![2].into() },
            record("5", Some(b"3")),
        ];
        let count = jobs.len();
        jobs.into_iter().zip(0..).for_each(|(job, id)| storage.start(JobId(id), job));
        for _ in 0..slices {
            storage.work();
        }
        let is_over = ended(&mut storage).len() == count;
        drop(storage);
        let (state, records) = StateDir::open(temp.path()).unwrap();
        for info_hash in state.torrents() {
            let number = (0..6).find(|number| hash(*number) == info_hash).unwrap();
            assert!(records.get(&number.to_string()).is_some(), "{number} has no record, after {slices} slices");
            let is_new = state.read(&meta(number)).unwrap() == [2];
            let is_so = matches!(records.get(&number.to_string()), Some(b"2" | b"3"));
            assert!(!is_new || is_so, "{number}, after {slices} slices");
        }
        let is_early = records.get("5") == Some(b"3") && !state.torrents().contains(&hash(5));
        assert!(!is_early, "after {slices} slices");
        if is_over {
            assert!(slices > 6, "it is over after {slices} slices");
            let mut expected = [hash(1), hash(2), hash(3), hash(5)];
            expected.sort_unstable();
            assert_eq!(state.torrents(), expected);
            assert!(expected.iter().all(|_| records.with_prefix("").count() == 4));
            return;
        }
    }
}

#[test]
fn what_depends_on_a_change_that_failed_fails_with_it() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (state, _) = StateDir::open(temp.path()).unwrap();
    let mut storage = FileStorage::new(Settings::default(), Some(state));
    // A directory cannot be removed as a file.
    std::fs::create_dir(temp.path().join(meta(1))).unwrap();
    storage.start(JobId(1), record("1", Some(b"1")));
    finish(&mut storage);
    assert_eq!(ended(&mut storage), [1]);
    storage.start(JobId(2), Job::Erase { name: meta(1) });
    storage.start(JobId(3), record("1", None));
    finish(&mut storage);
    let results: Vec<_> =
        std::iter::from_fn(|| storage.poll_job()).map(|(id, result)| (id.0, result.is_ok())).collect();
    assert_eq!(results, [(2, false), (3, false)]);
    drop(storage);
    let (_, records) = StateDir::open(temp.path()).unwrap();
    assert_eq!(records.get("1"), Some(&b"1"[..]));
}

#[test]
fn records_go_on_while_the_pack_is_compacted() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (state, _) = StateDir::open(temp.path()).unwrap();
    let mut storage = FileStorage::new(Settings::default(), Some(state));
    let large = |byte: u8| Job::Save { name: meta(1), bytes: vec![byte; 40 << 20].into() };
    storage.start(JobId(1), Job::Save { name: meta(2), bytes: vec![2; 30 << 20].into() });
    storage.start(JobId(2), large(1));
    storage.start(JobId(3), large(2));
    storage.start(JobId(4), large(3));
    while storage.jobs.lines.keys().all(|line| !matches!(line, Line::Compact(_))) {
        storage.work();
    }
    finish_state(&mut storage);
    drop(ended(&mut storage));
    let mut records = 0;
    while storage.work() != Work::Idle {
        if !storage.jobs.lines.contains_key(&Line::State) {
            records += 1;
            storage.start(JobId(records), record("1", Some(&records.to_be_bytes())));
            for _ in 0..5 {
                storage.work();
            }
            assert_eq!(ended(&mut storage), [records], "within five slices");
        }
        if storage.jobs.lines.keys().all(|line| !matches!(line, Line::Compact(_))) {
            break;
        }
    }
    assert!(records > 20, "{records} records while 70 MiB were copied");
    assert_eq!(storage.saved(&meta(1)), Some(vec![3; 40 << 20]));
    assert_eq!(storage.saved(&meta(2)), Some(vec![2; 30 << 20]));
    let len = temp.path().join("metainfo").metadata().unwrap().len();
    assert!(len < 72 << 20, "{len}");
}

/// Works until nothing of the state directory waits but compaction.
fn finish_state(storage: &mut FileStorage) {
    while storage.jobs.lines.contains_key(&Line::State) {
        storage.work();
    }
}

#[test]
fn a_pipe_in_the_state_directory_stops_nobody() {
    let temp = tempfile::tempdir().unwrap();
    drop(StateDir::open(temp.path()).unwrap());
    let piped = meta(1);
    for name in [piped.to_str().unwrap(), "metainfo.new", "journal.new", "journal.damaged"] {
        mknodat(CWD, temp.path().join(name), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    }
    let (state, _) = StateDir::open(temp.path()).unwrap();
    assert_eq!((state.read(&piped), state.torrents()), (None, vec![]));
    let mut storage = FileStorage::new(Settings::default(), Some(state));
    run(&mut storage, Job::Save { name: piped.clone(), bytes: vec![1].into() }).unwrap();
    assert_eq!(storage.saved(&piped), Some(vec![1]));
    run(&mut storage, Job::Erase { name: piped }).unwrap();
    drop(storage);
    std::fs::remove_file(temp.path().join("journal")).unwrap();
    mknodat(CWD, temp.path().join("journal"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let error = StateDir::open(temp.path()).unwrap_err().to_string();
    assert!(error.contains("/journal: it is not a regular file"), "{error}");
}

#[test]
fn a_move_that_was_cut_off_anywhere_goes_on_or_goes_back() {
    let names = ["r/a", "r/d/b", "r/e"];
    let files = [("r/a", 300_000, false), ("r/d/b", 300_000, false), ("r/e", 0, false)];
    for slices in 0..60 {
        for undo in [false, true] {
            let (temp, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
            let (from, to) = (temp.path().join("x"), other.path().join("y"));
            let open = |also: Option<PathBuf>, dir: &Path| {
                let mut storage = FileStorage::without_state();
                let store = storage.open(crate::base::storage::Content { also, ..content(dir, &files) });
                (storage, store)
            };
            let (mut storage, store) = open(None, &from);
            storage.write(store, 0, &[IoSlice::new(&bytes(600_000))]).unwrap();
            std::fs::write(from.join("r/e"), "").unwrap();
            storage.start(JobId(1), moving(store, to.clone()));
            for _ in 0..slices {
                storage.work();
            }
            drop(storage);
            // As a killed process leaves it.
            let (mut storage, store) = open(Some(to.clone()), &from);
            let mut read = vec![0; 600_000];
            storage.read(store, 0, &mut read).unwrap();
            assert!(read == bytes(600_000), "after {slices} slices");
            let info_hash = crate::base::hash::InfoHash::of(b"x");
            storage.start(JobId(2), Job::Move { store, dir: to.clone(), info_hash, again: true, undo: false });
            if undo {
                storage.stop_move(store, true);
            }
            finish(&mut storage);
            assert_eq!(storage.poll_job().unwrap().1.is_ok(), !undo);
            let (at, not_at) = if undo { (&from, &to) } else { (&to, &from) };
            if !undo {
                run(&mut storage, Job::Clear { store, from: from.clone() }).unwrap();
            }
            storage.read(store, 0, &mut read).unwrap();
            assert!(read == bytes(600_000) && names.iter().all(|name| at.join(name).exists()), "after {slices} slices");
            let left = std::fs::read_dir(not_at).map_or(0, Iterator::count);
            assert!(left == 0, "after {slices} slices, {undo}: {left} left in {}", not_at.display());
            assert_eq!(std::fs::read_dir(at).unwrap().count(), 1);
        }
    }
}

#[test]
fn deleting_goes_through_no_link_and_leaves_what_others_use() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, outside) = (temp.path().join("in"), temp.path().join("out"));
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::create_dir_all(dir.join("r/d")).unwrap();
    for name in ["r/a", "r/b", "r/d/c"] {
        std::fs::write(dir.join(name), bytes(10)).unwrap();
    }
    std::fs::write(outside.join("x"), "mine").unwrap();
    std::os::unix::fs::symlink(&outside, dir.join("r/link")).unwrap();
    std::os::unix::fs::symlink(outside.join("x"), dir.join("r/e")).unwrap();
    let names = ["r/a", "r/b", "r/d/c", "r/e", "r/link/x"];
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(&dir, &names.map(|name| (name, 10, false))));
    let fault = run(&mut storage, Job::Delete { store, keep: vec![1] }).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Denied);
    assert_eq!(std::fs::read(outside.join("x")).unwrap(), b"mine");
    assert!(dir.join("r/b").exists() && !dir.join("r/a").exists() && !dir.join("r/d").exists());
}

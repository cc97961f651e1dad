use std::io::Read;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use super::*;
use crate::base::config::Config;
use crate::base::files::FileList;
use crate::base::hash::InfoHash;
use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::metainfo::Metainfo;
use crate::torrent::command::AddOptions;
use crate::torrent::create::{Creator, Notes, Profile};
use crate::torrent::torrent::{Begin, Torrent};

pub(super) fn moving(store: StoreId, dir: PathBuf) -> Job {
    Job::Move { store, dir, info_hash: InfoHash::of(b"x"), again: false, undo: false }
}

pub(super) fn content(dir: &Path, files: &[(&str, u64, bool)]) -> Content {
    let list = FileList::new(files.iter().map(|&(path, len, pad)| (PathBuf::from(path), len, pad)));
    Content {
        dir: dir.to_owned(),
        also: None,
        wanted: vec![true; files.len()],
        files: Arc::new(list),
        read_only: false,
    }
}

pub(super) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 253) as u8).collect()
}

#[expect(clippy::disallowed_methods, reason = "the reactor waits; here nobody else does")]
pub(super) fn finish(storage: &mut FileStorage) {
    loop {
        match storage.work() {
            Work::Idle => return,
            Work::Later => std::thread::sleep(LOOK_AGAIN),
            Work::More => {}
        }
    }
}

pub(super) fn run(storage: &mut FileStorage, job: Job) -> Result<(), Fault> {
    storage.start(JobId(1), job);
    finish(storage);
    storage.poll_job().expect("the job has ended").1
}

fn mapped() -> Settings {
    Settings { backend: Backend::Mmap, ..Settings::default() }
}

fn pair() -> (mio::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.set_nonblocking(true).unwrap();
    (mio::net::TcpStream::from_std(near), listener.accept().unwrap().0)
}

#[test]
fn file_is_made_only_where_the_nearest_file_with_verified_pieces_is() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::without_state();
    let files = [("r/a/1", 1000, false), ("r/a/2", 1000, false), ("r/b/1", 1000, false), ("r/b/2", 1000, false)];
    let dir = temp.path().join("d");
    let store = storage.open(content(&dir, &files));
    let span = |file: u64| Span { offset: file * 1000, len: 1000 };
    storage.prepare(store, span(0)).unwrap();
    storage.prepare(store, span(2)).unwrap();
    storage.hold(store, 0);
    storage.hold(store, 2);
    // The directory of one of the two is away, as if another disk was mounted there.
    std::fs::rename(dir.join("r/b"), temp.path().join("aside")).unwrap();
    std::fs::create_dir(dir.join("r/b")).unwrap();
    storage.prepare(store, span(1)).unwrap();
    let fault = storage.prepare(store, span(3)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Gone);
    assert!(fault.message.starts_with(&format!("missing: {}; ", dir.join("r/b/1").display())), "{fault}");
    assert_eq!(std::fs::read_dir(dir.join("r/b")).unwrap().count(), 0);
    assert_eq!(storage.trouble(store, 2).unwrap().kind, FaultKind::Gone);
    assert!(storage.trouble(store, 0).is_none());
    // All of it is away, and nothing is made for an allocation, a write or a move.
    storage.close(store);
    let store = storage.open(content(&dir, &files));
    storage.set_held(store, &[true, false, true, false]);
    std::fs::rename(&dir, temp.path().join("all")).unwrap();
    assert_eq!(run(&mut storage, Job::Allocate { store }).unwrap_err().kind, FaultKind::Gone);
    assert_eq!(storage.write(store, 3000, &[IoSlice::new(&[1])]).unwrap_err().kind, FaultKind::Gone);
    run(&mut storage, Job::Sync { store, finish: vec![0, 1] }).unwrap();
    let to = temp.path().join("to");
    assert_eq!(run(&mut storage, Job::Scout { store, dir: to.clone() }).unwrap_err().kind, FaultKind::Gone);
    assert_eq!(run(&mut storage, moving(store, to.clone())).unwrap_err().kind, FaultKind::Gone);
    assert!(!dir.exists() && !to.exists());
    // Nothing is verified any more.
    storage.set_held(store, &[]);
    storage.prepare(store, span(3)).unwrap();
    assert!(dir.join("r/b/2").exists());
}

#[test]
fn complete_file_is_cut_in_parts_and_never_through_a_link() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(temp.path(), &[("r/a", 1000, false), ("r/b", 1000, false), ("r/c", 0, false)]));
    std::fs::create_dir(temp.path().join("r")).unwrap();
    let file = std::fs::File::create(temp.path().join("r/a")).unwrap();
    file.set_len(1 << 40).unwrap(); // a hole
    std::fs::write(temp.path().join("other"), vec![5; 2000]).unwrap();
    symlink(temp.path().join("other"), temp.path().join("r/b")).unwrap();
    run(&mut storage, Job::Sync { store, finish: vec![0, 1, 2] }).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1000);
    assert_eq!(std::fs::metadata(temp.path().join("other")).unwrap().len(), 2000);
    assert_eq!(storage.stamp(store, 2).unwrap().len, 0, "one of no bytes is made");
    std::fs::write(temp.path().join("r/c"), "mine").unwrap();
    run(&mut storage, Job::Sync { store, finish: vec![2] }).unwrap();
    assert_eq!(std::fs::read(temp.path().join("r/c")).unwrap(), b"mine");
}

#[test]
fn what_is_written_is_read_across_files_and_pads() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::without_state();
    let files = [("r/a", 1000, false), ("r/empty", 0, false), ("r/pad", 24, true), ("r/d/b", 3000, false)];
    let store = storage.open(content(temp.path(), &files));
    let mut data = bytes(4024);
    data[1000..1024].fill(0);
    storage.prepare(store, Span { offset: 0, len: 4024 }).unwrap();
    let (one, two) = data.split_at(700);
    storage.write(store, 0, &[IoSlice::new(one), IoSlice::new(two)]).unwrap();
    let mut read = vec![1; 4024];
    storage.read(store, 0, &mut read).unwrap();
    assert!(read == data);
    assert_eq!(std::fs::read(temp.path().join("r/d/b")).unwrap(), &data[1024..]);
    assert!(!temp.path().join("r/pad").exists());
    run(&mut storage, Job::Sync { store, finish: Vec::new() }).unwrap();
    assert_eq!(storage.stamp(store, 0).unwrap().len, 1000);
    assert_eq!(storage.stamp(store, 1), None);
    run(&mut storage, Job::Allocate { store }).unwrap();
    assert_eq!(storage.stamp(store, 1).unwrap().len, 0);
}

#[test]
fn read_only_content_is_never_written() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("a"), bytes(1000)).unwrap();
    let mut storage = FileStorage::without_state();
    let files = [("a", 1000, false), ("b", 1000, false), ("none", 0, false)];
    let store = storage.open(Content { read_only: true, ..content(temp.path(), &files) });
    // What is open for reading is not opened for writing either.
    let mut read = vec![0; 1000];
    storage.read(store, 0, &mut read).unwrap();
    for offset in [0, 1000] {
        assert_eq!(storage.prepare(store, Span { offset, len: 10 }).unwrap_err().kind, FaultKind::Denied);
        assert_eq!(storage.write(store, offset, &[IoSlice::new(b"x")]).unwrap_err().kind, FaultKind::Denied);
    }
    assert!(run(&mut storage, Job::Allocate { store }).is_err());
    run(&mut storage, Job::Sync { store, finish: vec![0, 1, 2] }).unwrap();
    assert_eq!(std::fs::read(temp.path().join("a")).unwrap(), bytes(1000));
    assert!(!temp.path().join("b").exists() && !temp.path().join("none").exists());
}

#[test]
fn both_backends_send_the_same_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let data = bytes(3_000_000);
    for backend in [Backend::Mmap, Backend::Pread] {
        let mut storage = FileStorage::new(Settings { backend, ..Settings::default() }, None);
        let store =
            storage.open(content(temp.path(), &[("a", 1_000_000, false), ("p", 5, true), ("b", 1_999_995, false)]));
        let mut data = data.clone();
        data[1_000_000..1_000_005].fill(0);
        storage.write(store, 0, &[IoSlice::new(&data)]).unwrap();
        let (mut near, mut far) = pair();
        far.set_nonblocking(true).unwrap();
        let mut received = Vec::new();
        let mut expected = Vec::new();
        let mut sent = 0_u64;
        for start in (0..3_000_000_u64).step_by(100_000) {
            assert!(storage.resident(store, Span { offset: start, len: 100_000 }));
            expected.extend_from_slice(b"head");
            expected.extend_from_slice(&data[start as usize..start as usize + 100_000]);
        }
        // One queue of heads and spans, sent as the socket takes it, short writes and all.
        while sent < 30 * 100_004 {
            let (index, within) = (sent / 100_004, sent % 100_004);
            let span_from = within.saturating_sub(4);
            let span = Span { offset: index * 100_000 + span_from, len: 100_000 - span_from };
            let head = &b"head"[within.min(4) as usize..];
            let chunks = [Chunk::Bytes(head), Chunk::Content(store, span)];
            match storage.send(&mut near, &chunks) {
                Ok(count) => sent += count as u64,
                Err(SendError::Stream(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error:?}"),
            }
            let mut buf = [0; 65536];
            while let Ok(count) = far.read(&mut buf) {
                received.extend_from_slice(&buf[..count]);
            }
        }
        far.set_nonblocking(false).unwrap();
        drop(near);
        far.read_to_end(&mut received).unwrap();
        assert!(received == expected, "{backend:?}");
    }
}

#[test]
fn a_file_cut_under_its_map_is_a_fault_and_no_signal() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(temp.path(), &[("a", 100_000, false)]));
    storage.write(store, 0, &[IoSlice::new(&bytes(100_000))]).unwrap();
    let (mut near, _far) = pair();
    let chunks = [Chunk::Bytes(b"x"), Chunk::Content(store, Span { offset: 50_000, len: 16_384 })];
    assert_eq!(storage.send(&mut near, &chunks).unwrap(), 16_385);
    std::fs::File::options().write(true).open(temp.path().join("a")).unwrap().set_len(0).unwrap();
    let Err(SendError::Content(of, fault)) = storage.send(&mut near, &chunks[1..]) else { panic!("it was sent") };
    assert_eq!((of, fault.kind), (store, FaultKind::Gone));
    assert!(fault.message.contains("shorter"), "{fault}");
    assert_eq!(storage.read(store, 0, &mut [0; 10]).unwrap_err().kind, FaultKind::Gone);
    std::fs::remove_file(temp.path().join("a")).unwrap();
    let message = storage.read(store, 0, &mut [0; 10]).unwrap_err().message;
    assert!(message.contains("missing"), "{message}");
}

#[test]
fn nothing_leaves_the_directory_by_a_link_or_becomes_a_pipe() {
    let temp = tempfile::tempdir().unwrap();
    let (outside, inside) = (temp.path().join("outside"), temp.path().join("inside"));
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::create_dir_all(&inside).unwrap();
    symlink(&outside, inside.join("dir")).unwrap();
    symlink(outside.join("file"), inside.join("file")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, inside.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let mut storage = FileStorage::without_state();
    for path in ["dir/x", "file", "../outside/y", "pipe"] {
        let store = storage.open(content(&inside, &[(path, 5, false)]));
        let fault = storage.write(store, 0, &[IoSlice::new(b"12345")]).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Denied, "{path}: {fault}");
        assert!(storage.prepare(store, Span { offset: 0, len: 5 }).is_err());
        assert!(run(&mut storage, Job::Allocate { store }).is_err());
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn many_files_exhaust_neither_descriptors_nor_windows() {
    let temp = tempfile::tempdir().unwrap();
    let settings = Settings { files_max: 16, mapped_max_bytes: 64 * 1024, ..mapped() };
    let mut storage = FileStorage::new(settings, None);
    let names: Vec<String> = (0..2000).map(|index| format!("d{}/f{index}", index % 7)).collect();
    let files: Vec<(&str, u64, bool)> = names.iter().map(|name| (name.as_str(), 1000, false)).collect();
    let store = storage.open(content(temp.path(), &files));
    storage.write(store, 0, &[IoSlice::new(&bytes(2_000_000))]).unwrap();
    let (mut near, mut far) = pair();
    let mut buf = [0; 1000];
    let data = bytes(2_000_000);
    for index in 0..2000 {
        let span = Span { offset: index * 1000, len: 1000 };
        assert_eq!(storage.send(&mut near, &[Chunk::Content(store, span)]).unwrap(), 1000);
        far.read_exact(&mut buf).unwrap();
        assert!(buf[..] == data[index as usize * 1000..][..1000]);
    }
    assert!(
        storage.files.len() <= 16 && storage.windows.len() <= 65,
        "{} {}",
        storage.files.len(),
        storage.windows.len()
    );
    run(&mut storage, Job::Sync { store, finish: Vec::new() }).unwrap();
}

#[test]
fn unwanted_files_get_nothing_but_what_a_shared_piece_forces() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::without_state();
    let store =
        storage.open(content(temp.path(), &[("a", 1 << 20, false), ("b", 1 << 20, false), ("c", 1 << 20, false)]));
    storage.set_wanted(store, &[false, true, false]);
    run(&mut storage, Job::Allocate { store }).unwrap();
    storage.prepare(store, Span { offset: 1 << 19, len: 1 << 20 }).unwrap();
    assert!(!temp.path().join("a").exists() && !temp.path().join("c").exists());
    storage.write(store, (1 << 20) - 10, &[IoSlice::new(&bytes(20))]).unwrap();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(temp.path().join("a")).unwrap());
    assert!(blocks <= 16, "{blocks} blocks of 512 bytes");
    assert!(!temp.path().join("c").exists());
    assert!(!storage.has_data(store, Span { offset: 0, len: 1000 }));
    assert!(storage.has_data(store, Span { offset: (1 << 20) - 10, len: 10 }));
}

#[test]
fn content_moves_within_and_across_file_systems_or_stays() {
    let temp = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(&temp.path().join("one"), &[("r/a", 5000, false), ("r/d/b", 5000, false)]));
    storage.write(store, 0, &[IoSlice::new(&bytes(10_000))]).unwrap();
    let mut read = vec![0; 10_000];
    for dir in [temp.path().join("two"), other.path().join("three")] {
        let from = storage.stores.get(store).unwrap().content.dir.clone();
        run(&mut storage, Job::Scout { store, dir: dir.clone() }).unwrap();
        run(&mut storage, moving(store, dir.clone())).unwrap();
        storage.read(store, 0, &mut read).unwrap();
        run(&mut storage, Job::Clear { store, from }).unwrap();
        assert!(read == bytes(10_000) && dir.join("r/d/b").exists());
    }
    assert!(!temp.path().join("two/r").exists(), "what was left is tidied");
    std::fs::create_dir_all(temp.path().join("four/r/d")).unwrap();
    std::fs::write(temp.path().join("four/r/d/b"), "mine").unwrap();
    run(&mut storage, Job::Scout { store, dir: temp.path().join("four") }).unwrap_err();
    let fault = run(&mut storage, moving(store, temp.path().join("four"))).unwrap_err();
    assert!(fault.message.contains("already"), "{fault}");
    storage.read(store, 0, &mut read).unwrap();
    assert!(read == bytes(10_000));
    assert_eq!(std::fs::read(temp.path().join("four/r/d/b")).unwrap(), b"mine");
    assert!(!temp.path().join("four/r/a").exists());
}

#[test]
fn deleting_leaves_what_is_not_the_torrents() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(temp.path(), &[("r/a", 10, false), ("r/d/b", 10, false), ("r/e/c", 10, false)]));
    storage.write(store, 0, &[IoSlice::new(&bytes(30))]).unwrap();
    std::fs::write(temp.path().join("r/e/mine"), "x").unwrap();
    run(&mut storage, Job::Delete { store, keep: vec![] }).unwrap();
    assert!(temp.path().join("r/e/mine").exists());
    assert!(
        !temp.path().join("r/a").exists() && !temp.path().join("r/d").exists() && !temp.path().join("r/e/c").exists()
    );
    assert!(temp.path().exists());
}

#[test]
fn asking_what_is_resident_keeps_windows_within_their_bound() {
    let temp = tempfile::tempdir().unwrap();
    let settings = Settings { mapped_max_bytes: 64 * 1024, ..mapped() };
    let mut storage = FileStorage::new(settings, None);
    let names: Vec<String> = (0..500).map(|index| format!("f{index}")).collect();
    let files: Vec<(&str, u64, bool)> = names.iter().map(|name| (name.as_str(), 1000, false)).collect();
    let store = storage.open(content(temp.path(), &files));
    storage.write(store, 0, &[IoSlice::new(&bytes(500_000))]).unwrap();
    for index in 0..500 {
        assert!(storage.resident(store, Span { offset: index * 1000, len: 1000 }));
    }
    assert!(storage.windows.len() <= 66, "{} windows", storage.windows.len());
}

#[test]
fn a_window_that_one_write_names_outlives_being_replaced_in_it() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::new(mapped(), None);
    let store = storage.open(content(temp.path(), &[("a", 40_960, false)]));
    let data = bytes(40_960);
    storage.write(store, 0, &[IoSlice::new(&data[..8192])]).unwrap();
    let (mut near, mut far) = pair();
    let chunk = |offset, len| Chunk::Content(store, Span { offset, len });
    assert_eq!(storage.send(&mut near, &[chunk(0, 8192)]).unwrap(), 8192);
    // The file grows: the second part needs a longer window than the first one was lent from.
    storage.write(store, 8192, &[IoSlice::new(&data[8192..])]).unwrap();
    assert_eq!(storage.send(&mut near, &[chunk(0, 4096), chunk(36_864, 4096)]).unwrap(), 8192);
    let mut received = vec![0; 16_384];
    far.read_exact(&mut received).unwrap();
    assert!(received[8192..12_288] == data[..4096] && received[12_288..] == data[36_864..]);
}

#[test]
fn the_content_at_fault_is_named_and_its_head_is_not_sent() {
    for backend in [Backend::Mmap, Backend::Pread] {
        let temp = tempfile::tempdir().unwrap();
        let mut storage = FileStorage::new(Settings { backend, ..Settings::default() }, None);
        let good = storage.open(content(temp.path(), &[("good", 1000, false)]));
        let bad = storage.open(content(temp.path(), &[("bad", 40_000, false)]));
        storage.write(good, 0, &[IoSlice::new(&bytes(1000))]).unwrap();
        storage.write(bad, 0, &[IoSlice::new(&bytes(40_000))]).unwrap();
        let (mut near, mut far) = pair();
        let (first, second) = (Span { offset: 0, len: 1000 }, Span { offset: 16_384, len: 16_384 });
        let chunks =
            [Chunk::Bytes(b"one"), Chunk::Content(good, first), Chunk::Bytes(b"two"), Chunk::Content(bad, second)];
        assert_eq!(storage.send(&mut near, &chunks).unwrap(), 3 + 1000 + 3 + 16_384);
        std::fs::File::options().write(true).open(temp.path().join("bad")).unwrap().set_len(0).unwrap();
        assert_eq!(storage.send(&mut near, &chunks).unwrap(), 1003, "what is good goes, and no head without its block");
        let Err(SendError::Content(of, fault)) = storage.send(&mut near, &chunks[2..]) else { panic!("it was sent") };
        assert_eq!((of, fault.kind), (bad, FaultKind::Gone));
        drop(near);
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), 3 + 1000 + 3 + 16_384 + 1003);
    }
}

#[test]
fn blocks_that_lie_together_are_read_together_as_far_as_they_are_there() {
    const BLOCK: u64 = 1000;
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::new(Settings { backend: Backend::Pread, ..Settings::default() }, None);
    let files = [("a", 2500, false), ("p", 100, true), ("b", 4400, false)];
    let store = storage.open(content(temp.path(), &files));
    let mut data = bytes(7000);
    data[2500..2600].fill(0);
    storage.write(store, 0, &[IoSlice::new(&data)]).unwrap();
    let (mut near, mut far) = pair();
    // Two in one file, one across both and the pad, two in the other; then one that does not go on there.
    let offsets = [0, 1000, 2000, 3000, 4000, 1500];
    let block = |&offset: &u64| [Chunk::Bytes(b"head"), Chunk::Content(store, Span { offset, len: BLOCK })];
    let chunks: Vec<Chunk<'_>> = offsets.iter().flat_map(block).collect();
    let expected: Vec<u8> =
        offsets.iter().flat_map(|&at| [b"head", &data[at as usize..(at + BLOCK) as usize]].concat()).collect();
    assert_eq!(storage.send(&mut near, &chunks).unwrap(), expected.len());
    let mut received = vec![0; expected.len()];
    far.read_exact(&mut received).unwrap();
    assert!(received == expected);
    // The first block of the second file's two is there, and half of the second.
    std::fs::File::options().write(true).open(temp.path().join("b")).unwrap().set_len(1900).unwrap();
    assert_eq!(storage.send(&mut near, &chunks).unwrap(), 4 * 1004);
    let mut received = vec![0; 4 * 1004];
    far.read_exact(&mut received).unwrap();
    assert!(received == expected[..4 * 1004]);
    assert!(matches!(storage.send(&mut near, &chunks[8..]), Err(SendError::Content(..))));
}

#[test]
fn a_file_that_was_removed_is_not_sent_for_ever() {
    for backend in [Backend::Mmap, Backend::Pread] {
        let temp = tempfile::tempdir().unwrap();
        let mut storage = FileStorage::new(Settings { backend, ..Settings::default() }, None);
        let store = storage.open(content(temp.path(), &[("a", 4096, false)]));
        storage.write(store, 0, &[IoSlice::new(&bytes(4096))]).unwrap();
        let (mut near, mut far) = pair();
        let chunk = [Chunk::Content(store, Span { offset: 0, len: 4096 })];
        assert_eq!(storage.send(&mut near, &chunk).unwrap(), 4096);
        std::fs::remove_file(temp.path().join("a")).unwrap();
        let mut sends = std::iter::from_fn(|| {
            far.read_exact(&mut [0; 4096]).unwrap();
            Some(storage.send(&mut near, &chunk))
        });
        let end = sends.by_ref().take(1000).find(Result::is_err);
        let Some(Err(SendError::Content(_, fault))) = end else { panic!("{backend:?}: it was sent for ever") };
        assert_eq!(fault.kind, FaultKind::Gone);
    }
}

#[test]
fn a_file_cut_within_its_last_page_is_found_before_long() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::new(mapped(), None);
    let store = storage.open(content(temp.path(), &[("a", 4000, false)]));
    storage.write(store, 0, &[IoSlice::new(&bytes(4000))]).unwrap();
    let (mut near, mut far) = pair();
    let chunk = [Chunk::Content(store, Span { offset: 3000, len: 1000 })];
    assert_eq!(storage.send(&mut near, &chunk).unwrap(), 1000);
    // The kernel fills the rest of the page with zeros: no bad address tells of it.
    std::fs::File::options().write(true).open(temp.path().join("a")).unwrap().set_len(3500).unwrap();
    let mut buf = [0; 1000];
    far.read_exact(&mut buf).unwrap();
    for _ in 0..1000 {
        match storage.send(&mut near, &chunk) {
            Ok(sent) => far.read_exact(&mut buf[..sent]).unwrap(),
            Err(SendError::Content(_, fault)) => return assert_eq!(fault.kind, FaultKind::Gone),
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("zeros were sent for ever");
}

#[test]
fn a_span_of_gigabytes_is_sent_in_pieces_by_both_backends() {
    for backend in [Backend::Mmap, Backend::Pread] {
        let temp = tempfile::tempdir().unwrap();
        let mut storage = FileStorage::new(Settings { backend, ..Settings::default() }, None);
        let len = 3 << 30;
        let store = storage.open(content(temp.path(), &[("a", len, false), ("p", len, true)]));
        std::fs::File::create(temp.path().join("a")).unwrap().set_len(len).unwrap();
        for offset in [0, len] {
            let (mut near, _far) = pair();
            let sent = storage.send(&mut near, &[Chunk::Content(store, Span { offset, len })]).unwrap();
            assert!(sent > 0 && sent <= 8 << 20);
        }
        assert!(storage.windows.len() <= 3, "{}", storage.windows.len());
    }
}

#[test]
fn a_file_that_was_replaced_is_opened_anew() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(temp.path(), &[("a", 1000, false)]));
    storage.write(store, 0, &[IoSlice::new(&bytes(1000))]).unwrap();
    let (mut near, mut far) = pair();
    let chunk = [Chunk::Content(store, Span { offset: 0, len: 1000 })];
    let mut buf = [0; 1000];
    std::fs::write(temp.path().join("new"), vec![7; 1000]).unwrap();
    storage.send(&mut near, &chunk).unwrap();
    far.read_exact(&mut buf).unwrap();
    std::fs::rename(temp.path().join("new"), temp.path().join("a")).unwrap();
    for _ in 0..1000 {
        storage.send(&mut near, &chunk).unwrap();
        far.read_exact(&mut buf).unwrap();
        if buf == [7; 1000] {
            return;
        }
    }
    panic!("a file that is gone was sent for ever");
}

#[test]
fn empty_slices_at_the_border_of_two_files_are_no_fault() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(temp.path(), &[("a", 10, false), ("b", 10, false)]));
    let data = bytes(20);
    let slices = [&data[..0], &data[..5], &data[..0], &data[5..20], &data[..0]].map(IoSlice::new);
    storage.write(store, 0, &slices).unwrap();
    let mut read = [0; 20];
    storage.read(store, 0, &mut read).unwrap();
    assert!(read == data[..]);
}

#[test]
fn a_file_that_was_put_in_the_place_of_one_that_is_open_is_not_taken_for_it() {
    let temp = tempfile::tempdir().unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(content(temp.path(), &[("a", 1000, false)]));
    storage.prepare(store, Span { offset: 0, len: 1000 }).unwrap();
    storage.write(store, 0, &[IoSlice::new(&bytes(1000))]).unwrap();
    assert!(storage.stamp(store, 0).is_some());
    let path = temp.path().join("a");
    std::fs::rename(&path, temp.path().join("b")).unwrap();
    assert_eq!(storage.stamp(store, 0), None);
    std::fs::write(&path, bytes(1000)).unwrap();
    assert_eq!(storage.stamp(store, 0), None, "it is as long, and another file");
    storage.close(store);
    let store = storage.open(content(temp.path(), &[("a", 1000, false)]));
    assert!(storage.stamp(store, 0).is_some());
}

#[test]
fn a_check_finds_what_is_bad_or_gone_among_pieces_that_it_hashes_side_by_side() {
    let temp = tempfile::tempdir().unwrap();
    // Two files that meet inside the tenth piece, and a last piece that is not whole.
    let lens = [9 * 32_768 + 100, 14 * 32_768 + 77];
    let total = usize::try_from(lens[0] + lens[1]).unwrap();
    let data: Vec<u8> = (0..total).map(|at| (at * 31 + at / 253).to_le_bytes()[0]).collect();
    let meta_of = |profile| {
        let notes = Notes { name: b"x".to_vec(), ..Notes::default() };
        let names = [vec![b"a".to_vec()], vec![b"b".to_vec()]];
        let mut creator = Creator::new(profile, 32_768, names.into_iter().zip(lens).collect(), notes);
        creator.update(&data);
        Arc::new(creator.finish().unwrap().0)
    };
    let (a, b) = data.split_at(usize::try_from(lens[0]).unwrap());
    std::fs::create_dir(temp.path().join("x")).unwrap();
    let found = |meta: &Arc<Metainfo>, bad: &[usize], gone: bool, cut: usize| {
        let mut a = a.to_vec();
        bad.iter().for_each(|piece| a[piece * 32_768 + 5] ^= 1);
        std::fs::write(temp.path().join("x/a"), a).unwrap();
        let _ = std::fs::remove_file(temp.path().join("x/b"));
        if !gone {
            std::fs::write(temp.path().join("x/b"), &b[..b.len() - cut]).unwrap();
        }
        let config = Config { allocate_full: false, ..Config::default() };
        let begin = Begin { dir: temp.path().into(), verify: true, added: 0, options: AddOptions::default() };
        let mut torrent =
            Torrent::new(Time::ZERO, Arc::clone(meta), begin, &config, Rng::from_number(1), [99; 20]).unwrap();
        let mut storage = FileStorage::without_state();
        torrent.handle_opened(Time::ZERO, storage.open(torrent.content()));
        torrent.begin_check();
        let mut buf = vec![0; 256 * 1024];
        while torrent.work(Time::ZERO, &mut storage, &mut buf) {}
        let zeros: Vec<u32> = torrent.have.zeros().collect();
        zeros
    };
    for meta in [Profile::V1, Profile::Pure].map(meta_of) {
        assert_eq!(found(&meta, &[], false, 0), [] as [u32; 0]);
        assert_eq!(found(&meta, &[2, 4], false, 0), [2, 4]);
        assert_eq!(found(&meta, &[0, 3, 8], false, 0), [0, 3, 8]);
        // Pieces 16 to 19 would go together, but only 16 and 17 are whole.
        assert_eq!(found(&meta, &[], false, total - (18 * 32_768 + 1000)), (18..24).collect::<Vec<u32>>());
        assert_eq!(found(&meta, &[1], true, 0), std::iter::once(1).chain(9..24).collect::<Vec<u32>>());
    }
}

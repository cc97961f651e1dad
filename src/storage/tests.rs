use std::io::Read;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use super::*;
use crate::base::files::FileList;

fn content(dir: &Path, files: &[(&str, u64, bool)]) -> Content {
    let list = FileList::new(files.iter().map(|&(path, len, pad)| (PathBuf::from(path), len, pad)));
    Content { dir: dir.to_owned(), wanted: vec![true; files.len()], files: Arc::new(list) }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 253) as u8).collect()
}

fn run(storage: &mut FileStorage, job: Job) -> Result<(), Fault> {
    storage.start(JobId(1), job);
    while storage.work() {}
    storage.poll_job().expect("the job has ended").1
}

fn pair() -> (mio::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.set_nonblocking(true).unwrap();
    (mio::net::TcpStream::from_std(near), listener.accept().unwrap().0)
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
    run(&mut storage, Job::Sync { store }).unwrap();
    assert_eq!(storage.stamp(store, 0).unwrap().len, 1000);
    assert_eq!(storage.stamp(store, 1), None);
    run(&mut storage, Job::Allocate { store }).unwrap();
    assert_eq!(storage.stamp(store, 1).unwrap().len, 0);
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
    let settings = Settings { files_max: 16, mapped_max_bytes: 64 * 1024, ..Settings::default() };
    let mut storage = FileStorage::new(settings, None);
    let names: Vec<String> = (0..2000).map(|index| format!("d{}/f{index}", index % 7)).collect();
    let files: Vec<(&str, u64, bool)> = names.iter().map(|name| (name.as_str(), 1000, false)).collect();
    let store = storage.open(content(temp.path(), &files));
    storage.write(store, 0, &[IoSlice::new(&bytes(2_000_000))]).unwrap();
    let (mut near, mut far) = pair();
    let mut buf = [0; 1000];
    for index in 0..2000 {
        let span = Span { offset: index * 1000, len: 1000 };
        assert_eq!(storage.send(&mut near, &[Chunk::Content(store, span)]).unwrap(), 1000);
        far.read_exact(&mut buf).unwrap();
        assert!(buf[..] == bytes(2_000_000)[index as usize * 1000..][..1000]);
    }
    assert!(
        storage.files.len() <= 16 && storage.windows.len() <= 65,
        "{} {}",
        storage.files.len(),
        storage.windows.len()
    );
    run(&mut storage, Job::Sync { store }).unwrap();
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
        run(&mut storage, Job::Move { store, dir: dir.clone() }).unwrap();
        storage.read(store, 0, &mut read).unwrap();
        assert!(read == bytes(10_000) && dir.join("r/d/b").exists());
    }
    assert!(!temp.path().join("two/r").exists(), "what was left is tidied");
    std::fs::create_dir_all(temp.path().join("four/r/d")).unwrap();
    std::fs::write(temp.path().join("four/r/d/b"), "mine").unwrap();
    let fault = run(&mut storage, Job::Move { store, dir: temp.path().join("four") }).unwrap_err();
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
    run(&mut storage, Job::Delete { store }).unwrap();
    assert!(temp.path().join("r/e/mine").exists());
    assert!(
        !temp.path().join("r/a").exists() && !temp.path().join("r/d").exists() && !temp.path().join("r/e/c").exists()
    );
    assert!(temp.path().exists());
}

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::storage::jobs::Work;
use crate::storage::{FileStorage, Settings};

/// Saves a file as version 0.1.0 did.
fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    std::fs::create_dir_all(dir.join(TORRENTS)).unwrap();
    let path = dir.join(TORRENTS).join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn metainfo() -> (InfoHash, Vec<u8>) {
    let bytes = include_bytes!("../../../tests/vectors/libtorrent-v1.torrent").to_vec();
    (Metainfo::parse(&bytes).unwrap().info_hash, bytes)
}

fn name(info_hash: InfoHash) -> PathBuf {
    format!("{TORRENTS}/{info_hash}.meta").into()
}

fn save(state: StateDir, name: &Path, bytes: Option<&[u8]>) {
    let mut storage = FileStorage::new(Settings::default(), Some(state));
    let name = name.to_owned();
    let job = match bytes {
        Some(bytes) => Job::Save { name, bytes: bytes.to_vec().into() },
        None => Job::Erase { name },
    };
    storage.start(JobId(1), job);
    while storage.work() != Work::Idle {}
    storage.poll_job().unwrap().1.unwrap();
}

#[test]
fn directory_has_one_holder() {
    let temp = tempfile::tempdir().unwrap();
    let first = StateDir::open(temp.path()).unwrap();
    assert!(matches!(StateDir::open(temp.path()), Err(StateError::Held(_))));
    drop(first);
    assert!(StateDir::open(temp.path()).is_ok());
}

#[test]
fn saved_metainfo_is_read_and_erased_metainfo_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let [a, b] = [InfoHash::of(b"a"), InfoHash::of(b"b")];
    for (info_hash, bytes) in [(a, "one"), (b, "two"), (b, "three")] {
        save(StateDir::open(temp.path()).unwrap().0, &name(info_hash), Some(bytes.as_bytes()));
    }
    save(StateDir::open(temp.path()).unwrap().0, Path::new("other.meta"), Some(b"x"));
    for _ in 0..2 {
        save(StateDir::open(temp.path()).unwrap().0, &name(a), None);
    }
    let (state, _) = StateDir::open(temp.path()).unwrap();
    assert_eq!(state.torrents(), [b]);
    assert_eq!((state.read(&name(a)), state.read(&name(b))), (None, Some(b"three".to_vec())));
}

#[test]
fn metainfo_files_are_taken_into_the_pack_at_the_start() {
    let temp = tempfile::tempdir().unwrap();
    let (info_hash, bytes) = metainfo();
    let link = InfoHash::of(b"link");
    let other = InfoHash::of(b"other");
    let taken = [
        put(temp.path(), &format!("{info_hash}.meta"), &bytes),
        put(temp.path(), &format!("{link}.meta"), format!("magnet:?xt=urn:btih:{link}").as_bytes()),
        put(temp.path(), &format!("{link}.meta.tmp"), b"half"),
    ];
    let not_taken = [
        put(temp.path(), &format!("{other}.meta"), &bytes),
        put(temp.path(), &format!("{}.meta", InfoHash::of(b"x")), b"nonsense"),
        put(temp.path(), "notes", b"mine"),
    ];
    let (state, _) = StateDir::open(temp.path()).unwrap();
    let mut expected = [info_hash, link];
    expected.sort_unstable();
    assert_eq!(state.torrents(), expected);
    assert_eq!(state.read(&name(info_hash)).as_ref(), Some(&bytes));
    assert!(taken.iter().all(|path| !path.exists()) && not_taken.iter().all(|path| path.exists()));
    drop(state);
    let (state, _) = StateDir::open(temp.path()).unwrap();
    assert_eq!(state.torrents(), expected);
}

#[test]
fn metainfo_file_that_is_put_back_replaces_what_is_damaged_or_missing() {
    let temp = tempfile::tempdir().unwrap();
    let (info_hash, bytes) = metainfo();
    save(StateDir::open(temp.path()).unwrap().0, &name(info_hash), Some(&bytes));
    let pack = temp.path().join("metainfo");
    let mut damaged = std::fs::read(&pack).unwrap();
    let (state, _) = StateDir::open(temp.path()).unwrap();
    let at = damaged.windows(bytes.len()).position(|window| window == bytes).unwrap();
    damaged[at + 10] ^= 1;
    std::fs::write(&pack, &damaged).unwrap();
    assert_eq!(state.read(&name(info_hash)), None);
    // While the daemon runs, the file itself is read.
    let path = put(temp.path(), &format!("{info_hash}.meta"), &bytes);
    assert_eq!(state.read(&name(info_hash)).as_ref(), Some(&bytes));
    drop(state);
    let (state, _) = StateDir::open(temp.path()).unwrap();
    assert!(!path.exists());
    assert_eq!(state.read(&name(info_hash)).as_ref(), Some(&bytes));
    // The removal of a torrent removes the file, too.
    put(temp.path(), &format!("{info_hash}.meta"), &bytes);
    save(state, &name(info_hash), None);
    let (state, _) = StateDir::open(temp.path()).unwrap();
    assert!(!path.exists() && state.torrents().is_empty());
}

#[test]
fn files_are_private_even_if_an_older_version_made_them() {
    let temp = tempfile::tempdir().unwrap();
    let (info_hash, bytes) = metainfo();
    let state = temp.path().join("state");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    put(&state, &format!("{info_hash}.meta"), b"nonsense");
    for name in ["lock", "journal.damaged", "metainfo.damaged"] {
        std::fs::write(state.join(name), "").unwrap();
    }
    std::fs::write(state.join("journal"), crate::codec::journal::v1::HEAD).unwrap();
    for entry in std::fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        let mode = if path.is_dir() { 0o775 } else { 0o664 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    save(StateDir::open(&state).unwrap().0, &name(info_hash), Some(&bytes));
    for entry in std::fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
}

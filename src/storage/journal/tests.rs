use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::open::Values;
use super::*;
use crate::codec::journal::v1;
use crate::codec::resume::Record;

const NAME: &str = "journal";

type Model = BTreeMap<String, Vec<u8>>;

fn open(dir: &Path) -> (Journal, Records) {
    Journal::open(dir, NAME, Values::Hold).unwrap()
}

fn batch(entries: &[(&str, Option<&[u8]>)]) -> Batch {
    let mut batch = Batch::default();
    entries.iter().for_each(|(name, value)| batch.push((*name).to_owned(), value.map(|value| value.to_vec().into())));
    batch
}

fn say(journal: &mut Journal, entries: &[(&str, Option<&[u8]>)]) {
    let mut batch = batch(entries);
    while journal.append(&mut batch).unwrap() != Step::Done {}
}

fn compact(journal: &mut Journal) {
    let mut compaction = Compaction::default();
    while compaction.step(journal).unwrap() != Step::Done {}
}

fn all(records: &Records) -> Model {
    records.with_prefix("").map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}

/// Returns the values that are found when the file is opened as the metainfo pack is.
fn left(dir: &Path) -> Model {
    let (journal, records) = Journal::open(dir, NAME, Values::Leave).unwrap();
    assert!(all(&records).is_empty());
    journal.names().map(|name| (name.to_owned(), journal.read(name).unwrap().unwrap())).collect()
}

fn model(entries: &[(&str, &[u8])]) -> Model {
    entries.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect()
}

/// Returns a copy of the directory, as a killed process leaves it.
fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir_in("/dev/shm").unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn newest_value_counts_before_and_after_compaction() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (mut journal, records) = open(temp.path());
    assert!(all(&records).is_empty());
    say(&mut journal, &[("a", Some(b"1")), ("b", Some(b"2")), ("a", Some(b"3"))]);
    say(&mut journal, &[("b", None), ("c", Some(b""))]);
    let expected = model(&[("a", b"3"), ("c", b"")]);
    drop(journal);
    assert_eq!(left(temp.path()), expected);
    let (mut journal, records) = open(temp.path());
    assert_eq!(all(&records), expected);
    assert!(!journal.is_stale());
    let (end, key) = (journal.end, journal.key);
    compact(&mut journal);
    assert!(journal.end < end && journal.key != key);
    say(&mut journal, &[("d", Some(b"4"))]);
    drop(journal);
    let expected = model(&[("a", b"3"), ("c", b""), ("d", b"4")]);
    assert_eq!(left(temp.path()), expected);
    let (journal, records) = open(temp.path());
    assert_eq!(all(&records), expected);
    assert_eq!(journal.live_bytes, journal.end - HEAD_LEN);
}

#[test]
fn file_is_stale_once_more_than_half_of_it_is_outdated() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (mut journal, _) = open(temp.path());
    let large = vec![7; 3 << 20];
    for _ in 0..2 {
        say(&mut journal, &[("a", Some(&large))]);
        assert!(!journal.is_stale());
    }
    say(&mut journal, &[("a", Some(&large))]);
    assert!(journal.is_stale());
}

#[test]
fn file_cut_at_any_byte_has_what_was_whole_and_goes_on() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (mut journal, _) = open(temp.path());
    let mut ends = vec![journal.end];
    for value in [b"1", b"2", b"3"] {
        say(&mut journal, &[("a", Some(value))]);
        ends.push(journal.end);
    }
    let path = temp.path().join(NAME);
    let whole = std::fs::read(&path).unwrap();
    for free in [0, 5000] {
        for cut in HEAD_LEN..=journal.end {
            let mut bytes = whole[..usize::try_from(cut).unwrap()].to_vec();
            bytes.resize(bytes.len() + free, 0);
            std::fs::write(&path, &bytes).unwrap();
            let count = ends.iter().filter(|end| **end <= cut).count();
            let expected: Model =
                [("a".to_owned(), vec![b'0' + count as u8 - 1])].into_iter().skip(usize::from(count == 1)).collect();
            assert_eq!(left(copy_of(temp.path()).path()), expected, "cut at {cut}");
            let (mut journal, records) = open(temp.path());
            assert_eq!(all(&records), expected, "cut at {cut}");
            say(&mut journal, &[("b", Some(b"after"))]);
            let (_, records) = open(temp.path());
            assert_eq!(records.get("b"), Some(&b"after"[..]), "cut at {cut}");
        }
    }
    for cut in [0, 5, 14, 40, 4095, 4136, 8191] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (mut journal, records) = open(temp.path());
        assert!(all(&records).is_empty(), "cut at {cut}");
        say(&mut journal, &[("b", Some(b"after"))]);
        assert_eq!(open(temp.path()).1.get("b"), Some(&b"after"[..]), "cut at {cut}");
    }
}

#[test]
fn damage_in_the_middle_costs_no_other_entry() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (mut journal, _) = open(temp.path());
    say(&mut journal, &[("a", Some(b"1")), ("b", Some(b"2"))]);
    let path = temp.path().join(NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[usize::try_from(HEAD_LEN).unwrap() + 15] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(left(temp.path()), model(&[("b", b"2")]));
    assert_eq!(all(&open(temp.path()).1), model(&[("b", b"2")]));
    assert!(!temp.path().join("journal.damaged").exists(), "nothing was cut off");
}

#[test]
fn planted_entry_is_not_read_when_its_carrier_is_torn_at_any_sector() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (mut journal, _) = open(temp.path());
    say(&mut journal, &[("torrent other", Some(b"other"))]);
    let own = std::fs::read(temp.path().join(NAME)).unwrap()[usize::try_from(HEAD_LEN).unwrap()..][..100].to_vec();
    let start = journal.end;
    // The planted entry is at least as good as a stranger can make it: the current format and that of 0.1.0, the right
    // offset, and bytes of the file itself.
    let mut planted = Vec::new();
    v1::write(&mut planted, "torrent other", Some(b"removing"));
    journal::write(&mut planted, &Key::new([0; 16]), start + 26 + 15 + 600, "torrent other", Some(b"removing"));
    planted.extend(own);
    let value = [&[b'x'; 600][..], &planted, &[b'x'; 600]].concat();
    say(&mut journal, &[("torrent carrier", Some(&value))]);
    let end = journal.end;
    let path = temp.path().join(NAME);
    let mut whole = std::fs::read(&path).unwrap();
    whole.truncate(usize::try_from(end).unwrap() + 100);
    for sector in [13, 512, 4096] {
        let expected = model(&[("torrent other", b"other")]);
        for at in (start..end).filter(|at| at % sector == 0) {
            // The end is missing or zeroed, or the start is zeroed, or only this sector is.
            let at = usize::try_from(at).unwrap();
            let (mut tail, mut head, mut hole) = (whole.clone(), whole.clone(), whole.clone());
            tail[at..].fill(0);
            head[usize::try_from(start).unwrap()..=at].fill(0);
            hole[at..(at + usize::try_from(sector).unwrap()).min(whole.len())].fill(0);
            for bytes in [whole[..at].to_vec(), tail, head, hole] {
                if bytes == whole {
                    continue;
                }
                std::fs::write(&path, &bytes).unwrap();
                assert_eq!(all(&open(temp.path()).1), expected, "torn at {at}");
            }
        }
    }
    let kept = std::fs::read(temp.path().join("journal.damaged")).unwrap();
    assert!(kept.windows(planted.len()).any(|window| window == planted), "what was cut off is kept");
}

#[test]
fn damaged_parts_are_kept_up_to_a_limit_and_privately() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = temp.path().join(NAME);
    drop(open(temp.path()));
    let append = |bytes: &[u8]| {
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(bytes, HEAD_LEN).unwrap();
        drop(open(temp.path()));
        std::fs::read(temp.path().join("journal.damaged")).unwrap()
    };
    assert!(append(b"first").ends_with(b"\n-- bytes 8192 to 8197 of journal:\nfirst"));
    let kept = append(b"second");
    assert!(kept.ends_with(b"second") && kept.windows(5).any(|window| window == b"first"));
    let kept = append(&vec![b'x'; 17 << 20]);
    assert!(kept.len() == 16 << 20 && kept.ends_with(b"xxx") && !kept.windows(5).any(|window| window == b"first"));
    for name in [NAME, "journal.damaged"] {
        assert_eq!(temp.path().join(name).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn key_outlives_the_loss_of_either_copy() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (mut journal, _) = open(temp.path());
    say(&mut journal, &[("a", Some(b"1"))]);
    let path = temp.path().join(NAME);
    let whole = std::fs::read(&path).unwrap();
    for lost in [0..4096, 4096..8192] {
        let mut bytes = whole.clone();
        bytes[lost].fill(0xA5);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(all(&open(temp.path()).1), model(&[("a", b"1")]));
        assert_eq!(std::fs::read(&path).unwrap(), whole, "the other copy is repaired");
    }
    let mut bytes = whole.clone();
    bytes[..8192].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let error = Journal::open(temp.path(), NAME, Values::Hold).unwrap_err().to_string();
    assert!(error.contains("its key is lost") && error.contains("move it away"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "the file is unchanged");
}

#[test]
fn foreign_file_is_left_alone() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(temp.path().join(NAME), "something of the user's").unwrap();
    assert!(Journal::open(temp.path(), NAME, Values::Hold).unwrap_err().to_string().contains("move it away"));
    assert_eq!(std::fs::read(temp.path().join(NAME)).unwrap(), b"something of the user's");
    for (make, part) in [(true, "Is a directory"), (false, "symbolic link")] {
        std::fs::remove_file(temp.path().join(NAME)).unwrap();
        if make {
            std::fs::create_dir(temp.path().join(NAME)).unwrap();
        } else {
            std::os::unix::fs::symlink("/nowhere", temp.path().join(NAME)).unwrap();
        }
        let error = Journal::open(temp.path(), NAME, Values::Hold).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(temp.path().to_str().unwrap()), "{error}");
        if make {
            std::fs::remove_dir(temp.path().join(NAME)).unwrap();
            std::fs::write(temp.path().join(NAME), "").unwrap();
        }
    }
}

#[test]
fn after_a_full_disk_nothing_half_written_is_read() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (mut journal, _) = open(temp.path());
    say(&mut journal, &[("a", Some(b"1"))]);
    // The file behaves as on a full disk.
    let path = temp.path().join(NAME);
    let writable = std::mem::replace(&mut journal.file, File::open(&path).unwrap());
    assert!(journal.append(&mut batch(&[("a", Some(b"2"))])).is_err());
    // Half of the batch was written, followed by an entry that was never acknowledged.
    let mut late = b"half".to_vec();
    journal::write(&mut late, &journal.key, journal.end + 4, "a", Some(b"never said"));
    writable.write_all_at(&late, journal.end).unwrap();
    journal.file = writable;
    say(&mut journal, &[("b", Some(b"3"))]);
    assert_eq!(all(&open(temp.path()).1), model(&[("a", b"1"), ("b", b"3")]));
}

#[test]
fn append_within_the_reserved_space_does_not_change_the_length() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (mut journal, _) = open(temp.path());
    let len = || temp.path().join(NAME).metadata().unwrap().len();
    let mut lens = std::collections::BTreeSet::new();
    for _ in 0..300 {
        say(&mut journal, &[("a", Some(&[7; 10_000]))]);
        lens.insert(len());
    }
    assert_eq!(lens.into_iter().collect::<Vec<_>>(), [1 << 20, 2 << 20, 3 << 20]);
    assert_eq!(all(&open(temp.path()).1), model(&[("a", &[7; 10_000])]));
}

#[test]
fn compaction_with_appends_may_end_at_any_step() {
    let large = |byte: u8| vec![byte; 700 << 10];
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (mut journal, _) = open(temp.path());
    let mut expected = Model::new();
    for name in ["large one", "large two", "large three"] {
        say(&mut journal, &[(name, Some(&large(1)))]);
        expected.insert(name.to_owned(), large(1));
    }
    for number in 0..50_u8 {
        let name = format!("small {}", number % 20);
        say(&mut journal, &[(&name, Some(&[number; 100]))]);
        expected.insert(name, vec![number; 100]);
    }
    let mut compaction = Compaction::default();
    let mut steps = 0_u8;
    loop {
        // Between any two steps an entry is appended, in several steps; the process may end after any of them.
        let name = ["small 3", "large two", "new", "large one", "small 4"][usize::from(steps % 5)];
        let value = match steps % 7 {
            6 => None,
            _ if name.starts_with("large") && steps < 30 => Some(large(steps)),
            _ => Some(vec![steps; 10]),
        };
        let before = expected.clone();
        let mut batch = batch(&[(name, value.as_deref())]);
        match value {
            Some(value) => expected.insert(name.to_owned(), value),
            None => expected.remove(name),
        };
        while journal.append(&mut batch).unwrap() != Step::Done {
            let copy = copy_of(temp.path());
            let found = all(&open(copy.path()).1);
            assert!(found == before || found == expected, "in mid-append, step {steps}");
            // The compaction continues between the steps of an append, but does not replace the file then.
            if steps.is_multiple_of(2) {
                assert_ne!(compaction.step(&mut journal).unwrap(), Step::Done);
            }
        }
        let copy = copy_of(temp.path());
        assert!(all(&open(copy.path()).1) == expected, "step {steps}");
        assert!(left(copy.path()) == expected, "step {steps}");
        let step = compaction.step(&mut journal).unwrap();
        let copy = copy_of(temp.path());
        assert!(all(&open(copy.path()).1) == expected, "step {steps}");
        steps += 1;
        if step == Step::Done {
            break;
        }
        assert!(steps < 200, "compaction does not end");
    }
    assert!(steps > 5, "{steps} steps only");
    assert!(journal.names().eq(expected.keys()));
    assert!(expected.iter().all(|(name, value)| journal.read(name).unwrap().as_ref() == Some(value)));
    assert!(!temp.path().join("journal.new").exists());
    say(&mut journal, &[("last", Some(b"1"))]);
    expected.insert("last".into(), b"1".to_vec());
    assert!(all(&open(temp.path()).1) == expected);
}

#[test]
fn failed_compaction_leaves_the_file_as_it_is_and_is_not_tried_at_once() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let (mut journal, _) = open(temp.path());
    let large = vec![7; 3 << 20];
    (0..3).for_each(|_| say(&mut journal, &[("a", Some(&large))]));
    assert!(journal.is_stale());
    std::fs::create_dir(temp.path().join("journal.new")).unwrap();
    let fault = Compaction::default().step(&mut journal).unwrap_err();
    assert!(fault.message.contains("journal"), "{fault}");
    assert!(!journal.is_stale());
    std::fs::remove_dir(temp.path().join("journal.new")).unwrap();
    (0..2).for_each(|_| say(&mut journal, &[("a", Some(&large))]));
    assert!(journal.is_stale());
    compact(&mut journal);
    assert_eq!(all(&open(temp.path()).1), model(&[("a", &large)]));
}

#[test]
fn entry_damaged_since_the_start_is_kept_aside_by_compaction_and_costs_no_other() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let large = vec![7; 700 << 10];
    for header in [true, false] {
        let (mut journal, _) = open(temp.path());
        say(&mut journal, &[("a", Some(b"1")), ("b", Some(&large)), ("c", Some(b"3"))]);
        let range = journal.live["b"].clone();
        let at = if header { range.start + 5 } else { range.end - 9 };
        journal.file.write_all_at(b"!", at).unwrap();
        assert_eq!(journal.read("b").unwrap_err().to_string(), "it is damaged");
        compact(&mut journal);
        assert_eq!(journal.read("b").unwrap(), None);
        drop(journal);
        assert_eq!(all(&open(temp.path()).1), model(&[("a", b"1"), ("c", b"3")]));
        assert!(temp.path().join("journal.damaged").metadata().unwrap().len() > 700 << 10);
    }
}

#[test]
fn journal_of_0_1_0_is_rewritten_once() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = temp.path().join(NAME);
    let mut bytes = v1::HEAD.to_vec();
    for (name, value) in [("a", Some(&b"1"[..])), ("b", Some(b"2")), ("a", Some(b"3")), ("b", None)] {
        v1::write(&mut bytes, name, value);
    }
    bytes.extend(b"\xFFsj\ntorn");
    std::fs::write(&path, &bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).unwrap();
    // A crash before the rename leaves the old file and an unfinished new one.
    std::fs::write(temp.path().join("journal.new"), b"half").unwrap();
    assert_eq!(all(&open(temp.path()).1), model(&[("a", b"3")]));
    assert!(std::fs::read(&path).unwrap().starts_with(b"swarm journal 2\n"));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read(temp.path().join("journal.damaged")).unwrap().ends_with(b"\xFFsj\ntorn"));
    assert_eq!(all(&open(temp.path()).1), model(&[("a", b"3")]));
    assert!(!temp.path().join("journal.new").exists());
    // A journal that was torn in its head, or is empty, has no entry.
    for cut in 0..=v1::HEAD.len() {
        std::fs::write(&path, &v1::HEAD[..cut]).unwrap();
        assert_eq!(all(&open(temp.path()).1), Model::new());
    }
}

/// The vector is a journal that version 0.1.0 wrote of the DHT and of a torrent that was added by a magnet link with
/// `label=mine dir=/srv/isos`.
#[test]
fn real_journal_of_0_1_0_is_read() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(temp.path().join(NAME), include_bytes!("../../../tests/vectors/journal-0.1.0")).unwrap();
    let (_, records) = open(temp.path());
    let names: Vec<_> = records.with_prefix("").map(|(name, _)| name).collect();
    assert_eq!(names, ["torrent 0123456789abcdef0123456789abcdef01234567"]);
    let record = Record::parse(records.get(names[0]).unwrap()).unwrap();
    assert_eq!((record.label.as_str(), record.dir.as_path()), ("mine", Path::new("/srv/isos")));
    assert!(!temp.path().join("journal.damaged").exists());
}

#[test]
fn relative_directories_of_0_1_0_are_resolved_against_the_working_directory() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let bytes = include_bytes!("../../../tests/vectors/journal-0.1.0");
    let contents = v1::read(bytes).unwrap();
    let (name, value) = contents.values.first_key_value().unwrap();
    // The value is the same record with a relative directory of the same length.
    let mut value = value.to_vec();
    let at = value.windows(9).position(|window| window == b"/srv/isos").unwrap();
    value[at..at + 9].copy_from_slice(b"some/isos");
    let crc = crc32c::crc32c(&value[12..]);
    value[8..12].copy_from_slice(&crc.to_be_bytes());
    let mut bytes = v1::HEAD.to_vec();
    v1::write(&mut bytes, name, Some(&value));
    v1::write(&mut bytes, "followed", Some(b"ld3:dir1:x4:link8:magnet:?7:torrent20:aaaaaaaaaaaaaaaaaaaaee"));
    std::fs::write(temp.path().join(NAME), &bytes).unwrap();
    let (_, records) = open(temp.path());
    let here = std::env::current_dir().unwrap();
    assert_eq!(Record::parse(records.get(name).unwrap()).unwrap().dir, here.join("some/isos"));
    let kept = crate::codec::followed::parse(records.get("followed").unwrap()).unwrap();
    assert_eq!(kept[0].dir, here.join("x"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_appends_compactions_and_restarts_keeps_the_newest_values(
        steps in proptest::collection::vec((0..8_u8, proptest::option::of(0..400_usize), 0..6_u8), 0..60),
    ) {
        let temp = tempfile::tempdir_in("/dev/shm").unwrap();
        let (mut journal, _) = open(temp.path());
        let mut expected = Model::new();
        let mut compaction: Option<Compaction> = None;
        for (name, len, then) in steps {
            let (name, value) = (format!("name {name}"), len.map(|len| vec![name; len * len]));
            say(&mut journal, &[(&name, value.as_deref())]);
            match value {
                Some(value) => expected.insert(name, value),
                None => expected.remove(&name),
            };
            match then {
                0 => {
                    compaction = None;
                    let (again, records) = open(temp.path());
                    journal = again;
                    prop_assert!(all(&records) == expected);
                }
                1 if compaction.is_none() => compaction = Some(Compaction::default()),
                _ => {}
            }
            if let Some(under_way) = &mut compaction
                && under_way.step(&mut journal).unwrap() == Step::Done
            {
                compaction = None;
            }
            prop_assert!(journal.names().eq(expected.keys()));
        }
        drop(journal);
        prop_assert!(left(temp.path()) == expected);
    }
}

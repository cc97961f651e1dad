use proptest::prelude::*;

use super::*;

const KEY: Key = Key([3; 16]);

fn file(entries: &[(&str, Option<&[u8]>)]) -> (Vec<u8>, Vec<u64>) {
    let mut bytes = head(&KEY);
    let mut ends = vec![bytes.len() as u64];
    for (name, value) in entries {
        let at = bytes.len() as u64;
        write(&mut bytes, &KEY, at, name, *value);
        ends.push(bytes.len() as u64);
    }
    (bytes, ends)
}

fn scanned(bytes: &[u8]) -> Contents {
    scan(bytes, bytes.len() as u64, &KEY, Verify::All).unwrap()
}

fn names(contents: &Contents) -> Vec<&str> {
    contents.entries.iter().map(|entry| entry.name.as_str()).collect()
}

proptest! {
    #[test]
    fn entry_is_read_back_as_it_was_written(
        name in ".{0,40}",
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
        at: u64,
        after in proptest::collection::vec(any::<u8>(), 0..9),
    ) {
        let mut bytes = Vec::new();
        write(&mut bytes, &KEY, at, &name, value.as_deref());
        let len = bytes.len();
        bytes.extend(after);
        let (header, read) = parse(&KEY, at, &bytes).unwrap();
        prop_assert_eq!((header.name, header.value_len, header.entry_len()), (&*name, value.as_ref().map(Vec::len), len));
        prop_assert_eq!(read, value.as_deref().unwrap_or_default());
        prop_assert_eq!(parse(&KEY, at ^ 1, &bytes), None, "the check fails at another offset");
        prop_assert_eq!(parse(&Key([4; 16]), at, &bytes), None, "the check fails with another key");
    }

    #[test]
    fn damaged_entry_does_not_check(at: usize, flip in 1..=255_u8, cut: usize) {
        let mut bytes = Vec::new();
        write(&mut bytes, &KEY, 9, "name", Some(b"value"));
        let mut damaged = bytes.clone();
        damaged[at % bytes.len()] ^= flip;
        prop_assert_eq!(parse(&KEY, 9, &damaged), None);
        prop_assert_eq!(parse(&KEY, 9, &bytes[..cut % bytes.len()]), None);
    }
}

#[test]
fn file_cut_at_any_byte_has_what_was_whole() {
    let (bytes, ends) = file(&[("a", Some(b"1")), ("b", None), ("c", Some(b"333"))]);
    for cut in usize::try_from(HEAD_LEN).unwrap()..=bytes.len() {
        let contents = scanned(&bytes[..cut]);
        let whole = ends.iter().filter(|end| **end <= cut as u64).count() - 1;
        assert_eq!((contents.entries.len(), contents.end), (whole, ends[whole]), "cut at {cut}");
        assert_eq!((contents.torn_end > contents.end, contents.damage.len()), (cut as u64 > ends[whole], 0));
    }
}

#[test]
fn zeros_at_the_end_are_free_space_and_zeros_between_entries_are_damage() {
    let (mut bytes, ends) = file(&[("a", Some(b"1")), ("b", Some(b"2")), ("c", Some(b"3"))]);
    let end = bytes.len() as u64;
    bytes.extend([0; 5000]);
    let contents = scanned(&bytes);
    assert_eq!((contents.end, contents.torn_end, contents.damage.len()), (end, end, 0));
    bytes[usize::try_from(ends[1]).unwrap()..usize::try_from(ends[2]).unwrap()].fill(0);
    let contents = scanned(&bytes);
    assert_eq!((names(&contents), contents.end, contents.torn_end), (vec!["a", "c"], end, end));
    assert_eq!(contents.damage, [Damage { range: ends[1]..ends[2], name: None }]);
}

#[test]
fn damaged_value_is_reported_with_its_name_and_skipped() {
    let (mut bytes, ends) = file(&[("a", Some(b"1")), ("b", Some(b"2"))]);
    bytes[usize::try_from(ends[1]).unwrap() - 1] ^= 1;
    let contents = scanned(&bytes);
    assert_eq!(names(&contents), ["b"]);
    assert_eq!(contents.damage, [Damage { range: ends[0]..ends[1], name: Some("a".into()) }]);
}

#[test]
fn unverified_values_are_not_read_but_the_last_ones_are() {
    struct Counted<'a>(&'a [u8], std::cell::Cell<usize>);
    impl Source for Counted<'_> {
        fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
            self.1.set(self.1.get() + buf.len());
            self.0.read_at(buf, at)
        }
    }
    let large = vec![7; 1 << 20];
    let (mut bytes, ends) = file(&[("a", Some(&large)), ("b", Some(&large)), ("c", Some(b"3"))]);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let source = Counted(&bytes, std::cell::Cell::new(0));
    let contents = scan(&source, bytes.len() as u64, &KEY, Verify::Last(0)).unwrap();
    assert_eq!((names(&contents), contents.end), (vec!["a", "b"], ends[2]), "the last one is torn");
    assert!(source.1.get() < 10_000, "{} bytes were read", source.1.get());
    let contents = scan(&source, bytes.len() as u64, &KEY, Verify::Last(2 << 20)).unwrap();
    assert_eq!(names(&contents), ["a", "b"]);
    assert!(source.1.get() > 1 << 20);
}

#[test]
fn head_survives_the_loss_of_either_copy() {
    let head = head(&KEY);
    assert_eq!(parse_head(&head), Some((KEY, true)));
    for at in 0..COPY_LEN {
        for copy in [0, usize::try_from(COPY_STEP).unwrap()] {
            let mut damaged = head.clone();
            damaged[copy + at] ^= 0x10;
            assert_eq!(parse_head(&damaged), Some((KEY, false)), "copy {copy}, byte {at}");
            damaged[(copy ^ usize::try_from(COPY_STEP).unwrap()) + at] ^= 0x10;
            assert_eq!(parse_head(&damaged), None);
        }
    }
    assert_eq!(parse_head(&head[..COPY_LEN - 1]), None);
}

#[test]
fn search_finds_a_header_across_its_windows() {
    for gap in [WINDOW_LEN - 20, WINDOW_LEN, WINDOW_LEN + HEADER_LEN_MAX + 5] {
        let mut bytes = head(&KEY);
        bytes.extend(vec![MARK[0]; gap]);
        let at = bytes.len() as u64;
        write(&mut bytes, &KEY, at, "found", Some(b"1"));
        let contents = scanned(&bytes);
        assert_eq!((names(&contents), contents.damage[0].range.clone()), (vec!["found"], HEAD_LEN..at));
    }
}

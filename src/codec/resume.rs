//! The resume record of one torrent: what is on the disk for certain, what the user said about it, and as much of its description as a
//! torrent needs that nobody wants anything of.
//!
//! A bencoded dictionary behind its CRC-32C. A record that is damaged in any way is no record: the content is hashed again, and
//! nothing else is lost. The metainfo is kept apart from it. Directories are absolute: a record that names a relative one is no record.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::base::bitfield::Bitfield;
use crate::base::geometry::{BLOCK_LEN, Geometry, Piece};
use crate::base::hash::{InfoHash, Sha1Hash, Sha256Hash, StId};
use crate::base::names::{self, Names};
use crate::base::storage::Stamp;
use crate::codec::bencode::{self, Dict, DictWriter, Value, write_bytes, write_int};
use crate::codec::metainfo::{FILES_MAX, Metainfo};
use crate::codec::stamps::PackedStamps;

/// What stands before the checksum.
const MAGIC: &[u8; 8] = b"swarm 1\n";

/// A piece of which some blocks were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialPiece {
    /// Which.
    pub piece: Piece,
    /// A bit a block.
    pub blocks: Bitfield,
}

/// What is known of a torrent without its metainfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The wire hash.
    pub info_hash: InfoHash,
    /// SHA-256 of `info`, of a `.st`.
    pub st_id: Option<StId>,
    /// The advisory name; escape it before showing it.
    pub name: String,
    /// How the content is divided.
    pub geometry: Geometry,
    /// Only its trackers may name peers (BEP 27).
    pub private: bool,
    /// Bytes of `info`.
    pub info_len: u32,
    /// How many files there are, pad files among them.
    pub files: usize,
    /// The first component of their paths: the file or directory that holds everything.
    pub top: PathBuf,
}

impl Head {
    /// What is to be known of `meta`.
    #[must_use]
    pub fn of(meta: &Metainfo) -> Self {
        let top = meta.files.first().and_then(|file| file.path.components().next());
        Self {
            info_hash: meta.info_hash,
            st_id: meta.st_id,
            name: meta.name.clone(),
            geometry: meta.geometry,
            private: meta.private,
            info_len: u32::try_from(meta.info.len()).unwrap_or(u32::MAX),
            files: meta.files.len(),
            top: top.map_or_else(PathBuf::new, |top| PathBuf::from(top.as_os_str())),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut dict = DictWriter::begin(out);
        dict.int("files", int(self.files as u64));
        dict.int("info length", i64::from(self.info_len));
        dict.bytes("name", self.name.as_bytes());
        dict.int("piece length", i64::from(self.geometry.piece_len()));
        dict.int("private", i64::from(self.private));
        if let Some(st_id) = self.st_id {
            dict.bytes("st id", &st_id.0);
        }
        dict.bytes("top", self.top.as_os_str().as_bytes());
        dict.int("total length", int(self.geometry.total_len()));
        dict.end();
    }

    fn read(dict: &Dict<'_>, info_hash: InfoHash) -> Option<Self> {
        let total_len = u64::try_from(dict.int(b"total length")?).ok()?;
        let piece_len = u32::try_from(dict.int(b"piece length")?).ok()?;
        Some(Self {
            info_hash,
            st_id: dict.bytes(b"st id").map(|id| id.try_into().map(Sha256Hash)).transpose().ok()?,
            name: String::from_utf8(dict.bytes(b"name")?.to_vec()).ok()?,
            geometry: Geometry::new(total_len, piece_len)?,
            private: dict.int(b"private") == Some(1),
            info_len: u32::try_from(dict.int(b"info length")?).ok()?,
            files: usize::try_from(dict.int(b"files")?).ok()?,
            top: PathBuf::from(OsStr::from_bytes(dict.bytes(b"top")?)),
        })
    }
}

/// Everything that the next run must know of a torrent.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Whose record it is.
    pub info_hash: InfoHash,
    /// None while only a link is known of it; nothing is said of content then.
    pub head: Option<Head>,
    /// Its trackers, by tier.
    pub trackers: Vec<Vec<String>>,
    /// Pieces that were verified and are on the disk.
    pub have: Bitfield,
    /// Pieces in progress.
    pub partials: Vec<PartialPiece>,
    /// The files as they looked when the record was written.
    pub stamps: PackedStamps,
    /// By file, 0 (off) to 3 (high); empty if all are normal.
    pub priorities: Vec<u8>,
    /// Where the content is.
    pub dir: PathBuf,
    /// `set label`.
    pub label: String,
    /// Unix seconds.
    pub added: u64,
    /// When everything wanted was here first, Unix seconds.
    pub finished: Option<u64>,
    /// Everything wanted was here once, and that was told. A record without it that says when it was finished means the same.
    pub told_finished: bool,
    /// Files, by index, that the torrent has written to, and that may still be longer than they should be.
    pub written: Vec<usize>,
    /// Payload ever received, bytes.
    pub downloaded: u64,
    /// Payload ever sent, bytes.
    pub uploaded: u64,
    /// The user stopped it.
    pub paused: bool,
    /// It lies in a share directory.
    pub shared: bool,
    /// `set sequential`.
    pub sequential: bool,
    /// `set down-limit`, bytes a second; as the next five it is none where the user has not set it.
    pub down_limit: Option<u64>,
    /// `set up-limit`, bytes a second.
    pub up_limit: Option<u64>,
    /// `set max-peers`.
    pub max_peers: Option<u64>,
    /// `set ratio`, in thousandths.
    pub ratio_millis: Option<u64>,
    /// `set seed-time`, seconds.
    pub seed_time: Option<u64>,
    /// `set idle-time`, seconds.
    pub idle_time: Option<u64>,
    /// What the user has not set is none. Otherwise it is what the config said when the torrent was added: so did versions that
    /// knew of no rules.
    pub explicit: bool,
    /// How long it has seeded, seconds.
    pub seeded: Option<u64>,
    /// The goal of seeding was reached.
    pub seeded_enough: bool,
    /// It was that nobody took anything.
    pub idle_enough: bool,
    /// The user started it again after that.
    pub seeds_on: bool,
    /// All files have room.
    pub allocated: bool,
    /// It was written at a clean end: nothing was written to the content since.
    pub clean: bool,
    /// Its rank in the queue.
    pub queue: Option<i64>,
    /// `set super-seed`.
    pub super_seed: bool,
    /// It was being hashed: what is not claimed may be there all the same.
    pub checking: bool,
    /// The content is being moved there, or was about to be: some of it may be there.
    pub move_to: Option<PathBuf>,
    /// The content was moved from there, and some of it may be left.
    pub move_from: Option<PathBuf>,
    /// Names that the user gave to its files.
    pub names: Names,
    /// Those that they are about to have, if a file is being renamed.
    pub next_names: Option<Names>,
    /// The user wants the content moved there; it is not known yet whether that is possible.
    pub move_wanted: Option<PathBuf>,
    /// Whether the move to `move_to` goes back.
    pub move_undo: bool,
    /// Whether the user removed the torrent, with its data if true; something that was under way had to end first.
    pub remove_after: Option<bool>,
    /// The user took it out together with its content, which is being deleted.
    pub removing: bool,
    /// Another torrent owns some of its files, and was added before it: what `torrent/path_conflict.rs` keeps of that. `None` if
    /// it is the owner, as in records of versions without the key.
    pub second: Option<u64>,
}

impl Record {
    /// The record's bytes.
    ///
    /// # Panics
    /// If a directory is relative.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        assert!(self.dirs().all(Path::is_absolute), "a record must not depend on the daemon's working directory");
        let mut body = Vec::new();
        let mut dict = DictWriter::begin(&mut body);
        dict.int("added", int(self.added));
        dict.int("allocated", i64::from(self.allocated));
        if self.checking {
            dict.int("checking", 1);
        }
        dict.int("clean", i64::from(self.clean));
        dict.bytes("dir", self.dir.as_os_str().as_bytes());
        maybe(&mut dict, "down limit", self.down_limit);
        dict.int("downloaded", int(self.downloaded));
        dict.int("explicit", i64::from(self.explicit));
        maybe(&mut dict, "finished", self.finished);
        if self.told_finished {
            dict.int("finished told", 1);
        }
        dict.bytes("have", self.have.as_bytes());
        if let Some(head) = &self.head {
            head.write(dict.key("head"));
        }
        dict.int("idle enough", i64::from(self.idle_enough));
        maybe(&mut dict, "idle time", self.idle_time);
        dict.bytes("info hash", &self.info_hash.0);
        dict.bytes("label", self.label.as_bytes());
        dict.bytes("looks", self.stamps.as_bytes());
        maybe(&mut dict, "max peers", self.max_peers);
        for (key, dir) in [("move from", &self.move_from), ("move to", &self.move_to)] {
            if let Some(dir) = dir {
                dict.bytes(key, dir.as_os_str().as_bytes());
            }
        }
        if self.move_undo {
            dict.int("move undo", 1);
        }
        if let Some(dir) = &self.move_wanted {
            dict.bytes("move wanted", dir.as_os_str().as_bytes());
        }
        if !self.names.is_empty() {
            write_names(dict.key("names"), &self.names);
        }
        if let Some(names) = &self.next_names {
            write_names(dict.key("next names"), names);
        }
        let list = dict.key("partial");
        list.push(b'l');
        for partial in &self.partials {
            write_int(list, i64::from(partial.piece.0));
            write_bytes(list, partial.blocks.as_bytes());
        }
        list.push(b'e');
        dict.int("paused", i64::from(self.paused));
        dict.bytes("priorities", &self.priorities);
        if let Some(rank) = self.queue {
            dict.int("queue", rank);
        }
        maybe(&mut dict, "ratio", self.ratio_millis);
        if let Some(data) = self.remove_after {
            dict.int("remove after", i64::from(data));
        }
        if self.removing {
            dict.int("removing", 1);
        }
        maybe(&mut dict, "second", self.second);
        maybe(&mut dict, "seed time", self.seed_time);
        maybe(&mut dict, "seeded", self.seeded);
        dict.int("seeded enough", i64::from(self.seeded_enough));
        dict.int("seeds on", i64::from(self.seeds_on));
        dict.int("sequential", i64::from(self.sequential));
        dict.int("shared", i64::from(self.shared));
        dict.int("super seed", i64::from(self.super_seed));
        let tiers = dict.key("trackers");
        tiers.push(b'l');
        for tier in &self.trackers {
            tiers.push(b'l');
            tier.iter().for_each(|url| write_bytes(tiers, url.as_bytes()));
            tiers.push(b'e');
        }
        tiers.push(b'e');
        maybe(&mut dict, "up limit", self.up_limit);
        dict.int("uploaded", int(self.uploaded));
        if !self.written.is_empty() {
            let list = dict.key("written");
            list.push(b'l');
            self.written.iter().for_each(|file| write_int(list, int(*file as u64)));
            list.push(b'e');
        }
        dict.end();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(crc32c::crc32c(&body).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// The directories that it names.
    fn dirs(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.dir), self.move_to.as_ref(), self.move_from.as_ref()].into_iter().flatten().map(PathBuf::as_path)
    }

    /// The record with absolute directories, which `absolute` gives. `None` if it does not.
    pub fn resolved(mut self, absolute: impl Fn(&Path) -> Option<PathBuf>) -> Option<Self> {
        let dirs = [Some(&mut self.dir), self.move_to.as_mut(), self.move_from.as_mut()];
        for dir in dirs.into_iter().flatten() {
            *dir = absolute(dir).filter(|dir| dir.is_absolute())?;
        }
        Some(self)
    }

    /// Reads a record. `None` if it is damaged, or names a relative directory.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Self::parse_relative(bytes).filter(|record| record.dirs().all(Path::is_absolute))
    }

    /// Reads a record of version 0.1.0, where directories could be relative to the daemon's working directory: see
    /// [`Record::resolved`]. `None` if it is damaged.
    #[must_use]
    pub fn parse_relative(bytes: &[u8]) -> Option<Self> {
        let (crc, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let document = bencode::parse_canonical(body, bencode::VALUES_MAX).ok()?;
        let dict = document.as_dict()?;
        let number = |key: &[u8]| dict.int(key).and_then(|int| u64::try_from(int).ok());
        let flag = |key: &[u8]| dict.int(key) == Some(1);
        let url = |url: &Value<'_>| String::from_utf8(url.as_bytes()?.to_vec()).ok();
        let tier = |tier: &Value<'_>| tier.as_list()?.iter().map(url).collect::<Option<Vec<_>>>();
        let index = |file: &Value<'_>| file.as_int().and_then(|file| usize::try_from(file).ok());
        let path = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
        let partial = |geometry: &Geometry, pair: &[Value<'_>]| {
            let piece = Piece(u32::try_from(pair.first()?.as_int()?).ok()?);
            let blocks = geometry.contains(piece).then(|| geometry.len_of(piece).div_ceil(BLOCK_LEN))?;
            Some(PartialPiece { piece, blocks: Bitfield::from_bytes(pair.get(1)?.as_bytes()?, blocks)? })
        };
        let info_hash = Sha1Hash(dict.bytes(b"info hash")?.try_into().ok()?);
        let head = match dict.get(b"head") {
            Some(head) => Some(Head::read(head.as_dict()?, info_hash)?),
            None => None,
        };
        let (have, partials, stamps, priorities) = match head.as_ref().map(|head| &head.geometry) {
            Some(geometry) => {
                let stamps = match dict.bytes(b"looks") {
                    Some(packed) => PackedStamps::parse(packed, FILES_MAX)?,
                    None => {
                        let (stamps, []) = dict.bytes(b"stamps")?.as_chunks() else { return None };
                        stamps.iter().map(read_stamp).collect()
                    }
                };
                (
                    Bitfield::from_bytes(dict.bytes(b"have")?, geometry.pieces())?,
                    dict.list(b"partial")?.chunks(2).map(|pair| partial(geometry, pair)).collect::<Option<_>>()?,
                    stamps,
                    dict.bytes(b"priorities")?.to_vec(),
                )
            }
            None => (Bitfield::default(), Vec::new(), PackedStamps::default(), Vec::new()),
        };
        Some(Self {
            info_hash,
            head,
            trackers: dict.list(b"trackers")?.iter().map(tier).collect::<Option<_>>()?,
            have,
            partials,
            stamps,
            priorities,
            dir: PathBuf::from(OsStr::from_bytes(dict.bytes(b"dir")?)),
            label: String::from_utf8(dict.bytes(b"label")?.to_vec()).ok()?,
            added: number(b"added")?,
            finished: number(b"finished"),
            told_finished: flag(b"finished told"),
            written: dict.list(b"written").map(|files| files.iter().filter_map(index).collect()).unwrap_or_default(),
            downloaded: number(b"downloaded")?,
            uploaded: number(b"uploaded")?,
            paused: flag(b"paused"),
            sequential: flag(b"sequential"),
            shared: flag(b"shared"),
            down_limit: number(b"down limit"),
            up_limit: number(b"up limit"),
            max_peers: number(b"max peers"),
            ratio_millis: number(b"ratio"),
            seed_time: number(b"seed time"),
            idle_time: number(b"idle time"),
            explicit: flag(b"explicit"),
            seeded: number(b"seeded"),
            seeded_enough: flag(b"seeded enough"),
            idle_enough: flag(b"idle enough"),
            seeds_on: flag(b"seeds on"),
            allocated: flag(b"allocated"),
            clean: flag(b"clean"),
            queue: dict.int(b"queue"),
            super_seed: flag(b"super seed"),
            checking: flag(b"checking"),
            move_to: dict.bytes(b"move to").map(path),
            move_from: dict.bytes(b"move from").map(path),
            names: dict.get(b"names").map_or_else(|| Some(Names::default()), read_names)?,
            next_names: match dict.get(b"next names") {
                Some(names) => Some(read_names(names)?),
                None => None,
            },
            move_wanted: dict.bytes(b"move wanted").map(path),
            move_undo: flag(b"move undo"),
            remove_after: dict.int(b"remove after").map(|data| data == 1),
            removing: flag(b"removing"),
            second: number(b"second"),
        })
    }
}

/// A list: the name of what holds everything, or an empty string; then the index and the name of each file.
fn write_names(out: &mut Vec<u8>, names: &Names) {
    out.push(b'l');
    write_bytes(out, names.top.as_deref().unwrap_or_default().as_bytes());
    for (file, name) in &names.files {
        write_int(out, int(*file as u64));
        write_bytes(out, name.as_bytes());
    }
    out.push(b'e');
}

fn read_names(value: &Value<'_>) -> Option<Names> {
    let (top, files) = value.as_list()?.split_first()?;
    let name = |value: &Value<'_>| {
        let name = OsStr::from_bytes(value.as_bytes()?);
        names::is_safe(name).then(|| name.to_owned())
    };
    let file = |pair: &[Value<'_>]| Some((usize::try_from(pair.first()?.as_int()?).ok()?, name(pair.get(1)?)?));
    let top = if top.as_bytes()?.is_empty() { None } else { Some(name(top)?) };
    Some(Names { top, files: files.chunks(2).map(file).collect::<Option<_>>()? })
}

/// A stamp as earlier versions wrote it: its length, time and inode, eight bytes each with the high one first.
fn read_stamp(bytes: &[u8; 24]) -> Stamp {
    let [len, modified, inode] = bytes.as_chunks::<8>().0 else { unreachable!("three times eight bytes") };
    Stamp {
        len: u64::from_be_bytes(*len),
        modified_nanos: i64::from_be_bytes(*modified),
        inode: u64::from_be_bytes(*inode),
    }
}

fn maybe(dict: &mut DictWriter<'_>, key: &str, number: Option<u64>) {
    if let Some(number) = number {
        dict.int(key, int(number));
    }
}

/// Counters stay below 2⁶³.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        let mut have = Bitfield::new(11);
        have.set(3);
        let mut blocks = Bitfield::new(3);
        blocks.set(1);
        Record {
            info_hash: InfoHash::of(b"x"),
            head: Some(Head {
                info_hash: InfoHash::of(b"x"),
                st_id: Some(StId::of(b"x")),
                name: "n".into(),
                geometry: Geometry::new(10 * 40_000 + 5, 40_000).unwrap(),
                private: true,
                info_len: 99,
                files: 1,
                top: "t".into(),
            }),
            trackers: vec![vec!["http://a".into(), "http://b".into()], vec!["udp://c".into()]],
            have,
            partials: vec![PartialPiece { piece: Piece(5), blocks }],
            stamps: PackedStamps::pack([Stamp { len: 5, modified_nanos: -7, inode: 9 }]),
            priorities: vec![0, 2, 3],
            dir: "/a/b".into(),
            label: "l".into(),
            added: 1,
            finished: Some(2),
            told_finished: true,
            written: vec![0],
            downloaded: 3,
            uploaded: 4,
            paused: true,
            sequential: false,
            shared: true,
            down_limit: Some(5),
            up_limit: Some(6),
            max_peers: Some(7),
            ratio_millis: Some(1500),
            seed_time: Some(8),
            idle_time: Some(0),
            explicit: true,
            seeded: Some(9),
            seeded_enough: false,
            idle_enough: true,
            seeds_on: true,
            allocated: true,
            clean: true,
            queue: Some(-5),
            super_seed: true,
            checking: true,
            move_to: None,
            move_from: Some("/c".into()),
            names: Names { top: Some("t".into()), files: [(1, "x".into()), (2, "y".into())].into() },
            next_names: Some(Names { top: None, files: [(1, "x".into())].into() }),
            move_wanted: Some("/e".into()),
            move_undo: true,
            remove_after: Some(true),
            removing: true,
            second: Some(2),
        }
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        assert_eq!(Record::parse(&record().to_bytes()), Some(record()));
        let unset = Record { down_limit: None, max_peers: None, ratio_millis: None, idle_time: None, ..record() };
        let other = Record {
            finished: None,
            told_finished: false,
            written: vec![],
            partials: vec![],
            paused: false,
            queue: None,
            second: None,
            explicit: false,
            move_to: Some("/d".into()),
            ..unset
        };
        assert_eq!(Record::parse(&other.to_bytes()), Some(other));
    }

    #[test]
    fn record_of_a_version_that_did_not_pack_stamps_is_read() {
        let bytes = record().to_bytes();
        let stamps = record().stamps;
        let packed = [format!("5:looks{}:", stamps.as_bytes().len()).as_bytes(), stamps.as_bytes()].concat();
        let place = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).position(|window| window == part).unwrap();
        let mut body = bytes[12..].to_vec();
        let at = place(&body, &packed);
        body.drain(at..at + packed.len());
        let [stamp] = stamps.unpack()[..] else { unreachable!("there is one file") };
        let numbers = [stamp.len.to_be_bytes(), stamp.modified_nanos.to_be_bytes(), stamp.inode.to_be_bytes()];
        let at = place(&body, b"10:super seed");
        body.splice(at..at, [&b"6:stamps24:"[..], &numbers.concat()].concat());
        let old = [&bytes[..8], &crc32c::crc32c(&body).to_be_bytes(), &body].concat();
        assert_eq!(Record::parse(&old), Some(record()));
    }

    #[test]
    fn without_a_head_it_says_nothing_of_content() {
        let settings = Record::parse(&Record { head: None, ..record() }.to_bytes()).unwrap();
        assert_eq!((settings.have.len(), settings.label.as_str(), settings.shared), (0, "l", true));
        let head = Head { geometry: Geometry::new(10 * 40_000, 16_384).unwrap(), ..record().head.unwrap() };
        assert_eq!(Record::parse(&Record { head: Some(head), ..record() }.to_bytes()), None, "of other content");
    }

    #[test]
    fn record_with_a_relative_directory_is_refused_until_it_is_resolved() {
        let bytes = record().to_bytes();
        for (absolute, relative) in [("3:dir4:/a/b", "3:dir4:./ab"), ("9:move from2:/c", "9:move from2:cc")] {
            let body = String::from_utf8_lossy(&bytes[12..]);
            assert!(body.contains(absolute), "{body}");
            let at = 12 + bytes[12..].windows(absolute.len()).position(|window| window == absolute.as_bytes()).unwrap();
            let mut changed = bytes.clone();
            changed[at..at + absolute.len()].copy_from_slice(relative.as_bytes());
            let crc = crc32c::crc32c(&changed[12..]);
            changed[8..12].copy_from_slice(&crc.to_be_bytes());
            assert_eq!(Record::parse(&changed), None);
            let resolved = Record::parse_relative(&changed).unwrap().resolved(|dir| Some(Path::new("/base").join(dir)));
            assert_eq!(Record::parse(&resolved.unwrap().to_bytes()).map(|record| record.label), Some("l".to_owned()));
            assert_eq!(Record::parse_relative(&changed).unwrap().resolved(|dir| Some(dir.to_owned())), None);
        }
    }

    #[test]
    #[should_panic(expected = "working directory")]
    fn record_with_a_relative_directory_is_not_written() {
        let _ = Record { dir: "a".into(), ..record() }.to_bytes();
    }

    proptest! {
        #[test]
        fn any_damage_makes_it_no_record(at: usize, flip in 1..=255_u8, cut: usize) {
            let bytes = record().to_bytes();
            let mut damaged = bytes.clone();
            damaged[at % bytes.len()] ^= flip;
            prop_assert_eq!(Record::parse(&damaged), None);
            prop_assert_eq!(Record::parse(&bytes[..cut % bytes.len()]), None);
        }
    }
}

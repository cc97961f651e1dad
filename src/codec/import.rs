//! What another client knew of a torrent's content, on its way from the tool to the daemon, and the metainfo with it.
//!
//! A bencoded dictionary of our own. It claims, and proves nothing: what is believed of it is decided in `torrent/import`.

use crate::codec::bencode::{self, DictWriter};

/// What says that it is one, and of which form.
const FORM: i64 = 1;

/// What the times of the files mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Evidence {
    /// Each file was changed at just this time.
    #[default]
    ChangedAt,
    /// Each file held what is claimed of it at this time: one that was changed later may not.
    HeldAt,
}

/// What is claimed of one torrent. Times in Unix seconds, rates in bytes a second.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Import {
    /// Pieces that the other client had verified, as BEP 3's `bitfield`.
    pub have: Vec<u8>,
    /// What `times` mean.
    pub evidence: Evidence,
    /// By file of the metainfo; none where nothing is known, and of such a file nothing is believed.
    pub times: Vec<Option<i64>>,
    /// By file, 0 (off) to 3 (high); empty if all are normal.
    pub priorities: Vec<u8>,
    /// When it was added; 0 if that is not known.
    pub added: u64,
    /// When everything wanted was there; 0 if it is not, or that is not known.
    pub finished: u64,
    /// Payload ever received.
    pub downloaded: u64,
    /// Payload ever sent.
    pub uploaded: u64,
    /// 0 is none.
    pub down_limit: u64,
    /// 0 is none.
    pub up_limit: u64,
    /// Stop seeding there, in thousandths; 0 where the other client had no limit of its own for it.
    pub ratio_millis: u64,
    /// In the order of the content.
    pub sequential: bool,
}

impl Import {
    /// The bytes of this and of the metainfo that it is about.
    #[must_use]
    pub fn to_bytes(&self, metainfo: &[u8]) -> Vec<u8> {
        let int = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let mut bytes = Vec::new();
        let mut dict = DictWriter::begin(&mut bytes);
        dict.int("added", int(self.added));
        dict.int("down limit", int(self.down_limit));
        dict.int("downloaded", int(self.downloaded));
        dict.int("evidence", i64::from(self.evidence == Evidence::HeldAt));
        dict.int("finished", int(self.finished));
        dict.bytes("have", &self.have);
        dict.int("import", FORM);
        dict.bytes("metainfo", metainfo);
        dict.bytes("priorities", &self.priorities);
        dict.int("ratio", int(self.ratio_millis));
        dict.int("sequential", i64::from(self.sequential));
        let times: Vec<u8> = self.times.iter().flat_map(|time| time.unwrap_or(i64::MIN).to_be_bytes()).collect();
        dict.bytes("times", &times);
        dict.int("up limit", int(self.up_limit));
        dict.int("uploaded", int(self.uploaded));
        dict.end();
        bytes
    }

    /// Reads what [`Import::to_bytes`] wrote: this, and the metainfo. None if it is something else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        // A metainfo file, which is what else may stand here, has a dictionary within it.
        let document = bencode::parse_canonical(bytes, 64).ok()?;
        let dict = document.as_dict()?;
        if dict.int(b"import") != Some(FORM) {
            return None;
        }
        let number = |key: &[u8]| dict.int(key).and_then(|int| u64::try_from(int).ok());
        let (times, []) = dict.bytes(b"times")?.as_chunks::<8>() else { return None };
        let time = |bytes: &[u8; 8]| Some(i64::from_be_bytes(*bytes)).filter(|time| *time != i64::MIN);
        let import = Self {
            have: dict.bytes(b"have")?.to_vec(),
            evidence: if dict.int(b"evidence") == Some(1) { Evidence::HeldAt } else { Evidence::ChangedAt },
            times: times.iter().map(time).collect(),
            priorities: dict.bytes(b"priorities")?.to_vec(),
            added: number(b"added")?,
            finished: number(b"finished")?,
            downloaded: number(b"downloaded")?,
            uploaded: number(b"uploaded")?,
            down_limit: number(b"down limit")?,
            up_limit: number(b"up limit")?,
            ratio_millis: number(b"ratio")?,
            sequential: dict.int(b"sequential") == Some(1),
        };
        Some((import, dict.bytes(b"metainfo")?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn import() -> Import {
        Import {
            have: vec![0xff, 0x80],
            evidence: Evidence::HeldAt,
            times: vec![Some(5), None, Some(-7)],
            priorities: vec![0, 2, 3],
            added: 1,
            finished: 2,
            downloaded: 3,
            uploaded: 4,
            down_limit: 5,
            up_limit: 6,
            ratio_millis: 1500,
            sequential: true,
        }
    }

    #[test]
    fn it_is_read_back_as_it_was_written() {
        let bytes = import().to_bytes(b"d4:infodee");
        assert_eq!(Import::parse(&bytes), Some((import(), &b"d4:infodee"[..])));
        assert_eq!(Import::parse(b"d4:infod4:name1:xee"), None, "a metainfo file is none");
    }

    proptest! {
        #[test]
        fn damage_makes_it_something_else_and_never_a_panic(at: usize, flip in 1..=255_u8, cut: usize) {
            let mut bytes = import().to_bytes(b"d4:infodee");
            let len = bytes.len();
            let _some = Import::parse(&bytes[..cut % len]);
            bytes[at % len] ^= flip;
            let _some = Import::parse(&bytes);
        }
    }
}

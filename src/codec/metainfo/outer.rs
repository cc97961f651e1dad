//! What stands beside `info`: trackers, web seeds, DHT nodes, notes for people, and keys that we only keep.
//!
//! None of it is part of a torrent's identity, so what is not as it should be is left out. Only a broken tracker table is
//! refused.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{ADDRESSES_MAX, Metainfo, MetainfoError, OTHERS_LEN_MAX, TEXT_LEN_MAX, URL_LEN_MAX, text};
use crate::codec::bencode::{self, Dict, DictWriter, Value};
use crate::codec::st;

/// The keys that a [`Metainfo`] has a field for.
const KNOWN: [&[u8]; 12] = [
    b"announce",
    b"announce-list",
    b"comment",
    b"comment.utf-8",
    b"created by",
    b"creation date",
    b"encoding",
    b"httpseeds",
    b"info",
    b"nodes",
    b"trackers",
    b"url-list",
];

impl Metainfo {
    pub(super) fn read_outer(&mut self, outer: &Dict<'_>) -> Result<(), MetainfoError> {
        self.trackers = self.read_trackers(outer)?;
        let note = |name: &[u8]| outer.bytes(name).map(|bytes| text(&bytes[..bytes.len().min(TEXT_LEN_MAX)]));
        self.comment = note(b"comment.utf-8").or_else(|| note(b"comment"));
        self.created_by = note(b"created by");
        self.encoding = note(b"encoding");
        self.creation_date = outer.int(b"creation date");
        self.web_seeds = urls(outer.get(b"url-list"));
        self.http_seeds = urls(outer.get(b"httpseeds"));
        let node = |node: &Value<'_>| {
            let pair = node.as_list()?;
            let port = u16::try_from(pair.get(1)?.as_int()?).ok().filter(|&port| port > 0)?;
            let host = pair.first()?.as_bytes().filter(|host| !host.is_empty() && host.len() <= URL_LEN_MAX)?;
            Some((text(host), port))
        };
        self.nodes = outer.list(b"nodes").unwrap_or_default().iter().filter_map(node).take(ADDRESSES_MAX).collect();
        let mut room = OTHERS_LEN_MAX;
        let unknown = outer.entries().iter().filter(|(key, _)| !KNOWN.contains(key));
        let fitting = unknown.map_while(|(key, value)| {
            room = room.checked_sub(key.len() + value.raw.len())?;
            Some(((*key).into(), value.raw.into()))
        });
        self.others = fitting.collect();
        Ok(())
    }

    /// The table first, then what `announce-list` adds, or `announce` where there is no list. A tracker that is named
    /// twice, spelled differently perhaps, keeps its first place.
    fn read_trackers(&self, outer: &Dict<'_>) -> Result<Vec<Vec<String>>, MetainfoError> {
        let mut tiers: Vec<Vec<String>> = Vec::new();
        if let Some(table) = outer.bytes(b"trackers").filter(|_| self.st_id.is_some()) {
            let table = st::parse_trackers(table)?;
            tiers.extend(table.chunk_by(|one, next| one.tier == next.tier).map(|tier| {
                tier.iter().map(st::Tracker::url).collect() // one tier
            }));
        }
        let listed = |tier: &Value<'_>| Some(tier.as_list()?.iter().filter_map(Value::as_bytes).map(text).collect());
        let listed: Vec<Vec<String>> =
            outer.list(b"announce-list").unwrap_or_default().iter().filter_map(listed).collect();
        if listed.iter().all(Vec::is_empty) {
            tiers.push(outer.bytes(b"announce").map(text).into_iter().collect());
        } else {
            tiers.extend(listed);
        }
        let mut seen = BTreeSet::new();
        for tier in &mut tiers {
            tier.retain(|url| {
                let fits = !url.is_empty() && url.len() <= URL_LEN_MAX && seen.len() < ADDRESSES_MAX;
                fits && seen.insert(st::identity(url))
            });
        }
        tiers.retain(|tier| !tier.is_empty());
        Ok(tiers)
    }

    /// The bytes of a file that describes this torrent. `as_torrent` leaves out what only a `.st` has beside `info`.
    #[must_use]
    pub fn to_bytes(&self, as_torrent: bool) -> Vec<u8> {
        let mut entries: Vec<(&[u8], Cow<'_, [u8]>)> = vec![(b"info", Cow::Borrowed(&self.info))];
        let mut add = |key: &'static str, write: &dyn Fn(&mut Vec<u8>)| {
            let mut value = Vec::new();
            write(&mut value);
            entries.push((key.as_bytes(), Cow::Owned(value)));
        };
        if let Some(first) = self.trackers.iter().flatten().next() {
            add("announce", &|out| bencode::write_bytes(out, first.as_bytes()));
        }
        if self.trackers.iter().flatten().count() > 1 {
            add("announce-list", &|out| write_list(out, &self.trackers, |out, tier| write_strings(out, tier)));
        }
        for (name, note) in [("comment", &self.comment), ("created by", &self.created_by), ("encoding", &self.encoding)]
        {
            if let Some(note) = note {
                add(name, &|out| bencode::write_bytes(out, note.as_bytes()));
            }
        }
        if let Some(date) = self.creation_date {
            add("creation date", &|out| bencode::write_int(out, date));
        }
        for (name, urls) in [("httpseeds", &self.http_seeds), ("url-list", &self.web_seeds)] {
            if !urls.is_empty() {
                add(name, &|out| write_strings(out, urls));
            }
        }
        if !self.nodes.is_empty() {
            let node = |out: &mut Vec<u8>, (host, port): &(String, u16)| {
                out.push(b'l');
                bencode::write_bytes(out, host.as_bytes());
                bencode::write_int(out, i64::from(*port));
                out.push(b'e');
            };
            add("nodes", &|out| write_list(out, &self.nodes, node));
        }
        let table = if self.st_id.is_some() && !as_torrent { st::write_trackers(&self.trackers) } else { Vec::new() };
        if !table.is_empty() {
            add("trackers", &|out| bencode::write_bytes(out, &table));
        }
        entries.extend(self.others.iter().map(|(key, value)| (key.as_slice(), Cow::Borrowed(value.as_slice()))));
        entries.sort_unstable_by_key(|(key, _)| *key);
        let mut out = Vec::with_capacity(self.info.len() + 1024);
        let mut dict = DictWriter::begin(&mut out);
        for (key, value) in &entries {
            dict.key(key).extend_from_slice(value);
        }
        dict.end();
        out
    }
}

fn write_list<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'l');
    items.iter().for_each(|item| write(out, item));
    out.push(b'e');
}

fn write_strings(out: &mut Vec<u8>, strings: &[String]) {
    write_list(out, strings, |out, string| bencode::write_bytes(out, string.as_bytes()));
}

/// One address or a list of them, as both are written.
fn urls(value: Option<&Value<'_>>) -> Vec<String> {
    let Some(value) = value else { return Vec::new() };
    let one = value.as_bytes().into_iter();
    let many = value.as_list().unwrap_or_default().iter().filter_map(Value::as_bytes);
    let fits = |url: &&[u8]| !url.is_empty() && url.len() <= URL_LEN_MAX;
    one.chain(many).filter(fits).take(ADDRESSES_MAX).map(text).collect()
}

//! What stands beside `info`: trackers, web seeds, DHT nodes, notes for people, and keys that we only keep.
//!
//! None of it is part of a torrent's identity, so what is not as it should be is left out. Only a broken tracker table is
//! refused.

use std::collections::BTreeSet;
use std::ops::Range;

use super::parser::Value;
use super::{
    ADDRESSES_MAX, Metainfo, MetainfoError, OTHERS_LEN_MAX, OTHERS_MAX, TEXT_LEN_MAX, TOKENS_MAX, URL_LEN_MAX, text,
};
use crate::base::bytes::Bytes;
use crate::base::steps::{self, Allowance};
use crate::codec::bencode::{self, DictWriter};
use crate::codec::bencode_scan::{Scanner, Token};
use crate::codec::st;

/// Positions of what stands beside `info`.
#[derive(Debug, Default)]
pub(super) struct OuterFields {
    pub(super) is_dict: bool,
    announce: Option<Value>,
    announce_list: Option<Value>,
    comment: Option<Value>,
    comment_utf8: Option<Value>,
    created_by: Option<Value>,
    creation_date: Option<Value>,
    encoding: Option<Value>,
    http_seeds: Option<Value>,
    nodes: Option<Value>,
    trackers: Option<Value>,
    web_seeds: Option<Value>,
    /// Keys that we do not know, and the whole of their values.
    others: Vec<(Range<usize>, Range<usize>)>,
    others_len: usize,
    /// One did not fit.
    others_full: bool,
    /// `info`, if it does not share its memory with the document.
    pub(super) copied_info: Option<Bytes>,
}

impl OuterFields {
    pub(super) fn note(&mut self, bytes: &[u8], key: &Range<usize>, value: Value, raw: Range<usize>) {
        let field = match &bytes[key.clone()] {
            b"announce" => &mut self.announce,
            b"announce-list" => &mut self.announce_list,
            b"comment" => &mut self.comment,
            b"comment.utf-8" => &mut self.comment_utf8,
            b"created by" => &mut self.created_by,
            b"creation date" => &mut self.creation_date,
            b"encoding" => &mut self.encoding,
            b"httpseeds" => &mut self.http_seeds,
            b"nodes" => &mut self.nodes,
            b"trackers" => &mut self.trackers,
            b"url-list" => &mut self.web_seeds,
            _ => {
                self.others_len = self.others_len.saturating_add(key.len() + raw.len());
                self.others_full |= self.others_len > OTHERS_LEN_MAX || self.others.len() == OTHERS_MAX;
                if !self.others_full {
                    self.others.push((key.clone(), raw));
                }
                return;
            }
        };
        *field = Some(value);
    }
}

/// Calls `visit` with the depth of each token of a list, which is 1 inside the list, until it returns false. Of a longer list the
/// first [`TOKENS_MAX`] tokens are visited.
fn walk(bytes: &[u8], list: Option<&Value>, mut visit: impl FnMut(usize, &Token) -> bool) {
    let Some(range) = list.and_then(Value::list) else { return };
    let mut scanner = Scanner::new(range);
    let mut allowance = Allowance::new(TOKENS_MAX);
    loop {
        let depth = scanner.depth();
        match scanner.next(bytes, &mut allowance) {
            Ok(Token::Over) | Err(_) => return,
            Ok(token) if allowance.is_spent() || !visit(depth, &token) => return,
            Ok(_) => {}
        }
    }
}

impl Metainfo {
    pub(super) fn read_outer(
        &mut self,
        bytes: &[u8],
        outer: &mut OuterFields,
        allowance: &mut Allowance,
    ) -> Result<(), MetainfoError> {
        self.trackers = self.read_trackers(bytes, outer, allowance)?;
        let string = |value: &Option<Value>| value.as_ref().and_then(Value::bytes);
        let note = |value: &Option<Value>| {
            string(value).map(|range| text(&bytes[range.start..range.end.min(range.start + TEXT_LEN_MAX)]))
        };
        self.comment = note(&outer.comment_utf8).or_else(|| note(&outer.comment));
        self.created_by = note(&outer.created_by);
        self.encoding = note(&outer.encoding);
        self.creation_date = outer.creation_date.as_ref().and_then(Value::int);
        self.web_seeds = urls(bytes, outer.web_seeds.as_ref());
        self.http_seeds = urls(bytes, outer.http_seeds.as_ref());
        self.nodes = nodes(bytes, outer.nodes.as_ref());
        let mut others: Vec<(Vec<u8>, Vec<u8>)> =
            outer.others.iter().map(|(key, raw)| (bytes[key.clone()].to_vec(), bytes[raw.clone()].to_vec())).collect();
        allowance.spend_bytes(outer.others_len.min(OTHERS_LEN_MAX));
        allowance.spend(10 * others.len());
        others.sort_unstable();
        self.others = others;
        Ok(())
    }

    /// The table first, then what `announce-list` adds, or `announce` where there is no list. A tracker that is named
    /// twice, spelled differently perhaps, keeps its first place.
    fn read_trackers(
        &self,
        bytes: &[u8],
        outer: &OuterFields,
        allowance: &mut Allowance,
    ) -> Result<Vec<Vec<String>>, MetainfoError> {
        let mut tiers: Vec<Vec<String>> = Vec::new();
        let table = outer.trackers.as_ref().and_then(Value::bytes).filter(|_| self.st_id.is_some());
        if let Some(table) = table {
            let table = st::parse_trackers(&bytes[table])?;
            tiers.extend(table.chunk_by(|one, next| one.tier == next.tier).map(|tier| {
                tier.iter().map(st::Tracker::url).collect() // one tier
            }));
        }
        let mut listed: Vec<Vec<String>> = Vec::new();
        walk(bytes, outer.announce_list.as_ref(), |depth, token| {
            match token {
                Token::List if depth == 1 => listed.push(Vec::new()),
                Token::Bytes(url) if depth == 2 && url.len() <= URL_LEN_MAX => {
                    listed.last_mut().into_iter().for_each(|tier| tier.push(text(&bytes[url.clone()])));
                }
                _ => {}
            }
            true
        });
        if listed.iter().all(Vec::is_empty) {
            let announce = outer.announce.as_ref().and_then(Value::bytes).filter(|url| url.len() <= URL_LEN_MAX);
            tiers.push(announce.map(|url| text(&bytes[url])).into_iter().collect());
        } else {
            tiers.extend(listed);
        }
        let mut seen = BTreeSet::new();
        for tier in &mut tiers {
            tier.retain(|url| {
                allowance.spend(10 + url.len() / 8);
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
        let [before, info, after] = self.to_parts(as_torrent);
        let mut out = Vec::with_capacity(before.len() + info.len() + after.len());
        [before, info, after].iter().for_each(|part| out.extend_from_slice(part));
        out
    }

    /// The same in three parts, without a copy of `info`.
    #[must_use]
    pub fn to_parts(&self, as_torrent: bool) -> [Bytes; 3] {
        let mut entries: Vec<(&[u8], Vec<u8>)> = Vec::new();
        let mut add = |key: &'static str, write: &dyn Fn(&mut Vec<u8>)| {
            let mut value = Vec::new();
            write(&mut value);
            entries.push((key.as_bytes(), value));
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
        entries.extend(self.others.iter().map(|(key, value)| (key.as_slice(), value.clone())));
        steps::add_bytes(entries.iter().map(|(_, value)| value.len()).sum());
        entries.push((b"info", Vec::new()));
        entries.sort_unstable_by_key(|(key, _)| *key);
        let at = entries.iter().position(|(key, _)| *key == b"info").unwrap_or_default();
        let mut before = Vec::new();
        let mut dict = DictWriter::begin(&mut before);
        for (key, value) in &entries {
            dict.key(key).extend_from_slice(value);
        }
        dict.end();
        // `info` follows its key.
        let len_of = |(key, value): &(&[u8], Vec<u8>)| key.len().to_string().len() + 1 + key.len() + value.len();
        let split = 1 + entries[..=at].iter().map(len_of).sum::<usize>();
        let after = before.split_off(split);
        [Bytes::from(before), self.info.clone(), Bytes::from(after)]
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
fn urls(bytes: &[u8], value: Option<&Value>) -> Vec<String> {
    let mut urls = Vec::new();
    let mut add = |url: Range<usize>| {
        if !url.is_empty() && url.len() <= URL_LEN_MAX {
            urls.push(text(&bytes[url]));
        }
        urls.len() < ADDRESSES_MAX
    };
    if let Some(url) = value.and_then(Value::bytes) {
        add(url);
    }
    walk(bytes, value, |depth, token| match token {
        Token::Bytes(url) if depth == 1 => add(url.clone()),
        _ => true,
    });
    urls
}

/// Pairs of a host and a port, each a list.
fn nodes(bytes: &[u8], value: Option<&Value>) -> Vec<(String, u16)> {
    let (mut nodes, mut pair) = (Vec::new(), (None, None, 0));
    walk(bytes, value, |depth, token| {
        match (depth, token) {
            (1, Token::List) => pair = (None, None, 0),
            (2, Token::End) => {
                if let (Some(host), Some(port), _) = (pair.0.take(), pair.1.take(), pair.2) {
                    nodes.push((host, port));
                }
            }
            (2, token) => {
                match (pair.2, token) {
                    (0, Token::Bytes(host)) if !host.is_empty() && host.len() <= URL_LEN_MAX => {
                        pair.0 = Some(text(&bytes[host.clone()]));
                    }
                    (1, Token::Int(port)) => pair.1 = u16::try_from(*port).ok().filter(|&port| port > 0),
                    _ => {}
                }
                pair.2 += 1;
            }
            _ => {}
        }
        nodes.len() < ADDRESSES_MAX
    });
    nodes
}

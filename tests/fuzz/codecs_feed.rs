//! Feeds any bytes to one codec, which the first byte chooses. A codec must not panic, must parse what it wrote to the
//! same value, and must count no more steps than the input has bytes. The fuzz target and the tests use it.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "it fails where it stands")]

use std::collections::BTreeMap;
use std::path::Path;

use swarmtorrent::base::hash::Sha1Hash;
use swarmtorrent::base::steps::{self, Allowance};
use swarmtorrent::codec::bencode::{Kind, Value};
use swarmtorrent::codec::bencode_scan::{Scanner, Token};
use swarmtorrent::codec::http_tracker::server::{self, AnnounceWritten, SwarmWritten};
use swarmtorrent::codec::journal::{HEAD_LEN, Key, Verify};
use swarmtorrent::codec::metainfo::{Metainfo, MetainfoError};
use swarmtorrent::codec::stamps::PackedStamps;
use swarmtorrent::codec::udp_tracker::{AnnounceEvent, PEERS_MAX, SwarmCounts};
use swarmtorrent::codec::url::TrackerUrl;
use swarmtorrent::codec::{
    bencode, blocklist, catalog, compact, control, dht_state, dns, extension, followed, http, http_request,
    http_tracker, import, journal, krpc, lsd, magnet, metadata, metainfo, pex, resp, resume, socks, st, udp_tracker,
    units, url, wire,
};

/// The steps that a codec may count for an empty input. For each byte of the input it may count one more.
const STEPS_BASE: u64 = 16;

/// Steps for a byte of a parser that passes over its input more than once and sorts parts of it.
const FACTOR_SORTING: u64 = 16;

type Feed = fn(&[u8]);

/// Every file of `src/codec` but `mod.rs` and tests, without `.rs`, in alphabetical order. A part of a codec stands with the
/// feed of the whole.
pub const CODECS: [(&str, Feed); 37] = [
    ("bencode", feed_bencode),
    ("bencode_scan", feed_bencode_scan),
    ("blocklist", feed_blocklist),
    ("catalog", feed_catalog),
    ("compact", feed_compact),
    ("control", feed_control),
    ("dht_state", feed_dht_state),
    ("dns", feed_dns),
    ("extension", feed_extension),
    ("followed", feed_followed),
    ("http", feed_http),
    ("http_request", feed_http_request),
    ("http_tracker", feed_http_tracker),
    ("http_tracker/server", feed_http_tracker_server),
    ("import", feed_import),
    ("journal", feed_journal),
    ("journal/v1", feed_journal_v1),
    ("krpc", feed_krpc),
    ("krpc/query", feed_krpc),
    ("krpc/response", feed_krpc),
    ("lsd", feed_lsd),
    ("magnet", feed_magnet),
    ("metadata", feed_metadata),
    ("metainfo", feed_metainfo),
    ("metainfo/files", feed_metainfo),
    ("metainfo/outer", feed_metainfo),
    ("metainfo/parser", feed_metainfo),
    ("pex", feed_pex),
    ("resp", feed_resp),
    ("resume", feed_resume),
    ("socks", feed_socks),
    ("st", feed_st),
    ("stamps", feed_stamps),
    ("udp_tracker", feed_udp_tracker),
    ("units", feed_units),
    ("url", feed_url),
    ("wire", feed_wire),
];

/// Feeds all but the first byte to the codec that the first byte chooses.
pub fn feed(script: &[u8]) {
    if let Some((codec, input)) = script.split_first() {
        CODECS[usize::from(*codec) % CODECS.len()].1(input);
    }
}

/// Runs a parser on an input of `len` bytes and panics if it counts too many steps.
fn bounded<T>(len: usize, parse: impl FnOnce() -> T) -> T {
    bounded_by(1, len, parse)
}

/// The same for a parser that may count `factor` steps for a byte.
fn bounded_by<T>(factor: u64, len: usize, parse: impl FnOnce() -> T) -> T {
    steps::take();
    let parsed = parse();
    let taken = steps::take();
    assert!(taken <= STEPS_BASE + factor * len as u64, "{taken} steps for {len} bytes");
    parsed
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Writes a value in canonical form.
fn write_canonical(out: &mut Vec<u8>, value: &Value<'_>) {
    match &value.kind {
        Kind::Int(int) => bencode::write_int(out, *int),
        Kind::Bytes(bytes) => bencode::write_bytes(out, bytes),
        Kind::List(list) => {
            out.push(b'l');
            list.iter().for_each(|value| write_canonical(out, value));
            out.push(b'e');
        }
        Kind::Dict(entries) => {
            let entries: BTreeMap<_, _> = entries.entries().iter().map(|(key, value)| (*key, value)).collect();
            let mut dict = bencode::DictWriter::begin(out);
            entries.into_iter().for_each(|(key, value)| write_canonical(dict.key(key), value));
            dict.end();
        }
    }
}

fn feed_bencode(input: &[u8]) {
    let parsed = bounded(input.len(), || bencode::parse(input, bencode::VALUES_MAX));
    let few = bounded(input.len(), || bencode::parse(input, 8));
    assert!(few.is_err() || few == parsed);
    if let Ok((value, rest)) = bencode::parse_front(input, bencode::VALUES_MAX) {
        assert_eq!([value.raw, rest].concat(), input);
        assert_eq!(parsed.is_ok(), rest.is_empty());
    }
    if let Ok(value) = parsed {
        let canonical = written(|out| write_canonical(out, &value));
        let again = bencode::parse_canonical(&canonical, bencode::VALUES_MAX).expect("canonical form is parsed");
        assert_eq!(written(|out| write_canonical(out, &again)), canonical);
        if bencode::parse_canonical(input, bencode::VALUES_MAX).is_ok() {
            assert_eq!(canonical, input);
        }
    }
}

/// Scans a document in slices of `slice` steps. True if it is accepted.
fn scans(input: &[u8], slice: u64) -> bool {
    let mut scanner = Scanner::new(0..input.len());
    let mut allowance = Allowance::new(slice);
    loop {
        match scanner.next(input, &mut allowance) {
            Ok(Token::Over) => return true,
            Ok(_) => assert!(scanner.position() <= input.len() && scanner.depth() <= bencode::DEPTH_MAX),
            Err(_) => return false,
        }
        if allowance.is_spent() {
            allowance = Allowance::new(slice);
        }
    }
}

fn feed_bencode_scan(input: &[u8]) {
    let accepted = bounded_by(FACTOR_SORTING, input.len(), || scans(input, u64::MAX));
    assert_eq!(accepted, bencode::parse(input, bencode::VALUES_MAX).is_ok());
    for slice in [1, 5] {
        assert_eq!(scans(input, slice), accepted, "in slices of {slice} steps");
    }
}

fn feed_blocklist(input: &[u8]) {
    let parsed = bounded(input.len(), || blocklist::parse(input));
    let lines = input.split(|byte| *byte == b'\n').count();
    assert!(parsed.ranges.len() + parsed.bad <= lines);
    assert_eq!(parsed.first_bad.is_some(), parsed.bad > 0);
    let text: String = parsed.ranges.iter().map(|range| format!("{}-{}\n", range.first, range.last)).collect();
    assert_eq!(blocklist::parse(text.as_bytes()).ranges, parsed.ranges);
}

fn feed_catalog(input: &[u8]) {
    use catalog::CatalogMessage;
    if let Some(message) = bounded(input.len(), || CatalogMessage::parse(input)) {
        assert_eq!(CatalogMessage::parse(&written(|out| message.write(out))), Some(message.clone()));
        if let CatalogMessage::Page { items, .. } = message {
            for item in items {
                let value = catalog::dht_item(&item, 16_384);
                bencode::parse_canonical(&value, 64).expect("an item is in canonical form");
            }
        }
    }
}

fn feed_compact(input: &[u8]) {
    if let Some(addr) = compact::parse_addr(input) {
        assert_eq!(written(|out| compact::write_addr(out, addr)), input);
    }
    for (v6, len) in [(false, 6), (true, 18)] {
        let addrs = bounded(input.len(), || compact::parse_addrs(input, v6, 50));
        assert_eq!(addrs.len(), (input.len() / len).min(50));
        let again = written(|out| addrs.iter().for_each(|addr| compact::write_addr(out, *addr)));
        assert_eq!(again, input[..addrs.len() * len]);
    }
}

fn feed_control(input: &[u8]) {
    if let Ok(Some(words)) = bounded(input.len(), || control::parse_line(input)) {
        let line: Vec<_> = words.iter().map(|word| control::quote(&word.text)).collect();
        let again = control::parse_line(line.join(" ").as_bytes()).expect("quoted words are parsed").unwrap();
        assert!(again.iter().map(|word| &word.text).eq(words.iter().map(|word| &word.text)));
        for word in &words {
            if let Some((key, value)) = word.option() {
                assert_eq!(format!("{key}={value}"), word.text);
            }
        }
    }
    let text = String::from_utf8_lossy(input);
    assert!(!control::escape(&text).chars().any(char::is_control));
    let mut out = String::new();
    control::push_payload(&mut out, &text);
    let line = out.strip_suffix('\n').expect("a line ends with a line break");
    assert!(!line.chars().any(char::is_control) && !line.starts_with("OK") && !line.starts_with("ERR"));
    let closes = |push: &dyn Fn(&mut String), closing| {
        let mut out = String::new();
        push(&mut out);
        let line = out.strip_suffix('\n').expect("a line ends with a line break");
        assert_eq!((line.contains('\n'), control::closing(line)), (false, Some(closing)));
    };
    closes(&|out| control::push_ok(out, &text), control::Closing::Ok);
    closes(&|out| control::push_err(out, "internal", &text), control::Closing::Err);
    closes(&|out| control::push_json_ok(out, &[("detail", (*text).into())]), control::Closing::Ok);
    closes(&|out| control::push_json_err(out, "internal", &text), control::Closing::Err);
    let _ = control::closing(&text);
}

fn feed_dht_state(input: &[u8]) {
    if let Some(nodes) = bounded(input.len(), || dht_state::parse(input)) {
        assert_eq!(dht_state::parse(&dht_state::write(&nodes)), Some(nodes));
    }
}

fn feed_dns(input: &[u8]) {
    const NAME: &str = "tracker.example.org";
    for v6 in [false, true] {
        let query = dns::query(7, NAME, v6).expect("it is a name");
        // The question with other flags and counts, and the input for the records.
        let (counts, records) = input.split_at(input.len().min(8));
        let mut answer = query.clone();
        counts.iter().zip(&mut answer[2..]).for_each(|(count, byte)| *byte ^= count);
        answer.extend(records);
        for packet in [input, &answer] {
            let id = packet.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
            if let Some(dns::Answer::Addresses(ips, _) | dns::Answer::Truncated(ips, _)) =
                bounded(packet.len(), || dns::parse(packet, id, NAME, v6))
            {
                assert!(ips.len() <= dns::ADDRESSES_MAX && ips.iter().all(|ip| ip.is_ipv6() == v6));
            }
        }
    }
    let _ = dns::query(7, &String::from_utf8_lossy(input), false);
}

fn feed_extension(input: &[u8]) {
    use extension::ExtensionHandshake;
    if let Some(handshake) = bounded(input.len(), || ExtensionHandshake::parse(input)) {
        assert_eq!(ExtensionHandshake::parse(&written(|out| handshake.write(out))), Some(handshake));
    }
    if let Some(piece) = extension::parse_dont_have(input) {
        assert_eq!(extension::dont_have(piece), input);
    }
}

fn feed_followed(input: &[u8]) {
    let parsed = bounded(input.len(), || followed::parse(input));
    if let Some(kept) = parsed.filter(|kept| kept.iter().all(|kept| kept.dir.is_absolute())) {
        assert_eq!(followed::parse(&followed::write(kept.iter())), Some(kept));
    }
    let _ = bounded(input.len(), || followed::torrent_of(input));
    let text = String::from_utf8_lossy(input);
    let (key, salt) = text.split_at_checked(64).unwrap_or((&text, ""));
    if let Some(publisher) = followed::Publisher::parse(key, salt) {
        let link = publisher.to_string();
        let (key, salt) = link.split_once("&s=").unwrap_or((&link, ""));
        let key = key.strip_prefix("xs=urn:btpk:").expect("a link begins so");
        assert_eq!(followed::Publisher::parse(key, salt), Some(publisher));
    }
}

/// Reads an answer in parts of at most `most` bytes. `None` if it is refused or cut.
fn http_answer(input: &[u8], most: usize) -> Option<http::Response> {
    let mut reader = http::ResponseReader::new(64 * 1024);
    for part in input.chunks(most) {
        match reader.handle_input(part) {
            Ok(None) => {}
            Ok(Some(response)) => return Some(response),
            Err(_) => return None,
        }
    }
    reader.handle_end().ok()
}

fn feed_http(input: &[u8]) {
    let raw = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", input].concat();
    for input in [input, &raw] {
        let whole = bounded(input.len(), || http_answer(input, usize::MAX));
        assert!(whole.as_ref().is_none_or(|response| response.body.len() <= 64 * 1024));
        for most in [1, 3] {
            assert_eq!(http_answer(input, most), whole, "in parts of {most} bytes");
        }
    }
}

fn feed_http_request(input: &[u8]) {
    let input = http_request::skip_empty_lines(input);
    if let Ok(Some(head)) = bounded(input.len(), || http_request::parse_head(input)) {
        assert!(head.len <= input.len().min(http::HEAD_MAX) && head.request.path.starts_with('/'));
        assert_eq!(http_request::parse_head(&input[..head.len]), Ok(Some(head)));
    }
}

fn feed_http_tracker(input: &[u8]) {
    if let Some(Ok(answer)) = bounded(input.len(), || http_tracker::parse_announce(input)) {
        assert!(answer.peers.len() <= 2 * PEERS_MAX);
    }
    let _ = bounded(input.len(), || http_tracker::parse_scrape(input, &Sha1Hash(*b"aaaaaaaaaaaaaaaaaaaa")));
}

fn feed_http_tracker_server(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(query) = bounded(input.len(), || server::parse_announce_query(&text)) {
        let url = TrackerUrl::parse("http://tracker.example.org/announce").unwrap();
        let path = http_tracker::announce_path(&url, &query.announce, None);
        let again = server::parse_announce_query(path.split_once('?').expect("it has a query").1);
        // A wish for more peers than fit an `i32` is cut.
        assert_eq!(again.expect("a written query is parsed").announce, query.announce);
    }
    if let Ok(hashes) = bounded(input.len(), || server::parse_scrape_query(&text)) {
        let swarm = SwarmWritten { counts: SwarmCounts { seeders: 1, completed: 2, leechers: 3 }, downloaders: 3 };
        let body = written(|out| server::write_scrape(out, &hashes, |_| swarm));
        for hash in hashes.iter() {
            let answer = http_tracker::parse_scrape(&body, hash).unwrap().unwrap();
            assert_eq!((answer.seeders, answer.downloaded, answer.leechers), (Some(1), Some(2), Some(3)));
        }
    }
    let flags = input.first().copied().unwrap_or(0);
    let (v6, compact) = (flags & 1 != 0, flags & 2 != 0);
    let len = if v6 { 18 } else { 6 };
    let peers = &input[..input.len() / len * len];
    let answer = AnnounceWritten {
        counts: SwarmCounts { seeders: 1, completed: 2, leechers: 3 },
        interval: 1800,
        min_interval: 60,
        external_ip: [127, 0, 0, 1].into(),
        peers,
        v6,
        compact,
    };
    let body = written(|out| server::write_announce(out, &answer));
    let read = http_tracker::parse_announce(&body).unwrap().unwrap();
    assert_eq!(read.peers, compact::parse_addrs(peers, v6, PEERS_MAX));
    let retry = (flags & 4 != 0).then_some(http_tracker::RetryIn::Minutes(u32::from(flags)));
    let body = written(|out| server::write_failure(out, &text, retry));
    assert_eq!(http_tracker::parse_announce(&body).unwrap().unwrap_err().retry_in, retry);
}

fn feed_import(input: &[u8]) {
    if let Some((import, metainfo)) = bounded(input.len(), || import::Import::parse(input)) {
        let bytes = import.to_bytes(metainfo);
        assert_eq!(import::Import::parse(&bytes), Some((import, metainfo)));
    }
}

fn feed_journal(input: &[u8]) {
    // It depends on the input, because a fuzzer learns the check of an entry under a key that stays the same.
    let key = Key::new(*Sha1Hash::of(input).0.first_chunk().unwrap());
    let _ = journal::parse_head(input);
    assert!(journal::parse_head(&journal::head(&key)) == Some((key, true)));
    assert!(journal::parse_header(&key, 0, input).is_none(), "an entry is parsed that nobody wrote");
    // An entry with the input for its name and value, and once more with the input behind it.
    let (len, rest) = input.split_first().unwrap_or((&0, &[]));
    let (name, value) = rest.split_at(rest.len().min(usize::from(*len)));
    let name = String::from_utf8_lossy(name);
    let at = HEAD_LEN + input.len() as u64;
    let bytes = written(|out| journal::write(out, &key, at, &name, Some(value)));
    let (header, read) = journal::parse(&key, at, &[&bytes, input].concat())
        .map(|(header, value)| (header.entry_len(), value.to_vec()))
        .unwrap();
    assert_eq!((header, read.as_slice()), (bytes.len(), value));
    assert!(journal::parse(&key, at + 1, &bytes).is_none());
    let file = [journal::head(&key), input.to_vec(), bytes].concat();
    let contents = journal::scan(&file[..], file.len() as u64, &key, Verify::All).unwrap();
    assert_eq!(contents.entries.len(), 1);
}

fn feed_journal_v1(input: &[u8]) {
    drop(journal::v1::read(input));
    drop(journal::v1::read(&[journal::v1::HEAD, input].concat()));
}

fn feed_krpc(input: &[u8]) {
    use krpc::Message;
    let Some(message) = bounded(input.len(), || Message::parse(input)) else { return };
    let first = written(|out| message.write(out));
    let again = Message::parse(&first).expect("a written message is parsed");
    assert_eq!(again.transaction, message.transaction);
    assert_eq!(std::mem::discriminant(&again.body), std::mem::discriminant(&message.body));
    assert_eq!(written(|out| again.write(out)), first);
}

fn feed_lsd(input: &[u8]) {
    if let Some(search) = bounded(input.len(), || lsd::Search::parse(input)) {
        assert!(search.info_hashes.len() <= lsd::LINES_MAX && search.port != 0);
        let bytes = written(|out| search.write(false, out));
        assert!(bytes.len() <= lsd::DATAGRAM_MAX);
        let again = lsd::Search::parse(&bytes).expect("a written search is parsed");
        let kept = search.info_hashes.len().min(lsd::HASHES_MAX);
        assert_eq!((again.port, &again.info_hashes[..]), (search.port, &search.info_hashes[..kept]));
    }
}

fn feed_magnet(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let like = format!("magnet:?xt=urn:btih:{}&{text}", "a".repeat(40));
    for text in [&*text, &like] {
        if let Ok(link) = bounded(text.len(), || magnet::Magnet::parse(text)) {
            let _ = (link.wire_hash(), link.stand_in());
            let again = link.to_string();
            if again.len() <= magnet::LINK_LEN_MAX {
                assert_eq!(magnet::Magnet::parse(&again), Ok(link));
            }
        }
    }
}

fn feed_metadata(input: &[u8]) {
    use metadata::MetadataMessage;
    if let Some(message) = bounded(input.len(), || MetadataMessage::parse(input)) {
        assert_eq!(MetadataMessage::parse(&written(|out| message.write(out))), Some(message));
    }
}

/// Parses a metainfo file in slices of `slice` steps.
fn metainfo_in_slices(input: &[u8], slice: u64) -> Result<Metainfo, MetainfoError> {
    let mut parser = metainfo::Parser::file(input);
    loop {
        if let Some(result) = parser.step(&mut Allowance::new(slice)) {
            return result;
        }
    }
}

fn feed_metainfo(input: &[u8]) {
    let _ = bounded_by(FACTOR_SORTING, input.len(), || Metainfo::from_info(input));
    let info = b"d6:lengthi1e4:name1:x12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
    let outer = [b"d4:info", &info[..], input, b"e"].concat();
    for input in [input, &outer] {
        let parsed = bounded_by(FACTOR_SORTING, input.len(), || Metainfo::parse(input));
        for slice in [1, 7] {
            assert_eq!(metainfo_in_slices(input, slice), parsed, "in slices of {slice} steps");
        }
        let Ok(meta) = parsed else { continue };
        assert!(meta.files.entries().all(|file| file.path.is_relative()));
        assert_eq!(meta.files.total_len(), meta.geometry.total_len());
        assert_eq!(meta.pieces.len(), meta.geometry.pieces() as usize);
        let _ = (resume::Head::of(&meta), magnet::Magnet::of(&meta).to_string());
        let again = Metainfo::parse(&meta.to_bytes(false)).expect("a written metainfo is parsed");
        assert_eq!(again, meta);
        Metainfo::parse(&meta.to_bytes(true)).expect("a written metainfo is parsed");
    }
}

fn feed_pex(input: &[u8]) {
    for most in [5, pex::ADDED_FIRST_MAX] {
        if let Some(message) = bounded(input.len(), || pex::PexMessage::parse(input, most)) {
            assert!(message.added.len() <= most && message.dropped.len() <= pex::DROPPED_MAX);
            assert_eq!(pex::PexMessage::parse(&written(|out| message.write(out)), most), Some(message));
        }
    }
}

fn feed_resp(input: &[u8]) {
    use resp::{Item, Value};
    let _ = resp::key_slot(input);
    if let Ok(Some((item, len))) = bounded(input.len(), || resp::item(input)) {
        assert!(len <= input.len());
        assert_eq!(resp::item(&input[..len]), Ok(Some((item, len))));
        assert_eq!(resp::item(&input[..len - 1]), Ok(None), "an item is whole before its end");
        let value = match item {
            Item::Simple(bytes) => Value::Simple(bytes.to_vec()),
            Item::Error(bytes) => Value::Error(bytes.to_vec()),
            Item::Integer(int) => Value::Integer(int),
            Item::Bulk(bytes) => Value::Bulk(bytes.to_vec()),
            Item::Null => Value::Null,
            Item::Array(count) => return assert!(count <= resp::VALUES_MAX),
        };
        let bytes = written(|out| value.write(out));
        assert_eq!(resp::item(&bytes), Ok(Some((item, bytes.len()))));
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)))
}

fn feed_resume(input: &[u8]) {
    let checked = [b"swarm 1\n", &crc32c(input).to_be_bytes()[..], input].concat();
    for bytes in [input, &checked] {
        let _ = bounded(bytes.len(), || resume::Record::parse_relative(bytes));
        if let Some(record) = bounded(bytes.len(), || resume::Record::parse(bytes)) {
            assert_eq!(resume::Record::parse(&record.to_bytes()), Some(record.clone()));
            assert_eq!(record.clone().resolved(|dir| Some(Path::new("/").join(dir))), Some(record));
        }
    }
}

fn feed_socks(input: &[u8]) {
    let whole = |len: usize| assert!(len <= input.len());
    if let Ok(socks::Front::Whole(_, len)) = bounded(input.len(), || socks::parse_method(input)) {
        whole(len);
    }
    if let Ok(socks::Front::Whole(_, len)) = bounded(input.len(), || socks::parse_login(input)) {
        whole(len);
    }
    if let Ok(socks::Front::Whole(_, len)) = bounded(input.len(), || socks::parse_answer(input)) {
        whole(len);
    }
    if let Some((from, len)) = bounded(input.len(), || socks::parse_datagram(input)) {
        whole(len);
        if let Some(addr) = from.filter(|addr| addr.ip() == addr.ip().to_canonical()) {
            let head = written(|out| socks::write_datagram_head(&socks::Place::Addr(addr), out));
            assert_eq!(socks::parse_datagram(&head), Some((from, head.len())));
        }
    }
    let text = String::from_utf8_lossy(input);
    for text in [text.clone().into_owned(), format!("socks5://{text}")] {
        if let Some(url) = bounded(text.len(), || socks::ProxyUrl::parse(&text)) {
            let again = socks::ProxyUrl::parse(&url.to_string()).expect("a written address is parsed");
            assert_eq!((&again.host, again.port, again.login), (&url.host, url.port, None));
        }
    }
}

fn feed_stamps(input: &[u8]) {
    if let Some(packed) = bounded(input.len(), || PackedStamps::parse(input, 10_000)) {
        let stamps = packed.unpack();
        assert_eq!(stamps.len(), packed.len());
        assert_eq!(PackedStamps::pack(stamps.iter().copied()).unpack(), stamps);
    }
}

fn feed_st(input: &[u8]) {
    let _ = st::identity(&String::from_utf8_lossy(input));
    if let Ok(trackers) = bounded(input.len(), || st::parse_trackers(input)) {
        let mut tiers = vec![Vec::new(); 256];
        trackers.iter().for_each(|tracker| tiers[usize::from(tracker.tier)].push(tracker.url()));
        assert_eq!(st::parse_trackers(&st::write_trackers(&tiers)), Ok(trackers));
    }
}

fn feed_udp_tracker(input: &[u8]) {
    use udp_tracker::{Request, Response};
    let _ = udp_tracker::claim(input);
    if let Some(request) = bounded(input.len(), || Request::parse(input)) {
        let bytes = written(|out| request.write(out));
        assert_eq!(Request::parse(&bytes), Some(request.clone()));
        if let Request::Announce { announce, .. } = request {
            assert!(announce.event != AnnounceEvent::Regular || bytes[80..84] == [0; 4]);
        }
    }
    for v6 in [false, true] {
        if let Some(response) = bounded(input.len(), || Response::parse(input, v6)) {
            assert_eq!(Response::parse(&written(|out| response.write(out)), v6), Some(response));
        }
    }
}

fn feed_units(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Some(size) = bounded(text.len(), || units::parse_size(&text)) {
        assert_eq!(units::parse_size(&units::size(size)), Some(size));
    }
    if let Some(duration) = bounded(text.len(), || units::parse_duration(&text)) {
        assert_eq!(units::parse_duration(&units::duration(duration)), Some(duration));
    }
    if let Some(number) = input.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) {
        let _ = (units::human_size(number), units::human_duration(number), units::moment(number));
        assert_eq!(units::parse_size(&units::size(number)), Some(number));
    }
}

fn feed_url(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for text in [text.clone().into_owned(), format!("http://{text}"), format!("udp://{text}")] {
        let Ok(url) = bounded(text.len(), || TrackerUrl::parse(&text)) else { continue };
        assert_eq!(TrackerUrl::parse(&url.to_string()), Ok(url.clone()), "{text}");
        assert!(!url.host.is_empty() && url.port != 0 && url.path.starts_with('/'));
        assert!(!url.path.bytes().chain(url.host.bytes()).any(|byte| byte.is_ascii_control() || byte == b' '));
        let _ = (url.scrape(), st::identity(&text));
        if let Ok(other) = url.redirected(&text) {
            assert_ne!(other.scheme, url::Scheme::Udp);
        }
    }
    if let Some((host, port)) = url::host_and_port(&text) {
        let again = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        assert_eq!(url::host_and_port(&again), Some((host, port)));
    }
}

fn feed_wire(input: &[u8]) {
    if let Ok(wire::Front::Whole(handshake, len)) = bounded(input.len(), || wire::parse_handshake(input)) {
        assert_eq!(handshake.to_bytes(), input[..len]);
    }
    for pieces in [None, Some(1), Some(9), Some(1_600_000)] {
        match bounded(input.len(), || wire::parse_message(input, pieces)) {
            Ok(wire::Front::Whole(message, len)) => {
                assert_eq!(written(|out| message.write(out)), input[..len]);
            }
            Ok(wire::Front::Missing(len)) => assert!(len > input.len()),
            Err(_) => {}
        }
    }
}

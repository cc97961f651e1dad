//! Which program a peer runs: what it says in its extension handshake (BEP 10, `v`), else what its peer id says (BEP 20).
//!
//! For people to read, never to decide by: both can be anything.

/// Letters of a client's name that are kept; what is beyond is cut.
pub(super) const CLIENT_LEN_MAX: usize = 64;

/// The two letters of Azureus-style ids (`-TR3000-…`, BEP 20) that are seen in swarms.
const CLIENTS: [(&[u8; 2], &str); 28] = [
    (b"AG", "Ares"),
    (b"AZ", "Vuze"),
    (b"BC", "BitComet"),
    (b"BI", "BiglyBT"),
    (b"BT", "BitTorrent"),
    (b"BW", "BitTorrent Web"),
    (b"DE", "Deluge"),
    (b"FC", "FileCroc"),
    (b"FD", "Free Download Manager"),
    (b"FW", "FrostWire"),
    (b"GT", "GetRight"),
    (b"KT", "KTorrent"),
    (b"LT", "libtorrent"),
    (b"LW", "LimeWire"),
    (b"PI", "PicoTorrent"),
    (b"SD", "Xunlei"),
    (b"ST", "SwarmTorrent"),
    (b"TL", "Tribler"),
    (b"TR", "Transmission"),
    (b"TX", "Tixati"),
    (b"UE", "uTorrent Embedded"),
    (b"UM", "uTorrent Mac"),
    (b"UT", "uTorrent"),
    (b"UW", "uTorrent Web"),
    (b"WW", "WebTorrent"),
    (b"XL", "Xunlei"),
    (b"lt", "rTorrent"),
    (b"qB", "qBittorrent"),
];

/// `text` as people may see it: at most [`CLIENT_LEN_MAX`] characters, none of them able to steer a terminal.
#[must_use]
pub(super) fn readable(text: &[u8]) -> String {
    let bytes = &text[..text.len().min(4 * CLIENT_LEN_MAX)];
    let seen = |letter: char| !letter.is_control() && letter != '\u{fffd}' && !is_direction(letter);
    String::from_utf8_lossy(bytes)
        .chars()
        .take(CLIENT_LEN_MAX)
        .map(|letter| if seen(letter) { letter } else { '?' })
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Marks that turn the direction of text around.
const fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What a peer id says (BEP 20): a name and version, else its first eight letters.
#[must_use]
pub(super) fn client_of(peer_id: &[u8; 20]) -> String {
    match *peer_id {
        [b'-', a, b, v0, v1, v2, v3, b'-', ..] => {
            let version = version([a, b], [v0, v1, v2, v3]);
            match CLIENTS.iter().find(|(id, _)| **id == [a, b]) {
                Some((_, name)) => format!("{name} {version}"),
                None => format!("{} {version}", readable(&[a, b])),
            }
        }
        [b'M', v0, b'-', v1, b'-', v2, b'-', ..] => format!("BitTorrent {}", readable(&[v0, b'.', v1, b'.', v2])),
        [b'A', b'2', b'-', ref version @ ..] => {
            let numbers = version.split(|byte| *byte == b'-').take(3).take_while(|part| part.len() <= 3);
            format!("aria2 {}", numbers.map(readable).collect::<Vec<_>>().join("."))
        }
        _ => readable(&peer_id[..8]),
    }
}

/// Four characters as a version. Each is a digit, or a letter that means 10 and more; Transmission writes `3000` for 3.00.
fn version(id: [u8; 2], characters: [u8; 4]) -> String {
    let number = |character: u8| char::from(character).to_digit(36);
    let [Some(a), Some(b), Some(c), Some(d)] = characters.map(number) else { return readable(&characters) };
    match (&id, a) {
        (b"TR", 0..=3) => format!("{a}.{b}{c}"),
        _ if d == 0 => format!("{a}.{b}.{c}"),
        _ => format!("{a}.{b}.{c}.{d}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_ids_of_known_programs_have_names() {
        assert_eq!(client_of(b"-TR3000-0123456789ab"), "Transmission 3.00");
        assert_eq!(client_of(b"-TR4060-0123456789ab"), "Transmission 4.0.6");
        assert_eq!(client_of(b"-LT2110-0123456789ab"), "libtorrent 2.1.1");
        assert_eq!(client_of(b"-qB4650-0123456789ab"), "qBittorrent 4.6.5");
        assert_eq!(client_of(b"-lt0D60-0123456789ab"), "rTorrent 0.13.6");
        assert_eq!(client_of(b"-zz1234-0123456789ab"), "zz 1.2.3.4");
        assert_eq!(client_of(b"M7-2-2--0123456789ab"), "BitTorrent 7.2.2");
        assert_eq!(client_of(b"A2-1-36-0-0123456789"), "aria2 1.36.0");
        assert_eq!(client_of(b"exbc0123456789abcdef"), "exbc0123");
    }

    #[test]
    fn nothing_that_steers_a_terminal_is_shown() {
        assert_eq!(readable(b"\x1b[31mred\n"), "?[31mred?");
        assert_eq!(readable("a\u{202e}b\u{9b}c".as_bytes()), "a?b?c");
        assert_eq!(readable(&[0xff; 100]).chars().count(), CLIENT_LEN_MAX);
        assert_eq!(client_of(&[0; 20]), "????????");
    }
}

//! What is said to a SOCKS5 proxy and what it answers (RFC 1928, 1929), and the address of one.
//!
//! The client's side alone: what is written are questions, what is read are answers. GSSAPI and BIND are not spoken, and a datagram in
//! fragments is none.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nom::bytes::streaming::take;
use nom::error::Error as NomError;
use nom::number::streaming::{be_u8, be_u16, be_u32, be_u128};
use nom::{Err as NomErr, IResult, Needed, Parser};

/// Bytes of a user's name and of a password; a longer one is refused in the config.
pub const LOGIN_MAX: usize = 255;
/// Bytes of a host's name; a longer one is not asked for.
pub const NAME_MAX: usize = 255;
/// Bytes of the longest answer: that of a command, with a name in it.
pub const ANSWER_MAX: usize = 4 + 1 + NAME_MAX + 2;
/// The port of an address that names none.
pub const PORT: u16 = 1080;

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const BY_PASSWORD: u8 = 2;
/// What a proxy answers that takes none of the methods that were offered.
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const ASSOCIATE: u8 = 3;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Who we are to the proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's name, 1 to [`LOGIN_MAX`] bytes.
    pub user: String,
    /// The same of the password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

/// Where somebody is: by address, or by a name that the proxy looks up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An address.
    Addr(SocketAddr),
    /// A name of 1 to [`NAME_MAX`] bytes, and a port.
    Name(String, u16),
}

/// What a proxy is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A stream to somebody.
    Connect(Place),
    /// Somewhere to send datagrams to, that it passes on.
    Associate,
}

/// How a proxy wants to be logged in to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    NoLogin,
    /// By name and password.
    Password,
    /// In none of the ways that were offered.
    None,
}

/// Why a proxy did not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub u8);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "it failed",
            2 => "its rules forbid it",
            3 => "the network cannot be reached",
            4 => "the host cannot be reached",
            5 => "the connection was refused",
            6 => "it took too long",
            7 => "it does not do this",
            8 => "it does not know this kind of address",
            _ => "it refused",
        })
    }
}

/// The proxy's answer to a command: where it speaks from, or waits for datagrams; none where it says so by a name.
pub type Answer = Result<Option<SocketAddr>, Refusal>;

/// What is no answer of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// The front of what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Front<T> {
    /// So many more bytes are needed, at least.
    Missing(usize),
    /// An answer, and its length.
    Whole(T, usize),
}

/// Offers a login, if there is one, and none.
pub fn write_methods(has_login: bool, out: &mut Vec<u8>) {
    if has_login {
        out.extend([VERSION, 1, BY_PASSWORD]);
    } else {
        out.extend([VERSION, 1, NO_LOGIN]);
    }
}

/// Logs in.
///
/// # Panics
/// If a part is longer than [`LOGIN_MAX`].
pub fn write_login(login: &Login, out: &mut Vec<u8>) {
    out.push(LOGIN_VERSION);
    for part in [&login.user, &login.password] {
        out.push(u8::try_from(part.len()).expect("a login is judged before it is taken"));
        out.extend_from_slice(part.as_bytes());
    }
}

/// Asks for something.
///
/// # Panics
/// If a name is longer than [`NAME_MAX`].
pub fn write_command(command: &Command, out: &mut Vec<u8>) {
    let any = Place::Addr(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let (code, place) = match command {
        Command::Connect(place) => (CONNECT, place),
        Command::Associate => (ASSOCIATE, &any),
    };
    out.extend([VERSION, code, 0]);
    write_place(place, out);
}

/// The head of a datagram that a proxy is to pass on to `to`.
///
/// # Panics
/// If a name is longer than [`NAME_MAX`].
pub fn write_datagram_head(to: &Place, out: &mut Vec<u8>) {
    out.extend([0, 0, 0]);
    write_place(to, out);
}

fn write_place(place: &Place, out: &mut Vec<u8>) {
    let port = match place {
        Place::Addr(addr) => {
            match addr.ip().to_canonical() {
                IpAddr::V4(ip) => {
                    out.push(IPV4);
                    out.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(IPV6);
                    out.extend(ip.octets());
                }
            }
            addr.port()
        }
        Place::Name(name, port) => {
            out.extend([NAME, u8::try_from(name.len()).expect("a name is judged before it is asked for")]);
            out.extend_from_slice(name.as_bytes());
            *port
        }
    };
    out.extend(port.to_be_bytes());
}

/// Reads which method a proxy chose.
///
/// # Errors
/// It speaks something else.
pub fn parse_method(input: &[u8]) -> Result<Front<Method>, Broken> {
    let (version, method) = match front((be_u8, be_u8).parse(input), input)? {
        Front::Missing(count) => return Ok(Front::Missing(count)),
        Front::Whole(read, _) => read,
    };
    let method = match (version, method) {
        (VERSION, NO_LOGIN) => Method::NoLogin,
        (VERSION, BY_PASSWORD) => Method::Password,
        (VERSION, NO_METHOD) => Method::None,
        _ => return Err(Broken),
    };
    Ok(Front::Whole(method, 2))
}

/// Reads whether a proxy took our login.
///
/// # Errors
/// It speaks something else.
pub fn parse_login(input: &[u8]) -> Result<Front<bool>, Broken> {
    match front((be_u8, be_u8).parse(input), input)? {
        Front::Missing(count) => Ok(Front::Missing(count)),
        // Some answer with the version of the whole.
        Front::Whole((LOGIN_VERSION | VERSION, status), len) => Ok(Front::Whole(status == 0, len)),
        Front::Whole(..) => Err(Broken),
    }
}

/// Reads the answer to a command.
///
/// # Errors
/// It speaks something else.
pub fn parse_answer(input: &[u8]) -> Result<Front<Answer>, Broken> {
    if input.first().is_some_and(|version| *version != VERSION) {
        return Err(Broken);
    }
    match front((be_u8, be_u8, be_u8, place).parse(input), input)? {
        Front::Missing(count) => Ok(Front::Missing(count)),
        Front::Whole((_, 0, _, addr), len) => Ok(Front::Whole(Ok(addr), len)),
        Front::Whole((_, code, ..), len) => Ok(Front::Whole(Err(Refusal(code)), len)),
    }
}

/// Reads a datagram that a proxy passed on: the address of its sender, `None` if the proxy gives a name, and where in
/// `packet` the payload begins. `None` if it is not such a datagram, or a fragment of one.
#[must_use]
pub fn parse_datagram(packet: &[u8]) -> Option<(Option<SocketAddr>, usize)> {
    match front((be_u16, be_u8, place).parse(packet), packet) {
        Ok(Front::Whole((_, 0, place), len)) => Some((place, len)),
        _ => None,
    }
}

/// Reads a place: its address, `None` if it is a name. The bytes of a name are skipped, for no answer's name is ever
/// used: it need not be text, and as text it may be longer than [`NAME_MAX`].
fn place(input: &[u8]) -> IResult<&[u8], Option<SocketAddr>> {
    let (input, kind) = be_u8(input)?;
    match kind {
        IPV4 => {
            let (input, (ip, port)) = (be_u32, be_u16).parse(input)?;
            Ok((input, Some(SocketAddr::from((Ipv4Addr::from(ip), port)))))
        }
        IPV6 => {
            let (input, (ip, port)) = (be_u128, be_u16).parse(input)?;
            Ok((input, Some(SocketAddr::from((Ipv6Addr::from(ip), port)))))
        }
        NAME => {
            let (input, len) = be_u8(input)?;
            let (input, _) = (take(len), be_u16).parse(input)?;
            Ok((input, None))
        }
        _ => Err(NomErr::Failure(NomError::new(input, nom::error::ErrorKind::Switch))),
    }
}

fn front<T>(result: IResult<&[u8], T>, input: &[u8]) -> Result<Front<T>, Broken> {
    match result {
        Ok((rest, value)) => Ok(Front::Whole(value, input.len() - rest.len())),
        Err(NomErr::Incomplete(Needed::Size(count))) => Ok(Front::Missing(count.get())),
        Err(NomErr::Incomplete(Needed::Unknown)) => Ok(Front::Missing(1)),
        Err(_) => Err(Broken),
    }
}

/// The address of a proxy: `socks5://[USER:PASSWORD@]HOST[:PORT]`. What is secret never leaves by `Debug` or `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// A name, or an address without brackets.
    pub host: String,
    /// Not 0.
    pub port: u16,
    /// Who we are to it, if it wants to know.
    pub login: Option<Login>,
}

impl ProxyUrl {
    /// Reads an address; `socks5h` is the same.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once("://")?;
        if !matches!(scheme.to_ascii_lowercase().as_str(), "socks5" | "socks5h") {
            return None;
        }
        // A password may hold what was not escaped: its end is the last of these.
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let login = login.map_or(Some(None), |login| login_of(login).map(Some))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']').filter(|(host, _)| host.contains(':'))?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
            None if port.is_empty() => PORT,
            _ => return None,
        };
        let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        let is_host = host.parse::<IpAddr>().is_ok() || !host.is_empty() && host.len() <= NAME_MAX && is_name;
        (is_host && port != 0).then(|| Self { host: host.to_owned(), port, login })
    }
}

fn login_of(text: &str) -> Option<Login> {
    let (user, password) = text.split_once(':')?;
    let part = |text| unescaped(text).filter(|text| (1..=LOGIN_MAX).contains(&text.len()));
    Some(Login { user: part(user)?, password: part(password)? })
}

/// `text` without its `%XX`.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

/// What it says, without login.
impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "socks5://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "socks5://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_has_the_bytes_of_the_rfc() {
        let mut out = Vec::new();
        write_methods(false, &mut out);
        write_methods(true, &mut out);
        assert_eq!(out, [5, 1, 0, 5, 1, 2]);
        out.clear();
        write_login(&Login { user: "me".into(), password: "pw!".into() }, &mut out);
        assert_eq!(out, b"\x01\x02me\x03pw!");
        out.clear();
        write_command(&Command::Connect(Place::Name("a.example".into(), 80)), &mut out);
        assert_eq!(out, b"\x05\x01\x00\x03\x09a.example\x00\x50");
        out.clear();
        write_command(&Command::Associate, &mut out);
        assert_eq!(out, [5, 3, 0, 1, 0, 0, 0, 0, 0, 0]);
        out.clear();
        write_command(&Command::Connect(Place::Addr("[2001:db8::1]:256".parse().unwrap())), &mut out);
        assert_eq!((out.len(), &out[..6], &out[20..]), (22, &[5, 1, 0, 4, 0x20, 1][..], &[1, 0][..]));
    }

    #[test]
    fn answers_say_how_much_of_them_is_missing() {
        assert_eq!(parse_method(&[5]), Ok(Front::Missing(1)));
        assert_eq!(parse_method(&[5, 2]), Ok(Front::Whole(Method::Password, 2)));
        assert_eq!((parse_method(b"HT"), parse_method(&[5, 1])), (Err(Broken), Err(Broken)));
        assert_eq!(parse_login(&[1, 0]), Ok(Front::Whole(true, 2)));
        assert_eq!(parse_login(&[1, 9]), Ok(Front::Whole(false, 2)));
        let answer = [5, 0, 0, 1, 10, 0, 0, 1, 0x1a, 0xe1];
        let bound = "10.0.0.1:6881".parse().unwrap();
        for len in 0..answer.len() {
            let Ok(Front::Missing(count)) = parse_answer(&answer[..len]) else { panic!("{len}") };
            assert!(count >= 1 && len + count <= answer.len(), "it reads nothing that is not its own");
        }
        assert_eq!(parse_answer(&answer), Ok(Front::Whole(Ok(Some(bound)), 10)));
        assert_eq!(parse_answer(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]), Ok(Front::Whole(Err(Refusal(5)), 10)));
        assert_eq!(parse_answer(b"\x05\x00\x00\x03\x01a\x00\x01"), Ok(Front::Whole(Ok(None), 8)));
        assert_eq!((parse_answer(&[4]), parse_answer(&[5, 0, 0, 2])), (Err(Broken), Err(Broken)));
    }

    #[test]
    fn a_datagram_is_unwrapped_and_a_fragment_is_none() {
        let mut packet = Vec::new();
        let from = "192.0.2.1:53".parse().unwrap();
        write_datagram_head(&Place::Addr(from), &mut packet);
        packet.extend(b"payload");
        let (addr, at) = parse_datagram(&packet).unwrap();
        assert_eq!((addr, &packet[at..]), (Some(from), &b"payload"[..]));
        packet[2] = 1;
        assert_eq!(parse_datagram(&packet), None);
        assert_eq!((parse_datagram(&[]), parse_datagram(&[0, 0, 0, 1, 1])), (None, None));
    }

    #[test]
    fn addresses_of_proxies_are_read_and_their_passwords_never_shown() {
        let url = ProxyUrl::parse("socks5://nobody:se%3acret@w@[::1]:9050/").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("::1", 9050));
        assert_eq!(url.login, Some(Login { user: "nobody".into(), password: "se:cret@w".into() }));
        let shown = format!("{url} {url:?} {:?}", url.login);
        assert!(!shown.contains("cret") && !shown.contains("nobody"), "{shown}");
        assert_eq!(ProxyUrl::parse("socks5h://localhost").unwrap().to_string(), "socks5://localhost:1080");
        let long = format!("socks5://{}:x@a", "u".repeat(256));
        for bad in [
            "",
            "localhost:1080",
            "http://a:1",
            "socks4://a",
            "socks5://",
            "socks5://a:0",
            "socks5://a:x",
            "socks5://me@a",
            "socks5://:p@a",
            "socks5://me:@a",
            "socks5://me:%zz@a",
            "socks5://a b",
            "socks5://::1",
            "socks5://a/x",
            &long,
        ] {
            assert_eq!(ProxyUrl::parse(bad), None, "{bad}");
        }
    }
}

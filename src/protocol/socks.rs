//! Asking a SOCKS5 proxy for one thing over one stream (RFC 1928, 1929): a way to somebody, or for datagrams.
//!
//! It reads no byte beyond the proxy's last answer: what follows belongs to whoever is at the other end. A password goes to a proxy
//! only where that asks for it. It opens nothing, and knows no time: who asks has a deadline.

use std::fmt;
use std::net::SocketAddr;

use crate::codec::socks::{
    ANSWER_MAX, Broken, Command, Front, Login, Method, Refusal, parse_answer, parse_login, parse_method, write_command,
    write_login, write_methods,
};

/// Why there is no way through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocksError {
    /// What answers is no SOCKS5 proxy.
    Broken,
    /// It wants to be logged in to otherwise.
    Method,
    /// It does not know this user, or the password is another one.
    Login,
    /// It will not, or cannot, for this one; for others it may.
    Refused(Refusal),
}

impl SocksError {
    /// True if the proxy itself is of no use, whoever is asked for.
    #[must_use]
    pub const fn is_of_proxy(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

impl From<Broken> for SocksError {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

impl fmt::Display for SocksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken => f.write_str("what answers there is no SOCKS5 proxy"),
            Self::Method => f.write_str("it wants another login than `proxy` has"),
            Self::Login => f.write_str("it refuses the user or the password in `proxy`"),
            Self::Refused(refusal) => write!(f, "it says that {refusal}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Method,
    Login,
    Answer,
    Done,
}

/// One request to a proxy. What it says may hold a password, and is shown to nobody.
pub struct Socks {
    stage: Stage,
    login: Option<Login>,
    command: Command,
    outgoing: Vec<u8>,
    /// Of an answer that is not whole; never more than [`ANSWER_MAX`].
    input: Vec<u8>,
    /// How many more bytes to read, at most.
    needed: usize,
    has_heard: bool,
}

impl fmt::Debug for Socks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socks").field("stage", &self.stage).field("command", &self.command).finish_non_exhaustive()
    }
}

impl Socks {
    /// Asks for `command`, once the stream to the proxy stands.
    #[must_use]
    pub fn new(login: Option<Login>, command: Command) -> Self {
        let mut outgoing = Vec::new();
        write_methods(login.is_some(), &mut outgoing);
        let (input, has_heard) = (Vec::new(), false);
        Self { stage: Stage::Method, login, command, outgoing, input, needed: 2, has_heard }
    }

    /// Bytes came: no more than [`Socks::needed`]. Some once the proxy did what it was asked for: where it speaks from, or waits for
    /// datagrams, if it says so.
    ///
    /// # Errors
    /// See [`SocksError`]; the stream is of no more use then.
    ///
    /// # Panics
    /// If more came than was needed: that was somebody else's.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<Option<Option<SocketAddr>>, SocksError> {
        assert!(bytes.len() <= self.needed, "no more is read than is needed");
        self.has_heard |= !bytes.is_empty();
        self.input.extend_from_slice(bytes);
        debug_assert!(self.input.len() <= ANSWER_MAX, "no answer is longer");
        match self.stage {
            Stage::Method => {
                if let Some(method) = self.take(parse_method)? {
                    match (method, &self.login) {
                        (Method::NoLogin, None) => self.ask(),
                        (Method::Password, Some(login)) => {
                            write_login(login, &mut self.outgoing);
                            (self.stage, self.needed) = (Stage::Login, 2);
                        }
                        (Method::None, _) => return Err(SocksError::Method),
                        // It chose what was not offered.
                        _ => return Err(SocksError::Broken),
                    }
                }
            }
            Stage::Login => match self.take(parse_login)? {
                Some(true) => self.ask(),
                Some(false) => return Err(SocksError::Login),
                None => {}
            },
            Stage::Answer => {
                if let Some(answer) = self.take(parse_answer)? {
                    (self.stage, self.needed) = (Stage::Done, 0);
                    return answer.map(Some).map_err(SocksError::Refused);
                }
            }
            Stage::Done => {}
        }
        Ok(None)
    }

    fn ask(&mut self) {
        write_command(&self.command, &mut self.outgoing);
        // Four bytes and the first of an address say how long the rest is.
        (self.stage, self.needed) = (Stage::Answer, 5);
    }

    /// Takes an answer from what came, if it is whole; else notes how much of it is missing.
    fn take<T>(&mut self, parse: fn(&[u8]) -> Result<Front<T>, Broken>) -> Result<Option<T>, SocksError> {
        match parse(&self.input)? {
            Front::Whole(answer, len) => {
                debug_assert_eq!(len, self.input.len(), "no more is read than is needed");
                self.input.clear();
                Ok(Some(answer))
            }
            Front::Missing(count) => {
                self.needed = count;
                Ok(None)
            }
        }
    }

    /// What is to be sent to the proxy.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// So many bytes of it are gone.
    pub fn advance(&mut self, count: usize) {
        self.outgoing.drain(..count);
    }

    /// How many bytes may be read now; none once it is over.
    #[must_use]
    pub const fn needed(&self) -> usize {
        self.needed
    }

    /// True once the proxy has said anything.
    #[must_use]
    pub const fn has_heard(&self) -> bool {
        self.has_heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::socks::Place;

    fn login() -> Login {
        Login { user: "me".into(), password: "secret".into() }
    }

    fn to() -> Command {
        Command::Connect(Place::Name("peer.example".into(), 6881))
    }

    /// Lends `bytes` as they are asked for; what is left of them.
    fn feed<'b>(socks: &mut Socks, mut bytes: &'b [u8]) -> (&'b [u8], Result<Option<Option<SocketAddr>>, SocksError>) {
        while !bytes.is_empty() && socks.needed() > 0 {
            let (now, rest) = bytes.split_at(bytes.len().min(socks.needed()));
            bytes = rest;
            match socks.handle_input(now) {
                Ok(None) => {}
                result => return (bytes, result),
            }
        }
        (bytes, Ok(None))
    }

    fn said(socks: &mut Socks) -> Vec<u8> {
        let out = socks.outgoing().to_vec();
        socks.advance(out.len());
        out
    }

    #[test]
    fn a_way_is_asked_for_and_what_follows_is_not_touched() {
        let mut socks = Socks::new(None, to());
        assert_eq!(said(&mut socks), [5, 1, 0]);
        assert!(!socks.has_heard());
        assert_eq!(feed(&mut socks, &[5, 0]).1, Ok(None));
        assert_eq!(said(&mut socks), b"\x05\x01\x00\x03\x0cpeer.example\x1a\xe1");
        let (left, result) = feed(&mut socks, b"\x05\x00\x00\x01\x0a\x00\x00\x01\x00\x09\x13BitTorrent");
        assert_eq!(result, Ok(Some(Some("10.0.0.1:9".parse().unwrap()))));
        assert_eq!((left, socks.needed()), (&b"\x13BitTorrent"[..], 0));
        assert_eq!(feed(&mut socks, b"more").0, b"more");
    }

    #[test]
    fn a_login_is_given_where_it_is_asked_for_and_nowhere_else() {
        let mut socks = Socks::new(Some(login()), Command::Associate);
        assert_eq!(said(&mut socks), [5, 1, 2], "nothing without a login is offered");
        feed(&mut socks, &[5, 2]).1.unwrap();
        assert_eq!(said(&mut socks), b"\x01\x02me\x06secret");
        feed(&mut socks, &[1, 0]).1.unwrap();
        assert_eq!(said(&mut socks)[..2], [5, 3]);
        assert!(!format!("{socks:?}").contains("115, 101, 99"), "not even as numbers");
        let mut refused = Socks::new(Some(login()), to());
        assert_eq!(feed(&mut refused, &[5, 2, 1, 1]).1, Err(SocksError::Login));
        let mut other = Socks::new(Some(login()), to());
        assert_eq!(feed(&mut other, &[5, 0]).1, Err(SocksError::Broken), "it was not offered");
        let mut none = Socks::new(None, to());
        assert_eq!(feed(&mut none, &[5, 0xff]).1, Err(SocksError::Method));
    }

    #[test]
    fn whose_fault_it_is_is_told() {
        let mut socks = Socks::new(None, to());
        let (_, result) = feed(&mut socks, &[5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(result, Err(SocksError::Refused(Refusal(5))));
        assert!(!result.unwrap_err().is_of_proxy());
        assert_eq!(feed(&mut Socks::new(None, to()), b"HTTP/1.1").1, Err(SocksError::Broken));
        assert!(SocksError::Broken.is_of_proxy());
    }
}

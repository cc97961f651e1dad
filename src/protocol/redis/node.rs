//! One server: how it is reached, and the stream to it with what was asked on it and waits for its reply, in order.
//!
//! It decides nothing: what a reply means for others is for [`super::Redis`] to say.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::base::time::Time;
use crate::codec::resp::write_command;
use crate::protocol::redis::reader::ReplyReader;
use crate::protocol::redis::url::{RedisUrl, Server};
use crate::protocol::redis::{LinkId, REPLY_PATIENCE};

/// How long a name may take to be looked up.
pub(super) const RESOLVE_PATIENCE: Duration = Duration::from_secs(10);
/// How long one address may take to be connected to.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(4);
/// A server that was not asked anything for so long is asked whether it is there.
pub(super) const PING_EVERY: Duration = Duration::from_secs(10);
/// Sent bytes at the front are dropped when they are at least so many and half of all.
const COMPACT_BYTES: usize = 4096;
/// Room that an empty buffer keeps for the next commands; more goes back at once.
const KEPT_BYTES: usize = 64 * 1024;

/// Something that was asked.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) token: u64,
    /// When it was asked.
    pub(super) asked: Time,
    /// Bytes of the command.
    pub(super) len: usize,
    /// The command, where it may have to be sent again; nothing otherwise.
    pub(super) command: Vec<u8>,
    /// How often it was sent elsewhere.
    pub(super) redirects: u8,
    /// It is for a server that does not keep its slot yet.
    pub(super) is_early: bool,
}

/// What the next reply is to.
#[derive(Debug)]
pub(super) enum Expected {
    Auth,
    Select,
    /// `CLUSTER SLOTS`.
    Slots,
    /// The last of the greeting.
    Greeted,
    Ping,
    Asking,
    Ask(Ask),
}

/// A stream that stands.
pub(super) struct Talk {
    pub(super) link: LinkId,
    /// The greeting was answered.
    pub(super) is_ready: bool,
    out: Vec<u8>,
    /// How many of `out`, from the front, have been sent.
    sent: usize,
    expected: VecDeque<Expected>,
    pub(super) reader: ReplyReader,
    /// When the last reply came, or when the first that is expected was asked for.
    since: Time,
}

impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is to be sent may hold the password.
        write!(f, "Talk({:?}, {} bytes, {:?})", self.link, self.outgoing().len(), self.expected)
    }
}

impl Talk {
    /// A stream that begins with a greeting; with `seeks` the server is asked who keeps which slot.
    pub(super) fn new(now: Time, link: LinkId, url: &RedisUrl, seeks: bool) -> Self {
        let expected = VecDeque::new();
        let reader = ReplyReader::default();
        let mut talk = Self { link, is_ready: false, out: Vec::new(), sent: 0, expected, reader, since: now };
        match (&url.user, &url.password) {
            (Some(user), Some(password)) => {
                talk.say(now, &[b"AUTH", user.as_bytes(), password.as_bytes()], Expected::Auth);
            }
            (None, Some(password)) => talk.say(now, &[b"AUTH", password.as_bytes()], Expected::Auth),
            (_, None) => {}
        }
        if url.database != 0 {
            talk.say(now, &[b"SELECT", url.database.to_string().as_bytes()], Expected::Select);
        }
        if seeks {
            talk.say(now, &[b"CLUSTER", b"SLOTS"], Expected::Slots);
        }
        talk.say(now, &[b"PING"], Expected::Greeted);
        talk
    }

    /// Asks for something that is our own.
    pub(super) fn say(&mut self, now: Time, command: &[&[u8]], expected: Expected) {
        write_command(command, &mut self.out);
        self.expect(now, expected);
    }

    /// Asks what somebody asked, written already.
    pub(super) fn say_for(&mut self, now: Time, command: &[u8], ask: Ask) {
        if ask.is_early {
            self.say(now, &[b"ASKING"], Expected::Asking);
        }
        self.out.extend_from_slice(command);
        self.expect(now, Expected::Ask(ask));
    }

    fn expect(&mut self, now: Time, expected: Expected) {
        if self.expected.is_empty() {
            self.since = now;
        }
        self.expected.push_back(expected);
    }

    /// A reply came: what it is to.
    pub(super) fn take_expected(&mut self, now: Time) -> Option<Expected> {
        self.since = now;
        self.expected.pop_front()
    }

    /// Nothing is waited for.
    pub(super) fn is_idle(&self) -> bool {
        self.expected.is_empty()
    }

    pub(super) fn outgoing(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
        assert!(self.sent <= self.out.len(), "no more was sent than was to be");
        if self.sent == self.out.len() {
            self.out.clear();
            self.out.shrink_to(KEPT_BYTES);
            self.sent = 0;
        } else if self.sent >= COMPACT_BYTES && self.sent >= self.out.len() / 2 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// When it has been silent for too long, or is to be asked whether it is there.
    pub(super) fn deadline(&self) -> Time {
        self.since + if self.is_idle() { PING_EVERY } else { REPLY_PATIENCE }
    }

    /// What was asked and has no answer, in order.
    pub(super) fn into_asks(self) -> impl Iterator<Item = Ask> {
        self.expected.into_iter().filter_map(|expected| match expected {
            Expected::Ask(ask) => Some(ask),
            _ => None,
        })
    }
}

/// How far the way to a server has been gone.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its name is being looked up.
    Resolving { deadline: Time },
    /// One of its addresses is being connected to.
    Connecting { link: LinkId, deadline: Time },
    /// The stream stands.
    Open(Box<Talk>),
    /// It is tried again then.
    Away { retry: Time },
}

/// A server.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) server: Server,
    pub(super) stage: Stage,
    /// Addresses still to be tried.
    pub(super) addresses: VecDeque<IpAddr>,
    /// Tries in a row that failed.
    pub(super) fails: u32,
    /// What was asked while it was reached for the first time.
    pub(super) waiting: VecDeque<Ask>,
}

impl Node {
    pub(super) fn new(now: Time, server: Server) -> Self {
        let stage = Stage::Away { retry: now };
        Self { server, stage, addresses: VecDeque::new(), fails: 0, waiting: VecDeque::new() }
    }

    /// The stream to it, once it may be asked something.
    pub(super) fn ready(&mut self) -> Option<&mut Talk> {
        match &mut self.stage {
            Stage::Open(talk) if talk.is_ready => Some(talk),
            _ => None,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(&self.stage, Stage::Open(talk) if talk.is_ready)
    }

    /// It is being reached, and no try has failed yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.fails == 0 && !self.is_ready() && !matches!(self.stage, Stage::Away { .. })
    }

    /// The stream that it has or will have.
    pub(super) fn link(&self) -> Option<LinkId> {
        match &self.stage {
            Stage::Connecting { link, .. } => Some(*link),
            Stage::Open(talk) => Some(talk.link),
            Stage::Resolving { .. } | Stage::Away { .. } => None,
        }
    }

    /// When something is to be done about it.
    pub(super) fn deadline(&self) -> Time {
        let stage = match &self.stage {
            Stage::Resolving { deadline } | Stage::Connecting { deadline, .. } => *deadline,
            Stage::Open(talk) => talk.deadline(),
            Stage::Away { retry } => *retry,
        };
        self.waiting.front().map_or(stage, |ask| stage.min(ask.asked + REPLY_PATIENCE))
    }
}

//! Message stream encryption: the handshake that hides what a connection is, and the cipher that may follow it.
//!
//! Both ends agree on a secret (`exchange`), prove that they know the torrent's hash, and choose whether what follows is plain or
//! ciphered with RC4 (`rc4`). It hides BitTorrent from who looks at traffic in passing and protects nothing else: hashes make
//! content sure. One machine for both ends; it eats what comes and yields what to say, and ends with [`Step::Done`]. The
//! protocol is as Vuze's wiki describes it and everybody speaks it; there is no BEP of its text.

mod exchange;
mod rc4;

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::rng::Rng;

use self::exchange::{KEY_LEN, Secret};
use self::rc4::Rc4;

/// Random bytes that hide the lengths of messages, at most.
const PAD_MAX: usize = 512;
/// The first payload that may come inside the handshake (it is a BitTorrent handshake, if anything); more is refused.
const FIRST_MAX: usize = 1024;
/// Zeros that show where ciphered bytes begin.
const VC: [u8; 8] = [0; 8];
/// Bits of what may follow the handshake.
const PLAIN: u32 = 1;
const CIPHERED: u32 = 2;

/// The other end does not speak as it should; the connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MseError;

/// How far the handshake is.
#[derive(Debug)]
pub enum Step {
    /// It waits for more.
    Wait,
    /// The other end names a torrent by [`obfuscated`]; answer with [`Mse::set_torrent`].
    Torrent(Sha1Hash),
    /// It is over.
    Done {
        /// What ciphers the rest; none if it is plain.
        ciphers: Option<Box<Ciphers>>,
        /// What came already of it, in plain.
        rest: Vec<u8>,
    },
}

/// The two ciphers of a connection.
#[derive(Debug, Clone)]
pub struct Ciphers {
    incoming: Rc4,
    outgoing: Rc4,
}

impl Ciphers {
    /// Deciphers what came, in place. Every byte once, in order.
    pub fn open(&mut self, bytes: &mut [u8]) {
        self.incoming.apply(bytes);
    }

    /// Ciphers what goes out, in place. Every byte once, in order.
    pub fn seal(&mut self, bytes: &mut [u8]) {
        self.outgoing.apply(bytes);
    }
}

/// What stands for a torrent's hash on the wire.
#[must_use]
pub fn obfuscated(info_hash: InfoHash) -> Sha1Hash {
    hash(&[b"req2", &info_hash.0])
}

fn hash(parts: &[&[u8]]) -> Sha1Hash {
    Sha1Hash::of(&parts.concat())
}

fn xor(one: Sha1Hash, other: Sha1Hash) -> Sha1Hash {
    Sha1Hash(std::array::from_fn(|at| one.0[at] ^ other.0[at]))
}

#[derive(Debug)]
enum Stage {
    /// Their public key is awaited.
    Key,
    /// They accepted us: the end of their padding is looked for.
    Answer,
    /// They dialled us: the end of their padding is looked for.
    Padding,
    /// The hash of the torrent is awaited, then the caller's word.
    Torrent,
    Named,
    /// What they offer, and the length of more padding.
    Offer,
    /// That padding, and the length of the first payload.
    OfferPadding {
        offered: u32,
        len: usize,
    },
    /// The first payload.
    First {
        offered: u32,
        len: usize,
    },
    /// What they chose, and the length of more padding.
    Choice,
    /// That padding.
    ChoicePadding {
        chosen: u32,
        len: usize,
    },
    Done,
}

/// The handshake of one connection.
#[derive(Debug)]
pub struct Mse {
    stage: Stage,
    secret: Secret,
    /// The common secret, once their key is here.
    shared: [u8; KEY_LEN],
    /// Of a connection that we dialled.
    info_hash: Option<InfoHash>,
    ciphers: Option<Box<Ciphers>>,
    may_be_plain: bool,
    /// What came and is not yet understood; no more than one read and one message.
    input: Vec<u8>,
    output: Vec<u8>,
    rng: Rng,
}

impl Mse {
    /// A connection that we dialled for a torrent. What follows is ciphered unless the other end wants it plain and
    /// `may_be_plain`.
    #[must_use]
    pub fn dialled(info_hash: InfoHash, may_be_plain: bool, rng: Rng) -> Self {
        let mut mse = Self::new(Some(info_hash), may_be_plain, rng);
        mse.say_key();
        mse
    }

    /// A connection that was accepted and does not begin like a plain one. What follows is plain if the other end takes that and
    /// `may_be_plain`.
    #[must_use]
    pub fn accepted(may_be_plain: bool, rng: Rng) -> Self {
        Self::new(None, may_be_plain, rng)
    }

    fn new(info_hash: Option<InfoHash>, may_be_plain: bool, mut rng: Rng) -> Self {
        Self {
            stage: Stage::Key,
            secret: Secret::new(rng.bytes()),
            shared: [0; KEY_LEN],
            info_hash,
            ciphers: None,
            may_be_plain,
            input: Vec::new(),
            output: Vec::new(),
            rng,
        }
    }

    /// Takes what is to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Bytes came.
    ///
    /// # Errors
    /// See [`MseError`].
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<Step, MseError> {
        self.input.extend_from_slice(bytes);
        self.step()
    }

    /// Says which torrent [`Step::Torrent`] named.
    ///
    /// # Errors
    /// See [`MseError`].
    pub fn set_torrent(&mut self, info_hash: InfoHash) -> Result<Step, MseError> {
        self.ciphers = Some(self.derive(info_hash, false));
        self.stage = Stage::Offer;
        self.step()
    }

    fn step(&mut self) -> Result<Step, MseError> {
        loop {
            match self.stage {
                Stage::Key => {
                    let Some(theirs) = self.take::<KEY_LEN>() else { return Ok(Step::Wait) };
                    self.shared = self.secret.shared(&theirs).ok_or(MseError)?;
                    self.stage = if let Some(info_hash) = self.info_hash {
                        self.say_torrent(info_hash);
                        Stage::Answer
                    } else {
                        self.say_key();
                        Stage::Padding
                    };
                }
                Stage::Padding => {
                    let mark = hash(&[b"req1", &self.shared]);
                    if !self.find(&mark.0)? {
                        return Ok(Step::Wait);
                    }
                    self.stage = Stage::Torrent;
                }
                Stage::Torrent => {
                    let Some(named) = self.take::<20>() else { return Ok(Step::Wait) };
                    self.stage = Stage::Named;
                    return Ok(Step::Torrent(xor(Sha1Hash(named), hash(&[b"req3", &self.shared]))));
                }
                Stage::Named | Stage::Done => return Ok(Step::Wait),
                Stage::Offer => {
                    let Some(offer) = self.take_open::<14>() else { return Ok(Step::Wait) };
                    let (offered, len) = offer_of(&offer)?;
                    self.stage = Stage::OfferPadding { offered, len };
                }
                Stage::OfferPadding { offered, len } => {
                    if self.input.len() < len + 2 {
                        return Ok(Step::Wait);
                    }
                    self.skip_open(len);
                    let first = self.take_open::<2>().map_or(0, |len| usize::from(u16::from_be_bytes(len)));
                    if first > FIRST_MAX {
                        return Err(MseError);
                    }
                    self.stage = Stage::First { offered, len: first };
                }
                Stage::First { offered, len } => {
                    if self.input.len() < len {
                        return Ok(Step::Wait);
                    }
                    let chosen = if self.may_be_plain && offered & PLAIN != 0 { PLAIN } else { offered & CIPHERED };
                    if chosen == 0 {
                        return Err(MseError);
                    }
                    self.say_sealed(&[&VC[..], &chosen.to_be_bytes(), &[0, 0]].concat());
                    let mut first: Vec<u8> = self.input.drain(..len).collect();
                    self.open(&mut first);
                    return Ok(self.finish(chosen, first));
                }
                Stage::Answer => {
                    let mut mark = VC;
                    self.ciphers.as_ref().expect("made when we named the torrent").incoming.clone().apply(&mut mark);
                    if !self.find(&mark)? {
                        return Ok(Step::Wait);
                    }
                    self.open(&mut mark);
                    self.stage = Stage::Choice;
                }
                Stage::Choice => {
                    let Some(choice) = self.take_open::<6>() else { return Ok(Step::Wait) };
                    let (chosen, len) = choice_of(&choice)?;
                    if !(chosen == CIPHERED || (chosen == PLAIN && self.may_be_plain)) {
                        return Err(MseError);
                    }
                    self.stage = Stage::ChoicePadding { chosen, len };
                }
                Stage::ChoicePadding { chosen, len } => {
                    if self.input.len() < len {
                        return Ok(Step::Wait);
                    }
                    self.skip_open(len);
                    return Ok(self.finish(chosen, Vec::new()));
                }
            }
        }
    }

    /// The end: `first` came inside the handshake, and what is left of the input after it.
    fn finish(&mut self, chosen: u32, mut first: Vec<u8>) -> Step {
        self.stage = Stage::Done;
        let mut rest = std::mem::take(&mut self.input);
        let ciphers = self.ciphers.take().filter(|_| chosen == CIPHERED);
        let ciphers = ciphers.map(|mut ciphers| {
            ciphers.open(&mut rest);
            ciphers
        });
        first.append(&mut rest);
        Step::Done { ciphers, rest: first }
    }

    fn say_key(&mut self) {
        self.output.extend(self.secret.public());
        let len = self.rng.index(PAD_MAX + 1);
        let mut pad = vec![0; len];
        self.rng.fill(&mut pad);
        self.output.extend(pad);
    }

    fn say_torrent(&mut self, info_hash: InfoHash) {
        self.output.extend(hash(&[b"req1", &self.shared]).0);
        self.output.extend(xor(obfuscated(info_hash), hash(&[b"req3", &self.shared])).0);
        self.ciphers = Some(self.derive(info_hash, true));
        let offered = if self.may_be_plain { PLAIN | CIPHERED } else { CIPHERED };
        self.say_sealed(&[&VC[..], &offered.to_be_bytes(), &[0; 4]].concat());
    }

    fn say_sealed(&mut self, bytes: &[u8]) {
        let mut sealed = bytes.to_vec();
        self.ciphers.as_mut().expect("both know the torrent").seal(&mut sealed);
        self.output.extend(sealed);
    }

    fn derive(&self, info_hash: InfoHash, dialled: bool) -> Box<Ciphers> {
        let key = |name: &[u8]| Rc4::new(&hash(&[name, &self.shared, &info_hash.0]).0);
        let (theirs, ours) = if dialled { (b"keyB", b"keyA") } else { (b"keyA", b"keyB") };
        Box::new(Ciphers { incoming: key(theirs), outgoing: key(ours) })
    }

    /// Drops everything up to the end of `mark`; false if it is not here yet.
    fn find(&mut self, mark: &[u8]) -> Result<bool, MseError> {
        let looked = &self.input[..self.input.len().min(PAD_MAX + mark.len())];
        match looked.windows(mark.len()).position(|window| window == mark) {
            Some(at) => {
                self.input.drain(..at + mark.len());
                Ok(true)
            }
            None if looked.len() < PAD_MAX + mark.len() => Ok(false),
            None => Err(MseError),
        }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.input.first_chunk::<N>()?;
        self.input.drain(..N);
        Some(bytes)
    }

    fn take_open<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = self.take::<N>()?;
        self.open(&mut bytes);
        Some(bytes)
    }

    fn skip_open(&mut self, len: usize) {
        let mut skipped: Vec<u8> = self.input.drain(..len).collect();
        self.open(&mut skipped);
    }

    fn open(&mut self, bytes: &mut [u8]) {
        self.ciphers.as_mut().expect("both know the torrent").open(bytes);
    }
}

/// What is offered or chosen, and the length of the padding after it.
fn choice_of(bytes: &[u8; 6]) -> Result<(u32, usize), MseError> {
    let [a, b, c, d, e, f] = *bytes;
    let len = usize::from(u16::from_be_bytes([e, f]));
    if len > PAD_MAX { Err(MseError) } else { Ok((u32::from_be_bytes([a, b, c, d]), len)) }
}

fn offer_of(bytes: &[u8; 14]) -> Result<(u32, usize), MseError> {
    let (mark, choice) = bytes.split_first_chunk::<8>().expect("14 bytes");
    if *mark != VC {
        return Err(MseError);
    }
    choice_of(choice.first_chunk().expect("6 bytes"))
}

#[cfg(test)]
mod tests;

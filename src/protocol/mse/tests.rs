use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use super::*;

const HASH: InfoHash = Sha1Hash([0x5a; 20]);

/// One end, what it was sent, and how it ended.
struct End {
    mse: Mse,
    inbox: Vec<u8>,
    ciphers: Option<Box<Ciphers>>,
    got: Option<Vec<u8>>,
}

impl End {
    fn new(mse: Mse) -> Self {
        Self { mse, inbox: Vec::new(), ciphers: None, got: None }
    }

    /// Takes up to `cut` bytes; what it says to that. It greets as soon as it may.
    fn turn(&mut self, cut: usize) -> Result<Vec<u8>, MseError> {
        let mut now: Vec<u8> = self.inbox.drain(..cut.min(self.inbox.len())).collect();
        if let Some(got) = &mut self.got {
            if let Some(ciphers) = &mut self.ciphers {
                ciphers.open(&mut now);
            }
            got.extend(now);
            return Ok(Vec::new());
        }
        let mut step = self.mse.handle_input(&now)?;
        if let Step::Torrent(named) = step {
            assert_eq!(named, obfuscated(HASH));
            step = self.mse.set_torrent(HASH)?;
        }
        let mut said = self.mse.take_output();
        if let Step::Done { mut ciphers, rest } = step {
            let mut greeting = b"greetings".to_vec();
            if let Some(ciphers) = &mut ciphers {
                ciphers.seal(&mut greeting);
            }
            said.extend(greeting);
            (self.ciphers, self.got) = (ciphers, Some(rest));
        }
        Ok(said)
    }
}

/// Both ends talk until there is nothing more to say, each reading at most `cut` bytes at a time: whether the rest is ciphered,
/// and what came of it, at the end that dialled and at the other.
fn shake(dialled_plain: bool, accepted_plain: bool, cut: usize) -> Result<[(bool, Vec<u8>); 2], MseError> {
    let mut a = End::new(Mse::dialled(HASH, dialled_plain, Rng::from_number(1)));
    let mut b = End::new(Mse::accepted(accepted_plain, Rng::from_number(2)));
    b.inbox = a.mse.take_output();
    while !(a.inbox.is_empty() && b.inbox.is_empty()) {
        let said = b.turn(cut)?;
        a.inbox.extend(said);
        let said = a.turn(cut)?;
        b.inbox.extend(said);
    }
    Ok([a, b].map(|end| (end.ciphers.is_some(), end.got.expect("both are done"))))
}

#[test]
fn what_follows_is_plain_where_both_take_it_and_ciphered_elsewhere() {
    for (dialled, accepted, ciphered) in
        [(true, true, false), (true, false, true), (false, true, true), (false, false, true)]
    {
        let [a, b] = shake(dialled, accepted, 100_000).unwrap();
        assert_eq!(a, (ciphered, b"greetings".to_vec()), "{dialled} {accepted}");
        assert_eq!(b, (ciphered, b"greetings".to_vec()), "{dialled} {accepted}");
    }
}

#[test]
fn a_stranger_who_never_ends_his_padding_is_refused() {
    let mut b = Mse::accepted(true, Rng::from_number(2));
    assert!(matches!(b.handle_input(&[7; KEY_LEN]), Ok(Step::Wait)));
    assert!(matches!(b.handle_input(&[9; PAD_MAX + 19]), Ok(Step::Wait)));
    assert_eq!(b.handle_input(&[9]).unwrap_err(), MseError);
    let mut a = Mse::dialled(HASH, true, Rng::from_number(2));
    assert!(matches!(a.handle_input(&[7; KEY_LEN]), Ok(Step::Wait)));
    assert_eq!(a.handle_input(&[9; PAD_MAX + 8]).unwrap_err(), MseError);
}

#[test]
fn no_key_is_no_key() {
    assert_eq!(Mse::accepted(true, Rng::from_number(2)).handle_input(&[0; KEY_LEN]).unwrap_err(), MseError);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// However the stream is cut, the same is agreed on and the same comes through.
    #[test]
    fn every_cut_of_the_stream_is_the_same(cut in 1..700_usize, dialled: bool, accepted: bool) {
        let whole = shake(dialled, accepted, 100_000).unwrap();
        prop_assert_eq!(shake(dialled, accepted, cut).unwrap(), whole);
    }

    /// Whatever a stranger sends, it ends, and holds no more than was sent.
    #[test]
    fn garbage_is_refused_or_waited_for(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..10)) {
        for mut mse in [Mse::accepted(true, Rng::from_number(3)), Mse::dialled(HASH, true, Rng::from_number(3))] {
            for chunk in &chunks {
                if mse.handle_input(chunk).is_err() {
                    break;
                }
            }
            prop_assert!(mse.input.len() <= 3000);
        }
    }
}

//! Diffie–Hellman in MSE's group of 768 bits, with exponents of 160: 42 µs each on a slow machine.

use crypto_bigint::modular::ConstMontyForm;
use crypto_bigint::{U192, U768, const_monty_params};

/// Bytes of a public key and of the common secret.
pub(super) const KEY_LEN: usize = 96;
const EXPONENT_BITS: u32 = 160;

const_monty_params!(
    Prime,
    U768,
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563",
    "The group's prime."
);

type Element = ConstMontyForm<Prime, { U768::LIMBS }>;

/// Our half.
#[derive(Clone)]
pub(super) struct Secret(U192);

/// Says nothing of it.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    pub(super) fn new(random: [u8; 20]) -> Self {
        let mut bytes = [0; 24];
        bytes[4..].copy_from_slice(&random);
        Self(U192::from_be_slice(&bytes))
    }

    /// What the other end is told.
    pub(super) fn public(&self) -> [u8; KEY_LEN] {
        bytes_of(Element::new(&U768::from_u8(2)).pow_bounded_exp(&self.0, EXPONENT_BITS))
    }

    /// What both ends know and nobody else; none if theirs is no key: with 0, 1 or −1 anybody would know it.
    pub(super) fn shared(&self, theirs: &[u8; KEY_LEN]) -> Option<[u8; KEY_LEN]> {
        let theirs = U768::from_be_slice(theirs);
        let shared = bytes_of(Element::new(&theirs).pow_bounded_exp(&self.0, EXPONENT_BITS));
        let minus_one = bytes_of(-Element::new(&U768::ONE));
        let is_trivial = shared[..KEY_LEN - 1].iter().all(|&byte| byte == 0) && shared[KEY_LEN - 1] <= 1;
        (!is_trivial && shared != minus_one).then_some(shared)
    }
}

fn bytes_of(element: Element) -> [u8; KEY_LEN] {
    let mut bytes = [0; KEY_LEN];
    bytes.copy_from_slice(element.retrieve().to_be_bytes().as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_know_the_same_and_trivial_keys_are_refused() {
        let (one, other) = (Secret::new([7; 20]), Secret::new([0xfe; 20]));
        let shared = one.shared(&other.public()).unwrap();
        assert_eq!(other.shared(&one.public()), Some(shared));
        assert_ne!(one.public(), other.public());
        assert_eq!(one.shared(&[0; KEY_LEN]), None);
        let mut unity = [0; KEY_LEN];
        unity[KEY_LEN - 1] = 1;
        assert_eq!(one.shared(&unity), None);
    }

    #[test]
    fn a_small_power_is_what_it_is() {
        let mut ten = [0; 20];
        ten[19] = 10;
        let mut expected = [0; KEY_LEN];
        expected[KEY_LEN - 2..].copy_from_slice(&1024_u16.to_be_bytes());
        assert_eq!(Secret::new(ten).public(), expected);
    }
}

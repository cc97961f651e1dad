//! Node numbers: how far apart they are, and which ones an address may have (BEP 42).

use std::net::IpAddr;

use crate::base::addr::canonical;
use crate::base::hash::Sha1Hash;
use crate::base::rng::Rng;
use crate::codec::krpc::NodeId;

// Whoever is in a local network may have any number (BEP 42), and many may be behind one address.
pub(super) use crate::base::addr::is_local;

/// How far apart two numbers are: less is nearer.
pub(super) fn distance(a: NodeId, b: NodeId) -> [u8; 20] {
    std::array::from_fn(|at| a.0[at] ^ b.0[at])
}

/// With how many equal bits two numbers begin, 0 to 160.
pub(super) fn shared_bits(a: NodeId, b: NodeId) -> usize {
    let distance = distance(a, b);
    let zeros = distance.iter().take_while(|byte| **byte == 0).count();
    zeros * 8 + distance.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize)
}

/// A number that shares just its first `bits` bits with `own`, and is drawn otherwise; `bits` is less than 160.
pub(super) fn random_at(own: NodeId, bits: usize, rng: &mut Rng) -> NodeId {
    let mut id = Sha1Hash(rng.bytes());
    let (whole, rest) = (bits / 8, bits % 8);
    id.0[..whole].copy_from_slice(&own.0[..whole]);
    let kept = !(0xff_u8.checked_shr(u32::try_from(rest).expect("less than eight")).unwrap_or_default());
    let first_other = 0x80 >> rest;
    id.0[whole] = own.0[whole] & kept | !own.0[whole] & first_other | id.0[whole] & !kept & !first_other;
    id
}

/// The first 21 bits that a number must have at `ip` when its last byte is `last`; in the high bits of the result.
fn prefix(ip: IpAddr, last: u8) -> u32 {
    let chance = (last & 7) << 5;
    match canonical(ip) {
        IpAddr::V4(ip) => {
            let mut bytes = ip.octets();
            bytes.iter_mut().zip([0x03, 0x0f, 0x3f, 0xff]).for_each(|(byte, mask)| *byte &= mask);
            bytes[0] |= chance;
            crc32c::crc32c(&bytes)
        }
        IpAddr::V6(ip) => {
            let mut bytes = *ip.octets().first_chunk::<8>().expect("sixteen are there");
            let masks = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];
            bytes.iter_mut().zip(masks).for_each(|(byte, mask)| *byte &= mask);
            bytes[0] |= chance;
            crc32c::crc32c(&bytes)
        }
    }
}

/// How many bits of a number its address decides.
const PREFIX_MASK: u32 = 0xffff_f800;

/// True if a node at `ip` may call itself `id`.
pub(super) fn is_allowed(id: NodeId, ip: IpAddr) -> bool {
    let first = u32::from_be_bytes(*id.0.first_chunk().expect("twenty are there"));
    is_local(ip) || (first ^ prefix(ip, id.0[19])) & PREFIX_MASK == 0
}

/// A number for a node at `ip`.
pub(crate) fn draw(ip: IpAddr, rng: &mut Rng) -> NodeId {
    let mut id = Sha1Hash(rng.bytes());
    let first = u32::from_be_bytes(*id.0.first_chunk().expect("twenty are there"));
    let first = prefix(ip, id.0[19]) & PREFIX_MASK | first & !PREFIX_MASK;
    id.0[..4].copy_from_slice(&first.to_be_bytes());
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_bep_42() {
        for (ip, id) in [
            ("124.31.75.21", "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"),
            ("21.75.31.124", "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256"),
            ("65.23.51.170", "a5d43220bc8f112a3d426c84764f8c2a1150e616"),
            ("84.124.73.14", "1b0321dd1bb1fe518101ceef99462b947a01ff41"),
            ("43.213.53.83", "e56f6cbf5b7c4be0237986d5243b87aa6d51305a"),
        ] {
            let (ip, id) = (ip.parse().unwrap(), NodeId::from_hex(id).unwrap());
            assert!(is_allowed(id, ip), "{ip}");
            let mut other = id;
            other.0[0] ^= 0x80;
            assert!(!is_allowed(other, ip), "{ip}");
            assert!(is_allowed(other, "192.168.1.1".parse().unwrap()), "a local network");
        }
    }

    #[test]
    fn a_number_that_was_drawn_is_allowed() {
        let mut rng = Rng::from_number(1);
        for ip in ["124.31.75.21", "2001:db8:1:2:3:4:5:6", "::ffff:124.31.75.21"] {
            let ip = ip.parse().unwrap();
            let ids = [(); 20].map(|()| draw(ip, &mut rng));
            assert!(ids.iter().all(|&id| is_allowed(id, ip)));
            assert!(ids[0] != ids[1]);
        }
    }

    #[test]
    fn what_is_drawn_for_a_bucket_lies_in_it() {
        let mut rng = Rng::from_number(2);
        let own = Sha1Hash(rng.bytes());
        for bits in 0..160 {
            assert_eq!(shared_bits(own, random_at(own, bits, &mut rng)), bits);
        }
        assert_eq!(shared_bits(own, own), 160);
    }
}

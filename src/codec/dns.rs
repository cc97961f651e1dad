//! DNS messages, as far as a stub resolver needs them: one question for addresses, and its answer. The format is `simple-dns`'s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

/// Addresses of one name that are used; more are left out.
pub const ADDRESSES_MAX: usize = 16;
/// Aliases that are followed within one answer.
const ALIASES_MAX: usize = 8;

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The name has these addresses (perhaps none of this family) for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// There is no such name.
    NoName,
    /// The server cannot say.
    Failed,
    /// It does not fit a datagram; this much of it did.
    Truncated(Vec<IpAddr>, u32),
}

/// The bytes of a question for the addresses of `name`; none if no name looks like that.
#[must_use]
pub fn query(id: u16, name: &str, v6: bool) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).ok()?;
    let qtype = if v6 { TYPE::AAAA } else { TYPE::A };
    packet.questions.push(Question::new(name, QTYPE::TYPE(qtype), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().ok()
}

/// Reads an answer to the question with `id` for `name`; none if it is no answer to that.
#[must_use]
pub fn parse(bytes: &[u8], id: u16, name: &str, v6: bool) -> Option<Answer> {
    let packet = Packet::parse(bytes).ok()?;
    let wanted = if v6 { TYPE::AAAA } else { TYPE::A };
    let question = packet.questions.first()?;
    let is_ours = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && question.qname.to_string().eq_ignore_ascii_case(name.trim_end_matches('.'))
        && question.qtype == QTYPE::TYPE(wanted);
    if !is_ours {
        return None;
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Some(Answer::NoName),
        _ => return Some(Answer::Failed),
    }
    let (ips, ttl) = addresses(&packet, question.qname.to_string(), v6);
    let is_cut = packet.has_flags(PacketFlag::TRUNCATION);
    Some(if is_cut { Answer::Truncated(ips, ttl) } else { Answer::Addresses(ips, ttl) })
}

/// The addresses of `name`, directly or by aliases, and for how many seconds they are good.
fn addresses(packet: &Packet<'_>, mut name: String, v6: bool) -> (Vec<IpAddr>, u32) {
    for _ in 0..ALIASES_MAX {
        let here = || packet.answers.iter().filter(|answer| answer.name.to_string().eq_ignore_ascii_case(&name));
        let address = |rdata: &RData<'_>| match rdata {
            RData::A(a) if !v6 => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
            RData::AAAA(aaaa) if v6 => Some(IpAddr::V6(Ipv6Addr::from(aaaa.address))),
            _ => None,
        };
        let found: Vec<(IpAddr, u32)> =
            here().filter_map(|answer| Some((address(&answer.rdata)?, answer.ttl))).take(ADDRESSES_MAX).collect();
        if !found.is_empty() {
            let ttl = found.iter().map(|&(_, ttl)| ttl).min().unwrap_or(0);
            return (found.into_iter().map(|(ip, _)| ip).collect(), ttl);
        }
        let alias = here()
            .find_map(|answer| if let RData::CNAME(alias) = &answer.rdata { Some(alias.0.to_string()) } else { None });
        match alias {
            Some(alias) => name = alias,
            None => break,
        }
    }
    (Vec::new(), 60)
}

/// An answer of one name with these addresses, as a server sends it; for tests of the resolver.
#[cfg(test)]
pub(crate) fn answer(query: &[u8], addresses: &[IpAddr], ttl: u32) -> Vec<u8> {
    let asked = Packet::parse(query).unwrap();
    let mut packet = Packet::new_reply(asked.id());
    let question = asked.questions[0].clone();
    for address in addresses {
        let rdata = match address {
            IpAddr::V4(ip) => RData::A((*ip).into()),
            IpAddr::V6(ip) => RData::AAAA((*ip).into()),
        };
        packet.answers.push(simple_dns::ResourceRecord::new(question.qname.clone(), CLASS::IN, ttl, rdata));
    }
    packet.questions.push(question);
    packet.build_bytes_vec().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_fit_its_question() {
        let bytes = query(7, "tracker.example", false).unwrap();
        let reply = answer(&bytes, &["1.2.3.4".parse().unwrap()], 60);
        let expected = Answer::Addresses(vec!["1.2.3.4".parse().unwrap()], 60);
        assert_eq!(parse(&reply, 7, "Tracker.Example", false), Some(expected));
        assert_eq!(parse(&reply, 8, "tracker.example", false), None);
        assert_eq!(parse(&reply, 7, "other.example", false), None);
        assert_eq!(parse(&reply, 7, "tracker.example", true), None);
        assert_eq!(parse(&bytes, 7, "tracker.example", false), None, "a question is no answer");
        let mut cut_short = reply.clone();
        cut_short[2] |= 0x02;
        let expected = Answer::Truncated(vec!["1.2.3.4".parse().unwrap()], 60);
        assert_eq!(parse(&cut_short, 7, "tracker.example", false), Some(expected));
        for cut in 0..reply.len() {
            let _ = parse(&reply[..cut], 7, "tracker.example", false);
        }
    }

    #[test]
    fn a_name_that_cannot_be_is_not_asked_for() {
        assert_eq!(query(1, &"x".repeat(300), false), None);
    }
}

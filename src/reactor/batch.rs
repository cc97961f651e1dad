//! Many datagrams in one system call: what came in, and what is to go.
//!
//! A system call costs as much as a small datagram's way through the kernel, and whoever is asked much (a tracker, a DHT node) has
//! many of them in a round.
#![allow(unsafe_code, reason = "two system calls that no crate of ours wraps")]

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams of one call.
pub(crate) const BATCH: usize = 64;
/// Bytes of a datagram that is received: more than any protocol here sends. Of a longer one the kernel tells that it was cut.
const LEN_MAX: usize = 8 * 1024;

/// A socket address as the kernel has it: 16 bytes of IPv4 or 28 of IPv6.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(4))]
struct RawAddr([u8; 28]);

const V4_LEN: u32 = 16;
const V6_LEN: u32 = 28;

impl RawAddr {
    const NONE: Self = Self([0; 28]);

    /// The address in its bytes, and how many of these there are.
    fn new(addr: SocketAddr) -> (Self, u32) {
        let mut raw = Self::NONE;
        let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let family = u16::try_from(family).expect("a small number");
        raw.0[..2].copy_from_slice(&family.to_ne_bytes());
        raw.0[2..4].copy_from_slice(&addr.port().to_be_bytes());
        match addr {
            SocketAddr::V4(v4) => {
                raw.0[4..8].copy_from_slice(&v4.ip().octets());
                (raw, V4_LEN)
            }
            SocketAddr::V6(v6) => {
                raw.0[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                raw.0[8..24].copy_from_slice(&v6.ip().octets());
                raw.0[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (raw, V6_LEN)
            }
        }
    }

    fn read(&self) -> Option<SocketAddr> {
        let bytes = &self.0;
        let family = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        if family == libc::AF_INET {
            let ip: [u8; 4] = bytes[4..8].try_into().expect("four bytes");
            Some(SocketAddr::new(IpAddr::from(ip), port))
        } else if family == libc::AF_INET6 {
            let ip: [u8; 16] = bytes[8..24].try_into().expect("sixteen bytes");
            let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            let (flow, scope) = (u32::from_be_bytes(word(4)), u32::from_ne_bytes(word(24)));
            Some(SocketAddrV6::new(ip.into(), port, flow, scope).into())
        } else {
            None
        }
    }
}

/// Calls `how` with a header for each of `parts`, which is a datagram's address, its length and its bytes.
fn call<'a>(
    parts: impl Iterator<Item = (&'a mut RawAddr, u32, *mut u8, usize)>,
    how: impl FnOnce(&mut [libc::mmsghdr]) -> libc::c_int,
    mut done: impl FnMut(usize, &libc::mmsghdr),
) -> io::Result<usize> {
    // SAFETY: zeroes are a valid header and a valid part, with no address and no bytes.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut iovecs: [libc::iovec; BATCH] = unsafe { std::mem::zeroed() };
    let mut count = 0;
    for ((header, iovec), (addr, addr_len, base, len)) in headers.iter_mut().zip(&mut iovecs).zip(parts) {
        (iovec.iov_base, iovec.iov_len) = (base.cast(), len);
        (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (iovec, 1);
        (header.msg_hdr.msg_name, header.msg_hdr.msg_namelen) = (std::ptr::from_mut(addr).cast(), addr_len);
        count += 1;
    }
    let moved = usize::try_from(how(&mut headers[..count])).map_err(|_| io::Error::last_os_error())?;
    headers[..moved].iter().enumerate().for_each(|(at, header)| done(at, header));
    Ok(moved)
}

fn count_of(headers: &[libc::mmsghdr]) -> libc::c_uint {
    libc::c_uint::try_from(headers.len()).expect("BATCH at most")
}

/// Datagrams that came.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    addrs: Box<[RawAddr; BATCH]>,
    /// Of each, how long it is, or none if it was cut.
    lens: [Option<usize>; BATCH],
    came: usize,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        // Pages that no datagram ever reaches take no memory.
        Self { bytes: vec![0; BATCH * LEN_MAX], addrs: Box::new([RawAddr::NONE; BATCH]), lens: [None; BATCH], came: 0 }
    }

    /// Receives what is there, up to [`BATCH`] datagrams; they replace those of the call before.
    ///
    /// # Errors
    /// What the kernel says; nothing came then.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.came = 0;
        let lens = &mut self.lens;
        let slots = self.bytes.chunks_exact_mut(LEN_MAX).map(|slot| slot.as_mut_ptr());
        let parts = self.addrs.iter_mut().zip(slots).map(|(addr, base)| (addr, V6_LEN, base, LEN_MAX));
        let receive = |headers: &mut [libc::mmsghdr]| {
            let none = std::ptr::null_mut();
            // SAFETY: each header names an address of V6_LEN bytes and one part of LEN_MAX bytes, all of which live as long as
            // this call and are lent to nobody else.
            unsafe {
                libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count_of(headers), libc::MSG_DONTWAIT, none)
            }
        };
        self.came = call(parts, receive, |at, header| {
            let is_whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            lens[at] = is_whole.then(|| usize::try_from(header.msg_len).expect("LEN_MAX at most"));
        })?;
        Ok(self.came)
    }

    /// The datagram at an index below what [`Inbox::receive`] said, and who sent it; none if it was cut, or is from nowhere.
    pub(crate) fn get(&mut self, at: usize) -> Option<(SocketAddr, &mut [u8])> {
        assert!(at < self.came, "{at} of {} datagrams", self.came);
        let from = self.addrs[at].read()?;
        Some((from, &mut self.bytes[at * LEN_MAX..][..self.lens[at]?]))
    }
}

/// Datagrams to send through one socket, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// Of each, where to, and where its bytes end.
    all: Vec<(RawAddr, u32, usize)>,
}

impl Outbox {
    pub(crate) fn push(&mut self, to: SocketAddr, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let (addr, len) = RawAddr::new(to);
        self.all.push((addr, len, self.bytes.len()));
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The datagram at an index, and where it goes.
    pub(crate) fn get(&self, at: usize) -> Option<(SocketAddr, &[u8])> {
        let (addr, _, end) = self.all.get(at)?;
        Some((addr.read()?, &self.bytes[self.begin(at)..*end]))
    }

    pub(crate) fn clear(&mut self) {
        self.all.clear();
        self.bytes.clear();
    }

    fn begin(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.all[before].2)
    }

    /// Sends those from an index on; how many left, at least one.
    ///
    /// # Errors
    /// What the kernel says of the first of them; none left then.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>, first: usize) -> io::Result<usize> {
        let mut begin = self.begin(first);
        let bytes = &mut self.bytes;
        let parts = self.all[first..].iter_mut().map(|(addr, len, end)| {
            let part = &mut bytes[begin..*end];
            begin = *end;
            (addr, *len, part.as_mut_ptr(), part.len())
        });
        let send = |headers: &mut [libc::mmsghdr]| {
            // SAFETY: each header names an address of as many bytes as it says, and one part of as many bytes as it says; they
            // live as long as this call, which changes none of them.
            unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count_of(headers), libc::MSG_DONTWAIT) }
        };
        call(parts, send, |_, _| {})
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn pair(host: &str) -> [UdpSocket; 2] {
        [(); 2].map(|()| {
            let socket = UdpSocket::bind((host, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
    }

    #[test]
    fn what_is_sent_together_comes_together_in_order_and_from_whom() {
        for host in ["127.0.0.1", "::1"] {
            let [ours, theirs] = pair(host);
            let (to, from) = (theirs.local_addr().unwrap(), ours.local_addr().unwrap());
            let mut outbox = Outbox::default();
            for number in 0..BATCH + 6 {
                outbox.push(to, &vec![7; number]);
            }
            assert_eq!(outbox.get(3), Some((to, &[7; 3][..])));
            assert_eq!(outbox.send(ours.as_fd(), 0).unwrap(), BATCH);
            assert_eq!(outbox.send(ours.as_fd(), BATCH).unwrap(), 6);
            let mut inbox = Inbox::new();
            let mut lens = Vec::new();
            while let Ok(came) = inbox.receive(theirs.as_fd()) {
                for at in 0..came {
                    let (who, bytes) = inbox.get(at).unwrap();
                    assert_eq!(who, from);
                    lens.push(bytes.len());
                }
            }
            assert_eq!(lens, (0..BATCH + 6).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_datagram_that_is_too_long_is_none() {
        let [ours, theirs] = pair("127.0.0.1");
        ours.send_to(&vec![1; LEN_MAX + 1], theirs.local_addr().unwrap()).unwrap();
        ours.send_to(&vec![1; LEN_MAX], theirs.local_addr().unwrap()).unwrap();
        let mut inbox = Inbox::new();
        assert_eq!(inbox.receive(theirs.as_fd()).unwrap(), 2);
        assert!(inbox.get(0).is_none() && inbox.get(1).unwrap().1.len() == LEN_MAX);
        assert_eq!(inbox.receive(theirs.as_fd()).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn the_first_that_cannot_go_is_told() {
        let [ours, theirs] = pair("127.0.0.1");
        let mut outbox = Outbox::default();
        outbox.push(theirs.local_addr().unwrap(), b"goes");
        outbox.push("[::1]:9".parse().unwrap(), b"cannot go");
        assert_eq!(outbox.send(ours.as_fd(), 0).unwrap(), 1);
        assert!(outbox.send(ours.as_fd(), 1).is_err());
        outbox.clear();
        assert_eq!((outbox.len(), outbox.get(0)), (0, None));
    }
}

//! Many datagrams in one system call, so that whoever asks costs less than whoever answers.

use std::io::{Error, ErrorKind, Result};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Datagrams of one call.
pub const BATCH: usize = 32;
/// Bytes of the longest datagram.
pub const LEN_MAX: usize = 2048;

#[allow(clippy::cast_possible_truncation, reason = "sixteen")]
const ADDR_LEN: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;

/// Datagrams.
pub struct Batch {
    bytes: Box<[[u8; LEN_MAX]; BATCH]>,
    lens: [usize; BATCH],
    /// Where each came from, if that was asked.
    from: Box<[libc::sockaddr_in; BATCH]>,
}

impl Batch {
    pub fn new() -> Self {
        let nowhere =
            libc::sockaddr_in { sin_family: 0, sin_port: 0, sin_addr: libc::in_addr { s_addr: 0 }, sin_zero: [0; 8] };
        Self { bytes: Box::new([[0; LEN_MAX]; BATCH]), lens: [0; BATCH], from: Box::new([nowhere; BATCH]) }
    }

    /// Sets one of them.
    pub fn set(&mut self, at: usize, packet: &[u8]) -> &mut [u8] {
        self.lens[at] = packet.len();
        let bytes = &mut self.bytes[at][..packet.len()];
        bytes.copy_from_slice(packet);
        bytes
    }

    pub fn get(&self, at: usize) -> &[u8] {
        &self.bytes[at][..self.lens[at]]
    }

    /// Sends the first `count` over a connected socket; how many left.
    pub fn send(&mut self, socket: &UdpSocket, count: usize) -> usize {
        self.call(count, false, |headers| {
            // SAFETY: each header points to one `iovec` of bytes that live as long as `self`.
            #[allow(unsafe_code, reason = "rustix has no such call")]
            unsafe {
                libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count_of(headers), libc::MSG_DONTWAIT)
            }
        })
    }

    /// Receives what is there; how many.
    pub fn receive(&mut self, socket: &UdpSocket) -> usize {
        self.lens = [LEN_MAX; BATCH];
        self.call(BATCH, false, |headers| {
            let (fd, none) = (socket.as_raw_fd(), std::ptr::null_mut());
            // SAFETY: each header points to one `iovec` of bytes that live as long as `self`, and are lent to nobody else.
            #[allow(unsafe_code, reason = "rustix has no such call")]
            unsafe {
                libc::recvmmsg(fd, headers.as_mut_ptr(), count_of(headers), libc::MSG_DONTWAIT, none)
            }
        })
    }

    /// Waits as long as the socket's timeout says for one, and receives what is there, and from where (IPv4).
    pub fn wait_from(&mut self, socket: &UdpSocket) -> usize {
        self.lens = [LEN_MAX; BATCH];
        self.call(BATCH, true, |headers| {
            let (fd, none) = (socket.as_raw_fd(), std::ptr::null_mut());
            // SAFETY: each header points to one `iovec` of bytes and to an address that live as long as `self`, and are lent to
            // nobody else.
            #[allow(unsafe_code, reason = "rustix has no such call")]
            unsafe {
                libc::recvmmsg(fd, headers.as_mut_ptr(), count_of(headers), libc::MSG_WAITFORONE, none)
            }
        })
    }

    /// Sends the first `count` to where the last ones with the same numbers came from; how many left.
    pub fn send_back(&mut self, socket: &UdpSocket, count: usize) -> usize {
        self.call(count, true, |headers| {
            // SAFETY: each header points to one `iovec` of bytes and to an address that live as long as `self`.
            #[allow(unsafe_code, reason = "rustix has no such call")]
            unsafe {
                libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count_of(headers), libc::MSG_DONTWAIT)
            }
        })
    }

    /// Sets the length of the first `count`, whatever bytes they have.
    pub fn set_lens(&mut self, count: usize, len: usize) {
        self.lens[..count].fill(len);
    }

    /// Takes over the lengths of those that `how` moved.
    fn call(&mut self, count: usize, with_addrs: bool, how: impl FnOnce(&mut [libc::mmsghdr]) -> libc::c_int) -> usize {
        let parts = self.bytes.iter_mut().zip(&self.lens);
        let mut parts: Vec<libc::iovec> =
            parts.map(|(bytes, len)| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: *len }).collect();
        // SAFETY: zeroes are a valid header, with no address and no parts.
        #[allow(unsafe_code, reason = "it has fields that depend on the target")]
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (header, part) in headers.iter_mut().zip(&mut parts) {
            (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (part, 1);
        }
        if with_addrs {
            for (header, from) in headers.iter_mut().zip(self.from.iter_mut()) {
                header.msg_hdr.msg_name = std::ptr::from_mut(from).cast();
                header.msg_hdr.msg_namelen = ADDR_LEN;
            }
        }
        let moved = usize::try_from(how(&mut headers[..count])).unwrap_or_else(|_| none_or_panic());
        headers[..moved].iter().zip(&mut self.lens).for_each(|(header, len)| *len = header.msg_len as usize);
        moved
    }
}

fn count_of(headers: &[libc::mmsghdr]) -> libc::c_uint {
    libc::c_uint::try_from(headers.len()).unwrap()
}

/// Nothing moved: because there was nothing, or no room.
fn none_or_panic() -> usize {
    let error: Result<()> = Err(Error::last_os_error());
    let kind = error.as_ref().unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::ConnectionRefused | ErrorKind::Interrupted), "{error:?}");
    0
}

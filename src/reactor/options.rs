//! A socket option that no crate of ours has.
#![allow(unsafe_code, reason = "one system call that no crate of ours wraps for this option; it takes a number")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Has a listener not tell of a connection before something came on it, or so long has passed (`TCP_DEFER_ACCEPT`).
///
/// # Errors
/// What the kernel says.
pub(crate) fn set_defer_accept(listener: &impl AsFd, most: Duration) -> io::Result<()> {
    let secs = libc::c_int::try_from(most.as_secs()).unwrap_or(libc::c_int::MAX);
    let len = libc::socklen_t::try_from(size_of_val(&secs)).expect("four bytes");
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the value is the integer that this option takes, lives as long as the call, and is as long as it is said to be.
    let result =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, (&raw const secs).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn nobody_is_accepted_who_says_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        set_defer_accept(&listener, Duration::from_secs(10)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        client.write_all(b"x").unwrap();
        assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
    }
}

//! Socket options that no crate of ours has, and two questions about an interface.
#![allow(unsafe_code, reason = "system calls that no crate of ours wraps for these; each takes a small plain value")]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Has a listener not tell of a connection before something came on it, or so long has passed (`TCP_DEFER_ACCEPT`).
///
/// # Errors
/// What the kernel says.
pub(crate) fn set_defer_accept(listener: &impl AsFd, most: Duration) -> io::Result<()> {
    let secs = libc::c_int::try_from(most.as_secs()).unwrap_or(libc::c_int::MAX);
    set_number(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, secs)
}

/// Has a socket that is bound to an address and port 0 get its port with `connect`, when it may be one that others have as well.
///
/// # Errors
/// What the kernel says.
pub(crate) fn set_late_port(socket: &impl AsFd) -> io::Result<()> {
    set_number(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

fn set_number(socket: &impl AsFd, level: libc::c_int, option: libc::c_int, number: libc::c_int) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of_val(&number)).expect("four bytes");
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the value is the integer that these options take, lives as long as the call, and is as long as it is said to be.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const number).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the interface of this name is up (`SIOCGIFFLAGS`), asked through any socket of an internet family.
///
/// # Errors
/// There is none of this name.
pub(crate) fn is_up(socket: &impl AsFd, name: &str) -> io::Result<bool> {
    let request = ask_interface(socket, name, libc::SIOCGIFFLAGS)?;
    // SAFETY: the call succeeded, and flags are what it writes.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(libc::c_int::from(flags) & libc::IFF_UP != 0)
}

/// The IPv4 address of the interface of this name (`SIOCGIFADDR`), asked through an IPv4 socket; the first of several.
pub(crate) fn v4_of(socket: &impl AsFd, name: &str) -> Option<Ipv4Addr> {
    let request = ask_interface(socket, name, libc::SIOCGIFADDR).ok()?;
    // SAFETY: the call succeeded, and an address is what it writes.
    let address = unsafe { request.ifr_ifru.ifru_addr };
    let [_, _, a, b, c, d, ..] = address.sa_data.map(libc::c_char::cast_unsigned);
    (libc::c_int::from(address.sa_family) == libc::AF_INET).then(|| Ipv4Addr::new(a, b, c, d))
}

fn ask_interface(socket: &impl AsFd, name: &str, what: libc::Ioctl) -> io::Result<libc::ifreq> {
    let mut request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads the name, which ends with a zero, and writes its answer into the same structure, which is of the type
    // and size that these requests take and lives as long as the call.
    if unsafe { libc::ioctl(fd, what, &raw mut request) } == 0 { Ok(request) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn loopback_is_up_and_what_is_not_there_is_not() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(is_up(&socket, "lo").unwrap() && v4_of(&socket, "nosuchone").is_none());
        assert_eq!(v4_of(&socket, "lo"), Some(Ipv4Addr::LOCALHOST));
        assert!(is_up(&socket, "nosuchone").is_err() && is_up(&socket, "a name that is too long").is_err());
    }

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

//! Where a Redis or Valkey server is, and who we are to it:
//! `redis://[user][:password]@host[:port][,host2:port2…][/database]`.
//!
//! Several hosts are seeds of one cluster. What is secret never leaves by `Debug` or `Display`.

use std::fmt;
use std::net::IpAddr;

/// The port of a host that names none.
pub const PORT: u16 = 6379;
/// Hosts in one address; more are refused.
pub const SEEDS_MAX: usize = 16;
/// Bytes of a host's name; a longer one is refused.
pub const HOST_MAX: usize = 255;

/// A server: a name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// A name, or an address without brackets.
    pub host: String,
    /// Not 0.
    pub port: u16,
}

impl Server {
    /// Its address, if that is what its host is.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// A server whose host may be one; none if it may not.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Option<Self> {
        let is_name = || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        let is_host = host.parse::<IpAddr>().is_ok() || (!host.is_empty() && host.len() <= HOST_MAX && is_name());
        (is_host && port != 0).then(|| Self { host: host.to_owned(), port })
    }

    /// `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').filter(|(host, _)| host.contains(':'))?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
            Some(_) => return None,
            None if port.is_empty() => PORT,
            None => return None,
        };
        Self::new(host, port)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// An address, read.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// At least one; of a cluster where there are more.
    pub servers: Vec<Server>,
    /// Who we are; the server's default user where there is none.
    pub user: Option<String>,
    /// Its password; there is one where there is a user.
    pub password: Option<String>,
    /// Which of the server's databases; 0 where there are several servers.
    pub database: u32,
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisUrlError {
    /// It does not begin with `redis://`.
    Scheme,
    /// It asks for TLS.
    Tls,
    /// A user without a password, or what is escaped in them is broken.
    Login,
    /// A host or its port, or their number.
    Host,
    /// Its database is no number.
    Database,
    /// A database other than 0 beside several hosts.
    ClusterDatabase,
}

impl fmt::Display for RedisUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the address of a Redis server begins with redis://",
            Self::Tls => "TLS to Redis is not supported: use redis:// over a network that is trusted, or a tunnel",
            Self::Login => "a login is USER:PASSWORD@ or :PASSWORD@, with %XX for what is special in an address",
            Self::Host => "hosts are HOST, HOST:PORT or [IPV6]:PORT, 16 of them at most, with commas between them",
            Self::Database => "after the hosts stands nothing but /NUMBER, the number of a database",
            Self::ClusterDatabase => "a cluster has only database 0: name one host, or no database",
        })
    }
}

impl RedisUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// See [`RedisUrlError`].
    pub fn parse(text: &str) -> Result<Self, RedisUrlError> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(RedisUrlError::Scheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "redis" | "valkey" => {}
            "rediss" | "valkeys" => return Err(RedisUrlError::Tls),
            _ => return Err(RedisUrlError::Scheme),
        }
        // A password may hold what was not escaped: its end is the last of these.
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (user, password) = match login {
            Some(login) => {
                let (user, password) = login.split_once(':').ok_or(RedisUrlError::Login)?;
                let unescaped = |text| unescaped(text).ok_or(RedisUrlError::Login);
                let (user, password) = (unescaped(user)?, unescaped(password)?);
                if password.is_empty() {
                    return Err(RedisUrlError::Login);
                }
                (Some(user).filter(|user| !user.is_empty()), Some(password))
            }
            None => (None, None),
        };
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match database {
            "" => 0,
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map_err(|_| RedisUrlError::Database)?
            }
            _ => return Err(RedisUrlError::Database),
        };
        let servers: Option<Vec<Server>> = hosts.split(',').map(Server::parse).collect();
        let servers = servers.filter(|servers| servers.len() <= SEEDS_MAX).ok_or(RedisUrlError::Host)?;
        if database != 0 && servers.len() > 1 {
            return Err(RedisUrlError::ClusterDatabase);
        }
        Ok(Self { servers, user, password, database })
    }
}

/// What it says, without login.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis://")?;
        for (index, server) in self.servers.iter().enumerate() {
            write!(f, "{}{server}", if index == 0 { "" } else { "," })?;
        }
        if self.database == 0 { Ok(()) } else { write!(f, "/{}", self.database) }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

/// `text` without its `%XX`.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_everything_that_may_stand_in_it() {
        let url = RedisUrl::parse("redis://cache.example").unwrap();
        assert_eq!(url.servers, [Server { host: "cache.example".into(), port: PORT }]);
        assert_eq!((url.user, url.password, url.database), (None, None, 0));
        let url = RedisUrl::parse("redis://me:p%40s/s@w@[::1]:7000/3").unwrap();
        assert_eq!(url.servers, [Server { host: "::1".into(), port: 7000 }]);
        assert_eq!((url.user.as_deref(), url.password.as_deref(), url.database), (Some("me"), Some("p@s/s@w"), 3));
        let url = RedisUrl::parse("redis://:secret@10.0.0.1:1,b,[fe80::1]/0").unwrap();
        assert_eq!((url.servers.len(), url.user.as_deref()), (3, None));
        assert_eq!(url.to_string(), "redis://10.0.0.1:1,b:6379,[fe80::1]:6379");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        for (bad, why) in [
            ("", RedisUrlError::Scheme),
            ("127.0.0.1:6379", RedisUrlError::Scheme),
            ("http://a", RedisUrlError::Scheme),
            ("rediss://a", RedisUrlError::Tls),
            ("redis://me@a", RedisUrlError::Login),
            ("redis://me:@a", RedisUrlError::Login),
            ("redis://:%zz@a", RedisUrlError::Login),
            ("redis://", RedisUrlError::Host),
            ("redis://a:0", RedisUrlError::Host),
            ("redis://a:", RedisUrlError::Host),
            ("redis://a:65536", RedisUrlError::Host),
            ("redis://a,,b", RedisUrlError::Host),
            ("redis://::1", RedisUrlError::Host),
            ("redis://[::1", RedisUrlError::Host),
            ("redis://a b", RedisUrlError::Host),
            ("redis://a?db=1", RedisUrlError::Host),
            ("redis://a/x", RedisUrlError::Database),
            ("redis://a/1/2", RedisUrlError::Database),
            ("redis://a,b/1", RedisUrlError::ClusterDatabase),
        ] {
            assert_eq!(RedisUrl::parse(bad), Err(why), "{bad}");
        }
        let many = format!("redis://a{}", ",a".repeat(SEEDS_MAX));
        assert_eq!(RedisUrl::parse(&many), Err(RedisUrlError::Host));
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = RedisUrl::parse("redis://someone:secret@a").unwrap();
        let shown = format!("{url:?} {url}");
        assert!(!shown.contains("secret") && !shown.contains("someone"), "{shown}");
    }
}

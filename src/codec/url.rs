//! Addresses of trackers: `udp`, `http` and `https`, and nothing else.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use url::{Host, Url};

/// How a tracker is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// BEP 15.
    Udp,
    /// BEP 3.
    Http,
    /// BEP 3 over TLS.
    Https,
}

/// Where a tracker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerUrl {
    /// How it is asked.
    pub scheme: Scheme,
    /// Its name, or its address without brackets.
    pub host: String,
    /// Its address, if it was given as one.
    pub ip: Option<IpAddr>,
    /// Its port, not 0.
    pub port: u16,
    /// Path and query, beginning with `/`; neither control bytes nor blanks.
    pub path: String,
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlError {
    /// It is no address of the web, or has no host or port.
    Malformed,
    /// Its scheme is none that trackers have.
    Scheme,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the address cannot be understood",
            Self::Scheme => "only udp, http and https trackers can be asked",
        })
    }
}

impl TrackerUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if !has_plain_host(text) {
            return Err(UrlError::Malformed);
        }
        Self::of(&Url::parse(text.trim()).map_err(|_| UrlError::Malformed)?)
    }

    /// Reads the `Location` that an answer of this address named.
    ///
    /// # Errors
    /// See [`UrlError`]; another scheme than http and https is refused.
    pub fn redirected(&self, location: &str) -> Result<Self, UrlError> {
        if !has_plain_host(location) {
            return Err(UrlError::Malformed);
        }
        let base = Url::parse(&self.to_string()).map_err(|_| UrlError::Malformed)?;
        let url = Self::of(&base.join(location).map_err(|_| UrlError::Malformed)?)?;
        if url.scheme == Scheme::Udp { Err(UrlError::Scheme) } else { Ok(url) }
    }

    fn of(url: &Url) -> Result<Self, UrlError> {
        let (scheme, default) = match url.scheme() {
            "udp" => (Scheme::Udp, None),
            "http" => (Scheme::Http, Some(80)),
            "https" => (Scheme::Https, Some(443)),
            _ => return Err(UrlError::Scheme),
        };
        let port = url.port().or(default).filter(|&port| port != 0).ok_or(UrlError::Malformed)?;
        let (host, ip) = match url.host().ok_or(UrlError::Malformed)? {
            // Schemes that the web does not know keep an address as it was written.
            Host::Domain(name) => (name.to_owned(), name.parse().ok()),
            Host::Ipv4(ip) => (ip.to_string(), Some(IpAddr::V4(ip))),
            Host::Ipv6(ip) => (ip.to_string(), Some(IpAddr::V6(ip))),
        };
        // Of a UDP address the parser escapes what no host has.
        if host.is_empty() || !host.is_ascii() || host.contains('%') {
            return Err(UrlError::Malformed);
        }
        let mut path = url.path().to_owned();
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        if let Some(query) = url.query() {
            path.push('?');
            path.push_str(query);
        }
        Ok(Self { scheme, host, ip, port, path })
    }

    /// Host and port as an HTTP `Host` line has them.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.ip {
            Some(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// The address to scrape, by BEP 48's rule: the last `/announce` becomes `/scrape`; none if there is no such part.
    /// A UDP tracker is scraped where it is (BEP 15).
    #[must_use]
    pub fn scrape(&self) -> Option<Self> {
        if self.scheme == Scheme::Udp {
            return Some(self.clone());
        }
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let (start, last) = path.rsplit_once('/')?;
        let last = last.strip_prefix("announce")?;
        let separator = if query.is_empty() { "" } else { "?" };
        Some(Self { path: format!("{start}/scrape{last}{separator}{query}"), ..self.clone() })
    }
}

impl fmt::Display for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Udp => "udp",
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// Whether the host in `text`, which is an address or relative to one, is ASCII without escapes. The parser of addresses
/// refuses every other host of `http` and `https`, after an assertion in debug builds that the host is in lower case.
fn has_plain_host(text: &str) -> bool {
    // The parser skips these wherever they stand.
    let text: String = text.trim_matches(|c| c <= ' ').replace(['\t', '\n', '\r'], "");
    let is_scheme = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let after_scheme = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).map(|(_, rest)| rest);
    let rest = after_scheme.unwrap_or(&text);
    if after_scheme.is_none() && !(rest.len() >= 2 && rest.bytes().take(2).all(|byte| b"/\\".contains(&byte))) {
        return true; // a path
    }
    let authority = rest.trim_start_matches(['/', '\\']).split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.is_ascii() && !host.contains('%')
}

/// `HOST:PORT`, with brackets around an IPv6 address: the host without them, and the port, which is not 0.
#[must_use]
pub fn host_and_port(text: &str) -> Option<(String, u16)> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Some((addr.ip().to_string(), addr.port()));
    }
    let (host, port) = text.rsplit_once(':')?;
    let is_name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    Some((host.to_owned(), port.parse().ok().filter(|&port| port > 0 && is_name)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_nonsense_is_refused() {
        let url = TrackerUrl::parse("http://T.example/a/announce?k=1 2").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("t.example", 80, "/a/announce?k=1%202"));
        assert_eq!(url.scrape().unwrap().path, "/a/scrape?k=1%202");
        assert_eq!(TrackerUrl::parse("http://t/a").unwrap().scrape(), None);
        let udp = TrackerUrl::parse("udp://[::1]:6969").unwrap();
        assert_eq!(udp.scrape().unwrap(), udp);
        assert_eq!((udp.ip, udp.port, udp.authority()), (Some("::1".parse().unwrap()), 6969, "[::1]:6969".into()));
        assert_eq!(TrackerUrl::parse("udp://10.0.0.1:5/announce").unwrap().ip, Some("10.0.0.1".parse().unwrap()));
        for bad in ["", "udp://x", "ftp://x/", "file:///etc/passwd", "http://", "http://x:0/", "http://x:99999/"] {
            assert!(TrackerUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_that_is_not_ascii_is_refused() {
        let url = TrackerUrl::parse("http://a/x/announce").unwrap();
        let redirects = ["//A\u{e9}/", "\\/A%C3%A9", "/\t/A\u{e9}", "http:A\u{e9}", " ht\ntps://u:p@A\u{e9}:80/"];
        for bad in redirects {
            assert_eq!(url.redirected(bad), Err(UrlError::Malformed), "{bad}");
        }
        for bad in [
            "http://A\u{fffd}/",
            "udp://\u{e9}:1",
            "HTTP:\\\\A\u{e9}",
            "http://u%40@A%C3%A9/",
            "http://%41/",
            "udp://a\u{1}:1",
        ] {
            assert_eq!(TrackerUrl::parse(bad), Err(UrlError::Malformed), "{bad}");
        }
        assert_eq!(url.redirected("A%20\u{e9}").unwrap().path, "/x/A%20%C3%A9");
        assert_eq!(url.redirected("/A%20\u{e9}").unwrap().path, "/A%20%C3%A9");
        assert_eq!(TrackerUrl::parse("http://u%40\u{e9}:p@HOST/\u{e9}").unwrap().host, "host");
    }

    #[test]
    fn redirects_stay_on_the_web() {
        let url = TrackerUrl::parse("http://a/x/announce").unwrap();
        assert_eq!(url.redirected("/y?z").unwrap().to_string(), "http://a:80/y?z");
        assert_eq!(url.redirected("https://b/q").unwrap().to_string(), "https://b:443/q");
        for bad in ["file:///etc/passwd", "ftp://x/", "udp://x:1"] {
            assert_eq!(url.redirected(bad), Err(UrlError::Scheme), "{bad}");
        }
    }
}

//! What a check asks.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use hyper::Uri;

/// The longest address of an HTTP check, in bytes.
pub const MAX_URL_BYTES: usize = 2048;
/// The most redirects that a check follows.
pub const MAX_REDIRECTS: u8 = 5;

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A GET; the answer's status (and text) decides.
    Http(HttpTarget),
    /// A connection that opens.
    Tcp(HostPort),
    /// Nothing: the service says by itself that it lives, at least once in each interval.
    Heartbeat,
}

/// An HTTP check's question, and which answer is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// Where.
    pub url: HttpUrl,
    /// Which statuses are right.
    pub status: StatusRange,
    /// What the body must contain, within the bytes that are read of it.
    pub body_contains: Option<String>,
    /// How many redirects are followed; beyond that a redirect is an answer like any other.
    pub follow_redirects: u8,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name, or an address (without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
}

/// An `http://` or `https://` address without user, password and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    uri: Uri,
    at: HostPort,
}

/// The statuses that are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    from: u16,
    to: u16,
}

impl Default for StatusRange {
    fn default() -> Self {
        Self { from: 200, to: 299 }
    }
}

impl StatusRange {
    /// Whether it is one of them.
    pub fn contains(self, status: u16) -> bool {
        (self.from..=self.to).contains(&status)
    }

    /// Reads `200` or `200-399`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|status| digits && (100..=599).contains(status))
        };
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        match (number(from), number(to)) {
            (Some(from), Some(to)) if from <= to => Ok(Self { from, to }),
            _ => Err(format!("`{}` is not a status such as 200 or a range such as 200-399", shorten(text))),
        }
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to { write!(f, "{}", self.from) } else { write!(f, "{}-{}", self.from, self.to) }
    }
}

impl HostPort {
    /// Reads `host:port`, `127.0.0.1:80` or `[::1]:80`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{}` is not a host and a port such as 127.0.0.1:5432", shorten(text));
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(refuse)?;
        let host = bare_host(host).ok_or_else(refuse)?;
        Ok(Self { host, port })
    }
}

/// The host without brackets, if it can be one.
fn bare_host(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_string());
    }
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!host.is_empty() && host.len() <= 253 && host.chars().all(usual)).then(|| host.to_ascii_lowercase())
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl HttpUrl {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = |problem: &str| {
            format!("`{}` is not an address such as http://127.0.0.1:8080/health: {problem}", shorten(text))
        };
        if text.len() > MAX_URL_BYTES {
            return Err(refuse("it is too long"));
        }
        let uri: Uri =
            text.parse().map_err(|error: hyper::http::uri::InvalidUri| refuse(&error.to_string()))?;
        Self::from_uri(uri).map_err(refuse)
    }

    /// From an address that was read already, of a redirect for example.
    pub(crate) fn from_uri(uri: Uri) -> Result<Self, &'static str> {
        let usual_port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err("it must begin with http:// or https://"),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("user and password are not accepted");
        }
        let host = bare_host(authority.host()).ok_or("its host is no name and no address")?;
        let port = match authority.as_str().strip_prefix(authority.host()) {
            None | Some("" | ":") => usual_port,
            Some(_) => authority
                .port_u16()
                .filter(|port| *port != 0)
                .ok_or("its port is no number from 1 to 65535")?,
        };
        Ok(Self { uri, at: HostPort { host, port } })
    }

    /// The address as it was given.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Where to connect.
    pub fn at(&self) -> &HostPort {
        &self.at
    }

    /// Whether by TLS.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_say_where_to_connect() {
        for (text, at, https) in [
            ("http://127.0.0.1:8080/health?x=1", "127.0.0.1:8080", false),
            ("https://shop.example/", "shop.example:443", true),
            ("http://[::1]/", "[::1]:80", false),
            ("http://Shop:81", "shop:81", false),
        ] {
            let url = HttpUrl::parse(text).unwrap();
            assert_eq!((url.at().to_string().as_str(), url.is_https()), (at, https), "{text}");
        }
        for wrong in [
            "",
            "shop",
            "ftp://shop/",
            "http:///x",
            "http://a@shop/",
            "http://shop:0/",
            "http://shop:99999/",
            "/x",
        ] {
            assert!(HttpUrl::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn hosts_and_ports_are_read_and_shown() {
        for (text, shown) in
            [("127.0.0.1:1", "127.0.0.1:1"), ("[::1]:80", "[::1]:80"), ("DB:5432", "db:5432")]
        {
            assert_eq!(HostPort::parse(text).unwrap().to_string(), shown);
        }
        for wrong in ["", ":1", "db", "db:", "db:0", "db:65536", "::1:80", "[db]:80", "a b:1", "d/b:1"] {
            assert!(HostPort::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn status_ranges_are_inclusive() {
        let range = StatusRange::parse("200-399").unwrap();
        assert_eq!([199, 200, 399, 400].map(|status| range.contains(status)), [false, true, true, false]);
        assert_eq!(StatusRange::parse("204").unwrap().to_string(), "204");
        for wrong in ["", "99", "600", "300-200", "2xx", "200-", "+200", "200-300-400"] {
            assert!(StatusRange::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,60}|https?://[a-z\\[\\]:@0-9./]{0,30}") {
            let _ = HttpUrl::parse(&text);
            let _ = HostPort::parse(&text);
            let _ = StatusRange::parse(&text);
        }
    }
}

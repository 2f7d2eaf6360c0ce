//! Who may come in: host names, origins, credentials; and the headers that keep a browser from being misled.
//!
//! * **Host** (against DNS rebinding): a server on a loopback address answers only to `localhost`, loopback addresses
//!   and the names of its settings. A page that has made its own name resolve to 127.0.0.1 is refused.
//! * **Origin** (against forged requests): a request that could change something must come from the server's own pages
//!   or from no page at all. No CORS header is ever sent, so other sites read nothing either.
//! * **Credentials**: if the settings carry a token, everything but the health probes asks for it, as a bearer token or
//!   as the password of basic credentials (any user name), which browsers can ask people for.
//!
//! Decisions are functions of a request's head; [`crate::gate`] applies them.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::problem::{Kind, Problem};
use crate::settings::AccessToken;

/// Paths that answer without credentials: probes know none, and these tell nothing but whether the process lives.
const OPEN_PATHS: [&str; 3] = ["/health", "/liveness", "/readiness"];

/// The rules of entry of one server.
#[derive(Debug)]
pub struct Guard {
    loopback: bool,
    allowed_hosts: Vec<String>,
    token: Option<AccessToken>,
}

impl Guard {
    /// The rules of a server that listens on `address`.
    pub fn new(address: SocketAddr, allowed_hosts: Vec<String>, token: Option<AccessToken>) -> Self {
        Self { loopback: address.ip().is_loopback(), allowed_hosts, token }
    }

    /// Whether a request may come in.
    ///
    /// # Errors
    /// 400 without a usable `Host`, 403 for a foreign host or origin, 401 without the right credentials.
    pub fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let host = host_of(uri, headers)?;
        self.check_host(&host)?;
        if !method.is_safe() {
            check_origin(headers, &host)?;
        }
        self.check_credentials(uri, headers)
    }

    fn check_host(&self, host: &Authority<'_>) -> Result<(), Problem> {
        if !self.loopback || is_loopback_name(host.name) {
            return Ok(());
        }
        if self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host.name)) {
            return Ok(());
        }
        Err(Problem::new(
            Kind::ForeignHost,
            "this server listens on loopback and answers to localhost and 127.0.0.1; to reach it under another name, \
             add the name to `http.allowed_hosts`",
        ))
    }

    fn check_credentials(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.token else { return Ok(()) };
        if OPEN_PATHS.contains(&uri.path()) {
            return Ok(());
        }
        match headers.get(AUTHORIZATION).map(|given| secret_of(given.as_bytes())) {
            Some(Some(secret)) if token.matches(&secret) => Ok(()),
            Some(_) => Err(Problem::unauthorized("the credentials are not the right ones")),
            None => Err(Problem::unauthorized(
                "send the access token as `Authorization: Bearer …`, or as the password of basic credentials",
            )),
        }
    }
}

/// A host name or address without brackets, and the port if there is one.
#[derive(Debug, PartialEq, Eq)]
struct Authority<'a> {
    name: &'a str,
    port: Option<&'a str>,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (name, after) = rest.split_once(']')?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
            return Some(Self { name, port });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        (!name.is_empty()).then_some(Self { name, port })
    }
}

/// The host that a request asks for: of its URI if that is absolute, else of its one `Host` header.
fn host_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<Authority<'a>, Problem> {
    let mut given = headers.get_all(HOST).iter();
    let text = match (uri.authority(), given.next(), given.next()) {
        (Some(authority), _, None) => Some(authority.as_str()),
        (None, Some(one), None) => one.to_str().ok(),
        _ => None,
    };
    text.and_then(Authority::parse)
        .ok_or_else(|| Problem::bad_request("the request needs exactly one `Host` header"))
}

fn is_loopback_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Browsers say which page sent a request; other clients say nothing.
fn check_origin(headers: &HeaderMap, host: &Authority<'_>) -> Result<(), Problem> {
    let refused = || {
        Problem::new(
            Kind::ForeignOrigin,
            "a page of another site sent this request; only Farol's own pages may change things",
        )
    };
    if headers.get("sec-fetch-site").is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
    {
        return Err(refused());
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let own = origin
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")))
        .and_then(Authority::parse)
        .is_some_and(|origin| origin.name.eq_ignore_ascii_case(host.name) && origin.port == host.port);
    if own { Ok(()) } else { Err(refused()) }
}

/// The secret of an `Authorization` header: the bearer token, or the password of basic credentials.
fn secret_of(authorization: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(authorization).ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD.decode(rest).ok()?;
        let colon = decoded.iter().position(|b| *b == b':')?;
        return decoded.get(colon + 1..).map(<[u8]>::to_vec);
    }
    None
}

/// What every answer carries: no guessing of types, no framing, no use by other sites, no address in referrers.
pub const COMMON_HEADERS: [(HeaderName, HeaderValue); 4] = [
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
    (HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// The content policy of the dashboard: everything from here, no inline scripts, nothing embedded, nothing framed.
pub const DASHBOARD_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
     connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The content policy of Swagger UI, which writes styles into its page.
pub const DOCS_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(listen: &str, token: Option<&str>) -> Guard {
        Guard::new(listen.parse().unwrap(), vec!["farol.lan".into()], token.map(AccessToken::new))
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    fn kind(
        guard: &Guard,
        method: &Method,
        path: &'static str,
        pairs: &[(&'static str, &str)],
    ) -> Option<Kind> {
        guard.admit(method, &Uri::from_static(path), &headers(pairs)).err().map(|p| p.kind())
    }

    #[test]
    fn a_loopback_server_answers_only_to_loopback_names() {
        let guard = guard("127.0.0.1:5000", None);
        for host in [
            "localhost",
            "LOCALHOST:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
            "localhost.",
            "farol.lan",
        ] {
            assert_eq!(kind(&guard, &Method::GET, "/", &[("host", host)]), None, "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example:5000", "localhost.evil.example", "10.0.0.1", "0.0.0.0"]
        {
            assert_eq!(kind(&guard, &Method::GET, "/", &[("host", host)]), Some(Kind::ForeignHost), "{host}");
        }
        assert_eq!(kind(&guard, &Method::GET, "/", &[]), Some(Kind::BadRequest));
        assert_eq!(
            kind(&guard, &Method::GET, "http://evil.example/", &[("host", "localhost")]),
            Some(Kind::ForeignHost)
        );
    }

    #[test]
    fn pages_of_other_sites_can_change_nothing() {
        let guard = guard("127.0.0.1:5000", None);
        let post = |pairs: &[(&'static str, &str)]| {
            let mut all = vec![("host", "localhost:5000")];
            all.extend_from_slice(pairs);
            kind(&guard, &Method::POST, "/api/readings", &all)
        };
        assert_eq!(post(&[]), None);
        assert_eq!(post(&[("origin", "http://localhost:5000")]), None);
        for origin in ["null", "http://evil.example", "http://localhost:5001", "file://", "http://localhost"]
        {
            assert_eq!(post(&[("origin", origin)]), Some(Kind::ForeignOrigin), "{origin}");
        }
        assert_eq!(post(&[("sec-fetch-site", "cross-site")]), Some(Kind::ForeignOrigin));
        let read = [("host", "localhost:5000"), ("origin", "http://evil.example")];
        assert_eq!(kind(&guard, &Method::GET, "/api/sensors", &read), None, "reading needs no origin check");
    }

    #[test]
    fn a_token_is_asked_for_as_bearer_or_password_except_by_probes() {
        let guard = guard("0.0.0.0:5000", Some("sesame open now!"));
        let get = |path: &'static str, authorization: Option<&str>| {
            let mut all = vec![("host", "farol.example:5000")];
            all.extend(authorization.map(|a| ("authorization", a)));
            kind(&guard, &Method::GET, path, &all)
        };
        assert_eq!(get("/health", None), None);
        assert_eq!(get("/api/sensors", None), Some(Kind::Unauthorized));
        assert_eq!(get("/metrics", None), Some(Kind::Unauthorized));
        assert_eq!(get("/api/sensors", Some("Bearer sesame open now!")), None);
        let basic = format!("Basic {}", STANDARD.encode("ana:sesame open now!"));
        assert_eq!(get("/api/sensors", Some(&basic)), None);
        let wrong = format!("Basic {}", STANDARD.encode("sesame open now!:"));
        for refused in ["Bearer sesame", "Basic ???", "Basic", "Digest x", wrong.as_str()] {
            assert_eq!(get("/api/sensors", Some(refused)), Some(Kind::Unauthorized), "{refused}");
        }
    }
}

//! The dashboard's files, from the binary.
//!
//! `build.rs` puts them in, each as it is and gzipped, with a tag of its content. Their names don't change with their
//! content, so browsers may keep them but ask each time whether the tag is still the same (304, a few bytes).

use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::gate;
use crate::guard::DASHBOARD_POLICY;

/// One file.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    tag: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

/// Every file, by path.
const ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The page.
pub(crate) async fn index(headers: HeaderMap) -> Response {
    match find("index.html") {
        Some(asset) => answer(asset, &headers),
        None => gate::no_such_path().await.into_response(),
    }
}

/// A file of the dashboard, or the answer that there is nothing at this path.
pub(crate) async fn file_or_nothing(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().strip_prefix('/').unwrap_or_default();
    match find(path) {
        Some(asset) if method == Method::GET || method == Method::HEAD => answer(asset, &headers),
        Some(_) => crate::problem::Problem::method_not_allowed(Some(HeaderValue::from_static("GET,HEAD")))
            .into_response(),
        None => gate::no_such_path().await.into_response(),
    }
}

fn find(path: &str) -> Option<&'static Asset> {
    // `build.rs` sorts by path as a file system does; a linear look is right for any order and takes a microsecond.
    ASSETS.iter().find(|asset| asset.path == path)
}

fn answer(asset: &Asset, request: &HeaderMap) -> Response {
    let mut response = if is_known(request, asset.tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else if takes_gzip(request) {
        let mut response = Bytes::from_static(asset.gzip).into_response();
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        Bytes::from_static(asset.plain).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(ETAG, HeaderValue::from_static(asset.tag));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(CONTENT_SECURITY_POLICY, DASHBOARD_POLICY);
    response
}

/// Whether the client has the file with this tag (RFC 9110, section 13.1.2, weak comparison).
fn is_known(request: &HeaderMap, tag: &str) -> bool {
    let given = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t) == tag)
}

fn takes_gzip(request: &HeaderMap) -> bool {
    let given = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|list| list.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        name.trim().eq_ignore_ascii_case("gzip")
            && weight.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()).is_none_or(|q| q > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: axum::http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_known_tag_is_not_sent_again() {
        assert!(is_known(&headers(IF_NONE_MATCH, "\"x\", W/\"a-1\""), "\"a-1\""));
        assert!(is_known(&headers(IF_NONE_MATCH, "*"), "\"a-1\""));
        assert!(!is_known(&headers(IF_NONE_MATCH, "\"a-2\""), "\"a-1\""));
        assert!(!is_known(&HeaderMap::new(), "\"a-1\""));
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        assert!(takes_gzip(&headers(ACCEPT_ENCODING, "br, gzip;q=0.8")));
        assert!(!takes_gzip(&headers(ACCEPT_ENCODING, "gzip;q=0, identity")));
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn every_gzipped_file_unpacks_to_itself() {
        assert!(find("index.html").is_some());
        for asset in ASSETS {
            let mut unpacked = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(asset.gzip);
            std::io::Read::read_to_end(&mut decoder, &mut unpacked).unwrap();
            assert_eq!(unpacked, asset.plain, "{}", asset.path);
        }
    }
}

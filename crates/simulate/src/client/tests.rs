use super::*;

#[test]
fn addresses_are_taken_apart() {
    let table = [
        ("http://127.0.0.1:5000", "127.0.0.1:5000", ""),
        ("http://localhost/", "localhost:80", ""),
        ("http://[::1]:5000/farol/", "[::1]:5000", "/farol"),
        ("HTTP://h:1", "h:1", ""),
    ];
    for (text, address, prefix) in table {
        let url: ServerUrl = text.parse().unwrap();
        assert_eq!((&*url.address, &*url.prefix), (address, prefix), "{text}");
    }
    let url: ServerUrl = "http://h:1/farol".parse().unwrap();
    assert_eq!(url.uri("/api/readings?x=1").unwrap().path(), "/farol/api/readings");
    assert_eq!(url.to_string(), "http://h:1/farol");
}

#[test]
fn addresses_that_are_none_are_refused_with_a_reason() {
    for text in [
        "",
        "127.0.0.1:5000",
        "https://h",
        "http://",
        "http://u:p@h",
        "http://h/?a=1",
        "ftp://h",
        "http://h:99999",
    ] {
        let error = text.parse::<ServerUrl>().unwrap_err().to_string();
        assert!(error.contains("is not a server address"), "{error}");
    }
}

#[test]
fn only_what_was_sent_may_have_arrived() {
    let connect =
        ClientError::Connect { address: "h".into(), source: std::io::ErrorKind::ConnectionRefused.into() };
    assert!(!connect.may_have_arrived() && !ClientError::ClosedWhileIdle.may_have_arrived());
    assert!(ClientError::Broken(String::new()).may_have_arrived());
    assert!(ClientError::TimedOut(Duration::ZERO).may_have_arrived());
}

#[test]
fn a_token_goes_with_every_request_and_is_never_shown() {
    let server: ServerUrl = "http://127.0.0.1:5000".parse().unwrap();
    let with_token = server.with_token("correct-horse-battery").unwrap();
    for template in [
        RequestTemplate::get(&with_token, "/api/sensors").unwrap(),
        RequestTemplate::post(&with_token, "/api/readings", "application/json", "load").unwrap(),
    ] {
        let request = template.request(Bytes::new());
        let header = request.headers().get(header::AUTHORIZATION).unwrap();
        assert_eq!(header.as_bytes(), b"Bearer correct-horse-battery");
    }
    assert!(!format!("{with_token:?} {with_token}").contains("horse"));
    let server: ServerUrl = "http://127.0.0.1:5000".parse().unwrap();
    assert!(server.with_token("two\nlines").is_err());
}

#[test]
fn a_token_goes_with_every_request_and_is_not_shown() {
    let url: ServerUrl = "http://h:1".parse().unwrap();
    let url = url.with_token("s3cret").unwrap();
    let template = RequestTemplate::get(&url, "/x").unwrap();
    assert_eq!(template.request(Bytes::new()).headers()["authorization"], "Bearer s3cret");
    assert!(!format!("{url:?} {url} {template:?}").contains("s3cret"));
    assert!("http://h:1".parse::<ServerUrl>().unwrap().with_token("a\nb").is_err());
}

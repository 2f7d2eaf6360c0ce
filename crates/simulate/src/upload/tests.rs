use super::*;

fn answer(status: u16, body: &'static str) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        retry_after: None,
        body: Bytes::from_static(body.as_bytes()),
    }
}

#[test]
fn answers_are_read_as_the_endpoint_promises_them() {
    let accepted =
        read_answer(&answer(202, r#"{"accepted":2,"rejected":[{"index":1,"error":"no"}]}"#)).unwrap();
    assert_eq!((accepted.accepted, accepted.rejected[0].index), (2, 1));
    let none = read_answer(&answer(400, r#"{"accepted":0,"rejected":[{"index":0,"error":"no"}]}"#)).unwrap();
    assert_eq!((none.accepted, none.rejected.len()), (0, 1));
}

#[test]
fn problems_with_the_whole_request_are_final_and_say_why() {
    let error = read_answer(&answer(413, r#"{"title":"Too large","detail":"at most 8 MiB"}"#)).unwrap_err();
    assert!(!error.is_retriable() && !error.may_have_arrived());
    assert!(error.to_string().contains("at most 8 MiB"), "{error}");
    let error = read_answer(&answer(400, r#"{"title":"Bad request"}"#)).unwrap_err();
    assert!(error.to_string().contains("Bad request") && !error.is_retriable());
    let error = read_answer(&answer(202, "OK")).unwrap_err();
    assert!(!error.is_retriable() && error.may_have_arrived());
}

#[test]
fn busy_answers_are_retriable_and_only_a_proxys_may_have_stored() {
    for (status, may_have_arrived) in [(503, false), (429, false), (502, true), (504, true)] {
        let error = read_answer(&answer(status, "")).unwrap_err();
        assert!(error.is_retriable(), "{status}");
        assert_eq!(error.may_have_arrived(), may_have_arrived, "{status}");
    }
}

#[test]
fn a_log_that_takes_nothing_is_told_from_a_busy_server() {
    let full =
        r#"{"type":"urn:farol:problem:log-refuses","detail":"the log refuses appends: No space left"}"#;
    let error = read_answer(&answer(503, full)).unwrap_err();
    assert!(matches!(error, UploadError::LogRefuses { .. }), "{error}");
    assert!(error.to_string().contains("No space left") && !error.may_have_arrived(), "{error}");
    assert!(error.is_retriable(), "somebody may free some space");
}

#[test]
fn pauses_grow_up_to_a_limit_heed_the_server_and_end() {
    let busy = |asked: Option<u64>| -> Result<(), UploadError> {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Err(UploadError::Busy { status, retry_after: asked.map(Duration::from_secs) })
    };
    let retry = retry(Duration::from_secs(60));
    let mut tries = retry.tries();
    for wanted in [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0] {
        let pause = tries.after(&busy(None)).unwrap().as_secs_f64();
        assert!((wanted * 0.49..=wanted * 1.01).contains(&pause), "{pause} for {wanted}");
    }
    let asked = tries.after(&busy(Some(20))).unwrap();
    assert!((20.0..=22.0).contains(&asked.as_secs_f64()), "{asked:?}");
    assert_eq!(tries.after(&busy(Some(86_400))), None, "nobody waits for a day");
    let refused = UploadError::Refused { status: StatusCode::BAD_REQUEST, detail: String::new() };
    assert_eq!(retry.tries().after(&Err::<(), _>(refused)), None);
}

#[test]
fn details_of_rubbish_are_short_and_never_panic() {
    let long = "é".repeat(5000);
    assert!(problem_detail(long.as_bytes()).chars().count() <= 400);
    assert_eq!(problem_detail(b"\xff\xfe"), "\u{fffd}\u{fffd}");
}

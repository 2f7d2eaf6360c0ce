#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Matchers {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn holds(text: &str, labels: &[(&'static str, &'static str)]) -> bool {
    parse(text).hold(|name| labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value))
}

#[test]
fn matchers_hold_as_in_promql() {
    let labels = [("severity", "critical"), ("machine_id", "m-17")];
    for (text, expected) in [
        ("{}", true),
        ("", true),
        (r#"{severity="critical"}"#, true),
        (r#"{severity="crit"}"#, false),
        (r#"{severity!="warning", machine_id=~"m-.*"}"#, true),
        (r#"{machine_id=~"m"}"#, false),
        (r#"{machine_id!~"m-1."}"#, false),
        (r#"{absent=""}"#, true),
        (r#"{absent=~".*"}"#, true),
        (r#"{absent!=""}"#, false),
        (r#"{severity="critical", machine_id="m-18"}"#, false),
    ] {
        assert_eq!(holds(text, &labels), expected, "{text}");
    }
}

#[test]
fn alertmanagers_ways_of_writing_are_read_and_written_in_one_way() {
    for (text, canonical) in [
        ("severity=critical", r#"{severity="critical"}"#),
        (r#"severity="critical",zone=~'a|b'"#, r#"{severity="critical", zone=~"a|b"}"#),
        (r#"{ "http.method" = GET , }"#, r#"{"http.method"="GET"}"#),
        ("http.method!=GET", r#"{"http.method"!="GET"}"#),
        ("name=", r#"{name=""}"#),
        (r"rule=~`a\d`", r#"{rule=~"a\\d"}"#),
    ] {
        let matchers = parse(text);
        assert_eq!(matchers.to_string(), canonical, "{text}");
        assert_eq!(parse(canonical), matchers);
    }
}

#[test]
fn promql_asks_for_braces_quotes_and_identifiers() {
    for text in [r#"a="b""#, "{a=b}", r#"{"a"="b"}"#, r#"{a.b="c"}"#] {
        assert!(syntax::matchers(text, Dialect::PromQl).is_err(), "{text}");
        assert!(syntax::matchers(text, Dialect::Alertmanager).is_ok(), "{text}");
    }
}

#[test]
fn other_texts_are_refused_with_the_place() {
    for (text, part) in [
        ("severity", "at byte 8: expected `=`"),
        ("{a=\"b\"", "at byte 6: expected `,` or `}`"),
        ("{a=\"b\"} x", "at byte 8: expected nothing"),
        ("a=b c=d", "at byte 4: expected `,` or the end"),
        ("a=\"b", "closing quote"),
        (r#"a="\q""#, "unknown escape"),
        ("a=~\"(\"", "label `a`: regular expression"),
        ("a=~\"a)|(b\"", "label `a`: regular expression"),
        ("\"\"=\"x\"", "needs the name"),
        ("=x", "a label name"),
    ] {
        let error = text.parse::<Matchers>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let many = vec!["a=b"; MAX_MATCHERS + 1].join(",");
    assert_eq!(many.parse::<Matchers>(), Err(MatcherError::Syntax(SyntaxError::TooManyMatchers)));
    assert!(matches!("a".repeat(MAX_BYTES + 1).parse::<Matchers>(), Err(MatcherError::TooLong(_))));
    let huge = "a=~\"(a{1000}){1000}\"";
    assert!(huge.parse::<Matchers>().unwrap_err().to_string().contains("regular expression"));
}

#[test]
fn matchers_travel_as_their_text() {
    let matchers = parse("a=b");
    let json = serde_json::to_string(&matchers).unwrap();
    assert_eq!(json, r#""{a=\"b\"}""#);
    assert_eq!(serde_json::from_str::<Matchers>(&json).unwrap(), matchers);
    assert!(serde_json::from_str::<Matchers>("\"{\"").is_err());
}

proptest! {
    #[test]
    fn what_is_written_reads_back(name in "\\PC{1,12}", value in any::<String>(), negated: bool) {
        let matcher = Matcher::new(&name, Operator::new(negated, false), &value).unwrap();
        let all = Matchers::new(vec![matcher.clone(), matcher]).unwrap();
        prop_assert_eq!(all.to_string().parse::<Matchers>().unwrap(), all);
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), tail in "[{}a=!~\"'`\\\\,0-9 ]{0,30}") {
        let _ = format!("{text}{tail}").parse::<Matchers>();
        let _ = tail.parse::<Matchers>();
        let _ = syntax::matchers(&tail, Dialect::PromQl);
    }
}

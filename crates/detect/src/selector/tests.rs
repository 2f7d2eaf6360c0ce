use proptest::prelude::*;

use super::*;

fn selector(text: &str) -> Selector {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn error(text: &str) -> String {
    text.parse::<Selector>().unwrap_err().to_string()
}

const SERIES: SeriesLabels<'_> = SeriesLabels {
    service: None,
    sensor_id: "temp-001",
    sensor_type: "temperature",
    unit: "°C",
    factory_section: "",
    machine_id: "machine-7\nb",
    zone: "a\"b",
};

#[test]
fn matchers_mean_what_they_mean_in_promql() {
    for (text, selects) in [
        ("{}", true),
        (" { } ", true),
        ("{sensor_type=\"temperature\"}", true),
        ("{sensor_type='temperature',}", true),
        ("{ sensor_type = `temperature` , unit=\"°C\" }", true),
        ("{sensor_type=\"temperature\", unit=\"K\"}", false),
        ("{sensor_type!=\"vibration\"}", true),
        ("{sensor_type=~\"temp.*|vib.*\"}", true),
        ("{sensor_type!~\"temp.*\"}", false),
        // The whole value has to match, with the alternatives inside the anchors.
        ("{sensor_type=~\"temp\"}", false),
        ("{sensor_type=~\"x|temp\"}", false),
        ("{sensor_type=~\"\"}", false),
        // A label that the series doesn't have is empty.
        ("{factory_section=\"\"}", true),
        ("{factory_section!=\"x\"}", true),
        ("{factory_section=~\".*\"}", true),
        ("{factory_section=~\".+\"}", false),
        // `.` means any character.
        ("{machine_id=~\"machine.*\"}", true),
        ("{machine_id=\"machine-7\\nb\"}", true),
        ("{machine_id='machine-7\\u000ab'}", true),
        ("{machine_id='machine-7\\x0ab'}", true),
        ("{machine_id='machine-7\\012b'}", true),
        ("{zone=\"a\\\"b\"}", true),
        ("{zone='a\"b'}", true),
        ("{sensor_id=~\"temp-\\\\d+\"}", true),
        ("{sensor_id=~`temp-\\d+`}", true),
    ] {
        assert_eq!(selector(text).selects(&SERIES), selects, "{text}");
        let again = selector(&selector(text).to_string());
        assert_eq!(again.selects(&SERIES), selects, "{again}");
    }
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (text, problem) in [
        ("", "at byte 0: expected `{`"),
        ("temperature", "at byte 0: expected `{`"),
        ("{sensor_id}", "at byte 10: expected `=`, `!=`, `=~` or `!~`"),
        ("{sensor_id=temp}", "at byte 11: expected a string in quotes"),
        ("{sensor_id=\"temp}", "closing quote"),
        ("{sensor_id=\"temp\nx\"}", "closing quote in the same line"),
        ("{sensor_id=\"a\" unit=\"b\"}", "expected `,` or `}`"),
        ("{sensor_id=\"a\",,}", "expected a label name or `}`"),
        ("{7=\"a\"}", "expected a label name"),
        ("{sensor_id=\"a\"} x", "expected nothing after `}`"),
        ("{maschine_id=\"a\"}", "no series has a label `maschine_id`"),
        ("{sensor_id=~\"temp-\\d+\"}", "at byte 18: unknown escape"),
        ("{sensor_id=\"\\xff\"}", "unknown escape"),
        ("{sensor_id=\"\\ud800\"}", "unknown escape"),
        ("{sensor_id=~\"(\"}", "at byte 12: regular expression: error: unclosed group"),
        ("{sensor_id=~\"a)|(b\"}", "unopened group"),
        ("{sensor_id=~\"(?:[a-z]{1000}){1000}\"}", "compiled"),
    ] {
        assert!(error(text).contains(problem), "{text}: {}", error(text));
    }
    assert!(error(&format!("{{sensor_id=\"{}\"}}", "x".repeat(5000))).contains("4096"));
    assert!(error(&format!("{{{}}}", "unit=\"a\",".repeat(17))).contains("more than 16 matchers"));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,80}", syntax in "[{}=!~\",'`\\\\a-z_ 0-9x]{0,60}") {
        let _ = text.parse::<Selector>();
        let _ = syntax.parse::<Selector>();
        let _ = format!("{{sensor_id=\"{syntax}").parse::<Selector>();
    }

    #[test]
    fn every_value_can_be_written_and_parses_back(value in ".{0,40}", operator in prop::sample::select(vec!["=", "!="])) {
        let text = format!("{{zone{operator}{}}}", Quoted(&value));
        let selector: Selector = text.parse().unwrap();
        prop_assert_eq!(selector.to_string(), text);
        let labels = SeriesLabels { zone: &value, ..Default::default() };
        prop_assert_eq!(selector.selects(&labels), operator == "=");
    }
}

use proptest::prelude::*;

use super::*;

/// Every item of a text, with default or given columns.
fn read_with(text: &[u8], choice: &ColumnChoice) -> Result<Vec<SeriesItem>, SeriesError> {
    let mut reader = SeriesReader::open(text, choice)?;
    let mut items = Vec::new();
    while let Some(item) = reader.next_item()? {
        items.push(item);
    }
    assert_eq!(reader.bytes_read(), text.len() as u64);
    Ok(items)
}

fn read(text: &str) -> Vec<SeriesItem> {
    read_with(text.as_bytes(), &ColumnChoice::default()).unwrap()
}

/// (line, timestamp, value) of the samples.
fn samples(items: &[SeriesItem]) -> Vec<(u64, String, f64)> {
    items
        .iter()
        .filter_map(|item| match item {
            SeriesItem::Sample(sample) => Some((sample.line, sample.timestamp.to_string(), sample.value)),
            SeriesItem::BadRow { .. } => None,
        })
        .collect()
}

const WANTED: [(u64, &str, f64); 2] =
    [(2, "2013-12-02T21:15:00.000000Z", 73.5), (3, "2013-12-02T21:20:00.000000Z", -74.25)];

fn assert_wanted(text: &str, lines_from: u64) {
    let found = samples(&read(text));
    let wanted: Vec<_> = WANTED
        .iter()
        .map(|(line, time, value)| (line + lines_from - 2, (*time).to_owned(), *value))
        .collect();
    assert_eq!(found, wanted, "{text:?}");
}

#[test]
fn separators_headers_quotes_marks_and_line_ends_are_understood() {
    assert_wanted("timestamp,value\n2013-12-02 21:15:00,73.5\n2013-12-02 21:20:00,-74.25\n", 2);
    assert_wanted("\u{feff}Time\tVALUE\r\n2013-12-02 21:15:00\t73.5\r\n2013-12-02 21:20:00\t-74.25", 2);
    assert_wanted("\"data_hora\";\"valor\"\n2013-12-02 21:15:00;73,5\n2013-12-02 21:20:00;\"-74,25\"\n", 2);
    assert_wanted("when,what\n\"2013-12-02 21:15:00\", 73.5 \n1386019200,-7.425e1\n", 2);
    assert_wanted("2013-12-02 21:15:00,73.5\n2013-12-02 21:20:00,-74.25\n", 1);
    assert_wanted("2013-12-02 21:15:00,73.5,ok,x\n2013-12-02 21:20:00,-74.25,ok,y\n", 1);
    assert_wanted("id,value,timestamp\na,73.5,2013-12-02 21:15:00\nb,-74.25,2013-12-02T21:20:00Z\n", 2);
}

#[test]
fn columns_are_chosen_by_name_or_number() {
    let text = b"a,b,c\n1,2013-12-02 21:15:00,73.5\n2,2013-12-02 21:20:00,-74.25\n";
    for (time, value) in [("b", "c"), ("B", "C"), ("2", "3")] {
        let choice = ColumnChoice { time: Some(time.into()), value: Some(value.into()) };
        let items = read_with(text, &choice).unwrap();
        assert_eq!(samples(&items).len(), 2, "{time} {value}");
    }
    let choice = ColumnChoice { time: Some("d".into()), value: None };
    let error = read_with(text, &choice).unwrap_err().to_string();
    assert_eq!(error, "there is no column `d`; the first line has: a, b, c");
    let error = read_with(text, &ColumnChoice::default()).unwrap_err().to_string();
    assert_eq!(error, "which column holds the times? Choose one of: a, b, c");
}

#[test]
fn bad_rows_are_named_by_line_and_the_rest_is_read() {
    let items = read(
        "timestamp,value\n\nnever,1\n2013-12-02 21:15:00,\n2013-12-02 21:15:00,NaN\n2013-12-02 21:15:00\n\r\n2013-12-02 21:15:00,1e999\n2013-12-02 21:20:00,5\n",
    );
    let bad: Vec<(u64, String)> = items
        .iter()
        .filter_map(|item| match item {
            SeriesItem::BadRow { line, problem } => Some((*line, problem.to_string())),
            SeriesItem::Sample(_) => None,
        })
        .collect();
    let lines: Vec<u64> = bad.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 8], "{bad:?}");
    assert!(bad[0].1.contains("`never`") && bad[2].1.contains("`NaN`"), "{bad:?}");
    assert_eq!(bad[3].1, "it has 1 columns; column 2 was expected");
    assert_eq!(samples(&items), [(9, "2013-12-02T21:20:00.000000Z".to_owned(), 5.0)]);
}

#[test]
fn assumed_utc_is_told() {
    let assumed = |text: &str| {
        let mut reader = SeriesReader::open(text.as_bytes(), &ColumnChoice::default()).unwrap();
        while reader.next_item().unwrap().is_some() {}
        reader.utc_assumed()
    };
    assert!(assumed("2013-12-02 21:15:00,1\n"));
    assert!(!assumed("2013-12-02T21:15:00Z,1\n1386019200,2\n"));
}

#[test]
fn a_quote_that_is_never_closed_ends_the_series_with_its_line() {
    let mut text = String::from("timestamp,value\n2013-12-02 21:15:00,1\n\"2013-12-02 21:20:00,2\n");
    text.extend(std::iter::repeat_n("2013-12-02 21:25:00,3\n", 5000));
    let mut reader = SeriesReader::open(text.as_bytes(), &ColumnChoice::default()).unwrap();
    assert!(matches!(reader.next_item(), Ok(Some(SeriesItem::Sample(_)))));
    assert!(matches!(reader.next_item(), Err(SeriesError::RowTooLong { line: 3 })));
}

#[test]
fn an_empty_file_is_no_series() {
    for text in ["", "\n\n\r\n", "\u{feff}"] {
        assert!(
            matches!(read_with(text.as_bytes(), &ColumnChoice::default()), Err(SeriesError::Empty)),
            "{text:?}"
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = read_with(&bytes, &ColumnChoice::default());
    }

    #[test]
    fn arbitrary_cells_never_panic_and_every_row_is_an_item(
        cells in proptest::collection::vec(("[0-9 :.TZ+e,-]{0,30}", "[0-9.e+-]{0,12}"), 1..40),
        separator in proptest::sample::select(vec![';', '\t']),
    ) {
        let mut text = format!("timestamp{separator}value\n");
        for (time, value) in &cells {
            text.push_str(&format!("{time}{separator}{value}\n"));
        }
        let items = read_with(text.as_bytes(), &ColumnChoice::default()).unwrap();
        prop_assert_eq!(items.len(), cells.len());
    }

    #[test]
    fn what_is_written_is_read_back(
        rows in proptest::collection::vec((0_i64..4_000_000_000, -1e9..1e9_f64), 1..50),
        crlf: bool,
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let mut text = format!("timestamp,value{end}");
        for (seconds, value) in &rows {
            text.push_str(&format!("{},{value}{end}", Timestamp::from_micros(seconds * 1_000_000).unwrap()));
        }
        let found = samples(&read(&text));
        prop_assert_eq!(found.len(), rows.len());
        for ((line, time, value), (number, (seconds, wanted))) in found.into_iter().zip((2..).zip(rows)) {
            prop_assert_eq!(line, number);
            prop_assert_eq!(time, Timestamp::from_micros(seconds * 1_000_000).unwrap().to_string());
            prop_assert_eq!(value, wanted);
        }
    }
}

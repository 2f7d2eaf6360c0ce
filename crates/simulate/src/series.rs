//! A CSV file as a series of samples: timestamp and value, row by row.
//!
//! # What is understood
//! * separators `,`, `;` and tab, whichever the first line has most of; with `;` a decimal comma too;
//! * a header or none. Columns are chosen by name (any letter case) or by number from 1; without a choice by the usual
//!   names (`timestamp`, `time`, … and `value`, …), or the first two columns if there are exactly two or no header;
//! * times as [`time::parse_time`] tells;
//! * quoted fields, blank lines, a byte-order mark, `\n` and `\r\n`.
//!
//! # Limits
//! [`MAX_ROW_BYTES`] and [`MAX_COLUMNS`] a row. The reader holds one row at a time, whatever the file's length.
//!
//! # Failures
//! A row that is no sample is an item of the series ([`SeriesItem::BadRow`]) with its line and problem. Only what makes the
//! rest unreadable ends the series: an I/O error, or a row beyond the limits (mostly a quote that is never closed).

use std::io::BufRead;

use csv_core::{ReadRecordResult, ReaderBuilder, Terminator};
use farol_event::Timestamp;

pub mod time;

pub use time::{ParsedTime, TimeError};

/// The longest accepted row, in bytes.
pub const MAX_ROW_BYTES: usize = 64 * 1024;
/// The most columns of a row.
pub const MAX_COLUMNS: usize = 1024;

const TIME_NAMES: [&str; 7] = ["timestamp", "time", "datetime", "date_time", "date", "ts", "data_hora"];
const VALUE_NAMES: [&str; 5] = ["value", "val", "reading", "measurement", "valor"];

/// Which columns to read; what is not chosen is detected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnChoice {
    /// Name, or number from 1, of the column with the times.
    pub time: Option<String>,
    /// Name, or number from 1, of the column with the values.
    pub value: Option<String>,
}

/// One measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The line that it stands on, from 1.
    pub line: u64,
    /// When it was measured.
    pub timestamp: Timestamp,
    /// What was measured; finite.
    pub value: f64,
}

/// One row of the file.
#[derive(Debug, Clone, PartialEq)]
pub enum SeriesItem {
    /// A sample.
    Sample(Sample),
    /// A row that is none.
    BadRow {
        /// Its line, from 1.
        line: u64,
        /// Why.
        problem: RowError,
    },
}

/// Why a row is no sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// It ends before the column.
    #[error("it has {columns} columns; column {wanted} was expected")]
    TooFewColumns {
        /// What it has.
        columns: usize,
        /// What was expected, from 1.
        wanted: usize,
    },
    /// The time can't be understood.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// The value is no finite number.
    #[error("the value `{0}` is not a finite number")]
    Value(String),
}

/// Why a file can't be read as a series, or not further.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    /// The file could not be read.
    #[error("reading near line {line}: {source}")]
    Read {
        /// How far it was read.
        line: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// A row is longer than [`MAX_ROW_BYTES`] or has more than [`MAX_COLUMNS`] columns.
    #[error(
        "the row at line {line} has more than {MAX_ROW_BYTES} bytes or {MAX_COLUMNS} columns (a quote that is never closed?)"
    )]
    RowTooLong {
        /// Where it begins.
        line: u64,
    },
    /// A chosen column is not there.
    #[error("there is no column `{wanted}`; the first line has: {columns}")]
    NoSuchColumn {
        /// What was asked for.
        wanted: String,
        /// What there is.
        columns: String,
    },
    /// It is not clear which column is which.
    #[error("which column holds the {what}? Choose one of: {columns}")]
    Ambiguous {
        /// `times` or `values`.
        what: &'static str,
        /// What there is.
        columns: String,
    },
}

/// Reads a series row by row.
pub struct SeriesReader<R> {
    input: R,
    core: csv_core::Reader,
    row: Row,
    time_column: usize,
    value_column: usize,
    decimal_comma: bool,
    /// A first row that turned out to be no header.
    first: Option<Row>,
    bytes_read: u64,
    utc_assumed: bool,
}

/// The fields of one row.
#[derive(Debug, Clone)]
struct Row {
    line: u64,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    fields: usize,
}

impl Row {
    fn new() -> Self {
        Self { line: 0, bytes: vec![0; MAX_ROW_BYTES], ends: vec![0; MAX_COLUMNS], fields: 0 }
    }

    fn empty() -> Self {
        Self { line: 0, bytes: Vec::new(), ends: Vec::new(), fields: 0 }
    }

    /// A field's text without surrounding blanks; bytes that are no UTF-8 are replaced.
    fn field(&self, column: usize) -> Option<std::borrow::Cow<'_, str>> {
        if column >= self.fields {
            return None;
        }
        let start = match column.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        let bytes = self.bytes.get(start..*self.ends.get(column)?)?;
        Some(String::from_utf8_lossy(bytes.trim_ascii()))
    }

    fn names(&self) -> Vec<String> {
        (0..self.fields).filter_map(|column| Some(self.field(column)?.into_owned())).collect()
    }

    fn is_blank(&self) -> bool {
        self.fields == 1 && self.field(0).is_some_and(|text| text.is_empty())
    }

    /// Keeps only what it needs.
    fn shrunk(&self) -> Self {
        let used = self.ends.get(self.fields.saturating_sub(1)).copied().unwrap_or(0);
        Self {
            line: self.line,
            bytes: self.bytes.get(..used).unwrap_or_default().to_vec(),
            ends: self.ends.get(..self.fields).unwrap_or_default().to_vec(),
            fields: self.fields,
        }
    }
}

impl<R: BufRead> SeriesReader<R> {
    /// Reads the first row and decides on separator, header and columns.
    ///
    /// # Errors
    /// See [`SeriesError`].
    pub fn open(mut input: R, choice: &ColumnChoice) -> Result<Self, SeriesError> {
        let start = input.fill_buf().map_err(|source| SeriesError::Read { line: 1, source })?;
        let mark = if start.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let separator = detect_separator(start.get(mark..).unwrap_or_default());
        input.consume(mark);
        let core = ReaderBuilder::new().delimiter(separator).terminator(Terminator::Any(b'\n')).build();
        let mut reader = Self {
            input,
            core,
            row: Row::new(),
            time_column: 0,
            value_column: 1,
            decimal_comma: separator == b';',
            first: None,
            bytes_read: mark as u64,
            utc_assumed: false,
        };
        if !reader.read_row()? {
            return Err(SeriesError::Empty);
        }
        reader.choose_columns(choice)?;
        Ok(reader)
    }

    /// The next row, or `None` at the end of the file.
    ///
    /// # Errors
    /// [`SeriesError::Read`] and [`SeriesError::RowTooLong`], after which the series is over.
    pub fn next_item(&mut self) -> Result<Option<SeriesItem>, SeriesError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(self.item(&first)));
        }
        if !self.read_row()? {
            return Ok(None);
        }
        // Taken out and put back, so that it can be read while what was learned from it is noted.
        let row = std::mem::replace(&mut self.row, Row::empty());
        let item = self.item(&row);
        self.row = row;
        Ok(Some(item))
    }

    /// Whether a time without an offset has been taken as UTC.
    pub fn utc_assumed(&self) -> bool {
        self.utc_assumed
    }

    /// How many bytes of the file have been read.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    fn item(&mut self, row: &Row) -> SeriesItem {
        match self.sample(row) {
            Ok(sample) => SeriesItem::Sample(sample),
            Err(problem) => SeriesItem::BadRow { line: row.line, problem },
        }
    }

    fn sample(&mut self, row: &Row) -> Result<Sample, RowError> {
        let field = |column: usize| {
            row.field(column).ok_or(RowError::TooFewColumns { columns: row.fields, wanted: column + 1 })
        };
        let ParsedTime { timestamp, utc_assumed } = time::parse_time(&field(self.time_column)?)?;
        let text = field(self.value_column)?;
        let value = parse_value(&text, self.decimal_comma).ok_or_else(|| RowError::Value(shorten(&text)))?;
        self.utc_assumed |= utc_assumed;
        Ok(Sample { line: row.line, timestamp, value })
    }

    /// Reads one row that is not blank into `self.row`; false at the end of the file.
    fn read_row(&mut self) -> Result<bool, SeriesError> {
        loop {
            if !self.read_any_row()? {
                return Ok(false);
            }
            if !self.row.is_blank() {
                return Ok(true);
            }
        }
    }

    fn read_any_row(&mut self) -> Result<bool, SeriesError> {
        let begun_at = self.core.line();
        let (mut length, mut fields) = (0, 0);
        loop {
            let input = match self.input.fill_buf() {
                Ok(input) => input,
                Err(source) => return Err(SeriesError::Read { line: self.core.line(), source }),
            };
            let at_end = input.is_empty();
            let bytes = self.row.bytes.get_mut(length..).unwrap_or_default();
            let ends = self.row.ends.get_mut(fields..).unwrap_or_default();
            let (result, read, written, ended) = self.core.read_record(input, bytes, ends);
            self.input.consume(read);
            self.bytes_read += read as u64;
            length += written;
            fields += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    return Err(SeriesError::RowTooLong { line: begun_at });
                }
                ReadRecordResult::Record => {
                    self.row.fields = fields;
                    // The line counter already stands behind the newline that ended the row, unless the file ended it.
                    self.row.line =
                        if at_end { self.core.line() } else { self.core.line().saturating_sub(1) };
                    return Ok(true);
                }
                ReadRecordResult::End => return Ok(false),
            }
        }
    }

    /// Decides from the first row which columns to read and whether that row is a header.
    fn choose_columns(&mut self, choice: &ColumnChoice) -> Result<(), SeriesError> {
        let names = self.row.names();
        let looks_like_data = |time: usize, value: usize| {
            self.row.field(time).is_some_and(|text| time::parse_time(&text).is_ok())
                && self.row.field(value).is_some_and(|text| parse_value(&text, self.decimal_comma).is_some())
        };
        let time = find_column(&names, choice.time.as_deref(), &TIME_NAMES)?;
        let value = find_column(&names, choice.value.as_deref(), &VALUE_NAMES)?;
        let fallback = |found: Option<usize>, position: usize, what| match found {
            Some(column) => Ok(column),
            // Two columns, or data from the first line on: times first, values second.
            None if names.len() == 2 || looks_like_data(0, 1) => Ok(position),
            None => Err(SeriesError::Ambiguous { what, columns: listed(&names) }),
        };
        let (time, value) = (fallback(time, 0, "times")?, fallback(value, 1, "values")?);
        let has_header = !looks_like_data(time, value);
        (self.time_column, self.value_column) = (time, value);
        if !has_header {
            self.first = Some(self.row.shrunk());
        }
        Ok(())
    }
}

/// The column that was chosen, or that has one of the usual names.
fn find_column(names: &[String], chosen: Option<&str>, usual: &[&str]) -> Result<Option<usize>, SeriesError> {
    let by_name = |wanted: &str| names.iter().position(|name| name.eq_ignore_ascii_case(wanted));
    let Some(wanted) = chosen else {
        return Ok(usual.iter().find_map(|name| by_name(name)));
    };
    let by_number = || wanted.parse::<usize>().ok()?.checked_sub(1).filter(|column| *column < names.len());
    by_name(wanted)
        .or_else(by_number)
        .map(Some)
        .ok_or_else(|| SeriesError::NoSuchColumn { wanted: shorten(wanted), columns: listed(names) })
}

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(20).map(|name| shorten(name)).collect();
    shown.join(", ")
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Whichever candidate the first line has most of.
fn detect_separator(start: &[u8]) -> u8 {
    let first_line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |separator: u8| first_line.iter().filter(|byte| **byte == separator).count();
    // The comma comes last, because of equals the last one wins.
    [b'\t', b';', b','].into_iter().max_by_key(|separator| count(*separator)).unwrap_or(b',')
}

/// A finite number, with a decimal comma if the file's separator allows for one.
fn parse_value(text: &str, decimal_comma: bool) -> Option<f64> {
    let value = if decimal_comma && !text.contains('.') {
        text.replacen(',', ".", 1).parse::<f64>()
    } else {
        text.parse::<f64>()
    };
    value.ok().filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests;

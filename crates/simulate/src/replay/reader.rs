//! The thread that reads the file.

use std::io::BufRead;

use tokio::sync::mpsc;

use crate::series::{SeriesError, SeriesItem, SeriesReader};

/// Rows in one chunk.
const CHUNK_ROWS: usize = 1000;

/// Some rows of the file.
pub(super) struct Chunk {
    pub items: Vec<SeriesItem>,
    /// Share of the file that has been read, 0..=1.
    pub share: f64,
    /// Whether a time without an offset has been seen.
    pub utc_assumed: bool,
}

/// Reads to the end of the file, or until nobody takes the chunks any more. Blocks.
pub(super) fn read_series<R: BufRead>(
    mut series: SeriesReader<R>,
    length: u64,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<(), SeriesError> {
    loop {
        let mut items = Vec::with_capacity(CHUNK_ROWS);
        // What was read before a failure is still sent.
        let mut failure = None;
        while items.len() < CHUNK_ROWS {
            match series.next_item() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let is_last = items.len() < CHUNK_ROWS;
        let share = if length > 0 { series.bytes_read() as f64 / length as f64 } else { 1.0 };
        let chunk = Chunk { items, share, utc_assumed: series.utc_assumed() };
        let taken = chunks.blocking_send(chunk).is_ok();
        match failure {
            Some(error) => return Err(error),
            None if is_last || !taken => return Ok(()),
            None => {}
        }
    }
}

//! The answer to a Fetch, encoded by hand: the codec would copy the records.
//!
//! Layout: <https://kafka.apache.org/protocol.html#The_Messages_Fetch>. A test compares every version with the codec.

use bytes::{BufMut, BytesMut};
use kafka_protocol::ResponseError;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::PartitionRead;
use super::sessions::{Changed, SessionUse};
use crate::kafka::api::{Call, Frame, NoAnswer, Piece, ToFrame, begin_frame, end_frame};
use crate::kafka::failures::Failures;

/// From this version on: an error of the whole answer, and a session.
const SESSIONS_FROM: i16 = 7;
/// From this version on: the first offset of the partition.
const LOG_START_FROM: i16 = 5;
/// From this version on: a replica that would be better.
const PREFERRED_REPLICA_FROM: i16 = 11;
/// From this version on: compact lengths and tagged fields.
pub(super) const FLEXIBLE_FROM: i16 = 12;
/// From this version on: topics by their ids.
pub(super) const TOPIC_IDS_FROM: i16 = 13;
/// An offset that nobody knows.
const UNKNOWN: i64 = -1;

/// What is answered.
pub(in crate::kafka) struct FetchAnswer {
    error: Option<ResponseError>,
    session_id: i32,
    reads: Vec<PartitionRead>,
    permit: Option<OwnedSemaphorePermit>,
}

impl FetchAnswer {
    /// An error for the whole request.
    pub(super) fn refused(error: ResponseError) -> Self {
        Self { error: Some(error), session_id: 0, reads: Vec::new(), permit: None }
    }

    /// What was read; of it, what the session's client doesn't know yet.
    pub(super) fn new(
        session: SessionUse,
        mut reads: Vec<PartitionRead>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let session_id = session.finish(&mut reads, |read| Changed {
            has_records: read.outcome.as_ref().is_ok_and(|reading| reading.bytes > 0),
            offsets: read.outcome.as_ref().ok().map(|reading| {
                (reading.high_watermark, reading.last_stable_offset, reading.log_start_offset)
            }),
        });
        Self { error: None, session_id, reads, permit }
    }
}

impl Failures for FetchAnswer {
    fn each_code(&self, tell: &mut dyn FnMut(i16)) {
        let failures = self.reads.iter().filter_map(|read| read.outcome.as_ref().err());
        failures.map(|failure| failure.error).chain(self.error).for_each(|error| tell(error.code()));
    }
}

impl ToFrame for FetchAnswer {
    fn to_frame(self, call: &Call, correlation_id: i32) -> Result<Frame, NoAnswer> {
        let mut encoder = Encoder::new(call.version, correlation_id);
        encoder.answer(&self).map_err(NoAnswer::Encoding)?;
        let pieces = encoder.finish().map_err(NoAnswer::Encoding)?;
        Ok(Frame { pieces, permit: self.permit })
    }
}

/// Collects an answer as pieces: the records' own, and what is between.
struct Encoder {
    version: i16,
    flexible: bool,
    bytes: BytesMut,
    /// What comes before the first piece.
    first: Option<BytesMut>,
    pieces: Vec<Piece>,
    /// Bytes of the pieces.
    piece_bytes: usize,
}

impl Encoder {
    fn new(version: i16, correlation_id: i32) -> Self {
        let flexible = version >= FLEXIBLE_FROM;
        let mut bytes = BytesMut::new();
        begin_frame(&mut bytes, correlation_id, i16::from(flexible));
        Self { version, flexible, bytes, first: None, pieces: Vec::new(), piece_bytes: 0 }
    }

    fn answer(&mut self, answer: &FetchAnswer) -> Result<(), String> {
        // Nobody is throttled.
        self.bytes.put_i32(0);
        if self.version >= SESSIONS_FROM {
            self.bytes.put_i16(answer.error.map_or(0, |error| error.code()));
            self.bytes.put_i32(answer.session_id);
        }
        let topics: Vec<&[PartitionRead]> =
            answer.reads.chunk_by(|a, b| a.target.is_same_topic(&b.target)).collect();
        self.count(topics.len())?;
        for partitions in topics {
            let Some(first) = partitions.first() else { continue };
            if self.version >= TOPIC_IDS_FROM {
                self.bytes.put_slice(first.target.topic_id.unwrap_or(Uuid::nil()).as_bytes());
            } else {
                self.text(&first.target.name)?;
            }
            self.count(partitions.len())?;
            partitions.iter().try_for_each(|read| self.partition(read))?;
            self.no_tagged_fields();
        }
        self.no_tagged_fields();
        Ok(())
    }

    fn partition(&mut self, read: &PartitionRead) -> Result<(), String> {
        let reading = read.outcome.as_ref();
        self.bytes.put_i32(read.target.index);
        self.bytes.put_i16(read.outcome.as_ref().err().map_or(0, |failure| failure.code()));
        self.bytes.put_i64(reading.map_or(UNKNOWN, |reading| reading.high_watermark));
        self.bytes.put_i64(reading.map_or(UNKNOWN, |reading| reading.last_stable_offset));
        if self.version >= LOG_START_FROM {
            self.bytes.put_i64(reading.map_or(UNKNOWN, |reading| reading.log_start_offset));
        }
        let aborted = reading.map_or(&[][..], |reading| &reading.aborted);
        self.count(aborted.len())?;
        for transaction in aborted {
            self.bytes.put_i64(transaction.producer_id);
            self.bytes.put_i64(transaction.first_offset);
            self.no_tagged_fields();
        }
        if self.version >= PREFERRED_REPLICA_FROM {
            self.bytes.put_i32(-1);
        }
        let (records, bytes) = reading.map_or((&[][..], 0), |reading| (&reading.records[..], reading.bytes));
        if self.flexible {
            put_varint(&mut self.bytes, plus_one(bytes)?);
        } else {
            self.bytes.put_i32(i32::try_from(bytes).map_err(|_| too_many(bytes))?);
        }
        records.iter().for_each(|piece| self.piece(piece));
        self.no_tagged_fields();
        Ok(())
    }

    fn count(&mut self, entries: usize) -> Result<(), String> {
        if self.flexible {
            put_varint(&mut self.bytes, plus_one(entries)?);
        } else {
            self.bytes.put_i32(i32::try_from(entries).map_err(|_| too_many(entries))?);
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        if self.flexible {
            put_varint(&mut self.bytes, plus_one(text.len())?);
        } else {
            self.bytes.put_i16(i16::try_from(text.len()).map_err(|_| too_many(text.len()))?);
        }
        self.bytes.put_slice(text.as_bytes());
        Ok(())
    }

    fn no_tagged_fields(&mut self) {
        if self.flexible {
            self.bytes.put_u8(0);
        }
    }

    /// Sends `piece` as it is.
    fn piece(&mut self, piece: &Piece) {
        let before = self.bytes.split();
        self.piece_bytes = self.piece_bytes.saturating_add(piece.len());
        match self.first {
            // It gets the length of the whole frame, which is known at the end.
            None => self.first = Some(before),
            Some(_) => {
                self.piece_bytes = self.piece_bytes.saturating_add(before.len());
                self.pieces.push(Piece::Bytes(before.freeze()));
            }
        }
        self.pieces.push(piece.clone());
    }

    fn finish(self) -> Result<Vec<Piece>, String> {
        let Some(first) = self.first else { return Ok(vec![Piece::Bytes(end_frame(self.bytes, 0)?)]) };
        let last = self.bytes.freeze();
        let mut all = Vec::with_capacity(self.pieces.len() + 2);
        all.push(Piece::Bytes(end_frame(first, self.piece_bytes.saturating_add(last.len()))?));
        all.extend(self.pieces);
        all.push(Piece::Bytes(last));
        Ok(all)
    }
}

fn too_many(count: usize) -> String {
    format!("{count} don't fit the answer")
}

fn plus_one(count: usize) -> Result<u32, String> {
    u32::try_from(count).ok().and_then(|count| count.checked_add(1)).ok_or_else(|| too_many(count))
}

fn put_varint(bytes: &mut BytesMut, mut value: u32) {
    loop {
        let [low, ..] = value.to_le_bytes();
        if value < 0x80 {
            bytes.put_u8(low);
            return;
        }
        bytes.put_u8(low | 0x80);
        value >>= 7;
    }
}

//! The companion file `producers` of a partition: its producers as of an offset.
//!
//! # Layout, big-endian
//!
//! | bytes | field |
//! | --- | --- |
//! | 0–7 | magic `FPRODS01` |
//! | 8–11 | CRC32C of everything that follows |
//! | 12–19 | offset up to which it holds |
//! | 20–23 | count of producers, then for each: |
//! | | id i64, epoch i16, last seen i64 µs, first offset of its open transaction i64 (-1: none), count of batches u8, for each: first and last sequence i32, base offset i64 |
//! | | count of aborted transactions u32, then for each: producer i64, first offset i64, marker's offset i64, stable offset i64 |

use std::collections::VecDeque;

use bytes::{Buf, BufMut};
use farol_event::Timestamp;

use super::aborted::AbortedTransaction;
use super::state::{MAX_REMEMBERED_BATCHES, Open, Producer, ProducerLimits, ProducerState, Sequenced};

/// The name of the companion file.
pub(crate) const FILE_NAME: &str = "producers";
/// The largest file that is written and read: two million aborted transactions.
pub(crate) const MAX_SNAPSHOT_BYTES: usize = 64 * 1024 * 1024;

const MAGIC: [u8; 8] = *b"FPRODS01";
const NONE: i64 = -1;

/// Encodes what `state` says of the batches below `covered`. What is on its way isn't there yet.
pub(crate) fn encode(state: &ProducerState, covered: i64) -> Vec<u8> {
    let mut producers: Vec<_> = state.producers.iter().collect();
    producers.sort_by_key(|(id, _)| **id);
    let mut body = Vec::with_capacity(32 + producers.len() * 64);
    body.put_i64(covered);
    body.put_u32(u32::try_from(producers.len()).unwrap_or(u32::MAX));
    for (id, producer) in producers {
        body.put_i64(*id);
        body.put_i16(producer.epoch);
        body.put_i64(producer.last_seen.as_micros());
        body.put_i64(producer.open.filter(|open| !open.is_on_its_way).map_or(NONE, |open| open.first_offset));
        let written: Vec<(&Sequenced, i64)> =
            producer.batches.iter().filter_map(|batch| Some((batch, batch.base_offset?))).collect();
        body.put_u8(u8::try_from(written.len()).unwrap_or(u8::MAX));
        for (batch, base_offset) in written {
            body.put_i32(batch.first);
            body.put_i32(batch.last);
            body.put_i64(base_offset);
        }
    }
    body.put_u32(u32::try_from(state.aborted.len()).unwrap_or(u32::MAX));
    for aborted in state.aborted.iter() {
        body.put_i64(aborted.producer_id);
        body.put_i64(aborted.first_offset);
        body.put_i64(aborted.marker_offset);
        body.put_i64(aborted.stable_offset);
    }
    let mut out = MAGIC.to_vec();
    out.put_u32(crc32c::crc32c(&body));
    out.append(&mut body);
    out
}

/// The state and the offset up to which it holds; `None` if the bytes aren't a whole snapshot.
pub(crate) fn decode(bytes: &[u8], limits: ProducerLimits) -> Option<(ProducerState, i64)> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (crc, mut body) = rest.split_first_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
        return None;
    }
    let body = &mut body;
    let mut state = ProducerState::new(limits);
    let covered = body.try_get_i64().ok()?;
    for _ in 0..body.try_get_u32().ok()? {
        let id = body.try_get_i64().ok()?;
        state.restore(id, decode_producer(body)?);
    }
    for _ in 0..body.try_get_u32().ok()? {
        state.aborted.add(AbortedTransaction {
            producer_id: body.try_get_i64().ok()?,
            first_offset: body.try_get_i64().ok()?,
            marker_offset: body.try_get_i64().ok()?,
            stable_offset: body.try_get_i64().ok()?,
        });
    }
    body.is_empty().then_some((state, covered))
}

fn decode_producer(body: &mut &[u8]) -> Option<Producer> {
    let epoch = body.try_get_i16().ok()?;
    let last_seen = Timestamp::from_micros(body.try_get_i64().ok()?).ok()?;
    let open_from = body.try_get_i64().ok()?;
    let count = usize::from(body.try_get_u8().ok()?);
    if count > MAX_REMEMBERED_BATCHES {
        return None;
    }
    let mut batches = VecDeque::with_capacity(count);
    for _ in 0..count {
        batches.push_back(Sequenced {
            first: body.try_get_i32().ok()?,
            last: body.try_get_i32().ok()?,
            base_offset: Some(body.try_get_i64().ok()?),
        });
    }
    let open = (open_from >= 0).then_some(Open { first_offset: open_from, is_on_its_way: false });
    Some(Producer::restored(epoch, batches, open, last_seen))
}

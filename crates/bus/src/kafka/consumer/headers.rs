//! The headers of a record that librdkafka has fetched. Its binding for Rust panics at a name that isn't UTF-8, which anybody may
//! write; such a name is read here as the embedded engine reads it, with its bad bytes replaced.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::slice;

use rdkafka::bindings::rd_kafka_header_get_all;
use rdkafka::message::{BorrowedHeaders, Headers as _};
use rdkafka::types::{RDKafkaHeaders, RDKafkaRespErr};

/// Names and values, in order. A header without a value has an empty one.
pub(super) fn each(headers: &BorrowedHeaders) -> impl Iterator<Item = (Cow<'_, str>, &[u8])> {
    (0..headers.count()).map_while(|index| get(headers, index))
}

fn get(headers: &BorrowedHeaders, index: usize) -> Option<(Cow<'_, str>, &[u8])> {
    // A reference to borrowed headers is librdkafka's pointer to them.
    let native = ptr::from_ref(headers).cast::<RDKafkaHeaders>();
    let (mut name, mut value, mut bytes): (_, *const c_void, _) = (ptr::null(), ptr::null(), 0);
    // SAFETY: the headers live as long as their message, from which the reference was borrowed; librdkafka looks whether the
    // index is within.
    let answer = unsafe { rd_kafka_header_get_all(native, index, &mut name, &mut value, &mut bytes) };
    if answer != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
        return None;
    }
    // SAFETY: librdkafka ends every name with a zero, and name and value live as long as the headers.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let value = if value.is_null() {
        &[][..]
    } else {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts(value.cast::<u8>(), bytes) }
    };
    Some((name, value))
}

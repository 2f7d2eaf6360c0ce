//! Making topics by librdkafka's own functions. Its binding for Rust gives the code of a refusal and keeps the broker's sentence to itself, so
//! this file has `unsafe` code. What else is asked of topics goes through the binding.
//!
//! Every pointer is librdkafka's. What is made here is destroyed when its [`Owned`] is dropped; what is looked at belongs to the event that
//! brought it, and is copied before that is dropped.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings::{
    rd_kafka_CreateTopics, rd_kafka_CreateTopics_result_topics, rd_kafka_NewTopic_destroy,
    rd_kafka_NewTopic_new, rd_kafka_NewTopic_set_config, rd_kafka_NewTopic_t,
    rd_kafka_event_CreateTopics_result, rd_kafka_event_destroy, rd_kafka_event_error,
    rd_kafka_event_error_string, rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll,
    rd_kafka_topic_result_error, rd_kafka_topic_result_error_string,
};
use rdkafka::client::ClientContext;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::engine::TopicSpec;

/// Why a topic was not made.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: Code,
    /// In the broker's words, or in librdkafka's for the code.
    pub(super) sentence: String,
}

/// Something that is destroyed when it is dropped.
struct Owned<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// # Safety
    /// `pointer` is null, or nobody else destroys it and `destroy` may.
    unsafe fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(pointer).map(|pointer| Self { pointer, destroy })
    }

    fn pointer(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: by the promise of `new`.
        unsafe { (self.destroy)(self.pointer()) }
    }
}

/// Makes a topic with the cluster's own number of replicas, and waits for the answer.
pub(super) fn create<C: ClientContext>(
    admin: &AdminClient<C>,
    spec: &TopicSpec,
    limit: Duration,
) -> Result<(), Refused> {
    let topic = native(spec)?;
    let client = admin.inner().native_ptr();
    // SAFETY: the client lives for longer than this call; the queue is destroyed before.
    let queue = unsafe { Owned::new(rd_kafka_queue_new(client), rd_kafka_queue_destroy) };
    let queue = queue.ok_or_else(|| failed(Code::Fail))?;
    let mut topics = [topic.pointer()];
    // SAFETY: the topic is copied. Without options librdkafka takes its defaults. An answer that comes later than is waited for finds the
    // queue destroyed, and is dropped by librdkafka, which counts who uses the queue.
    unsafe {
        rd_kafka_CreateTopics(client, topics.as_mut_ptr(), topics.len(), ptr::null(), queue.pointer());
    }
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: whoever polls owns the event.
    let event = unsafe { Owned::new(rd_kafka_queue_poll(queue.pointer(), millis), rd_kafka_event_destroy) };
    let event = event.ok_or_else(|| failed(Code::OperationTimedOut))?;
    // SAFETY: the event is there, and so are its strings, until it is dropped.
    check(unsafe { rd_kafka_event_error(event.pointer()) }.into(), || unsafe {
        rd_kafka_event_error_string(event.pointer())
    })?;
    // SAFETY: as above. The result is null in events of other kinds.
    let result = unsafe { rd_kafka_event_CreateTopics_result(event.pointer()) };
    if result.is_null() {
        return Err(failed(Code::Fail));
    }
    let mut count = 0;
    // SAFETY: `count` of them stand behind the pointer, for as long as the event is there.
    let results = unsafe { rd_kafka_CreateTopics_result_topics(result, &raw mut count) };
    if results.is_null() || count != topics.len() {
        return Err(failed(Code::Fail));
    }
    // SAFETY: there is the one that was asked for.
    let result = unsafe { *results };
    // SAFETY: it and its sentence belong to the event.
    check(unsafe { rd_kafka_topic_result_error(result) }.into(), || unsafe {
        rd_kafka_topic_result_error_string(result)
    })
}

fn native(spec: &TopicSpec) -> Result<Owned<rd_kafka_NewTopic_t>, Refused> {
    const REPLICAS: i32 = -1;
    let text = |text: &str| CString::new(text).map_err(|_| failed(Code::InvalidArgument));
    let name = text(&spec.name)?;
    // SAFETY: the name is copied. Without room for it no error is written.
    let native = unsafe {
        let made = rd_kafka_NewTopic_new(name.as_ptr(), spec.partitions, REPLICAS, ptr::null_mut(), 0);
        Owned::new(made, rd_kafka_NewTopic_destroy)
    };
    // That nobody has so many partitions is all that librdkafka checks.
    let native = native.ok_or_else(|| failed(Code::InvalidPartitions))?;
    for (key, value) in &spec.config {
        let (key, value) = (text(key)?, text(value)?);
        // SAFETY: key and value are copied.
        let set = unsafe { rd_kafka_NewTopic_set_config(native.pointer(), key.as_ptr(), value.as_ptr()) };
        check(set.into(), ptr::null)?;
    }
    Ok(native)
}

/// An error with its sentence, which is a C string or null, and belongs to somebody who is still there.
fn check(code: Code, sentence: impl FnOnce() -> *const c_char) -> Result<(), Refused> {
    if code == Code::NoError {
        return Ok(());
    }
    let sentence = sentence();
    if sentence.is_null() {
        return Err(failed(code));
    }
    // SAFETY: by what is said above.
    let sentence = unsafe { CStr::from_ptr(sentence) }.to_string_lossy().into_owned();
    Err(Refused { code, sentence })
}

fn failed(code: Code) -> Refused {
    Refused { code, sentence: String::new() }
}

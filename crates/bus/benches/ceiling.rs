//! A broker that keeps nothing: the most that any broker could show with a given client on this machine.
//!
//! `cargo bench -p farol-bus --bench ceiling -- PORT FOLDER`. It listens on the loopback address and stays until it is killed. What
//! is produced is acknowledged at once and dropped, unseen, but for the largest batch of each topic. That batch is what each
//! consumer gets again and again, from memory, with its offsets moved on, for as long as it asks. All else (metadata, groups,
//! topics, producer ids) goes to a Farol in the same process. Where a real broker comes near to its figures, its client sets
//! the pace.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farol_broker::Broker;
use farol_broker::kafka::{Advertised, KafkaSettings, serve};
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_log::BatchHeader;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// From this version on, Fetch and Produce say topics by their ids.
const TOPIC_IDS_FROM: i16 = 13;
/// No consumer comes to the end.
const END_OFFSET: i64 = i64::MAX / 2;
/// Bytes of an answer up to its correlation id.
const LENGTH_BYTES: usize = 4;

/// What all connections share.
struct Shared {
    broker: Broker,
    /// A Farol for all but Produce and Fetch.
    others: SocketAddr,
    /// One batch of each topic.
    kept: Mutex<HashMap<TopicName, Bytes>>,
    next_offset: AtomicI64,
}

/// What decides how a Fetch answer looks, but for its offsets: the version and the partitions, with how many batches each gets.
#[derive(PartialEq, Eq, Hash)]
struct Shape(i16, Vec<(TopicName, i32, usize)>);

/// An answer with the places of its batches, in the order of the partitions.
struct Prepared {
    frame: Vec<u8>,
    batches: Vec<Vec<usize>>,
    records_per_batch: i64,
}

impl Shared {
    /// A topic that is told by its name or by its id.
    fn name(&self, version: i16, name: &TopicName, id: uuid::Uuid) -> TopicName {
        if version < TOPIC_IDS_FROM {
            return name.clone();
        }
        TopicName(self.broker.topic_by_id(id).unwrap().name().to_string().into())
    }

    fn produce(&self, version: i16, request: ProduceRequest) -> ProduceResponse {
        let mut responses = Vec::new();
        for topic in request.topic_data {
            let name = self.name(version, &topic.name, topic.topic_id);
            let mut partitions = Vec::new();
            for partition in topic.partition_data {
                let records = partition.records.unwrap();
                let base_offset = self.next_offset.fetch_add(records_in(&records), Ordering::Relaxed);
                partitions.push(
                    PartitionProduceResponse::default()
                        .with_index(partition.index)
                        .with_base_offset(base_offset),
                );
                let mut kept = self.kept.lock();
                if kept.get(&name).is_none_or(|batch| batch.len() <= records.len()) {
                    kept.insert(name.clone(), records);
                }
            }
            let topic_response = TopicProduceResponse::default()
                .with_name(topic.name)
                .with_topic_id(topic.topic_id)
                .with_partition_responses(partitions);
            responses.push(topic_response);
        }
        ProduceResponse::default().with_responses(responses)
    }

    /// What is asked for, as a shape and the offset of each partition.
    fn shape(&self, version: i16, request: &FetchRequest) -> (Shape, Vec<i64>) {
        let mut left = usize::try_from(request.max_bytes).unwrap();
        let (mut partitions, mut offsets) = (Vec::new(), Vec::new());
        for topic in &request.topics {
            let name = self.name(version, &topic.topic, topic.topic_id);
            let batch_bytes = self.kept.lock().get(&name).map_or(usize::MAX, Bytes::len);
            for partition in &topic.partitions {
                let bytes = usize::try_from(partition.partition_max_bytes).unwrap().min(left);
                left -= bytes;
                partitions.push((name.clone(), partition.partition, bytes / batch_bytes));
                offsets.push(partition.fetch_offset);
            }
        }
        (Shape(version, partitions), offsets)
    }

    fn prepare(&self, version: i16, request: &FetchRequest, shape: &Shape) -> Prepared {
        let mut counts = shape.1.iter();
        let mut response = FetchResponse::default();
        let mut records_per_batch = 0;
        for topic in &request.topics {
            let mut partitions = Vec::new();
            for partition in &topic.partitions {
                let (name, _, count) = counts.next().unwrap();
                let batch = self.kept.lock().get(name).cloned().unwrap_or_default();
                if !batch.is_empty() {
                    records_per_batch = records_in(&batch);
                }
                partitions.push(
                    PartitionData::default()
                        .with_partition_index(partition.partition)
                        .with_high_watermark(END_OFFSET)
                        .with_last_stable_offset(END_OFFSET)
                        .with_log_start_offset(0)
                        .with_records(Some(batch.repeat(*count).into())),
                );
            }
            let topic_response = FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions);
            response.responses.push(topic_response);
        }
        let frame = frame(ApiKey::Fetch, version, 0, &response);
        let mut from = 0;
        let mut batches = Vec::new();
        for (name, _, count) in &shape.1 {
            let mut places = Vec::new();
            if *count > 0 {
                let batch = self.kept.lock()[name].clone();
                from += memchr::memmem::find(&frame[from..], &batch).unwrap();
                places.extend((0..*count).map(|number| from + number * batch.len()));
                from += count * batch.len();
            }
            batches.push(places);
        }
        Prepared { frame, batches, records_per_batch }
    }
}

impl Prepared {
    fn send(&mut self, mut client: &TcpStream, correlation_id: i32, offsets: &[i64]) -> io::Result<()> {
        self.frame[LENGTH_BYTES..2 * LENGTH_BYTES].copy_from_slice(&correlation_id.to_be_bytes());
        for (places, first) in self.batches.iter().zip(offsets) {
            let mut offset = *first;
            for place in places {
                // A batch begins with its base offset, which its checksum doesn't cover.
                self.frame[*place..place + 8].copy_from_slice(&offset.to_be_bytes());
                offset += self.records_per_batch;
            }
        }
        client.write_all(&self.frame)
    }
}

fn records_in(batch: &[u8]) -> i64 {
    let header = BatchHeader::parse(batch).unwrap();
    header.next_offset() - header.base_offset
}

fn frame(key: ApiKey, version: i16, correlation_id: i32, response: &impl Encodable) -> Vec<u8> {
    let mut out = BytesMut::from(&[0; LENGTH_BYTES][..]);
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    header.encode(&mut out, key.response_header_version(version)).unwrap();
    response.encode(&mut out, version).unwrap();
    let length = u32::try_from(out.len() - LENGTH_BYTES).unwrap();
    out[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    out.into()
}

/// The next frame, without its length.
fn read_frame(mut from: &TcpStream) -> io::Result<Bytes> {
    let mut length = [0; LENGTH_BYTES];
    from.read_exact(&mut length)?;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    from.read_exact(&mut body)?;
    Ok(body.into())
}

/// Answers one client until it goes.
fn answer(shared: &Shared, client: &TcpStream) -> io::Result<()> {
    let mut others = TcpStream::connect(shared.others)?;
    [client, &others].iter().try_for_each(|socket| socket.set_nodelay(true))?;
    let mut prepared: HashMap<Shape, Prepared> = HashMap::new();
    loop {
        let mut request = read_frame(client)?;
        let key = i16::from_be_bytes([request[0], request[1]]);
        let version = i16::from_be_bytes([request[2], request[3]]);
        let correlation_id = i32::from_be_bytes([request[4], request[5], request[6], request[7]]);
        let mut body = |key: ApiKey| {
            RequestHeader::decode(&mut request, key.request_header_version(version)).unwrap();
            request.clone()
        };
        match ApiKey::try_from(key).unwrap() {
            ApiKey::Produce => {
                let request = ProduceRequest::decode(&mut body(ApiKey::Produce), version).unwrap();
                let response = shared.produce(version, request);
                (&*client).write_all(&frame(ApiKey::Produce, version, correlation_id, &response))?;
            }
            ApiKey::Fetch => {
                let request = FetchRequest::decode(&mut body(ApiKey::Fetch), version).unwrap();
                let (shape, offsets) = shared.shape(version, &request);
                if shape.1.iter().all(|(_, _, count)| *count == 0) {
                    thread::sleep(Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap()));
                }
                let mut made = prepared.remove(&shape);
                let answer = made.get_or_insert_with(|| shared.prepare(version, &request, &shape));
                answer.send(client, correlation_id, &offsets)?;
                prepared.extend(made.map(|made| (shape, made)));
            }
            _ => {
                others.write_all(&u32::try_from(request.len()).unwrap().to_be_bytes())?;
                others.write_all(&request)?;
                let response = read_frame(&others)?;
                let length = u32::try_from(response.len()).unwrap();
                (&*client).write_all(&[&length.to_be_bytes(), &response[..]].concat())?;
            }
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [port, folder] = arguments.as_slice() else { return };
    let port: u16 = port.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _within = runtime.enter();
    let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(Path::new(folder))).unwrap();
    let advertise = Some(Advertised { host: "127.0.0.1".into(), port: Some(port) });
    let settings = KafkaSettings { advertise, ..KafkaSettings::default() };
    let others = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        serve(bus.broker().clone(), settings, listener, CancellationToken::new()).unwrap()
    });
    let shared = Arc::new(Shared {
        broker: bus.broker().clone(),
        others: others.local_addr(),
        kept: Mutex::default(),
        next_offset: AtomicI64::new(0),
    });
    for client in TcpListener::bind(("127.0.0.1", port)).unwrap().incoming() {
        let (shared, client) = (Arc::clone(&shared), client.unwrap());
        // A client that goes ends its thread.
        thread::spawn(move || drop(answer(&shared, &client)));
    }
}

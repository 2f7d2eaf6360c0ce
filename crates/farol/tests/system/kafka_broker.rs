//! The real binary as a broker that is killed and started again at one Kafka port, and clients of it.

use std::net::TcpListener;
use std::path::Path;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::farol::{Farol, farol};

pub fn client(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("reconnect.backoff.max.ms", "200");
    config
}

/// A port that is free now, so that every start of the broker can have the same.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub async fn start(folder: &Path, address: &str) -> Farol {
    let mut command = farol(folder);
    command.args(["run", "--listen", "127.0.0.1:0", "--data"]).arg(folder.join("data"));
    Farol::spawn(command.env("FAROL_KAFKA_LISTEN", address)).await
}

pub async fn create_topic(address: &str, name: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = client(address).create().unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let created = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    assert_eq!(created, [Ok(name.to_owned())]);
}

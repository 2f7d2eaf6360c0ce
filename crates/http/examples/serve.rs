//! A whole Farol in a temporary folder with a little of everything in it, for trying out the HTTP face (a browser, a
//! fuzzer): `cargo run -p farol-http --example serve -- 127.0.0.1:5099`. Ends with Ctrl-C.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]

#[path = "../tests/it/support.rs"]
mod support;

use serde_json::json;
use support::Farol;

#[tokio::main]
async fn main() {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let mut farol = Farol::start_with(|settings| settings.listen = listen.parse().unwrap()).await;
    for sensor in 1..=5 {
        for value in 0..20 {
            farol.reading(&format!("temp-{sensor}"), 20.0 + f64::from(sensor * value) / 3.0).await;
        }
    }
    let event = json!({"specversion": "1.0", "id": "1", "type": "transacao_iniciada", "source": "loja",
        "correlationid": "01890000-0000-7000-8000-000000000001", "data": {"valor": 1}});
    assert_eq!(farol.post_json("/api/events", event.to_string()).await.status, 202);
    println!("http://{}", farol.addr);
    tokio::signal::ctrl_c().await.unwrap();
    farol.stop_http().await;
}

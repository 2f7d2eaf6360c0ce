//! The machine as the first service.

use hyper::Method;
use serde_json::json;

use crate::farol::{Farol, SOON, eventually, farol, folder, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machine_and_farol_itself_are_shown_as_services_that_are_up() {
    let folder = folder();
    write(folder.path(), "farol.toml", "[host]\ninterval = \"1s\"\nname = \"plant server\"\n");
    let mut command = farol(folder.path());
    command.env_remove("FAROL_HOST_ENABLED").args(["run", "--listen", "127.0.0.1:0", "--data", "data"]);
    let server = Farol::spawn(&mut command).await;
    for (service, metrics) in [
        ("plant%20server", &["cpu_percent", "memory_percent", "memory_bytes", "uptime_seconds"][..]),
        ("farol", &["cpu_percent", "memory_bytes", "uptime_seconds"]),
    ] {
        let detail = eventually(SOON, "it is up and measured", async || {
            let path = format!("/api/services/{service}");
            let detail = server.request(Method::GET, &path, "application/json", "").await.body;
            let measured = metrics.iter().all(|metric| detail["service"][metric].is_number());
            (detail["service"]["state"] == "up" && measured).then_some(detail)
        })
        .await;
        let memory = detail["service"]["memory_bytes"].as_f64().unwrap();
        assert!(memory > 1e6, "{detail}");
    }
    let host = server.get("/api/services/plant%20server").await;
    assert_eq!(host["service"]["kind"], "host");
    let network = host["metrics"].as_array().unwrap().iter().filter(|m| m["unit"] == json!("B/s")).count();
    assert_eq!(network, 2, "{host}");
    let points = server.get("/api/services/plant%20server/metrics?names=cpu_percent").await;
    assert_eq!(points["series"][0]["tags"], json!({"kind": "host"}));
}

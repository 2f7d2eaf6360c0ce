//! `GET /api/v2/status`, `GET /api/v2/receivers`.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::app::App;

pub(crate) async fn status(State(app): State<App>) -> Json<Value> {
    Json(json!({
        "cluster": { "peers": [], "status": "disabled" },
        "config": { "original": "# Farol: see `farol settings`\n" },
        "uptime": app.started_at(),
        "versionInfo": {
            "branch": "",
            "buildDate": "",
            "buildUser": "",
            "goVersion": "",
            "revision": "farol",
            "version": app.about().version,
        },
    }))
}

pub(crate) async fn receivers(State(app): State<App>) -> Json<Value> {
    let notifying = app.control().notifying();
    Json(notifying.receivers.iter().map(|name| json!({ "name": name })).collect())
}

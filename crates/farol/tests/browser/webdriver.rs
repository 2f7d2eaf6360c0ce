//! A real Chromium, driven through chromedriver.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tempfile::TempDir;
use thirtyfour::error::{WebDriverError, WebDriverResult};
use thirtyfour::prelude::*;
use thirtyfour::session::http::{Body, HttpClient};
use tokio::sync::{Mutex, MutexGuard};

use crate::farol::{eventually, folder};

/// Held by the one test that has a browser: two at a time would take each other the processor.
static TURN: Mutex<()> = Mutex::const_new(());

/// A browser of the test's own. Chromedriver ends with it.
pub struct Browser {
    pub driver: WebDriver,
    chromedriver: Child,
    port: u16,
    _profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Waits for its turn, then starts chromedriver on a free port and a headless Chromium with an empty profile.
    pub async fn start() -> Self {
        let turn = TURN.lock().await;
        let mut chromedriver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed: scripts/test-setup");
        let port = port(&mut chromedriver);
        let profile = folder();
        let mut capabilities = DesiredCapabilities::chrome();
        for argument in [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--lang=en-US",
            "--window-size=1280,900",
            &format!("--user-data-dir={}", profile.path().display()),
        ] {
            capabilities.add_arg(argument).unwrap();
        }
        let driver = WebDriver::builder(format!("http://127.0.0.1:{port}"), capabilities)
            .client(Hyper::default())
            .await
            .expect("Chromium starts");
        Self { driver, chromedriver, port, _profile: profile, _turn: turn }
    }

    /// The element with a `data-testid`, as soon as it is there.
    pub async fn element(&self, testid: &str) -> WebElement {
        self.select(&format!("[data-testid='{testid}']")).await
    }

    /// The first element of a CSS selector, as soon as it is there.
    pub async fn select(&self, css: &str) -> WebElement {
        eventually(Duration::from_secs(10), &format!("{css} is on the page"), async || {
            self.driver.find(By::Css(css)).await.ok()
        })
        .await
    }

    /// Waits until a script, which returns something true or false, returns something true; gives it back.
    pub async fn until(&self, limit: Duration, what: &str, script: &str) -> serde_json::Value {
        eventually(limit, what, async || {
            let value = self.driver.execute(script, Vec::new()).await.ok()?.json().clone();
            let holds = !matches!(value, serde_json::Value::Null | serde_json::Value::Bool(false));
            holds.then_some(value)
        })
        .await
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to end, it ends its Chromium first; killed, it would leave that behind.
        if let Ok(mut asking) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = asking.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = asking.write_all(b"GET /shutdown HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
            let _ = asking.read_to_end(&mut Vec::new());
        }
        let _ = self.chromedriver.kill();
        let _ = self.chromedriver.wait();
    }
}

/// The port that chromedriver says it has taken.
fn port(chromedriver: &mut Child) -> u16 {
    let lines = BufReader::new(chromedriver.stdout.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    let said = lines.find_map(|line| {
        let (_, rest) = line.split_once("started successfully on port ")?;
        rest.trim_end_matches('.').parse().ok()
    });
    // Its further output is read and dropped, so that it never waits for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    said.expect("chromedriver says its port")
}

/// The HTTP client that the tests use anyway.
struct Hyper(Client<HttpConnector, Full<Bytes>>);

impl Default for Hyper {
    fn default() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

#[async_trait::async_trait]
impl HttpClient for Hyper {
    async fn send(&self, request: Request<Body<'_>>) -> WebDriverResult<Response<Bytes>> {
        let request = request.map(|body| match body {
            Body::Empty => Full::default(),
            Body::Json(json) => Full::new(Bytes::from(json.to_string())),
        });
        let failed = |error: &dyn std::fmt::Display| WebDriverError::HttpError(error.to_string());
        let (head, body) = self.0.request(request).await.map_err(|error| failed(&error))?.into_parts();
        let body = body.collect().await.map_err(|error| failed(&error))?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    async fn new(&self) -> Arc<dyn HttpClient> {
        Arc::new(Self::default())
    }
}

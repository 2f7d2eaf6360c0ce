//! A real mail server on loopback, as a process of its own (`tests/mail/server.py`).

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::farol::{Lines, SOON, eventually};

/// Where `scripts/test-setup` puts the tools of tests.
pub fn tools() -> PathBuf {
    let cache = std::env::var_os("CACHE_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let home = || PathBuf::from(std::env::var_os("HOME").expect("there is a home")).join(".cache");
        std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("farol")
    });
    cache.join("tools")
}

/// The running server. Killed when dropped.
pub struct MailServer {
    child: Child,
    out: Lines,
    pub port: u16,
}

/// One message that it took.
#[derive(Debug, Clone)]
pub struct Taken {
    pub to: String,
    pub user: Option<String>,
    pub tls: bool,
    pub data: String,
}

impl Taken {
    /// The value of a header, unfolded.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.data.split("\r\n\r\n").next()?.replace("\r\n ", " ");
        let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.map(str::to_owned)
    }
}

impl MailServer {
    /// Starts it and waits until it listens.
    pub async fn start(arguments: &[&str]) -> Self {
        let python = tools().join("python/bin/python");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/mail/server.py");
        let mut child = Command::new(&python)
            .arg(script)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; run scripts/test-setup", python.display()));
        let out = Lines::follow(child.stdout.take().unwrap());
        let mut server = Self { child, out, port: 0 };
        server.port = eventually(SOON, "the mail server listens", async || {
            server.out.text().lines().next()?.parse().ok()
        })
        .await;
        server
    }

    /// What it has taken so far.
    pub fn taken(&self) -> Vec<Taken> {
        let text = self.out.text();
        let read = |line: &str| {
            let message: Value = serde_json::from_str(line).expect("the server writes JSON");
            Taken {
                to: message["to"][0].as_str().unwrap().to_owned(),
                user: message["user"].as_str().map(str::to_owned),
                tls: message["tls"].as_bool().unwrap(),
                data: message["data"].as_str().unwrap().to_owned(),
            }
        };
        text.lines().skip(1).map(read).collect()
    }

    /// Waits until it has taken messages that are enough.
    pub async fn has_taken(&self, what: &str, enough: impl Fn(&[Taken]) -> bool) -> Vec<Taken> {
        eventually(SOON * 2, what, async || {
            let taken = self.taken();
            enough(&taken).then_some(taken)
        })
        .await
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

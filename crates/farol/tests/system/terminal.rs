//! A command at a terminal: what it asks, and what is typed.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use crate::farol::{SOON, eventually, farol, text};

/// Ctrl-C, as the keyboard sends it.
pub const CTRL_C: &str = "\x03";

/// The command runs at a terminal of its own, which `script` (util-linux) makes. Killed when dropped.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command, none of whose arguments may mean anything to a shell.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        let shell = farol(folder);
        let mut script = std::process::Command::new("script");
        let command = format!("exec {} {}", shell.get_program().display(), arguments.join(" "));
        script
            .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
            .current_dir(folder);
        let mut child =
            script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script can be run");
        let (mut out, keys) = (child.stdout.take().expect("piped"), child.stdin.take().expect("piped"));
        let shown = Arc::new(Mutex::new(Vec::new()));
        let more = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(length @ 1..) = out.read(&mut bytes) {
                more.lock().unwrap().extend_from_slice(&bytes[..length]);
            }
        });
        Self { child, keys, shown }
    }

    /// What stands on it.
    pub fn shown(&self) -> String {
        text(&self.shown.lock().unwrap())
    }

    /// Waits until a text stands on it.
    pub async fn shows(&self, text: &str) {
        eventually(SOON, text, async || self.shown().contains(text).then_some(())).await;
    }

    pub fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually(SOON, "the command ends", async || child.try_wait().unwrap()).await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("the terminal showed:\n{}", self.shown());
        }
    }
}

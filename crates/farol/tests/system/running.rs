//! A command of farol that runs beside a server: a worker, a consumer.

use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::farol::{Lines, SOON, eventually, farol};

/// A running command. Killed when dropped.
pub struct Running {
    child: Child,
    out: Lines,
    errors: Lines,
}

impl Running {
    /// Starts a command.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut child = farol(folder)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("farol can be run");
        let out = Lines::follow(child.stdout.take().expect("piped"));
        let errors = Lines::follow(child.stderr.take().expect("piped"));
        Self { child, out, errors }
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        self.out.text()
    }

    /// What it has written to standard error so far.
    pub fn complained(&self) -> String {
        self.errors.text()
    }

    /// Waits until it has printed a text.
    pub async fn says(&self, text: &str) {
        self.says_within(SOON, text).await;
    }

    pub async fn says_within(&self, limit: Duration, text: &str) {
        eventually(limit, text, async || self.printed().contains(text).then_some(())).await;
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// Waits for its end; what it printed is then complete.
    pub async fn ended(&mut self) -> ExitStatus {
        self.ended_within(SOON).await
    }

    pub async fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.child;
        let status = eventually(limit, "the command ends", async || child.try_wait().unwrap()).await;
        self.out.finish();
        self.errors.finish();
        status
    }

    /// Asks it to stop as Ctrl-C does, and waits for its end.
    pub async fn interrupt(mut self) -> (ExitStatus, String) {
        self.signal(Signal::INT);
        let status = self.ended().await;
        (status, self.printed())
    }

    /// Kills it as a power cut to the process would: no handler runs.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("it was a child");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("a command printed:\n{}\nand logged:\n{}", self.out.text(), self.errors.text());
        }
    }
}

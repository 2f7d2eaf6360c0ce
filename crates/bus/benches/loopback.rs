//! The most that a log on this machine could give a consumer beside it: bytes from a file over loopback, without any protocol.
//!
//! `cargo bench -p farol-bus --bench loopback [-- FOLDER MEGABYTES]`. One thread sends a file that is in the page cache over a TCP
//! connection, another one receives, as a consumer would, and drops what came. Once from the file to the socket (`sendfile`),
//! once through 64 kB of memory (`read`, `write`). Prints megabytes a second for the faster of the two. What a broker and its client
//! reach below that is what they do with the bytes; no broker is faster.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Instant;

const PIECE_BYTES: usize = 64 << 10;
const FILE_BYTES: usize = 64 << 20;

/// How the sender gets the file into the socket.
#[derive(Clone, Copy)]
enum Way {
    FromTheFile,
    ThroughMemory,
}

fn send_once(way: Way, mut file: &File, mut socket: &TcpStream) -> io::Result<()> {
    file.rewind()?;
    match way {
        // The standard library does this in the kernel where it can.
        Way::FromTheFile => io::copy(&mut file, &mut socket).map(drop),
        Way::ThroughMemory => {
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                let read = file.read(&mut piece)?;
                if read == 0 {
                    return Ok(());
                }
                socket.write_all(&piece[..read])?;
            }
        }
    }
}

/// Megabytes a second.
fn measure(way: Way, file: &File, megabytes: usize) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut receiver = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (sender, _) = listener.accept().unwrap();
    let rounds = (megabytes * 1_000_000).div_ceil(FILE_BYTES);
    let started = Instant::now();
    let received: usize = thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..rounds {
                send_once(way, file, &sender).unwrap();
            }
        });
        let mut piece = vec![0; PIECE_BYTES];
        std::iter::from_fn(|| Some(receiver.read(&mut piece).unwrap()).filter(|read| *read > 0)).sum()
    });
    assert_eq!(received, rounds * FILE_BYTES);
    received as f64 / 1e6 / started.elapsed().as_secs_f64()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let temporary = std::env::temp_dir();
    let (folder, megabytes) = match arguments.as_slice() {
        [] => (temporary.as_path(), 4000),
        [folder, megabytes] => (Path::new(folder), megabytes.parse().unwrap()),
        _ => panic!("FOLDER MEGABYTES, or nothing"),
    };
    let mut file = tempfile::tempfile_in(folder).unwrap();
    file.write_all(&vec![b'v'; FILE_BYTES]).unwrap();
    file.sync_all().unwrap();
    let [from_the_file, through_memory] =
        [Way::FromTheFile, Way::ThroughMemory].map(|way| measure(way, &file, megabytes));
    println!("{:.0}", from_the_file.max(through_memory));
}

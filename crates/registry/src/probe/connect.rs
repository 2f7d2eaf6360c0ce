//! A connection to what is within reach.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::{Failure, NetworkProber, Reach};
use crate::target::HostPort;

/// How many addresses of one name are tried.
const MAX_ADDRESSES: usize = 4;

impl NetworkProber {
    /// Resolves, leaves out what is out of reach, and opens the first connection that can be opened.
    pub(super) async fn connect(&self, at: &HostPort, reach: Reach) -> Result<TcpStream, Failure> {
        let unresolved = |problem: String| Failure::Unresolved { host: at.host.clone(), problem };
        let found = self.resolver.addresses(&at.host).await.map_err(unresolved)?;
        if found.is_empty() {
            return Err(unresolved("the system knows none".to_owned()));
        }
        let mut within =
            found.into_iter().filter(|address| reach.contains(*address)).take(MAX_ADDRESSES).peekable();
        if within.peek().is_none() {
            return Err(Failure::OutOfReach(at.to_string()));
        }
        let mut problem = String::new();
        for address in within {
            match TcpStream::connect(SocketAddr::new(address, at.port)).await {
                Ok(stream) => {
                    // A question is one small write; waiting for more would measure the wait.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => problem = error.to_string(),
            }
        }
        Err(Failure::Connect { at: at.to_string(), problem })
    }
}

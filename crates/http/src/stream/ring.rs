//! The buffer between those who make frames and the clients that asked for the same.
//!
//! A client has a [`Reader`]: a number, and how many frames of each stream had been made when it read last. A frame that
//! has been overwritten before a client came to it is missed, and since every frame knows how many of each stream came
//! before it, the client is told exactly how many of each.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::stream::frame::{Frame, PerStream, Stream};

/// How many frames are kept.
pub const MAX_FRAMES: usize = 4096;

/// The ring.
#[derive(Debug)]
pub struct Ring {
    inner: Mutex<Inner>,
    /// How many bytes of frames are kept.
    max_bytes: usize,
    /// The number of the next frame: wakes the readers.
    end: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    frames: VecDeque<Slot>,
    bytes: usize,
    /// The number of the frame after the newest.
    end: u64,
    /// How many frames of each stream have been made.
    made: PerStream<u64>,
}

#[derive(Debug)]
struct Slot {
    frame: Arc<Frame>,
    made_before: PerStream<u64>,
}

/// A client's place in the ring.
#[derive(Debug)]
pub struct Reader {
    ring: Arc<Ring>,
    next: u64,
    made_before_next: PerStream<u64>,
    end: watch::Receiver<u64>,
}

/// What a reader finds.
#[derive(Debug)]
pub enum Read {
    /// The next frame.
    Frame(Arc<Frame>),
    /// Frames were overwritten: how many of each stream.
    Missed(PerStream<u64>),
    /// Nothing new.
    Empty,
}

impl Ring {
    /// An empty ring that keeps at most `max_bytes`, and [`MAX_FRAMES`].
    pub fn new(max_bytes: usize) -> Self {
        let inner = Inner { frames: VecDeque::new(), bytes: 0, end: 0, made: PerStream::default() };
        Self { inner: Mutex::new(inner), max_bytes, end: watch::Sender::new(0) }
    }

    /// Adds a frame. Nobody wakes before [`Ring::wake`]: many frames, one awakening.
    pub fn push(&self, frame: Arc<Frame>) {
        self.inner.lock().push(frame, self.max_bytes);
    }

    /// Wakes the readers that wait.
    pub fn wake(&self) {
        let end = self.inner.lock().end;
        self.end.send_replace(end);
    }

    /// A reader of what comes from now on.
    pub fn subscribe(self: &Arc<Self>) -> Reader {
        let end = self.end.subscribe();
        let inner = self.inner.lock();
        Reader { ring: Arc::clone(self), next: inner.end, made_before_next: inner.made, end }
    }
}

impl Inner {
    fn push(&mut self, frame: Arc<Frame>, max_bytes: usize) {
        self.bytes += frame.text.len();
        let made_before = self.made;
        if let Some(made) = self.made.get_mut(frame.stream as usize) {
            *made += 1;
        }
        self.frames.push_back(Slot { frame, made_before });
        self.end += 1;
        // The newest stays, however large it is.
        while self.frames.len() > MAX_FRAMES || (self.bytes > max_bytes && self.frames.len() > 1) {
            if let Some(oldest) = self.frames.pop_front() {
                self.bytes -= oldest.frame.text.len();
            }
        }
    }
}

impl Reader {
    /// What comes next, without waiting.
    pub fn read(&mut self) -> Read {
        let inner = self.ring.inner.lock();
        let first = inner.end - inner.frames.len() as u64;
        if self.next < first {
            let made_before_first = inner.frames.front().map_or(inner.made, |slot| slot.made_before);
            let missed = std::array::from_fn(|i| {
                let (then, now) = (self.made_before_next.get(i), made_before_first.get(i));
                now.zip(then).map_or(0, |(now, then)| now.saturating_sub(*then))
            });
            self.next = first;
            self.made_before_next = made_before_first;
            return Read::Missed(missed);
        }
        let slot = usize::try_from(self.next - first).ok().and_then(|index| inner.frames.get(index));
        let Some(slot) = slot else { return Read::Empty };
        self.next += 1;
        self.made_before_next = slot.made_before;
        if let Some(made) = self.made_before_next.get_mut(slot.frame.stream as usize) {
            *made += 1;
        }
        Read::Frame(Arc::clone(&slot.frame))
    }

    /// Waits until there may be something to read. Cancel-safe.
    pub async fn wait(&mut self) {
        let next = self.next;
        // The sender lives in the ring, which this reader keeps alive, so waiting can't fail.
        let _ = self.end.wait_for(|end| *end > next).await;
    }
}

/// The number for one stream.
pub fn of(numbers: &PerStream<u64>, stream: Stream) -> u64 {
    numbers.get(stream as usize).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const MAX_BYTES: usize = 1024 * 1024;

    fn frame(stream: Stream, bytes: usize) -> Arc<Frame> {
        Arc::new(Frame { stream, text: Bytes::from(vec![b'x'; bytes]) })
    }

    #[test]
    fn a_reader_gets_every_frame_pushed_after_it_came() {
        let ring = Arc::new(Ring::new(MAX_BYTES));
        ring.push(frame(Stream::Alert, 1));
        let mut reader = ring.subscribe();
        assert!(matches!(reader.read(), Read::Empty));
        ring.push(frame(Stream::Event, 1));
        ring.push(frame(Stream::Alert, 1));
        assert!(matches!(reader.read(), Read::Frame(f) if f.stream == Stream::Event));
        assert!(matches!(reader.read(), Read::Frame(f) if f.stream == Stream::Alert));
        assert!(matches!(reader.read(), Read::Empty));
    }

    #[test]
    fn an_overtaken_reader_learns_how_many_of_each_stream_it_missed() {
        let ring = Arc::new(Ring::new(MAX_BYTES));
        let mut reader = ring.subscribe();
        ring.push(frame(Stream::Alert, 1));
        assert!(matches!(reader.read(), Read::Frame(_)));
        (0..100).for_each(|_| ring.push(frame(Stream::Pipeline, 1)));
        (0..MAX_FRAMES).for_each(|_| ring.push(frame(Stream::Event, 1)));
        ring.push(frame(Stream::Alert, 1));
        let Read::Missed(missed) = reader.read() else { panic!("should have missed some") };
        assert_eq!(of(&missed, Stream::Pipeline), 100);
        assert_eq!(of(&missed, Stream::Event), 1);
        assert_eq!(of(&missed, Stream::Alert), 0);
        let mut got = 0;
        while let Read::Frame(_) = reader.read() {
            got += 1;
        }
        assert_eq!(got, MAX_FRAMES);
    }

    #[test]
    fn bytes_are_bounded_and_the_newest_frame_stays() {
        let ring = Arc::new(Ring::new(MAX_BYTES));
        (0..20).for_each(|_| ring.push(frame(Stream::Event, MAX_BYTES / 4)));
        assert!(ring.inner.lock().bytes <= MAX_BYTES);
        ring.push(frame(Stream::Event, MAX_BYTES * 2));
        assert_eq!(ring.inner.lock().frames.len(), 1);
    }

    #[tokio::test]
    async fn waiting_ends_with_the_next_frame() {
        let ring = Arc::new(Ring::new(MAX_BYTES));
        let mut reader = ring.subscribe();
        let waiting = tokio::spawn(async move {
            reader.wait().await;
            reader
        });
        ring.push(frame(Stream::Event, 1));
        ring.wake();
        let mut reader = waiting.await.unwrap();
        assert!(matches!(reader.read(), Read::Frame(_)));
    }
}

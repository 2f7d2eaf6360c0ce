//! The one buffer between those who make frames and all the clients.
//!
//! A client has a [`Reader`]: a number, and how many frames of each stream had been made when it read last. A frame that
//! has been overwritten before a client came to it is missed, and since every frame knows how many of each stream came
//! before it, the client is told exactly how many of each.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::stream::frame::{Frame, PerStream, Stream};
use crate::stream::place::Place;

/// How many frames are kept.
pub const MAX_FRAMES: usize = 4096;
/// How many bytes of frames are kept.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The ring.
#[derive(Debug)]
pub struct Ring {
    inner: Mutex<Inner>,
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
    /// How far the facts in the ring have been told.
    place: Place,
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
    /// An empty ring; facts before `place` will never be in it.
    pub fn new(place: Place) -> Self {
        let inner = Inner { frames: VecDeque::new(), bytes: 0, end: 0, made: PerStream::default(), place };
        Self { inner: Mutex::new(inner), end: watch::Sender::new(0) }
    }

    /// How far the facts have been told.
    pub fn place(&self) -> Place {
        self.inner.lock().place.clone()
    }

    /// Adds frames that tell no facts.
    pub fn push(&self, frames: Vec<Frame>) {
        self.push_all(frames, None);
    }

    /// Adds frames of facts, after which they are told up to `place`.
    pub fn push_facts(&self, frames: Vec<Frame>, place: Place) {
        self.push_all(frames, Some(place));
    }

    fn push_all(&self, frames: Vec<Frame>, place: Option<Place>) {
        if frames.is_empty() && place.is_none() {
            return;
        }
        let end = {
            let mut inner = self.inner.lock();
            for frame in frames {
                inner.push(frame);
            }
            if let Some(place) = place {
                inner.place = place;
            }
            inner.end
        };
        self.end.send_replace(end);
    }

    /// A reader of what comes from now on, and how far the facts have been told before it.
    pub fn subscribe(self: &Arc<Self>) -> (Reader, Place) {
        let end = self.end.subscribe();
        let inner = self.inner.lock();
        let reader = Reader { ring: Arc::clone(self), next: inner.end, made_before_next: inner.made, end };
        (reader, inner.place.clone())
    }
}

impl Inner {
    fn push(&mut self, frame: Frame) {
        self.bytes += frame.text.len();
        let made_before = self.made;
        if let Some(made) = self.made.get_mut(frame.stream as usize) {
            *made += 1;
        }
        self.frames.push_back(Slot { frame: Arc::new(frame), made_before });
        self.end += 1;
        // The newest stays, however large it is.
        while self.frames.len() > MAX_FRAMES || (self.bytes > MAX_BYTES && self.frames.len() > 1) {
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
    use crate::stream::frame::Scope;
    use bytes::Bytes;

    fn frame(stream: Stream, bytes: usize) -> Frame {
        Frame { stream, scope: Scope::Overview, text: Bytes::from(vec![b'x'; bytes]) }
    }

    #[test]
    fn a_reader_gets_every_frame_pushed_after_it_came() {
        let ring = Arc::new(Ring::new(Place::default()));
        ring.push(vec![frame(Stream::Alert, 1)]);
        let (mut reader, _) = ring.subscribe();
        assert!(matches!(reader.read(), Read::Empty));
        ring.push(vec![frame(Stream::Event, 1), frame(Stream::Alert, 1)]);
        assert!(matches!(reader.read(), Read::Frame(f) if f.stream == Stream::Event));
        assert!(matches!(reader.read(), Read::Frame(f) if f.stream == Stream::Alert));
        assert!(matches!(reader.read(), Read::Empty));
    }

    #[test]
    fn an_overtaken_reader_learns_how_many_of_each_stream_it_missed() {
        let ring = Arc::new(Ring::new(Place::default()));
        let (mut reader, _) = ring.subscribe();
        ring.push(vec![frame(Stream::Alert, 1)]);
        assert!(matches!(reader.read(), Read::Frame(_)));
        ring.push((0..100).map(|_| frame(Stream::Pipeline, 1)).collect());
        ring.push((0..MAX_FRAMES).map(|_| frame(Stream::Event, 1)).collect());
        ring.push(vec![frame(Stream::Alert, 1)]);
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
        let ring = Arc::new(Ring::new(Place::default()));
        ring.push((0..20).map(|_| frame(Stream::Event, MAX_BYTES / 4)).collect());
        assert!(ring.inner.lock().bytes <= MAX_BYTES);
        ring.push(vec![frame(Stream::Event, MAX_BYTES * 2)]);
        assert_eq!(ring.inner.lock().frames.len(), 1);
    }

    #[tokio::test]
    async fn waiting_ends_with_the_next_frame() {
        let ring = Arc::new(Ring::new(Place::default()));
        let (mut reader, _) = ring.subscribe();
        let waiting = tokio::spawn(async move {
            reader.wait().await;
            reader
        });
        ring.push(vec![frame(Stream::Event, 1)]);
        let mut reader = waiting.await.unwrap();
        assert!(matches!(reader.read(), Read::Frame(_)));
    }
}

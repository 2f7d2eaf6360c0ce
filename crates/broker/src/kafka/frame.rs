//! Frames as they arrive: four bytes of length, then so many bytes.
//!
//! Memory follows what has arrived: a buffer grows to twice what is in it, or at once to the size of a frame that this
//! connection has sent in full before. What is beyond the first [`FREE_BYTES`] of a frame is taken from the budget that all
//! connections share before it is read, and given back when the frame is answered.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::admission::Admission;

/// Bytes of a frame that are not taken from the budget; so small requests pass when it is spent.
pub(super) const FREE_BYTES: usize = 64 * 1024;
/// What a buffer begins with: most connections are idle most of the time.
const IDLE_BYTES: usize = 1024;
/// What it grows to at least when a frame comes.
const FIRST_BYTES: usize = 16 * 1024;
/// Bytes a second that a request must come with, beside the time that every request has.
const LEAST_REQUEST_RATE: usize = 1024 * 1024;
/// Bytes a second that an answer must be taken with, beside the time that every answer has.
const LEAST_ANSWER_RATE: usize = 64 * 1024;
/// Bytes of the length.
const PREFIX_BYTES: usize = 4;
/// Least bytes of a frame: API key, version and correlation id.
const LEAST_BYTES: usize = 8;

/// Takes frames from a stream.
pub(super) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    max_bytes: usize,
    /// The largest frame that came in full.
    largest: usize,
    transfer: Duration,
    idle: Duration,
}

/// One frame, without its length.
pub(super) struct Incoming {
    pub(super) bytes: Bytes,
    /// Its share of the budget, to be held until it is answered.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Why no further frame comes.
#[derive(Debug)]
pub(super) enum NoFrame {
    /// The client closed the connection, between frames or within one.
    Closed,
    /// The network failed.
    Io(std::io::Error),
    /// A length that no frame has.
    Length(i32),
    /// Nothing came for too long.
    Idle,
    /// A frame took too long, or waited too long for its share of the budget.
    Stalled,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of at most `max_bytes`.
    pub(super) fn new(stream: R, max_bytes: usize, transfer: Duration, idle: Duration) -> Self {
        Self { stream, buffer: BytesMut::new(), max_bytes, largest: 0, transfer, idle }
    }

    /// Other bounds from now on.
    pub(super) fn allow(&mut self, max_bytes: usize, idle: Duration) {
        self.max_bytes = max_bytes;
        self.idle = idle;
    }

    /// The next frame. `is_idle` says whether a connection that says nothing for a while is one that nobody uses, rather than
    /// one that waits for its answer. Dropping the future loses nothing that has arrived, but for its share of the budget.
    pub(super) async fn next(
        &mut self,
        admission: &Admission,
        is_idle: impl Fn() -> bool,
    ) -> Result<Incoming, NoFrame> {
        while self.buffer.is_empty() {
            self.make_room(IDLE_BYTES.max(self.largest.min(FREE_BYTES)));
            match timeout_at(Instant::now() + self.idle, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err(NoFrame::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(NoFrame::Io(error)),
                Err(_) if is_idle() => return Err(NoFrame::Idle),
                Err(_) => {}
            }
        }
        let begun = Instant::now();
        while self.buffer.len() < PREFIX_BYTES {
            self.read(begun + self.transfer).await?;
        }
        let length = self.length()?;
        let whole = length + PREFIX_BYTES;
        let deadline = begun + self.transfer + at_rate(length, LEAST_REQUEST_RATE);
        let budget = admission.requests_of(whole);
        let mut permit: Option<OwnedSemaphorePermit> = None;
        let mut paid = FREE_BYTES;
        while self.buffer.len() < whole {
            let trusted = whole.min(self.largest);
            let target = whole.min(self.buffer.len().saturating_mul(2).max(FIRST_BYTES)).max(trusted);
            if target > paid {
                let share = timeout_at(deadline, budget.take(target - paid));
                let share = share.await.map_err(|_| NoFrame::Stalled)?;
                merge(&mut permit, share);
                paid = target;
            }
            self.make_room(target);
            while self.buffer.len() < target {
                self.read(deadline).await?;
            }
        }
        self.largest = self.largest.max(length);
        let mut bytes = self.buffer.split_to(whole).freeze();
        let _length = bytes.split_to(PREFIX_BYTES);
        Ok(Incoming { bytes, permit })
    }

    /// The length that stands at the front of the buffer.
    fn length(&self) -> Result<usize, NoFrame> {
        let prefix: &[u8; PREFIX_BYTES] = self.buffer.first_chunk().ok_or(NoFrame::Closed)?;
        let length = i32::from_be_bytes(*prefix);
        usize::try_from(length)
            .ok()
            .filter(|length| (LEAST_BYTES..=self.max_bytes).contains(length))
            .ok_or(NoFrame::Length(length))
    }

    /// Room for a buffer of `target` bytes in all.
    fn make_room(&mut self, target: usize) {
        let missing = target.saturating_sub(self.buffer.len());
        if self.buffer.capacity() < target {
            self.buffer.reserve(missing);
        }
    }

    async fn read(&mut self, deadline: Instant) -> Result<(), NoFrame> {
        let step = deadline.min(Instant::now() + self.transfer);
        match timeout_at(step, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(0)) => Err(NoFrame::Closed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(NoFrame::Io(error)),
            Err(_) => Err(NoFrame::Stalled),
        }
    }
}

/// How long the `bytes` of an answer may take to be taken, as long as some are taken at all.
pub(super) fn allowance(least: Duration, bytes: usize) -> Duration {
    least + at_rate(bytes, LEAST_ANSWER_RATE)
}

fn at_rate(bytes: usize, bytes_per_second: usize) -> Duration {
    Duration::from_secs((bytes / bytes_per_second) as u64)
}

fn merge(permit: &mut Option<OwnedSemaphorePermit>, more: Option<OwnedSemaphorePermit>) {
    match (permit.as_mut(), more) {
        (Some(permit), Some(more)) => permit.merge(more),
        (None, more) => *permit = more,
        (Some(_), None) => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::super::KafkaLimits;
    use super::super::admission::Admission;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn framed(content: &[u8]) -> Vec<u8> {
        let mut bytes = i32::try_from(content.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes
    }

    fn budget(bytes: usize) -> Admission {
        Admission::new(&KafkaLimits { requests_in_flight_bytes: 2 * bytes, ..KafkaLimits::default() })
    }

    #[tokio::test]
    async fn frames_come_whole_however_they_are_cut() {
        let frames: Vec<Vec<u8>> = [8, 9, 1000, 300_000, 20].map(|n| vec![7; n]).to_vec();
        let all: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
        for piece in [1_000_000, 4096, 333] {
            let (mut sender, receiver) = tokio::io::duplex(64 * 1024);
            let bytes = all.clone();
            let sending = tokio::spawn(async move {
                for piece in bytes.chunks(piece) {
                    sender.write_all(piece).await.unwrap();
                }
            });
            let admission = budget(1 << 20);
            let mut reader = FrameReader::new(receiver, 1 << 20, MINUTE, MINUTE);
            for frame in &frames {
                let came = reader.next(&admission, || true).await.unwrap();
                assert_eq!(came.bytes, *frame);
                assert_eq!(came.permit.is_some(), frame.len() > FREE_BYTES);
            }
            let end = reader.next(&admission, || true).await;
            assert!(matches!(end, Err(NoFrame::Closed)));
            assert_eq!(admission.request_bytes_taken(), 0);
            sending.await.unwrap();
        }
    }

    #[tokio::test]
    async fn lengths_that_no_frame_has_are_refused() {
        for length in [i32::MIN, -1, 0, 7, 1001, i32::MAX] {
            let bytes = length.to_be_bytes();
            let admission = budget(1 << 20);
            let mut reader = FrameReader::new(&bytes[..], 1000, MINUTE, MINUTE);
            let came = reader.next(&admission, || true).await;
            assert!(matches!(came, Err(NoFrame::Length(found)) if found == length), "{length}");
        }
    }

    #[tokio::test]
    async fn a_claimed_length_takes_no_memory() {
        let (mut sender, receiver) = tokio::io::duplex(1024);
        sender.write_all(&100_000_000i32.to_be_bytes()).await.unwrap();
        let admission = budget(1 << 20);
        let mut reader = FrameReader::new(receiver, 1 << 30, MINUTE, MINUTE);
        let waited = tokio::time::timeout(Duration::from_millis(50), reader.next(&admission, || true));
        assert!(waited.await.is_err(), "the rest never comes");
        assert!(reader.buffer.capacity() <= 2 * FREE_BYTES, "{}", reader.buffer.capacity());
        assert_eq!(admission.request_bytes_taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_frame_is_waited_for_only_so_long_and_silence_only_without_an_answer_due() {
        let (mut sender, receiver) = tokio::io::duplex(1024);
        sender.write_all(&[0, 0]).await.unwrap();
        let admission = budget(1 << 20);
        let mut reader = FrameReader::new(receiver, 1 << 20, Duration::from_secs(30), MINUTE);
        let began = Instant::now();
        let came = reader.next(&admission, || true).await;
        assert!(matches!(came, Err(NoFrame::Stalled)));
        assert_eq!(began.elapsed(), Duration::from_secs(30));

        let (sender, receiver) = tokio::io::duplex(1024);
        let mut reader = FrameReader::new(receiver, 1 << 20, Duration::from_secs(30), MINUTE);
        let began = Instant::now();
        let busy_until = began + 3 * MINUTE;
        let came = reader.next(&admission, || Instant::now() >= busy_until).await;
        assert!(matches!(came, Err(NoFrame::Idle)));
        assert!((3 * MINUTE..5 * MINUTE).contains(&began.elapsed()), "{:?}", began.elapsed());
        drop(sender);
    }

    #[tokio::test(start_paused = true)]
    async fn a_spent_budget_holds_up_large_frames_and_lets_small_ones_pass() {
        let admission = budget(100_000);
        let all = admission.requests_of(1).take(100_000).await;
        let bytes = [framed(&[1; 100]), framed(&[2; 200_000])].concat();
        let mut reader = FrameReader::new(&bytes[..], 1 << 20, Duration::from_secs(30), MINUTE);
        assert_eq!(reader.next(&admission, || true).await.unwrap().bytes.len(), 100);
        let came = reader.next(&admission, || true).await;
        assert!(matches!(came, Err(NoFrame::Stalled)));
        drop(all);
    }
}

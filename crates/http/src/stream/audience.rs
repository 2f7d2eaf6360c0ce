//! All clients of the stream, by what they asked for.
//!
//! Clients with the same [`Wish`] share one [`Ring`]; a frame is made when the first wish wants it, and shared by all that
//! do. So what nobody asked for is not even written as JSON, and a client wakes for nothing but its own frames.
//!
//! # Limits
//! A ring keeps at most [`WHOLE_BYTES`], or [`FILTERED_BYTES`] if its wish is filtered. It goes with its last client, so
//! there are never more rings than clients.
//!
//! # Order
//! The lock of the list is held while a batch of facts is told, and its place set at the end: whoever subscribes gets every
//! fact after the place that it is given, and none before.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::stream::frame::{Frame, Scope};
use crate::stream::place::Place;
use crate::stream::ring::{Reader, Ring};
use crate::stream::wish::{Subject, Wish};

/// How many bytes of frames are kept for those who want whole streams.
pub const WHOLE_BYTES: usize = 8 * 1024 * 1024;
/// How many bytes of frames are kept for each filter.
pub const FILTERED_BYTES: usize = 1024 * 1024;

/// All clients.
#[derive(Debug)]
pub(crate) struct Audience {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    groups: Vec<Group>,
    /// How far the facts have been told.
    place: Place,
}

/// Those who asked for the same.
#[derive(Debug)]
struct Group {
    wish: Arc<Wish>,
    ring: Arc<Ring>,
    clients: usize,
    /// It got frames that its clients have not been woken for.
    is_pending: bool,
}

/// One client's seat; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    audience: Arc<Audience>,
    wish: Arc<Wish>,
    pub(crate) reader: Reader,
}

impl Audience {
    /// Nobody yet; facts before `place` will never be told.
    pub(crate) fn new(place: Place) -> Self {
        Self { inner: Mutex::new(Inner { groups: Vec::new(), place }) }
    }

    /// How far the facts have been told. A client that takes this and then finds nothing in its ring has been told
    /// everything before.
    pub(crate) fn place(&self) -> Place {
        self.inner.lock().place.clone()
    }

    /// A seat for one more client, and how far the facts have been told before it came.
    pub(crate) fn join(self: &Arc<Self>, wish: Wish) -> (Seat, Place) {
        let mut inner = self.inner.lock();
        let found = inner.groups.iter_mut().find(|group| *group.wish == wish);
        let (wish, reader) = if let Some(group) = found {
            group.clients += 1;
            (Arc::clone(&group.wish), group.ring.subscribe())
        } else {
            let bytes = if wish.is_filtered() { FILTERED_BYTES } else { WHOLE_BYTES };
            let (wish, ring) = (Arc::new(wish), Arc::new(Ring::new(bytes)));
            let reader = ring.subscribe();
            inner.groups.push(Group { wish: Arc::clone(&wish), ring, clients: 1, is_pending: false });
            (wish, reader)
        };
        (Seat { audience: Arc::clone(self), wish, reader }, inner.place.clone())
    }

    /// Begins to tell facts.
    pub(crate) fn tell(&self) -> Telling<'_> {
        Telling { inner: self.inner.lock() }
    }

    /// Tells readings to those who want them.
    pub(crate) fn tell_readings(&self, frames: Vec<(Scope, Frame)>) {
        let mut telling = self.tell();
        for (scope, frame) in frames {
            telling.hand_out(|wish| wish.wants_readings(&scope), || frame);
        }
    }
}

/// A batch of facts being told. Clients wake when it is dropped.
pub(crate) struct Telling<'a> {
    inner: MutexGuard<'a, Inner>,
}

impl Telling<'_> {
    /// Whether there are clients at all.
    pub(crate) fn has_audience(&self) -> bool {
        !self.inner.groups.is_empty()
    }

    /// Whether anybody wants this.
    pub(crate) fn is_wanted(&self, subject: &Subject<'_>) -> bool {
        self.inner.groups.iter().any(|group| group.wish.wants(subject))
    }

    /// Tells one fact to those who want it. `make` is called once at most; whether it was, is the answer.
    pub(crate) fn fact(&mut self, subject: &Subject<'_>, make: impl FnOnce() -> Frame) -> bool {
        self.hand_out(|wish| wish.wants(subject), make)
    }

    /// The facts have been told up to `place`.
    pub(crate) fn reach(&mut self, place: Place) {
        self.inner.place = place;
    }

    fn hand_out(&mut self, wants: impl Fn(&Wish) -> bool, make: impl FnOnce() -> Frame) -> bool {
        let mut wanting = self.inner.groups.iter_mut().filter(|group| wants(&group.wish)).peekable();
        if wanting.peek().is_none() {
            return false;
        }
        let frame = Arc::new(make());
        for group in wanting {
            group.ring.push(Arc::clone(&frame));
            group.is_pending = true;
        }
        true
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        for group in &mut self.inner.groups {
            if std::mem::take(&mut group.is_pending) {
                group.ring.wake();
            }
        }
    }
}

impl Seat {
    pub(crate) fn wish(&self) -> &Arc<Wish> {
        &self.wish
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.audience.inner.lock();
        if let Some(index) = inner.groups.iter().position(|group| Arc::ptr_eq(&group.wish, &self.wish))
            && let Some(group) = inner.groups.get_mut(index)
        {
            group.clients -= 1;
            if group.clients == 0 {
                inner.groups.swap_remove(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::frame::Stream;
    use crate::stream::ring::Read;
    use bytes::Bytes;

    fn subject(event_type: &str) -> Subject<'_> {
        Subject { stream: Stream::Event, event_type, source: "s", severity: None }
    }

    fn frame() -> Frame {
        Frame { stream: Stream::Event, text: Bytes::from_static(b"x") }
    }

    fn wish(event_type: &str) -> Wish {
        Wish::from_parameters([("type", event_type)]).unwrap()
    }

    #[test]
    fn a_frame_is_made_once_for_all_who_want_it_and_not_at_all_for_nobody() {
        let audience = Arc::new(Audience::new(Place::default()));
        let (mut first, _) = audience.join(wish("a"));
        let (mut same, _) = audience.join(wish("a"));
        let (mut both, _) = audience.join(wish("a,b"));
        let (mut other, _) = audience.join(wish("c"));
        let mut made = 0;
        let mut telling = audience.tell();
        assert!(telling.fact(&subject("a"), || {
            made += 1;
            frame()
        }));
        assert!(!telling.fact(&subject("d"), || unreachable!("nobody wants it")));
        drop(telling);
        assert_eq!(made, 1);
        for seat in [&mut first, &mut same, &mut both] {
            assert!(matches!(seat.reader.read(), Read::Frame(_)));
            assert!(matches!(seat.reader.read(), Read::Empty));
        }
        assert!(matches!(other.reader.read(), Read::Empty));
    }

    #[tokio::test]
    async fn nobody_wakes_for_what_others_asked_for() {
        let audience = Arc::new(Audience::new(Place::default()));
        let (mut a, _) = audience.join(wish("a"));
        let (mut b, _) = audience.join(wish("b"));
        let (woken_a, woken_b) = (a.reader.wait(), b.reader.wait());
        tokio::pin!(woken_a, woken_b);
        audience.tell().fact(&subject("a"), frame);
        woken_a.await;
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(woken_b.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
    }

    #[test]
    fn a_filter_that_lets_nothing_through_moves_its_place_all_the_same() {
        let audience = Arc::new(Audience::new(Place::default()));
        let (mut seat, before) = audience.join(wish("a"));
        let place = Place { alerts: vec![3], system_events: vec![17, 4] };
        let mut telling = audience.tell();
        telling.fact(&subject("b"), frame);
        telling.reach(place.clone());
        drop(telling);
        assert_ne!(before, place);
        assert_eq!(audience.place(), place);
        assert!(matches!(seat.reader.read(), Read::Empty));
    }

    #[test]
    fn a_ring_goes_with_its_last_client() {
        let audience = Arc::new(Audience::new(Place::default()));
        let (first, _) = audience.join(wish("a"));
        let (second, _) = audience.join(wish("a"));
        assert_eq!(audience.inner.lock().groups.len(), 1);
        drop(first);
        assert!(audience.tell().is_wanted(&subject("a")));
        drop(second);
        assert!(!audience.tell().has_audience());
    }
}

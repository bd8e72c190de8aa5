//! The answer's body on its way to the buyer: a seller's, byte for byte and unbuffered, or our own few words.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::context::{CallGuard, StreamState};
use super::seller::{Link, Seller};
use crate::domain::usage::Ending;
use crate::ports::BoxFuture;
use crate::ports::journal::JournalError;
use crate::protocol::sse::SseScanner;

/// The answer stops here: the engine closes the connection without ending the body.
#[derive(Debug, thiserror::Error)]
#[error("the seller's answer broke off")]
pub struct Broken;

/// An answer's body.
pub enum AnswerBody {
    /// Our own words.
    Own(Option<Bytes>),
    /// A seller's answer.
    Sellers(Box<Tap>),
}

impl AnswerBody {
    /// Nothing.
    pub fn empty() -> Self {
        Self::Own(None)
    }

    /// Our own words.
    pub fn full(bytes: Vec<u8>) -> Self {
        Self::Own(Some(Bytes::from(bytes)))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Sellers(tap) => tap.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Sellers(tap) => tap.last.is_none() && tap.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(None) => SizeHint::with_exact(0),
            Self::Own(Some(bytes)) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Self::Sellers(tap) => tap.incoming.size_hint(),
        }
    }
}

/// A seller's body, and the call that it answers.
pub struct Tap {
    incoming: Incoming,
    guard: CallGuard,
    /// The connection, to be kept when the answer is whole.
    link: Option<(Link, Rc<Seller>)>,
    idle_timeout: Duration,
    ends_by: Instant,
    /// Whether the seller's next bytes are waited for: only then is its silence timed.
    waiting: bool,
    events: Option<SseScanner>,
    /// The last bytes of an answer that waits for the disk.
    last: Option<Bytes>,
    on_disk: Option<BoxFuture<'static, Result<(), JournalError>>>,
}

/// What a tap is made of.
pub struct TapParts {
    /// The seller's body.
    pub incoming: Incoming,
    /// The call.
    pub guard: CallGuard,
    /// The connection, if it may be kept.
    pub link: Option<(Link, Rc<Seller>)>,
    /// Between two parts of the body.
    pub idle_timeout: Duration,
    /// For the whole answer.
    pub ends_by: Instant,
    /// Whether it is an event stream.
    pub streamed: bool,
    /// Resolves when the charge is on disk, if the answer's end waits for that.
    pub on_disk: Option<BoxFuture<'static, Result<(), JournalError>>>,
}

impl Tap {
    /// Begins to hand on.
    pub fn new(parts: TapParts) -> Self {
        let TapParts { incoming, mut guard, link, idle_timeout, ends_by, streamed, on_disk } = parts;
        if let Some(call) = guard.call() {
            call.stream = streamed.then_some(StreamState::Silent);
            call.conn.set_call_deadline(ends_by);
        }
        let events = streamed.then(SseScanner::default);
        Self { incoming, guard, link, idle_timeout, ends_by, waiting: false, events, last: None, on_disk }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if let Some(on_disk) = self.on_disk.as_mut().filter(|_| self.last.is_some()) {
                // A disk that fails here changes nothing for the buyer: the process has the charge written down.
                if on_disk.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.on_disk = None;
            }
            if let Some(last) = self.last.take() {
                self.complete();
                return Poll::Ready((!last.is_empty()).then_some(Ok(Frame::data(last))));
            }
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Pending if self.expired(cx) => return Poll::Ready(Some(self.broken(Ending::TimedOut))),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(self.broken(Ending::SellerBroke))),
                Poll::Ready(None) if self.guard.call().is_none() => return Poll::Ready(None), // ended with its last bytes
                Poll::Ready(None) => self.last = Some(Bytes::new()),
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue }; // trailers end here
                    self.note(&data);
                    if !self.incoming.is_end_stream() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    // The engine may not ask again after these bytes: the call ends with them.
                    self.last = Some(data);
                }
            }
        }
    }

    /// Times the seller's silence.
    fn expired(&mut self, cx: &Context<'_>) -> bool {
        let Some(call) = self.guard.call() else { return false };
        if !self.waiting {
            self.waiting = true;
            call.conn.set_call_deadline(self.ends_by.min(Instant::now() + self.idle_timeout));
        }
        call.conn.poll_call_expired(cx)
    }

    fn note(&mut self, data: &[u8]) {
        let Some(call) = self.guard.call() else { return };
        call.body_bytes = call.body_bytes.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if std::mem::take(&mut self.waiting) {
            call.conn.set_call_deadline(self.ends_by); // what the client takes to read is not the seller's silence
        }
        if let Some(events) = &mut self.events {
            events.feed(data);
            if events.events() > 0 {
                call.stream = Some(StreamState::Spoke);
                self.events = None; // that is all one needs to know
            }
        }
    }

    fn complete(&mut self) {
        if let Some((link, seller)) = self.link.take() {
            seller.keep(link);
        }
        self.guard.finish(Ending::Complete);
    }

    fn broken(&mut self, ending: Ending) -> Result<Frame<Bytes>, Broken> {
        self.link = None;
        self.guard.finish(ending);
        Err(Broken)
    }
}

//! The answer's body on its way to the buyer: a seller's, byte for byte and unbuffered, or our own few words.

use std::future::poll_fn;
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
use crate::protocol::sse::{SseScanner, ends_with_done};

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
            Self::Sellers(tap) => tap.first.is_none() && tap.last.is_none() && tap.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(None) => SizeHint::with_exact(0),
            Self::Own(Some(bytes)) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Self::Sellers(tap) => tap.size_hint(),
        }
    }
}

/// What a seller's body began with, if that came together with its head: both leave with one write then, which brings
/// the first event of a stream to its reader a write earlier.
#[derive(Debug, Default)]
pub struct FirstFrame(Option<Option<hyper::Result<Frame<Bytes>>>>);

impl FirstFrame {
    /// Asks for it, and takes it if it is there.
    pub async fn ask(&mut self, incoming: &mut Incoming) {
        if self.is_none() && !incoming.is_end_stream() {
            self.0 = poll_fn(|cx| match Pin::new(&mut *incoming).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(Some(frame)),
                Poll::Pending => Poll::Ready(None),
            })
            .await;
        }
    }

    /// Gives the seller's connection one turn to hand over what it has read.
    pub async fn wait_a_turn(&mut self, incoming: &mut Incoming) {
        self.ask(incoming).await;
        if self.is_none() && !incoming.is_end_stream() {
            tokio::task::yield_now().await;
            self.ask(incoming).await;
        }
    }

    fn data_bytes(&self) -> u64 {
        let Some(Some(Ok(frame))) = &self.0 else { return 0 };
        frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX))
    }

    /// Whether nothing has come.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

/// A seller's body, and the call that it answers.
pub struct Tap {
    incoming: Incoming,
    first: FirstFrame,
    guard: CallGuard,
    /// The connection, as long as the answer is not whole.
    link: Option<Link>,
    /// Who keeps it then, if it may be kept.
    keeper: Option<Rc<Seller>>,
    idle_timeout: Duration,
    ends_by: Instant,
    /// Whether the seller's next bytes are waited for: only then is its silence timed.
    waiting: bool,
    events: Option<SseScanner>,
    /// The seller broke off; the buyer hears of it next.
    broke: bool,
    /// The last bytes of an answer that waits for the disk.
    last: Option<Bytes>,
    on_disk: Option<BoxFuture<'static, Result<(), JournalError>>>,
}

/// What a tap is made of.
pub struct TapParts {
    /// The seller's body.
    pub incoming: Incoming,
    /// What was taken of it already.
    pub first: FirstFrame,
    /// The call.
    pub guard: CallGuard,
    /// The connection that it comes on.
    pub link: Link,
    /// Who keeps that afterwards, if it may be kept.
    pub keeper: Option<Rc<Seller>>,
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
        let TapParts { incoming, first, mut guard, link, keeper, idle_timeout, ends_by, streamed, on_disk } = parts;
        if let Some(call) = guard.call() {
            call.stream = streamed.then_some(StreamState::Silent);
            call.conn.set_call_deadline(ends_by);
            call.conn.set_answer_deadline(ends_by);
        }
        let events = streamed.then(SseScanner::default);
        Self {
            incoming,
            first,
            guard,
            link: Some(link),
            keeper,
            idle_timeout,
            ends_by,
            waiting: false,
            events,
            broke: false,
            last: None,
            on_disk,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.size_hint();
        match (rest.exact(), self.first.data_bytes()) {
            (Some(rest), first) => SizeHint::with_exact(rest.saturating_add(first)),
            (None, _) => rest,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(call) = self.guard.call() {
            call.conn.ask_for_more();
        }
        if self.broke {
            return Poll::Ready(Some(self.broken(Ending::SellerBroke)));
        }
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
            let next = match self.first.0.take() {
                Some(first) => Poll::Ready(first),
                None => Pin::new(&mut self.incoming).poll_frame(cx),
            };
            match next {
                Poll::Pending if self.expired(cx) => return Poll::Ready(Some(self.broken(Ending::TimedOut))),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(_))) => {
                    // The engine drops what it has not written yet when a body breaks, so it gets a turn to write it.
                    self.broke = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
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
        call.conn.hand_over();
        call.body_bytes = call.body_bytes.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if std::mem::take(&mut self.waiting) {
            call.conn.set_call_deadline(self.ends_by); // what the client takes to read is not the seller's silence
        }
        if let Some(events) = &mut self.events {
            events.feed(data);
            if events.events() > 0 {
                call.stream = Some(StreamState::Spoke);
                self.events = None; // that is all one needs to know of them
            }
        }
        if call.stream.is_some_and(|state| state != StreamState::Silent) {
            call.stream = Some(if ends_with_done(data) { StreamState::Done } else { StreamState::Spoke });
        }
    }

    fn complete(&mut self) {
        if let Some(mut link) = self.link.take() {
            match self.keeper.take() {
                Some(keeper) => keeper.keep(link),
                None => link.end(),
            }
        }
        self.guard.finish(Ending::Complete);
    }

    fn broken(&mut self, ending: Ending) -> Result<Frame<Bytes>, Broken> {
        self.link = None;
        if let Some(call) = self.guard.call() {
            call.conn.break_answer();
        }
        self.guard.finish(ending);
        Err(Broken)
    }
}

//! The answer's body on its way to the buyer: a seller's, byte for byte and unbuffered, or our own few words.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::context::{CallGuard, StreamState};
use super::link::{BrokeOff, SellerBody};
use super::seller::Seller;
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
            Self::Sellers(tap) => tap.is_end(),
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

/// A seller's body, and the call that it answers.
pub struct Tap {
    /// With its connection; as long as the answer is not whole.
    seller: Option<SellerBody>,
    guard: CallGuard,
    /// Who keeps the connection then, if it may be kept.
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
    pub seller: SellerBody,
    /// The call.
    pub guard: CallGuard,
    /// Who keeps the body's connection afterwards, if it may be kept.
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
        let TapParts { seller, mut guard, keeper, idle_timeout, ends_by, streamed, on_disk } = parts;
        if let Some(call) = guard.call() {
            call.stream = streamed.then_some(StreamState::Silent);
            call.conn.set_call_deadline(ends_by);
            call.conn.set_answer_deadline(ends_by);
        }
        let events = streamed.then(SseScanner::default);
        Self {
            seller: Some(seller),
            guard,
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
        let left = self.seller.as_ref().map_or(Some(0), SellerBody::left);
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// Whether nothing more will come.
    fn is_end(&self) -> bool {
        self.last.is_none() && self.seller.as_ref().is_none_or(SellerBody::is_end)
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
            let Some(seller) = &mut self.seller else { return Poll::Ready(None) }; // ended with its last bytes
            let next = seller.poll_part(cx);
            let ended = seller.is_end();
            match next {
                Poll::Pending if self.expired(cx) => return Poll::Ready(Some(self.broken(Ending::TimedOut))),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(BrokeOff))) => {
                    // The engine drops what it has not written yet when a body breaks, so it gets a turn to write it.
                    self.broke = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(None) => self.last = Some(Bytes::new()),
                Poll::Ready(Some(Ok(data))) => {
                    self.note(&data);
                    if !ended {
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
        if let Some(seller) = self.seller.take() {
            end(seller, self.keeper.take());
        }
        self.guard.finish(Ending::Complete);
    }

    fn broken(&mut self, ending: Ending) -> Result<Frame<Bytes>, Broken> {
        self.seller = None;
        if let Some(call) = self.guard.call() {
            call.conn.break_answer();
        }
        self.guard.finish(ending);
        Err(Broken)
    }
}

/// A seller's answer is whole: its connection is kept, if it may be.
pub fn end(answered: SellerBody, keeper: Option<Rc<Seller>>) {
    match keeper {
        Some(keeper) => keeper.keep(answered),
        None => drop(answered.end()),
    }
}

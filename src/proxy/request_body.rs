//! The buyer's body on its way to the seller: held whole if it must be read first, streamed otherwise.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::conn::Conn;
use super::rejection::{Code, Rejection};

/// What goes to the seller.
#[derive(Debug)]
pub enum RequestBody {
    /// All of it; can be sent again.
    Whole(Option<Bytes>),
    /// As the client sends it; cannot. Boxed: the engine keeps room for 32 requests with each connection to a seller.
    Streamed(Box<Upload>),
}

/// A body that is handed on as it comes.
#[derive(Debug)]
pub struct Upload {
    incoming: Incoming,
    conn: Rc<Conn>,
    timeouts: UploadTimeouts,
    /// Whether the client's next bytes are waited for: only then is its silence timed.
    waiting: bool,
    state: Rc<Cell<UploadState>>,
}

/// Who may be silent for how long.
#[derive(Debug, Clone, Copy)]
pub struct UploadTimeouts {
    /// The client, between two parts of its body.
    pub client: Duration,
    /// The seller, to take a part, or to answer after the last.
    pub seller: Duration,
}

/// How far an upload has come; the call looks at it when the exchange fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadState {
    /// The client is still sending.
    Open,
    /// All of it has been handed on.
    Done,
    /// The client broke off, or sent what is no body.
    Broken,
}

/// Why an upload does not reach its end.
#[derive(Debug, thiserror::Error)]
#[error("the client's body broke off")]
pub struct UploadBroken;

impl RequestBody {
    /// A body that is held whole.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }

    /// A body that is streamed. The cell tells how far it came.
    pub fn streamed(incoming: Incoming, conn: Rc<Conn>, timeouts: UploadTimeouts) -> (Self, Rc<Cell<UploadState>>) {
        let state = Rc::new(Cell::new(UploadState::Open));
        let upload = Upload { incoming, conn, timeouts, waiting: false, state: Rc::clone(&state) };
        (Self::Streamed(Box::new(upload)), state)
    }

    /// A second copy, if there can be one.
    pub fn again(&self) -> Option<Self> {
        match self {
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Streamed(_) => None,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadBroken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadBroken>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(upload) => upload.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed(upload) => upload.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(None) => SizeHint::with_exact(0),
            Self::Whole(Some(bytes)) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Self::Streamed(upload) => upload.incoming.size_hint(),
        }
    }
}

impl Upload {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadBroken>>> {
        loop {
            let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                if !self.waiting {
                    self.waiting = true;
                    self.conn.set_call_deadline(Instant::now() + self.timeouts.client);
                }
                return Poll::Pending;
            };
            self.waiting = false;
            self.conn.set_call_deadline(Instant::now() + self.timeouts.seller);
            match next {
                Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
                Some(Ok(_)) => {} // trailers end here
                Some(Err(_)) => {
                    self.state.set(UploadState::Broken);
                    return Poll::Ready(Some(Err(UploadBroken)));
                }
                None => {
                    self.state.set(UploadState::Done);
                    return Poll::Ready(None);
                }
            }
        }
    }
}

/// Counts the bytes of request bodies that are held in memory, over all cores.
#[derive(Debug)]
pub struct Held {
    bytes: AtomicU64,
    max: u64,
}

impl Held {
    /// Room for this many bytes.
    pub fn new(max: u64) -> Self {
        Self { bytes: AtomicU64::new(0), max }
    }

    fn share(self: &Arc<Self>) -> Share {
        Share { held: Arc::clone(self), bytes: 0 }
    }
}

/// One body's share of what is held; ends with it.
#[derive(Debug)]
pub struct Share {
    held: Arc<Held>,
    bytes: u64,
}

impl Share {
    /// Takes room for more bytes; false if there is not so much.
    fn grow(&mut self, bytes: u64) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let before = self.held.bytes.fetch_add(bytes, Ordering::AcqRel);
        before.saturating_add(bytes) <= self.held.max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Reads a body whole, at most `max` bytes.
pub async fn read_whole(
    mut incoming: Incoming,
    max: u64,
    held: &Arc<Held>,
    conn: &Conn,
    timeout: Duration,
) -> Result<(Bytes, Share), Rejection> {
    let too_large = || Rejection::new(Code::RequestTooLarge, format!("the body is larger than {max} bytes")).closing();
    let declared = incoming.size_hint().exact();
    if declared.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let mut share = held.share();
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    loop {
        let Ok(frame) = conn.within(Instant::now() + timeout, incoming.frame()).await else {
            let message = "the body stopped arriving; send it without pauses";
            return Err(Rejection::new(Code::RequestTimeout, message).closing());
        };
        let data = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(), // trailers end here
            Some(Err(_)) => {
                return Err(Rejection::new(Code::InvalidRequest, "the body is cut short or malformed").closing());
            }
        };
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if !share.grow(length) {
            let message = "too many large requests at this moment; try again shortly";
            return Err(Rejection::new(Code::Overloaded, message).closing());
        }
        let before = first.as_ref().map_or(0, Bytes::len).saturating_add(rest.len());
        if u64::try_from(before).unwrap_or(u64::MAX).saturating_add(length) > max {
            return Err(too_large());
        }
        match first {
            None => first = Some(data), // most bodies come in one piece: no copy
            Some(_) => rest.extend_from_slice(&data),
        }
        if incoming.is_end_stream() {
            break; // asking once more would wait for the engine's next turn
        }
    }
    let first = first.unwrap_or_default();
    if rest.is_empty() {
        return Ok((first, share));
    }
    let mut whole = BytesMut::with_capacity(first.len().saturating_add(rest.len()));
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok((whole.freeze(), share))
}

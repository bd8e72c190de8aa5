//! The buyer's body on its way to the seller: held whole if it must be read first, streamed otherwise.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use super::client_body::ClientBody;
use super::conn::Conn;
use super::patience::Patience;
use super::spool::SpoolReader;
use crate::protocol::framing::check_trailer;

/// Of a body above this size no copy is made, for what it holds is bounded by its length.
const JOINED_BYTES_MAX: u64 = 64 * 1024;

/// What goes to the seller.
#[derive(Debug)]
pub enum RequestBody {
    /// All of it; can be sent again.
    Whole(Option<Bytes>),
    /// All of it, in pieces that are not copied into one; can be sent again.
    Pieces(Box<Pieces>),
    /// All of it, in a file; can be sent again.
    Spooled(Box<SpoolReader>),
    /// As the client sends it; cannot. Boxed: the engine keeps room for 32 requests with each connection to a seller.
    Streamed(Box<Upload>),
}

/// A body in three pieces.
#[derive(Debug, Clone)]
pub struct Pieces {
    all: [Bytes; 3],
    sent: usize,
}

impl Pieces {
    fn next(&mut self) -> Option<Bytes> {
        let next = self.all.iter().enumerate().skip(self.sent).find(|(_, piece)| !piece.is_empty())?;
        self.sent = next.0.saturating_add(1);
        Some(next.1.clone())
    }

    fn left(&self) -> u64 {
        let bytes: usize = self.all.iter().skip(self.sent).map(Bytes::len).sum();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// A body that is handed on as it comes.
#[derive(Debug)]
pub struct Upload {
    incoming: ClientBody,
    conn: Rc<Conn>,
    /// With the client.
    patience: Patience,
    /// How long the seller may take for a part, or to answer after the last.
    seller_timeout: Duration,
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
    /// The client's next part is waited for.
    Waiting,
    /// The seller has not taken what is there, or has not asked for the rest.
    HandedOn,
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

    /// A body in pieces: one copy of a small one costs less than the pieces do.
    pub fn pieces(all: [Bytes; 3]) -> Self {
        let pieces = Pieces { all, sent: 0 };
        if pieces.left() > JOINED_BYTES_MAX {
            return Self::Pieces(Box::new(pieces));
        }
        Self::whole(pieces.all.concat().into())
    }

    /// A body that is streamed. The cell tells how far it came.
    pub fn streamed(incoming: ClientBody, conn: Rc<Conn>, timeouts: UploadTimeouts) -> (Self, Rc<Cell<UploadState>>) {
        let state = Rc::new(Cell::new(UploadState::HandedOn));
        let (patience, seller_timeout) = (Patience::new(timeouts.client), timeouts.seller);
        let upload = Upload { incoming, conn, patience, seller_timeout, waiting: false, state: Rc::clone(&state) };
        (Self::Streamed(Box::new(upload)), state)
    }

    /// A second copy, if there can be one.
    pub fn again(&self) -> Option<Self> {
        match self {
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Pieces(pieces) => Some(Self::Pieces(Box::new(Pieces { sent: 0, ..(**pieces).clone() }))),
            Self::Spooled(reader) => Some(Self::Spooled(Box::new(reader.again()))),
            Self::Streamed(_) => None,
        }
    }
}

impl RequestBody {
    /// Its next part.
    pub fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadBroken>>> {
        match self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Self::Pieces(pieces) => Poll::Ready(pieces.next().map(Ok)),
            Self::Spooled(reader) => reader.poll(cx).map(|part| {
                part.map(|part| {
                    part.map_err(|error| {
                        tracing::error!(%error, "a body that was put into a file cannot be read back");
                        UploadBroken
                    })
                })
            }),
            Self::Streamed(upload) => upload.poll(cx),
        }
    }

    /// Whether no part is left.
    pub fn is_end(&self) -> bool {
        match self {
            Self::Streamed(upload) => upload.incoming.is_end_stream(),
            Self::Whole(_) | Self::Pieces(_) | Self::Spooled(_) => self.left() == Some(0),
        }
    }

    /// How many bytes are left, if that is known.
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => {
                Some(bytes.as_ref().map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
            }
            Self::Pieces(pieces) => Some(pieces.left()),
            Self::Spooled(reader) => Some(reader.left()),
            Self::Streamed(upload) => upload.incoming.size_hint().exact(),
        }
    }
}

impl Upload {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadBroken>>> {
        loop {
            let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                if !self.waiting {
                    self.waiting = true;
                    self.state.set(UploadState::Waiting);
                    self.conn.set_call_deadline(self.patience.wait(Instant::now()));
                }
                return Poll::Pending;
            };
            let now = Instant::now();
            self.conn.set_call_deadline(now + self.seller_timeout);
            self.waiting = false;
            self.state.set(UploadState::HandedOn);
            match next {
                Some(Ok(frame)) => {
                    self.patience.came(frame.data_ref().map_or(0, Bytes::len), now);
                    match frame.into_data() {
                        Ok(part) => {
                            if self.incoming.is_end_stream() {
                                self.state.set(UploadState::Done); // it is not asked for more
                            }
                            return Poll::Ready(Some(Ok(part)));
                        }
                        Err(frame) if end_trailers(&self.conn, &frame) => {}
                        Err(_) => {
                            self.state.set(UploadState::Broken);
                            return Poll::Ready(Some(Err(UploadBroken)));
                        }
                    }
                }
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

/// Trailers end here; returns whether they may stand there. Those of HTTP/1 the gate has seen before.
pub fn end_trailers(conn: &Conn, frame: &Frame<Bytes>) -> bool {
    let names = frame.trailers_ref().into_iter().flat_map(HeaderMap::keys);
    let fault = names.map(|name| check_trailer(name.as_str().as_bytes())).find_map(Result::err);
    fault.inspect(|fault| conn.break_body(*fault)).is_none()
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

    /// A share of nothing yet.
    pub fn share(self: &Arc<Self>) -> Share {
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
    pub fn grow(&mut self, bytes: u64) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let before = self.held.bytes.fetch_add(bytes, Ordering::AcqRel);
        before.saturating_add(bytes) <= self.held.max
    }
}

impl Share {
    /// The body with its share: counted for as long as anyone has a part of it, be it the engine that still writes it.
    pub fn kept_with(self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() { bytes } else { Bytes::from_owner(Counted { bytes, _share: self }) }
    }
}

/// A body's bytes and what counts them.
struct Counted {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

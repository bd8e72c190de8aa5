//! One connection to a seller, and the exchange on it: a request goes out, the answer's head comes in, then its body. All
//! of it happens in the turns of the call that it serves; only an upload that its client still sends has turns of its own.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::response::Parts;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;

use super::catalog::Sold;
use super::request_body::{RequestBody, UploadBroken};
use super::socket::Socket;
use super::{headers, joined};
use crate::protocol::answer::{ANSWER_FIELDS_MAX, AnswerEnd, AnswerFault, read_answer};

/// How much is read at once, in bytes: what a slow reader makes us hold at most on this side.
pub const PART_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    /// What a read goes to before it is known how much it is: an open stream holds no room for what has not come.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PART_BYTES_MAX].into_boxed_slice());
}

/// Why an exchange has failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkFault {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The seller closed it before its answer was whole.
    #[error("it closed the connection")]
    Closed,
    /// What it sent is no answer.
    #[error(transparent)]
    Answer(#[from] AnswerFault),
    /// The client's part of the request.
    #[error(transparent)]
    Upload(#[from] UploadBroken),
}

/// A request as it goes out.
#[derive(Debug)]
pub struct Outgoing {
    /// Its head, ready to be written.
    pub head: Bytes,
    /// Its body.
    pub body: RequestBody,
    /// Whether the body goes in chunks.
    pub chunked: bool,
    /// Whether its method is HEAD, whose answers have no body.
    pub is_head: bool,
}

/// What a head says of what follows it.
#[derive(Debug)]
pub struct Rest {
    /// Where the body ends.
    end: AnswerEnd,
    /// Whether the connection may serve another call then.
    keeps: bool,
}

impl Outgoing {
    /// The same once more, if its body can be sent again.
    pub fn again(&self) -> Option<Self> {
        Some(Self { head: self.head.clone(), body: self.body.again()?, ..*self })
    }
}

/// A connection to a seller. If it is dropped during a call, it ends with a reset: nobody waits for the answer, and a
/// seller hears of a reset even if it does not read.
#[derive(Debug)]
pub struct Link {
    stream: Rc<RefCell<Box<dyn Socket>>>,
    upload: Upload,
    /// The beginning of a head.
    unread: BytesMut,
    /// Whether the seller has sent anything since the request began.
    answered: bool,
    /// How much is read at once, in bytes.
    part_bytes_max: usize,
    is_head: bool,
    /// Whether its call has not got all of the answer.
    busy: bool,
    /// Whether it has served a call before.
    pub reused: bool,
}

/// How a request gets to the seller.
#[derive(Debug)]
enum Upload {
    /// In the call's turns.
    Here(Sending),
    /// In turns of its own: a client may send all of it before it looks at the answer.
    Beside(JoinHandle<Result<(), LinkFault>>),
    /// It is there.
    Done,
    /// The seller takes no more of it.
    Cut,
}

impl Link {
    /// A fresh connection.
    pub fn new(stream: impl Socket + 'static) -> Self {
        Self {
            stream: Rc::new(RefCell::new(Box::new(stream))),
            upload: Upload::Done,
            unread: BytesMut::new(),
            answered: false,
            part_bytes_max: PART_BYTES_MAX,
            is_head: false,
            busy: false,
            reused: false,
        }
    }

    /// Whether nothing has come while it was idle, not even its end.
    pub fn is_quiet(&self) -> bool {
        let (mut room, mut cx) = ([0], Context::from_waker(Waker::noop()));
        let mut stream = self.stream.borrow_mut();
        Pin::new(&mut *stream).poll_read(&mut cx, &mut ReadBuf::new(&mut room)).is_pending()
    }

    /// Whether the seller has sent anything since [`Link::begin`].
    pub fn answered(&self) -> bool {
        self.answered
    }

    /// Begins to send a request; its answer is read in parts of at most this size.
    pub fn begin(&mut self, request: Outgoing, part_bytes_max: usize) {
        (self.busy, self.answered, self.is_head) = (true, false, request.is_head);
        self.part_bytes_max = part_bytes_max;
        let beside = matches!(request.body, RequestBody::Streamed(_));
        let mut sending = Sending::new(request);
        self.upload = if beside {
            let stream = Rc::clone(&self.stream);
            Upload::Beside(tokio::task::spawn_local(async move { poll_fn(|cx| sending.poll(&stream, cx)).await }))
        } else {
            Upload::Here(sending)
        };
    }

    /// Reads the answer's head, as the buyer may see it. Its body is what [`SellerBody::new`] makes of the connection.
    ///
    /// # Errors
    /// [`LinkFault`].
    pub async fn head(&mut self, sold: &Sold) -> Result<(Parts, Rest), LinkFault> {
        poll_fn(|cx| self.poll_head(cx, sold)).await
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, sold: &Sold) -> Poll<Result<(Parts, Rest), LinkFault>> {
        loop {
            self.poll_upload(cx)?;
            let mut unread = std::mem::take(&mut self.unread);
            let read = self.poll_read(cx, |new| {
                unread.extend_from_slice(new);
                new.len()
            });
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(LinkFault::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => {
                    self.unread = unread;
                    return Poll::Pending;
                }
            }
            let bytes = unread.freeze();
            let mut room = [std::mem::MaybeUninit::uninit(); ANSWER_FIELDS_MAX];
            if let Some(head) = read_answer(&bytes, self.is_head, &mut room)? {
                let parts = headers::to_buyer(&head, &bytes, sold).ok_or(AnswerFault::NoStatus)?;
                self.unread = BytesMut::from(bytes.get(head.place.end..).unwrap_or_default());
                return Poll::Ready(Ok((parts, Rest { end: head.end, keeps: head.keeps })));
            }
            self.unread = bytes.try_into_mut().unwrap_or_else(|bytes| BytesMut::from(&*bytes));
        }
    }

    /// Goes on sending the request. Where the seller takes no more of it, its answer may be there already.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), LinkFault> {
        let sent = match &mut self.upload {
            Upload::Here(sending) => sending.poll(&self.stream, cx),
            // It fails in no other way than that the process ends.
            Upload::Beside(sending) => Pin::new(sending).poll(cx).map(|sent| sent.unwrap_or(Ok(()))),
            Upload::Done | Upload::Cut => return Ok(()),
        };
        match sent {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.upload = Upload::Done,
            Poll::Ready(Err(LinkFault::Upload(broken))) => return Err(broken.into()),
            Poll::Ready(Err(_)) => self.upload = Upload::Cut,
        }
        Ok(())
    }

    /// Reads what has come, once; nothing is the end.
    fn poll_read<T>(&mut self, cx: &mut Context<'_>, take: impl FnOnce(&[u8]) -> T) -> Poll<io::Result<T>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut part = ReadBuf::new(scratch.get_mut(..self.part_bytes_max).unwrap_or_default());
            ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut part))?;
            self.answered |= !part.filled().is_empty();
            Poll::Ready(Ok(take(part.filled())))
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Upload::Beside(sending) = &self.upload {
            sending.abort();
        }
        let mut stream = self.stream.borrow_mut();
        if self.busy {
            let _ = stream.tcp().set_zero_linger(); // fails only if the connection has ended already
        } else {
            // A farewell of TLS, if the socket takes it at once.
            let _ = Pin::new(&mut *stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

/// A request on its way out.
#[derive(Debug)]
struct Sending {
    /// To be written next: what frames a part of the body, the part, and what ends it.
    pieces: [Bytes; 3],
    body: RequestBody,
    chunked: bool,
    /// Whether the pieces are the last.
    last: bool,
}

impl Sending {
    fn new(request: Outgoing) -> Self {
        let Outgoing { head, mut body, chunked, .. } = request;
        // A body that is there goes with its head.
        let first =
            if let RequestBody::Whole(bytes) = &mut body { bytes.take().unwrap_or_default() } else { Bytes::new() };
        let last = !chunked && body.is_end();
        Self { pieces: [head, first, Bytes::new()], body, chunked, last }
    }

    fn poll(&mut self, stream: &RefCell<Box<dyn Socket>>, cx: &mut Context<'_>) -> Poll<Result<(), LinkFault>> {
        loop {
            while self.pieces.iter().any(|piece| !piece.is_empty()) {
                ready!(self.poll_write(stream, cx))?;
            }
            let next = if self.last { None } else { Some(self.body.poll_part(cx)) };
            match next {
                Some(Poll::Ready(Some(part))) => self.frame(part?),
                Some(Poll::Ready(None)) => self.end(),
                Some(Poll::Pending) | None => {
                    let flushed = Pin::new(&mut *stream.borrow_mut()).poll_flush(cx).map_err(LinkFault::Io);
                    return if self.last { flushed } else { Poll::Pending };
                }
            }
        }
    }

    /// Takes the body's next part. An empty chunk would end it.
    fn frame(&mut self, part: Bytes) {
        self.last = self.body.is_end();
        let end = if self.last { "\r\n0\r\n\r\n" } else { "\r\n" };
        self.pieces = match (self.chunked, part.is_empty()) {
            (false, _) => [Bytes::new(), part, Bytes::new()],
            (true, false) => [format!("{:x}\r\n", part.len()).into(), part, Bytes::from_static(end.as_bytes())],
            (true, true) if self.last => return self.end(),
            (true, true) => return,
        };
    }

    fn end(&mut self) {
        self.last = true;
        if self.chunked {
            self.pieces = [Bytes::from_static(b"0\r\n\r\n"), Bytes::new(), Bytes::new()];
        }
    }

    fn poll_write(&mut self, stream: &RefCell<Box<dyn Socket>>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let pieces = self.pieces.each_ref().map(|piece| IoSlice::new(piece));
        let begin = pieces.iter().position(|piece| !piece.is_empty()).unwrap_or_default();
        let end = pieces.iter().rposition(|piece| !piece.is_empty()).unwrap_or_default();
        let mut written =
            ready!(joined::poll_write(&mut *stream.borrow_mut(), cx, pieces.get(begin..=end).unwrap_or_default()))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        for piece in &mut self.pieces {
            let here = written.min(piece.len());
            piece.advance(here);
            written = written.saturating_sub(here);
        }
        Poll::Ready(Ok(()))
    }
}

/// The seller's answer stops here.
#[derive(Debug)]
pub struct BrokeOff;

/// The body of a seller's answer, and the connection that it comes on.
#[derive(Debug)]
pub struct SellerBody {
    link: Link,
    data: Data,
    /// Bytes that are not handed on yet, if the head has told their number.
    length: Option<u64>,
}

/// What was made of the bytes that came.
#[derive(Debug)]
struct Data {
    end: AnswerEnd,
    /// What is to be handed on next.
    next: Option<Bytes>,
    ended: bool,
    broke: bool,
    /// Whether the connection may serve another call.
    keeps: bool,
}

impl SellerBody {
    /// The body after a head that was read.
    pub fn new(mut link: Link, Rest { end, keeps }: Rest) -> Self {
        let length = if let AnswerEnd::Framed(follower) = &end { follower.left() } else { None };
        let came = std::mem::take(&mut link.unread);
        let mut data = Data { end, next: None, ended: length == Some(0), broke: false, keeps };
        if !came.is_empty() {
            data.take(&came);
        }
        Self { link, data, length }
    }

    /// The next part.
    pub fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokeOff>>> {
        ready!(self.poll_next(cx));
        let Some(next) = self.data.next.take() else {
            return Poll::Ready(self.data.broke.then_some(Err(BrokeOff)));
        };
        let bytes = u64::try_from(next.len()).unwrap_or(u64::MAX);
        self.length = self.length.map(|length| length.saturating_sub(bytes));
        Poll::Ready(Some(Ok(next)))
    }

    /// Waits until there is a next part, or none will come.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { link, data, .. } = self;
        while data.next.is_none() && !data.ended && !data.broke {
            if link.poll_upload(cx).is_err() || ready!(link.poll_read(cx, |came| data.take(came))).is_err() {
                data.broke = true;
            }
        }
        Poll::Ready(())
    }

    /// Takes what is there of the body already; if nothing is, the seller gets one more turn. What comes with the head
    /// leaves with it: that brings the first event of a stream to its reader a write earlier.
    pub async fn look(&mut self) {
        for turn in 0..2 {
            if turn > 0 {
                tokio::task::yield_now().await;
            }
            if poll_fn(|cx| Poll::Ready(self.poll_next(cx).is_ready())).await {
                return;
            }
        }
    }

    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.data.ended && !self.data.broke
    }

    /// Whether all of it was handed on.
    pub fn is_end(&self) -> bool {
        self.data.ended && self.data.next.is_none()
    }

    /// How many bytes are not handed on yet, if that is known.
    pub fn left(&self) -> Option<u64> {
        self.length
    }

    /// The answer is whole: returns the connection, if it may serve another call.
    pub fn end(mut self) -> Option<Link> {
        self.link.busy = false;
        self.link.reused = true;
        let keeps = self.data.ended && self.data.keeps && matches!(self.link.upload, Upload::Done);
        keeps.then_some(self.link)
    }
}

impl Data {
    /// Takes what has come; nothing is the connection's end.
    fn take(&mut self, came: &[u8]) {
        match &mut self.end {
            AnswerEnd::UntilClose => {
                (self.ended, self.keeps) = (came.is_empty(), false);
                self.next = (!came.is_empty()).then(|| Bytes::copy_from_slice(came));
            }
            AnswerEnd::Framed(_) if came.is_empty() => self.broke = true,
            AnswerEnd::Framed(follower) => {
                let mut data = Vec::with_capacity(came.len());
                match follower.feed_into(came, |part| data.extend_from_slice(part)) {
                    Ok(fed) => {
                        self.ended = fed.done;
                        self.keeps &= fed.consumed == came.len(); // what nobody asked for is no answer to anyone
                    }
                    Err(_) => self.broke = true,
                }
                self.next = (!data.is_empty()).then(|| data.into());
            }
        }
    }
}

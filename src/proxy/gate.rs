//! Stands between the socket and the HTTP engine. Reads each request head's raw bytes once, before the engine does, and
//! follows the body's framing so that it knows where the next head begins. What it refuses the engine never sees: it
//! gets a harmless head instead, and the verdict lies in [`Conn`], so that a refusal takes the normal way out.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::conn::Conn;
use super::joined;
use crate::protocol::framing::{BodyFollower, FramingFault};
use crate::protocol::head::{Framing, HEAD_BYTES_MAX, HeadEnd, HeadFault, check_head, find_head_end};

/// Stands for a head that was refused; see [`Conn::refuse`].
const HARMLESS_HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// How much a client may still send after a connection's last answer, so that it reads the answer and no reset.
pub const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long it is listened to for that.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum Reading {
    /// Before or within a head.
    Head,
    /// Within a body.
    Body(BodyFollower),
    /// A head was refused: nothing after it is read as a request.
    Refused,
    /// A body is malformed: its call hears of it, and nothing after it is read.
    Broken(FramingFault),
}

/// One client's connection, a socket or TLS over one, behind the strict check.
#[derive(Debug)]
pub struct Gate<S> {
    stream: S,
    conn: Rc<Conn>,
    head_timeout: Duration,
    reading: Reading,
    /// A head that has not arrived whole; at most [`HEAD_BYTES_MAX`] and one read.
    partial: Vec<u8>,
    /// How far `partial` has been searched for its end.
    searched: usize,
    /// Checked bytes that the engine had no room for.
    checked: Vec<u8>,
    /// Bytes read and thrown away after the last answer.
    lingered: usize,
    shut_down: bool,
}

impl<S> Gate<S> {
    /// A gate before a fresh connection.
    pub fn new(stream: S, conn: Rc<Conn>, head_timeout: Duration) -> Self {
        Self {
            stream,
            conn,
            head_timeout,
            reading: Reading::Head,
            partial: Vec::new(),
            searched: 0,
            checked: Vec::new(),
            lingered: 0,
            shut_down: false,
        }
    }

    /// Whether bytes can be handed on as they are: all of them belong to checked heads and bodies. Otherwise returns
    /// how many do, and the state stands at the first that does not.
    fn check(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match &mut self.reading {
                Reading::Body(follower) => match follower.feed(rest) {
                    Ok(fed) => {
                        done = done.saturating_add(fed.consumed);
                        if fed.done {
                            self.reading = Reading::Head;
                        }
                    }
                    Err(fault) => {
                        // What came before it is right, and its calls get their answers.
                        self.conn.break_body(fault);
                        self.reading = Reading::Broken(fault);
                    }
                },
                Reading::Head => match find_head_end(rest, 0) {
                    HeadEnd::Complete { start: 0, end } => match check_head(rest.get(..end).unwrap_or_default()) {
                        Ok(facts) => {
                            self.conn.pass();
                            done = done.saturating_add(end);
                            if facts.framing != Framing::None {
                                self.reading = Reading::Body(BodyFollower::new(facts.framing));
                            }
                        }
                        Err(_) => return done, // found again and refused on the slow way
                    },
                    HeadEnd::Complete { .. } | HeadEnd::Partial { .. } | HeadEnd::Fault(_) => return done,
                },
                Reading::Refused | Reading::Broken(_) => return done,
            }
        }
        done
    }

    /// The slow way: bytes that do not begin a whole, acceptable head, or that follow a part of one.
    fn hold(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        while matches!(self.reading, Reading::Head) && !self.partial.is_empty() {
            match find_head_end(&self.partial, self.searched) {
                HeadEnd::Complete { start, end } => {
                    let held = std::mem::take(&mut self.partial);
                    self.searched = 0;
                    match check_head(held.get(start..end).unwrap_or_default()) {
                        Ok(_) => {
                            let whole = held.get(start..).unwrap_or_default();
                            let passed = self.check(whole);
                            self.checked.extend_from_slice(whole.get(..passed).unwrap_or_default());
                            self.partial = whole.get(passed..).unwrap_or_default().to_vec();
                        }
                        Err(fault) => self.refuse(fault),
                    }
                }
                HeadEnd::Partial { searched } => {
                    if self.searched == 0 {
                        self.conn.begin_head(self.head_timeout);
                    }
                    self.searched = searched.max(1);
                    break;
                }
                HeadEnd::Fault(fault) => self.refuse(fault),
            }
        }
        if !matches!(self.reading, Reading::Head) {
            self.partial = Vec::new(); // nothing of it will be read
        }
        debug_assert!(self.partial.len() <= HEAD_BYTES_MAX, "find_head_end refuses longer heads");
    }

    fn refuse(&mut self, fault: HeadFault) {
        self.reading = Reading::Refused;
        self.conn.refuse(fault);
        self.checked.extend_from_slice(HARMLESS_HEAD);
    }

    fn hand_over(&mut self, to: &mut ReadBuf<'_>) {
        let now = self.checked.len().min(to.remaining());
        to.put_slice(self.checked.get(..now).unwrap_or_default());
        self.checked.drain(..now);
        if self.checked.is_empty() {
            self.checked = Vec::new(); // most connections never need it again
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.checked.is_empty() {
                this.hand_over(to);
                return Poll::Ready(Ok(()));
            }
            match this.reading {
                Reading::Refused => return Poll::Pending, // the answer closes the connection
                Reading::Broken(fault) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault))),
                Reading::Head | Reading::Body(_) => {}
            }
            let before = to.filled().len();
            match Pin::new(&mut this.stream).poll_read(cx, to) {
                Poll::Pending if this.conn.poll_read_expired(cx) => return Poll::Ready(Ok(())), // as if it had closed
                Poll::Pending => return Poll::Pending,
                Poll::Ready(read) => read?,
            }
            let new = to.filled().get(before..).unwrap_or_default();
            if new.is_empty() {
                return Poll::Ready(Ok(())); // the client closed
            }
            let passed = if this.partial.is_empty() { this.check(new) } else { 0 };
            if passed == new.len() {
                return Poll::Ready(Ok(()));
            }
            this.hold(new.get(passed..).unwrap_or_default());
            to.set_filled(before.saturating_add(passed));
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.conn.timed(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = joined::poll_write(&mut self.stream, cx, bytes);
        self.conn.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Ends the connection. If the client may still be sending, its bytes are read for a while: closing a socket with
    /// unread bytes resets it, and the client would lose our last answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.shut_down {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.shut_down = true;
            this.conn.set_read_deadline(Instant::now() + LINGER_TIMEOUT);
        }
        if matches!(this.reading, Reading::Head) && this.partial.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; 4096];
        while this.lingered < LINGER_BYTES_MAX && !this.conn.poll_read_expired(cx) {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    this.lingered = this.lingered.saturating_add(buf.filled().len());
                }
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

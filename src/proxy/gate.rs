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
use super::socket::Socket;
use crate::protocol::framing::{BodyFollower, FramingFault};
use crate::protocol::head::{
    Framing, HEAD_BYTES_MAX, HeadEnd, HeadFault, Version, asked, check_head, find_head_end, whole_head,
};

/// Stands for a head that was refused; see [`Conn::refuse`].
const HARMLESS_HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// How long a client may go on sending after a connection's last answer, so that it reads the answer and no reset: many
/// look for an answer only when they have sent all. Long enough for the largest body on a line of 10 Mbit/s.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may be silent meanwhile.
const LINGER_SILENCE: Duration = Duration::from_secs(2);
/// How much it may send besides the largest body: one that is larger gets its answer too, if it is not much larger.
const LINGER_SPARE_BYTES: u64 = 64 * 1024 * 1024;
/// How much of that is read at once.
const LINGER_PIECE_BYTES: usize = 16 * 1024;

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
pub struct Gate<S: Socket> {
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
    /// Whether the last head is HTTP/1.0's, whose answers may end with nothing but the connection.
    http10: bool,
    /// How many more bytes are read and thrown away after the last answer.
    linger_bytes: u64,
    /// Since when that is done.
    lingering: Option<Instant>,
}

impl<S: Socket> Gate<S> {
    /// A gate before a fresh connection. `body_max` is the largest body that is read.
    pub fn new(stream: S, conn: Rc<Conn>, head_timeout: Duration, body_max: u64) -> Self {
        Self {
            stream,
            conn,
            head_timeout,
            reading: Reading::Head,
            partial: Vec::new(),
            searched: 0,
            checked: Vec::new(),
            http10: false,
            linger_bytes: body_max.saturating_add(LINGER_SPARE_BYTES),
            lingering: None,
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
                Reading::Head => {
                    // What is not whole or not right is found again on the slow way.
                    let Some((head, facts)) = whole_head(rest) else { return done };
                    self.conn.pass();
                    self.http10 = facts.version == Version::Http10;
                    done = done.saturating_add(head.len());
                    if facts.framing != Framing::None {
                        self.reading = Reading::Body(BodyFollower::new(facts.framing));
                    }
                }
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
                    let head = held.get(start..end).unwrap_or_default();
                    match check_head(head) {
                        Ok(_) => {
                            let whole = held.get(start..).unwrap_or_default();
                            let passed = self.check(whole);
                            self.checked.extend_from_slice(whole.get(..passed).unwrap_or_default());
                            self.partial = whole.get(passed..).unwrap_or_default().to_vec();
                        }
                        Err(fault) => self.refuse(fault, head),
                    }
                }
                HeadEnd::Partial { searched } => {
                    if self.searched == 0 {
                        self.conn.begin_head(self.head_timeout);
                    }
                    self.searched = searched.max(1);
                    break;
                }
                HeadEnd::Fault(fault) => {
                    let head = std::mem::take(&mut self.partial);
                    self.refuse(fault, &head);
                }
            }
        }
        if !matches!(self.reading, Reading::Head) {
            self.partial = Vec::new(); // nothing of it will be read
        }
        debug_assert!(self.partial.len() <= HEAD_BYTES_MAX, "find_head_end refuses longer heads");
    }

    fn refuse(&mut self, fault: HeadFault, head: &[u8]) {
        self.reading = Reading::Refused;
        self.conn.refuse(fault, asked(head.strip_prefix(b"\r\n").unwrap_or(head)));
        self.checked.extend_from_slice(HARMLESS_HEAD);
    }

    /// The next bytes that the engine may see.
    fn read(&mut self, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.checked.is_empty() {
                self.hand_over(to);
                return Poll::Ready(Ok(()));
            }
            match self.reading {
                Reading::Refused => return Poll::Pending, // the answer closes the connection
                Reading::Broken(fault) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault))),
                Reading::Head | Reading::Body(_) => {}
            }
            let before = to.filled().len();
            match Pin::new(&mut self.stream).poll_read(cx, to) {
                Poll::Pending if self.conn.poll_read_expired(cx) => return Poll::Ready(Ok(())), // as if it had closed
                Poll::Pending => return Poll::Pending,
                Poll::Ready(read) => read?,
            }
            let new = to.filled().get(before..).unwrap_or_default();
            if new.is_empty() {
                return Poll::Ready(Ok(())); // the client closed
            }
            let passed = if self.partial.is_empty() { self.check(new) } else { 0 };
            if passed == new.len() {
                return Poll::Ready(Ok(()));
            }
            self.hold(new.get(passed..).unwrap_or_default());
            to.set_filled(before.saturating_add(passed));
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
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

impl<S: Socket> AsyncRead for Gate<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.read(cx, to);
        self.conn.set_unread(read.is_ready());
        read
    }
}

impl<S: Socket> AsyncWrite for Gate<S> {
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
        // The engine asks for this in each of its turns.
        if self.conn.poll_look_due(cx) && self.stream.is_hung_up() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Ends the connection. If the client may still be sending, its bytes are read for a while: closing a socket with
    /// unread bytes resets it, and the client would lose our last answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let since = match this.lingering {
            Some(since) => since,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                if matches!(this.reading, Reading::Head) && this.partial.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let now = Instant::now();
                this.conn.set_read_deadline(now + LINGER_SILENCE);
                *this.lingering.insert(now)
            }
        };
        let mut scratch = [0; LINGER_PIECE_BYTES];
        while this.linger_bytes > 0 && !this.conn.poll_read_expired(cx) {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    let read = u64::try_from(buf.filled().len()).unwrap_or(u64::MAX);
                    this.linger_bytes = this.linger_bytes.saturating_sub(read);
                    let silence = Instant::now() + LINGER_SILENCE;
                    this.conn.set_read_deadline(silence.min(since + LINGER_TIMEOUT));
                }
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> Drop for Gate<S> {
    /// An answer that only the connection's end delimits must not seem whole where it broke off: over HTTP/1.0 the end is
    /// a reset then.
    fn drop(&mut self) {
        if self.http10 && self.conn.is_answer_broken() {
            let _ = self.stream.tcp().set_zero_linger(); // fails only if the connection has ended already
        }
    }
}

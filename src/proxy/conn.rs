//! What the parts of one client connection share: where it comes from, what the gate said of its heads, and its
//! deadlines. Over HTTP/2 each stream has one of its own beside the connection's. Deadlines are plain cells that a sweep looks at a few times a second: a call that is not late pays nothing.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::client::Client;
use crate::config::Limits;
use crate::protocol::framing::FramingFault;
use crate::protocol::head::{Asked, HeadFault};
use crate::service::authenticate::LastCaller;

/// How often deadlines are looked at; they are late by at most this much.
pub const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// One client connection, or one stream of it.
#[derive(Debug)]
pub struct Conn {
    /// Who is at its other end, by the PROXY protocol if that is spoken; written once for all calls. A call's own client is
    /// [`Call::client`](super::context::Call::client): a proxy speaks for many.
    pub client: Client,
    /// Whether nobody on the way can read along.
    pub tls: bool,
    /// Who called last; of a stream its connection says it.
    last_caller: RefCell<Option<LastCaller>>,
    /// From then on the client is asked to come back on a new connection.
    old_at: Option<Instant>,
    /// The connection of which this is a stream.
    connection: Option<Rc<Conn>>,
    /// Streams that are open.
    streams: Cell<usize>,
    /// Whether the read deadline is for more than the next request, and stays when a stream begins or ends.
    pressed: Cell<bool>,
    /// Between two requests, and for a client that takes nothing of its answer.
    idle_timeout: Duration,
    /// Heads that the gate has let through, the one that stands for a refused head included.
    passed: Cell<u64>,
    /// Calls that have begun, and those that have ended.
    begun: Cell<u64>,
    ended: Cell<u64>,
    refused: Cell<Option<(u64, HeadFault)>>,
    /// What the refused head asked for.
    asked: RefCell<Option<Box<Asked>>>,
    /// Whether the engine holds bytes of the client and asks for no more: it does not hear of the client's end then.
    unread: Cell<bool>,
    /// It is time to look whether the client is still there.
    look_due: Cell<bool>,
    /// The answer under way broke off.
    answer_broken: Cell<bool>,
    body_fault: Cell<Option<FramingFault>>,
    /// How long the rest of a head may take, once a part of it is there.
    head_rest: Cell<Option<Duration>>,
    /// Since when no call is open.
    waiting_since: Cell<Option<Instant>>,
    /// For the next bytes of a head, or the next request.
    read_deadline: Cell<Option<Instant>>,
    read_expired: Cell<bool>,
    /// It is ended for the sake of another.
    shed: Cell<bool>,
    /// For the client to take some of what is written to it.
    write_deadline: Cell<Option<Instant>>,
    write_expired: Cell<bool>,
    /// For the client to take all of the current answer.
    answer_deadline: Cell<Option<Instant>>,
    /// For the current step of the current call.
    call_deadline: Cell<Option<Instant>>,
    call_expired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A step took longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired;

impl Conn {
    /// A connection that has sent nothing yet.
    pub fn new(peer: SocketAddr, tls: bool, limits: &Limits) -> Rc<Self> {
        let mut conn = Self::fresh(Client::at(peer.ip()), tls, limits.idle_timeout);
        conn.old_at = Instant::now().checked_add(age(limits.connection_age, peer));
        conn.await_request();
        Rc::new(conn)
    }

    /// A new stream of an HTTP/2 connection, which serves one call. It does not get old: its connection ends by a message
    /// of its own.
    pub fn stream(connection: &Rc<Self>) -> Rc<Self> {
        connection.streams.set(connection.streams.get().saturating_add(1));
        connection.await_stream();
        let mut stream = Self::fresh(connection.client.clone(), connection.tls, connection.idle_timeout);
        stream.connection = Some(Rc::clone(connection));
        Rc::new(stream)
    }

    fn fresh(client: Client, tls: bool, idle_timeout: Duration) -> Self {
        Self {
            client,
            tls,
            last_caller: RefCell::default(),
            connection: None,
            streams: Cell::new(0),
            pressed: Cell::new(false),
            old_at: None,
            idle_timeout,
            passed: Cell::new(0),
            begun: Cell::new(0),
            ended: Cell::new(0),
            refused: Cell::new(None),
            asked: RefCell::default(),
            unread: Cell::new(false),
            look_due: Cell::new(false),
            answer_broken: Cell::new(false),
            body_fault: Cell::new(None),
            head_rest: Cell::new(None),
            waiting_since: Cell::new(None),
            read_deadline: Cell::new(None),
            read_expired: Cell::new(false),
            shed: Cell::new(false),
            write_deadline: Cell::new(None),
            write_expired: Cell::new(false),
            answer_deadline: Cell::new(None),
            call_deadline: Cell::new(None),
            call_expired: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    /// Who called last on the connection.
    pub fn last_caller(&self) -> &RefCell<Option<LastCaller>> {
        &self.connection.as_deref().unwrap_or(self).last_caller
    }

    /// If this is a stream: how many its connection has open.
    pub fn streams(&self) -> Option<usize> {
        self.connection.as_ref().map(|connection| connection.streams.get())
    }

    /// Whether no call has begun on it.
    pub fn is_fresh(&self) -> bool {
        self.begun.get() == 0
    }

    /// When the connection is old.
    pub fn old_at(&self) -> Option<Instant> {
        self.old_at
    }

    /// The head of a stream has begun, and may take until then.
    pub fn begin_stream_head(&self, deadline: Instant) {
        self.pressed.set(true);
        self.read_deadline.set(Some(deadline));
    }

    /// Whether another connection waits for this one's end, and no stream is open.
    pub fn is_in_the_way(&self) -> bool {
        self.shed.get() && self.streams.get() == 0
    }

    /// No head of a stream is under way any more.
    pub fn end_stream_head(&self) {
        self.pressed.set(false);
        self.await_stream();
    }

    /// The read deadline has passed; the connection may take so much longer to end.
    pub fn prolong(&self, deadline: Instant) {
        self.read_expired.set(false);
        self.begin_stream_head(deadline);
    }

    /// Without an open stream the next one is waited for.
    fn await_stream(&self) {
        match (self.pressed.get(), self.streams.get()) {
            (true, _) => {}
            (false, 0) => self.await_request(),
            (false, _) => {
                self.waiting_since.set(None);
                self.read_deadline.set(None);
            }
        }
    }

    /// A part of the answer goes to the client: if this is a stream, the client must ask for the next, or for the end,
    /// before it has taken nothing for too long. Of a whole connection the gate knows that better.
    pub fn hand_over(&self) {
        if self.connection.is_some() {
            self.write_deadline.set(Some(Instant::now() + self.idle_timeout));
        }
    }

    /// The next part of the answer is asked for.
    pub fn ask_for_more(&self) {
        if self.connection.is_some() {
            self.write_deadline.set(None);
        }
    }

    /// Whether this is a stream of which the client takes nothing any more; otherwise its task is woken when it is.
    pub fn poll_stalled(&self, cx: &Context<'_>) -> bool {
        self.keep_waker(cx);
        self.write_expired.get()
    }

    /// Whether the connection should end with the answer to a call that began at `started`.
    pub fn is_old(&self, started: Instant) -> bool {
        self.old_at.is_some_and(|old_at| old_at <= started)
    }

    /// The gate has a part of a head: the rest must follow within this time, from now on or from the end of the call
    /// that is still open.
    pub fn begin_head(&self, timeout: Duration) {
        self.head_rest.set(Some(timeout));
        self.await_request();
    }

    /// The gate lets a head through.
    pub fn pass(&self) {
        self.passed.set(self.passed.get().wrapping_add(1));
        self.head_rest.set(None);
        self.waiting_since.set(None);
        self.read_deadline.set(None);
    }

    /// The gate lets a harmless head through in place of one that it refuses.
    pub fn refuse(&self, fault: HeadFault, asked: Asked) {
        self.pass();
        self.asked.replace(Some(Box::new(asked))); // rare: no room is kept for it
        self.refused.set(Some((self.passed.get(), fault)));
    }

    /// A call begins: returns why it must be refused, if the gate said so of its head.
    pub fn begin_call(&self) -> Option<HeadFault> {
        let number = self.begun.get().wrapping_add(1);
        self.begun.set(number);
        self.refused.get().filter(|(refused, _)| *refused == number).map(|(_, fault)| fault)
    }

    /// What the head asked for that the gate refused.
    pub fn take_asked(&self) -> Option<Box<Asked>> {
        self.asked.take()
    }

    /// Whether the engine has bytes that it has not asked to follow up.
    pub fn set_unread(&self, unread: bool) {
        self.unread.set(unread);
    }

    /// Whether it is time to look if the client of an open call is still there; if not, the gate is woken when it is.
    pub fn poll_look_due(&self, cx: &Context<'_>) -> bool {
        if !self.unread.get() {
            return false;
        }
        self.keep_waker(cx);
        self.look_due.take()
    }

    /// The answer stops before its end.
    pub fn break_answer(&self) {
        self.answer_broken.set(true);
    }

    /// Whether an answer stopped before its end.
    pub fn is_answer_broken(&self) -> bool {
        self.answer_broken.get()
    }

    /// The gate found that the current body is none: nothing after it is read.
    pub fn break_body(&self, fault: FramingFault) {
        self.body_fault.set(Some(fault));
    }

    /// What the gate found wrong with a body.
    pub fn body_fault(&self) -> Option<FramingFault> {
        self.body_fault.get()
    }

    /// A call has ended: the next may come.
    pub fn end_call(&self) {
        self.ended.set(self.ended.get().wrapping_add(1));
        self.call_deadline.set(None);
        self.answer_deadline.set(None);
        if self.connection.is_none() {
            self.await_request();
        }
    }

    /// Times the next request, unless a call is open or the next request is here already: those have other clocks.
    fn await_request(&self) {
        if self.begun.get() != self.ended.get() || self.passed.get() > self.begun.get() {
            return;
        }
        let now = Instant::now();
        self.waiting_since.set(self.waiting_since.get().or(Some(now)));
        self.read_deadline.set(Some(now + self.head_rest.get().unwrap_or(self.idle_timeout)));
    }

    /// The gate waits for the next bytes until then.
    pub fn set_read_deadline(&self, deadline: Instant) {
        self.read_deadline.set(Some(deadline));
    }

    /// Whether the gate has waited too long; otherwise it is woken when it has.
    pub fn poll_read_expired(&self, cx: &Context<'_>) -> bool {
        self.keep_waker(cx);
        self.read_expired.get()
    }

    /// Waits until a connection that has not come to its first request is ended for the sake of another.
    pub async fn read_expired(&self) {
        poll_fn(|cx| if self.poll_read_expired(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// What stands before the first request has come: that is waited for now.
    pub fn arrived(&self) {
        self.await_request();
    }

    /// Times a client that takes nothing for too long of what is written to it, or whose answer takes longer than it may.
    /// Takes what a write came to; gives what its caller is told. The caller is woken when the time is over.
    pub fn timed(&self, cx: &Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.write_deadline.set(None);
            return written;
        }
        self.keep_waker(cx);
        if self.write_deadline.get().is_none() {
            self.write_deadline.set(Some(Instant::now() + self.idle_timeout));
        }
        if self.write_expired.get() { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { written }
    }

    /// The client may take until then to read the current answer.
    pub fn set_answer_deadline(&self, deadline: Instant) {
        self.answer_deadline.set(Some(deadline));
    }

    /// The current step of the call may take until then.
    pub fn set_call_deadline(&self, deadline: Instant) {
        self.call_deadline.set(Some(deadline));
        self.call_expired.set(false);
    }

    /// Whether the current step took too long; otherwise the task is woken when it has.
    pub fn poll_call_expired(&self, cx: &Context<'_>) -> bool {
        self.keep_waker(cx);
        self.call_expired.get()
    }

    fn keep_waker(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Runs one step of the call, until `deadline` at most.
    pub async fn within<T>(&self, deadline: Instant, step: impl Future<Output = T>) -> Result<T, Expired> {
        self.set_call_deadline(deadline);
        let mut step = pin!(step);
        poll_fn(|cx| match step.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if self.poll_call_expired(cx) => Poll::Ready(Err(Expired)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn sweep(&self, now: Instant) {
        let passed = |deadline: &Cell<Option<Instant>>| deadline.get().is_some_and(|deadline| deadline <= now);
        let (read, call) = (passed(&self.read_deadline), passed(&self.call_deadline));
        let stalled = self.write_deadline.get().is_some();
        let write = passed(&self.write_deadline) || (stalled && passed(&self.answer_deadline));
        self.read_expired.set(self.read_expired.get() || read);
        self.write_expired.set(self.write_expired.get() || write);
        self.call_expired.set(self.call_expired.get() || call);
        let look = self.unread.get() && self.begun.get() != self.ended.get();
        self.look_due.set(look);
        if read || write || call || look {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.streams.set(connection.streams.get().saturating_sub(1));
            connection.await_stream();
        }
    }
}

/// How old a connection may become: a little less than the limit for most, so that those that were opened together do
/// not end together. The port is as good as any number for that.
fn age(limit: Duration, peer: SocketAddr) -> Duration {
    limit.saturating_sub(limit / 10 * u32::from(peer.port() % 64) / 64)
}

/// The connections of one core.
#[derive(Debug, Default)]
pub struct Conns {
    all: RefCell<Vec<Weak<Conn>>>,
    draining: Cell<bool>,
}

impl Conns {
    /// Adds one; it leaves by being dropped.
    pub fn add(&self, conn: &Rc<Conn>) {
        self.all.borrow_mut().push(Rc::downgrade(conn));
    }

    /// From now on no new requests are taken.
    pub fn drain(&self) {
        self.draining.set(true);
        self.all.borrow().iter().filter_map(Weak::upgrade).for_each(|conn| conn.wake());
    }

    /// Ready when no new requests are taken any more; the connection's task is woken then. A plain cell: every connection
    /// asks whenever it is polled, and a channel's receiver took a lock for each.
    pub fn poll_draining(&self, conn: &Conn, cx: &Context<'_>) -> Poll<()> {
        conn.keep_waker(cx);
        if self.draining.get() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends the connection that has been without a call for longest, in order: its client may open another. Returns
    /// whether there was one.
    pub fn shed(&self) -> bool {
        let conns = self.all.borrow();
        let waiting = conns.iter().filter_map(Weak::upgrade).filter_map(|conn| Some((conn.waiting_since.get()?, conn)));
        let Some((_, conn)) = waiting.min_by_key(|(since, _)| *since) else { return false };
        conn.waiting_since.set(None); // the next one is another's turn
        conn.read_expired.set(true);
        conn.shed.set(true);
        conn.wake();
        true
    }

    /// Wakes whoever is late.
    pub fn sweep(&self, now: Instant) {
        self.all.borrow_mut().retain(|conn| {
            conn.upgrade().is_some_and(|conn| {
                conn.sweep(now);
                true
            })
        });
    }
}

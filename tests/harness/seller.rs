//! A seller on raw sockets that does exactly what a test says: which bytes, in which pieces, when, and how the
//! connection ends. It notes every request and how each of its connections ended.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::wire::{Body, End, Head, Wire};
use super::{until, within};

/// A request as the seller got it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Which connection, from 0.
    pub(crate) connection: usize,
    pub(crate) head: Head,
    /// Empty if the test reads it by hand.
    pub(crate) body: Body,
}

impl Seen {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.bytes).into_owned()
    }
}

/// One thing that a seller does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Ends the connection in order.
    Close,
    /// Ends it with a reset.
    Reset,
    /// Waits until the gateway ends the connection.
    Hang,
    /// Only for load: tests answer by hand instead of waiting for a time.
    Pause(Duration),
}

/// What a seller does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// These steps; then the connection goes on, unless they ended it.
    Steps(Vec<Step>),
    /// The test does it: see [`Seller::next`].
    ByHand,
}

impl Reply {
    pub(crate) fn bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self::Steps(vec![Step::Send(bytes.as_ref().to_vec())])
    }

    /// A plain answer.
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self::bytes(plain(status, body))
    }

    pub(crate) fn then(self, step: Step) -> Self {
        match self {
            Self::Steps(mut steps) => {
                steps.push(step);
                Self::Steps(steps)
            }
            Self::ByHand => panic!("what is done by hand has no further steps"),
        }
    }

    pub(crate) fn hang() -> Self {
        Self::Steps(vec![Step::Hang])
    }
}

/// A plain JSON answer's bytes.
pub(crate) fn plain(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into()
}

/// The head of an event stream.
pub(crate) const SSE_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The end of a chunked body.
pub(crate) const LAST_CHUNK: &str = "0\r\n\r\n";

/// One chunk of a chunked body.
pub(crate) fn chunk(data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// A request that the test answers itself.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) seen: Seen,
    pub(crate) wire: Wire,
    back: oneshot::Sender<Wire>,
}

impl Exchange {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("the gateway reads the seller's bytes", self.wire.send(bytes.as_ref())).await.unwrap();
    }

    /// Waits until the gateway ends the connection; returns how, and when that was seen.
    pub(crate) async fn gateway_ends(&mut self) -> (End, Instant) {
        let end = within("the gateway ends its connection to the seller", self.wire.end()).await;
        (end, Instant::now())
    }

    /// The answer is complete: the connection waits for its next request.
    pub(crate) fn done(self) {
        let _ = self.back.send(self.wire);
    }

    pub(crate) fn reset(self) {
        self.wire.reset();
    }
}

/// How a connection ended, as the seller saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) connection: usize,
    pub(crate) end: End,
    pub(crate) at: Instant,
}

#[derive(Debug, Default)]
struct Notes {
    requests: Vec<Seen>,
    ended: Vec<Ended>,
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

struct Desk {
    script: Script,
    /// Whether bodies are left unread for the test.
    leaves_bodies: bool,
    /// Whether requests are noted.
    remembers: bool,
    notes: Mutex<Notes>,
    connections: AtomicUsize,
    received: Arc<AtomicUsize>,
    by_hand: mpsc::UnboundedSender<Exchange>,
}

/// A seller that listens.
pub(crate) struct Seller {
    pub(crate) address: SocketAddr,
    desk: Arc<Desk>,
    waiting: AsyncMutex<mpsc::UnboundedReceiver<Exchange>>,
    accepting: JoinHandle<()>,
}

impl Seller {
    /// Answers each request by a function of it.
    pub(crate) async fn answering(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(Arc::new(script), (false, true)).await
    }

    /// The same, without a note of each request: for long runs.
    pub(crate) async fn forgetful(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(Arc::new(script), (false, false)).await
    }

    /// Gives the same answer each time.
    pub(crate) async fn always(reply: Reply) -> Self {
        Self::answering(move |_| reply.clone()).await
    }

    /// Answers every request with a short JSON body and status 200.
    pub(crate) async fn plain() -> Self {
        Self::always(Reply::json(200, r#"{"ok":true}"#)).await
    }

    /// Leaves every request to the test.
    pub(crate) async fn by_hand() -> Self {
        Self::always(Reply::ByHand).await
    }

    /// Leaves every request to the test as soon as its head is there, the body unread.
    pub(crate) async fn by_hand_from_the_head() -> Self {
        Self::start(Arc::new(|_: &Seen| Reply::ByHand), (true, true)).await
    }

    async fn start(script: Script, (leaves_bodies, remembers): (bool, bool)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (by_hand, waiting) = mpsc::unbounded_channel();
        let (notes, connections, received) = (Mutex::default(), AtomicUsize::new(0), Arc::default());
        let desk = Arc::new(Desk { script, leaves_bodies, remembers, notes, connections, received, by_hand });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&desk)));
        Self { address, desk, waiting: AsyncMutex::new(waiting), accepting }
    }

    /// The next request that is left to the test.
    pub(crate) async fn next(&self) -> Exchange {
        let mut waiting = self.waiting.lock().await;
        within("a request reaches the seller", waiting.recv()).await.unwrap()
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.desk.notes.lock().unwrap().requests.clone()
    }

    /// The only request so far.
    pub(crate) fn request(&self) -> Seen {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.into_iter().next().unwrap()
    }

    /// How many connections were ever opened.
    pub(crate) fn connections(&self) -> usize {
        self.desk.connections.load(Ordering::SeqCst)
    }

    /// How many bytes came in, over all connections.
    pub(crate) fn received_bytes(&self) -> usize {
        self.desk.received.load(Ordering::SeqCst)
    }

    /// Waits for the end of a connection that the gateway ended.
    pub(crate) async fn ended(&self, connection: usize) -> Ended {
        let find = async || {
            let notes = self.desk.notes.lock().unwrap();
            notes.ended.iter().find(|ended| ended.connection == connection).copied()
        };
        until("the gateway ends its connection to the seller", find).await
    }
}

impl Drop for Seller {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    while let Ok((stream, _)) = listener.accept().await {
        let connection = desk.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(serve(stream, connection, Arc::clone(&desk)));
    }
}

async fn serve(stream: TcpStream, connection: usize, desk: Arc<Desk>) {
    let mut wire = Wire::new(stream, Arc::clone(&desk.received));
    let end = loop {
        let head = match wire.head().await {
            Ok(head) => head,
            Err(end) => break end,
        };
        let body = match desk.leaves_bodies {
            true => Body::default(),
            false => wire.body(head.request_framing()).await,
        };
        let cut = body.cut;
        let seen = Seen { connection, head, body };
        if desk.remembers {
            desk.notes.lock().unwrap().requests.push(seen.clone());
        }
        if let Some(end) = cut {
            break end;
        }
        let done = match (desk.script)(&seen) {
            Reply::Steps(steps) => play(steps, wire).await,
            Reply::ByHand => {
                let (back, returned) = oneshot::channel();
                let _ = desk.by_hand.send(Exchange { seen, wire, back }); // else the test is over
                returned.await.map_or(Played::Ended(None), Played::On)
            }
        };
        match done {
            Played::On(same) => wire = same,
            Played::Ended(Some(end)) => break end,
            Played::Ended(None) => return,
        }
    };
    desk.notes.lock().unwrap().ended.push(Ended { connection, end, at: Instant::now() });
}

enum Played {
    /// The connection goes on.
    On(Wire),
    /// It has ended; by the gateway, if there is an [`End`].
    Ended(Option<End>),
}

async fn play(steps: Vec<Step>, mut wire: Wire) -> Played {
    for step in steps {
        match step {
            Step::Send(bytes) => {
                if let Err(end) = wire.send(&bytes).await {
                    return Played::Ended(Some(end));
                }
            }
            Step::Close => return Played::Ended(None),
            Step::Reset => {
                wire.reset();
                return Played::Ended(None);
            }
            Step::Hang => return Played::Ended(Some(wire.end().await)),
            Step::Pause(time) => tokio::time::sleep(time).await,
        }
    }
    Played::On(wire)
}

/// An address at which connections are refused, for as long as the socket is kept.
pub(crate) fn refusing() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

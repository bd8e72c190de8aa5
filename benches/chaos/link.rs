//! The fault proxy between one gateway and its store's server: a TCP port of its own that hands bytes on, late, not at
//! all, or only in one direction, as its weather says. It knows nothing of what the bytes mean.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::rng::Rng;

/// Room for one read.
const READ_BYTES: usize = 16 * 1024;

/// What a link does with the bytes that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Hands them on.
    Clear,
    /// Hands them on so much later.
    Slow(Duration),
    /// Keeps them until the weather changes.
    Hold,
    /// Throws them away; connections look alive, and are cut when the weather changes.
    Swallow,
    /// Cuts connections, and new ones at once.
    Refuse,
    /// Hands requests on; so many replies of a hundred never come: their connection is cut instead.
    DropReplies(u64),
}

/// A port before a server.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    target: Mutex<PathBuf>,
    weather: watch::Sender<Weather>,
    rng: Mutex<Rng>,
}

impl Link {
    /// Leads to a server's socket. The seed chooses which replies are lost.
    pub(crate) async fn to(socket: &Path, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(socket.to_owned()),
            weather: watch::Sender::new(Weather::Clear),
            rng: Mutex::new(Rng::new(seed)),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    pub(crate) fn weather(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// Leads to another server from now on; what leads to the first is cut.
    pub(crate) fn lead_to(&self, socket: &Path) {
        *self.shared.target.lock().unwrap() = socket.to_owned();
        self.shared.weather.send_replace(Weather::Clear); // wakes the connections, which look at their target
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.weather.send_replace(Weather::Refuse);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(carry(client, Arc::clone(&shared)));
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    if *shared.weather.borrow() == Weather::Refuse {
        return;
    }
    let _ = client.set_nodelay(true); // a connection that is gone already ends below
    let target = shared.target.lock().unwrap().clone();
    let Ok(server) = UnixStream::connect(&target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = hand_on(&mut from_client, &mut to_server, &shared, false);
    let replies = hand_on(&mut from_server, &mut to_client, &shared, true);
    let moved_on = async {
        let mut weather = shared.weather.subscribe();
        loop {
            if weather.changed().await.is_err() || *shared.target.lock().unwrap() != target {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = replies => {}
        () = moved_on => {}
    }
}

/// Hands bytes on in one direction until the connection is to end.
async fn hand_on(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    shared: &Shared,
    replies: bool,
) {
    let mut weather = shared.weather.subscribe();
    let mut bytes = vec![0; READ_BYTES];
    let mut swallowed = false;
    loop {
        let now = *weather.borrow_and_update();
        if now == Weather::Refuse || (swallowed && now != Weather::Swallow) {
            return;
        }
        let count = tokio::select! {
            read = from.read(&mut bytes) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            },
            changed = weather.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let now = *weather.borrow_and_update();
        match now {
            Weather::Clear => {}
            Weather::Refuse => return,
            Weather::Slow(late) => tokio::time::sleep(late).await,
            Weather::Hold => {
                let _ = weather.wait_for(|weather| *weather != Weather::Hold).await; // as long as there is a link
            }
            Weather::Swallow => {
                swallowed = true;
                continue;
            }
            Weather::DropReplies(percent) => {
                if replies && shared.rng.lock().unwrap().percent(percent) {
                    return;
                }
            }
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

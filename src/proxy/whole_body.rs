//! Reads a request body whole before anything is forwarded: into memory if its model must be known, and, if only its
//! hash matters, into a file from a certain size on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};

use super::client_body::ClientBody;
use super::conn::Conn;
use super::patience::Patience;
use super::rejection::{Code, Rejection};
use super::request_body::{Held, RequestBody, Share, end_trailers};
use super::spool::Spool;
use super::words::texts;
use crate::protocol::signature::BodyHash;

/// A body on its way in, and its bounds.
pub struct Reading<'a> {
    incoming: ClientBody,
    conn: &'a Conn,
    patience: Patience,
    /// Most bytes.
    max: u64,
    length: u64,
    /// If its hash is wanted.
    hasher: Option<Sha256>,
}

/// A body that was read whole into memory.
pub struct InMemory {
    /// All of it.
    pub bytes: Bytes,
    /// Its hash, if that was wanted.
    pub hash: Option<BodyHash>,
    /// Keeps it counted.
    pub share: Share,
}

/// A body that was read whole for its hash.
pub struct Hashed {
    /// What goes to the seller.
    pub body: RequestBody,
    /// Its hash.
    pub hash: BodyHash,
}

impl Hashed {
    /// An empty body.
    pub fn nothing() -> Self {
        Self { body: RequestBody::whole(Bytes::new()), hash: BodyHash::of(&[]) }
    }
}

impl<'a> Reading<'a> {
    /// Nothing is read yet. A body that is announced to be too large is refused at once.
    pub fn new(
        incoming: ClientBody,
        conn: &'a Conn,
        (max, timeout): (u64, Duration),
        hash: bool,
    ) -> Result<Self, Rejection> {
        let patience = Patience::new(timeout);
        let reading = Self { incoming, conn, patience, max, length: 0, hasher: hash.then(Sha256::new) };
        match reading.incoming.size_hint().exact() {
            Some(length) if length > max => Err(reading.too_large()),
            Some(_) | None => Ok(reading),
        }
    }

    fn too_large(&self) -> Rejection {
        let message = texts::BODY_LARGER.with([("max", self.max.to_string().into())]);
        Rejection::new(Code::RequestTooLarge, message).closing()
    }

    /// The next part; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Rejection> {
        if self.length > 0 && self.incoming.is_end_stream() {
            return Ok(None); // asking once more would wait for the engine's next turn
        }
        loop {
            let until = self.patience.wait(Instant::now());
            let Ok(frame) = self.conn.within(until, self.incoming.frame()).await else {
                return Err(Rejection::new(Code::RequestTimeout, &texts::BODY_STOPPED).closing());
            };
            let data = match frame {
                None => return Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(frame) if end_trailers(self.conn, &frame) => continue,
                    Err(_) => return Err(Rejection::broken_body(self.conn.body_fault())),
                },
                Some(Err(_)) => return Err(Rejection::broken_body(self.conn.body_fault())),
            };
            self.patience.came(data.len(), Instant::now());
            self.length = self.length.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
            if self.length > self.max {
                return Err(self.too_large());
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&data);
            }
            return Ok(Some(data));
        }
    }

    /// Whether there is nothing in it; waits for its first part, which is gone then.
    pub async fn is_empty(&mut self) -> Result<bool, Rejection> {
        Ok(self.next().await?.is_none())
    }

    fn hash(self) -> Option<BodyHash> {
        self.hasher.map(|hasher| BodyHash::new(hasher, self.length == 0))
    }

    /// Into memory.
    pub async fn in_memory(mut self, held: &Arc<Held>) -> Result<InMemory, Rejection> {
        let (mut parts, mut share) = (Parts::of(&self.incoming), held.share());
        while let Some(data) = self.next().await? {
            if !share.grow(u64::try_from(data.len()).unwrap_or(u64::MAX)) {
                return Err(overloaded());
            }
            parts.add(data);
        }
        Ok(InMemory { bytes: parts.whole(), hash: self.hash(), share })
    }

    /// For its hash: in memory while it is small and there is room, then in a file. A stranger's body takes the same
    /// way, since the time must not tell who is one, while strangers' bodies together are few; then it is not kept.
    pub async fn hashed(
        mut self,
        (held, spool): (&Arc<Held>, &Spool),
        above: u64,
        stranger: bool,
    ) -> Result<Hashed, Rejection> {
        let (mut parts, mut share) = (Parts::of(&self.incoming), held.share());
        let mut file = None;
        let mut strangers = stranger.then(|| spool.strangers());
        let mut kept = true;
        while let Some(data) = self.next().await? {
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            if kept && strangers.as_mut().is_some_and(|strangers| !strangers.grow(length)) {
                (kept, parts, file, share, strangers) = (false, Parts::default(), None, held.share(), None);
            }
            if !kept {
                continue;
            }
            if file.is_none() && (self.length > above || !share.grow(length)) {
                let mut begun = spool.begin().await.map_err(|error| spool_failed(&error))?;
                let before = std::mem::take(&mut parts).whole();
                begun.write(&before).await.map_err(|error| spool_failed(&error))?;
                (file, share) = (Some(begun), held.share());
            }
            match &mut file {
                Some(file) => file.write(&data).await.map_err(|error| spool_failed(&error))?,
                None => parts.add(data),
            }
        }
        // The hash of nothing where none was wanted; whoever calls this wants it.
        let hash = self.hash().unwrap_or_else(|| BodyHash::of(&[]));
        let Some(file) = file else {
            return Ok(Hashed { body: RequestBody::whole(share.kept_with(parts.whole())), hash });
        };
        let spooled = file.finish().await.map_err(|error| spool_failed(&error))?;
        Ok(Hashed { body: RequestBody::Spooled(Box::new(spooled.read())), hash })
    }
}

/// Room that is made ahead of a body is at most so many times what has come of it.
const ROOM_AHEAD: usize = 8;

/// Most bodies come in one piece: no copy. The pieces of others are gathered, and that is the only copy.
#[derive(Default)]
struct Parts {
    /// Bytes in all, if that is known: room that had to be made again and again would be three times as much.
    announced: usize,
    first: Bytes,
    all: BytesMut,
}

impl Parts {
    fn of(incoming: &ClientBody) -> Self {
        let announced = incoming.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        Self { announced: announced.unwrap_or_default(), ..Self::default() }
    }

    fn add(&mut self, data: Bytes) {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = data;
        } else {
            let first = std::mem::take(&mut self.first);
            self.all.extend_from_slice(&first);
            let length = self.all.len().saturating_add(data.len());
            if length > self.all.capacity() {
                let room = self.announced.min(length.saturating_mul(ROOM_AHEAD)).max(length);
                self.all.reserve(room.saturating_sub(self.all.len()));
            }
            self.all.extend_from_slice(&data);
        }
    }

    fn whole(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

fn overloaded() -> Rejection {
    Rejection::new(Code::Overloaded, &texts::TOO_MANY_LARGE).closing()
}

fn spool_failed(error: &std::io::Error) -> Rejection {
    tracing::warn!(%error, "a large request body could not be put into a file");
    overloaded()
}

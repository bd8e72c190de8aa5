//! Request bodies that are read whole for their signature and are too large to be held in memory: in a temporary file
//! that has no name, so that nothing of it outlives the process.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinHandle, spawn_blocking};

use super::request_body::{Held, Share};

/// Bytes that are read back at once.
const CHUNK_BYTES: u64 = 64 * 1024;

/// Strangers' bodies take one part in so many.
const STRANGERS_PART: u64 = 4;

/// Where such files are.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// Bytes in all files at one time.
    room: Arc<Held>,
    /// Bytes of bodies that nobody we know is said to have signed, in files and in memory.
    strangers: Arc<Held>,
    files: AtomicU64,
}

impl Spool {
    /// Makes the folder. At most `bytes_max` bytes lie in files at one time; `held_max` is how many are held in memory.
    /// Of either, strangers' bodies take at most a quarter.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(folder: PathBuf, bytes_max: u64, held_max: u64) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).recursive(true).create(&folder)?;
        let strangers = Held::new(bytes_max.min(held_max) / STRANGERS_PART);
        let room = Held::new(bytes_max);
        Ok(Self { folder, room: Arc::new(room), strangers: Arc::new(strangers), files: AtomicU64::new(0) })
    }

    /// A stranger's share, of nothing yet.
    pub fn strangers(&self) -> Share {
        self.strangers.share()
    }

    /// A new, empty file.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn begin(&self) -> io::Result<SpoolWriter> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{}-{number}", std::process::id()));
        let open = move || {
            // One of that name is of a process that died between these two steps.
            let _ = std::fs::remove_file(&path);
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            std::fs::remove_file(&path)?;
            io::Result::Ok(file)
        };
        let file = spawn_blocking(open).await.map_err(io::Error::other)??;
        Ok(SpoolWriter { file: tokio::fs::File::from_std(file), length: 0, share: self.room.share() })
    }
}

/// A file that is being filled.
#[derive(Debug)]
pub struct SpoolWriter {
    file: tokio::fs::File,
    length: u64,
    share: Share,
}

impl SpoolWriter {
    /// Appends a part of a body.
    ///
    /// # Errors
    /// When the disk has no room for it, or there are too many such bodies.
    pub async fn write(&mut self, part: &[u8]) -> io::Result<()> {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        if !self.share.grow(length) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "too many large bodies at this moment"));
        }
        self.length = self.length.saturating_add(length);
        self.file.write_all(part).await
    }

    /// The whole body.
    ///
    /// # Errors
    /// When a write that was under way has failed.
    pub async fn finish(mut self) -> io::Result<Spooled> {
        self.file.flush().await?;
        let file = Arc::new(self.file.into_std().await);
        Ok(Spooled { file, length: self.length, _share: Arc::new(self.share) })
    }
}

/// A body in a file; can be read more than once. The file ends with the last copy.
#[derive(Debug, Clone)]
pub struct Spooled {
    file: Arc<File>,
    length: u64,
    _share: Arc<Share>,
}

impl Spooled {
    /// Reads it from its beginning.
    pub fn read(&self) -> SpoolReader {
        SpoolReader { body: self.clone(), at: 0, reading: None }
    }
}

/// Reads a body back, part by part.
#[derive(Debug)]
pub struct SpoolReader {
    body: Spooled,
    at: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl SpoolReader {
    /// The same body, from its beginning.
    pub fn again(&self) -> Self {
        self.body.read()
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.body.length.saturating_sub(self.at)
    }

    /// The next part; `None` at the end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let left = self.left();
        if left == 0 {
            return Poll::Ready(None);
        }
        let reading = self.reading.get_or_insert_with(|| {
            let (file, at) = (Arc::clone(&self.body.file), self.at);
            let length = usize::try_from(left.min(CHUNK_BYTES)).unwrap_or(usize::MAX);
            spawn_blocking(move || {
                let mut part = vec![0; length];
                file.read_exact_at(&mut part, at)?;
                Ok(part.into())
            })
        });
        let part = ready!(std::pin::Pin::new(reading).poll(cx)).map_err(io::Error::other).flatten();
        self.reading = None;
        if let Ok(part) = &part {
            self.at = self.at.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
        }
        Poll::Ready(Some(part))
    }
}

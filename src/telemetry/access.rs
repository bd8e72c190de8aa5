//! The access log: one JSON line a call, gathered per core and written by a thread of its own, so that a slow disk
//! never delays a call. Holds no header, no query and no body, and therefore no secret.

mod line;

use std::cell::RefCell;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use prometheus::IntCounter;

pub use self::line::Line;

/// A core hands its lines on when it has gathered this many bytes; each time wakes the writer's thread.
const BATCH_BYTES: usize = 56 * 1024;
/// Room for a batch and its last line.
const BUFFER_BYTES: usize = BATCH_BYTES + 4 * 1024;
/// Batches that may wait for the sink; more are dropped and counted.
const BATCHES_QUEUED_MAX: usize = 64;

enum ToWriter {
    Lines(Vec<u8>),
    Sink(Box<dyn Write + Send>),
    Stop,
}

/// The thread that writes lines to the sink.
#[derive(Debug)]
pub struct AccessLog {
    to_writer: SyncSender<ToWriter>,
    thread: JoinHandle<()>,
}

impl AccessLog {
    /// Starts the thread.
    pub fn start(sink: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let (to_writer, lines) = sync_channel(BATCHES_QUEUED_MAX);
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || write(sink, &lines))?;
        Ok(Self { to_writer, thread })
    }

    /// A core's end of the log.
    pub fn buffer(&self, dropped: IntCounter) -> AccessBuffer {
        AccessBuffer { lines: RefCell::new(Vec::new()), to_writer: self.to_writer.clone(), dropped }
    }

    /// Goes on with another sink: the file may have been moved away.
    pub fn reopen(&self, sink: Box<dyn Write + Send>) {
        let _ = self.to_writer.send(ToWriter::Sink(sink)); // fails only if the thread is gone, with the log
    }

    /// Writes what was handed on, and ends the thread.
    pub fn stop(self) {
        let _ = self.to_writer.send(ToWriter::Stop);
        let _ = self.thread.join();
    }
}

fn write(mut sink: Box<dyn Write + Send>, lines: &Receiver<ToWriter>) {
    while let Ok(message) = lines.recv() {
        match message {
            // A sink that fails is left to its operator: the calls go on, the next batch is tried again.
            ToWriter::Lines(batch) => {
                if let Err(error) = sink.write_all(&batch).and_then(|()| sink.flush()) {
                    tracing::warn!(%error, "the access log cannot be written");
                }
            }
            ToWriter::Sink(next) => sink = next,
            ToWriter::Stop => break,
        }
    }
}

/// The lines that one core has gathered.
#[derive(Debug)]
pub struct AccessBuffer {
    lines: RefCell<Vec<u8>>,
    to_writer: SyncSender<ToWriter>,
    dropped: IntCounter,
}

impl AccessBuffer {
    /// Adds a line.
    pub fn add(&self, line: &Line<'_>) {
        let mut lines = self.lines.borrow_mut();
        if lines.capacity() == 0 {
            lines.reserve(BUFFER_BYTES);
        }
        line.write(&mut lines);
        lines.push(b'\n');
        if lines.len() >= BATCH_BYTES {
            self.hand_on(std::mem::take(&mut *lines));
        }
    }

    /// Hands on what is there; called a few times a second.
    pub fn flush(&self) {
        let lines = std::mem::take(&mut *self.lines.borrow_mut());
        if !lines.is_empty() {
            self.hand_on(lines);
        }
    }

    fn hand_on(&self, batch: Vec<u8>) {
        match self.to_writer.try_send(ToWriter::Lines(batch)) {
            Ok(()) => {}
            Err(TrySendError::Full(ToWriter::Lines(batch)) | TrySendError::Disconnected(ToWriter::Lines(batch))) => {
                let lines = memchr::memchr_iter(b'\n', &batch).count();
                self.dropped.inc_by(u64::try_from(lines).unwrap_or(u64::MAX));
            }
            Err(_) => {} // only lines are sent here
        }
    }
}

//! The access log: one JSON line a call, gathered per core and written by a thread of its own, so that a slow disk
//! never delays a call. Holds no header, no query and no body, and therefore no secret.

mod line;

use std::cell::RefCell;
use std::io::{self, ErrorKind, Write};
use std::pin::pin;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::oneshot;

pub use self::line::Line;
use self::line::Moments;

/// A core hands its lines on when it has gathered this many bytes; each time wakes the writer's thread.
const BATCH_BYTES: usize = 56 * 1024;
/// Room for a batch and its last line.
const BUFFER_BYTES: usize = BATCH_BYTES + 4 * 1024;
/// Batches that may wait for the sink; more are dropped and counted.
const BATCHES_QUEUED_MAX: usize = 64;

/// How often it is tried to stop a writer that does not take what waits for it.
const STOP_EVERY: Duration = Duration::from_millis(10);

/// Where lines go.
pub type Sink = Box<dyn Write + Send>;

enum ToWriter {
    Lines(Vec<u8>),
    Stop,
}

/// The thread that writes lines to the sink.
pub struct AccessLog {
    to_writer: SyncSender<ToWriter>,
    dropped: IntCounter,
    /// Taken by the thread before its next batch. Not a message: nobody may wait for a sink that has stalled.
    next: Arc<Mutex<Option<Sink>>>,
    /// Closed when the thread has ended.
    ended: oneshot::Receiver<()>,
}

impl AccessLog {
    /// Starts the thread. Lines that the sink does not take are counted.
    pub fn start(sink: Sink, dropped: IntCounter) -> io::Result<Self> {
        let (to_writer, lines) = sync_channel(BATCHES_QUEUED_MAX);
        let (next, (ending, ended)) = (Arc::default(), oneshot::channel());
        let writer = Writer { sink, next: Arc::clone(&next), dropped: dropped.clone() };
        let work = move || {
            writer.write(&lines);
            drop(ending);
        };
        std::thread::Builder::new().name("access-log".into()).spawn(work)?;
        Ok(Self { to_writer, dropped, next, ended })
    }

    /// A core's end of the log.
    pub fn buffer(&self) -> AccessBuffer {
        let (to_writer, dropped) = (self.to_writer.clone(), self.dropped.clone());
        AccessBuffer { lines: RefCell::default(), moments: RefCell::default(), to_writer, dropped }
    }

    /// Goes on with another sink: the file may have been moved away.
    pub fn reopen(&self, sink: Sink) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    }

    /// Writes what was handed on, and ends the thread; or leaves it behind when `give_up` resolves, since nobody can end a
    /// write whose reader has stalled. Tells whether all was written.
    pub async fn stop(self, give_up: impl Future<Output = ()>) -> bool {
        let ended = async {
            while matches!(self.to_writer.try_send(ToWriter::Stop), Err(TrySendError::Full(_))) {
                tokio::time::sleep(STOP_EVERY).await;
            }
            let _ = self.ended.await; // closed, which is all it says
        };
        let (mut ended, mut give_up) = (pin!(ended), pin!(give_up));
        tokio::select! {
            biased;
            () = &mut ended => true,
            () = &mut give_up => false,
        }
    }
}

/// What the thread has.
struct Writer {
    sink: Sink,
    next: Arc<Mutex<Option<Sink>>>,
    dropped: IntCounter,
}

impl Writer {
    fn write(mut self, lines: &Receiver<ToWriter>) {
        while let Ok(ToWriter::Lines(batch)) = lines.recv() {
            if let Some(next) = self.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
                self.sink = next;
            }
            // A sink that fails is left to its operator: the calls go on, the next batch is tried again.
            if let Err((error, left)) = write_all(&mut self.sink, &batch) {
                self.dropped.inc_by(count(left));
                tracing::warn!(%error, "the access log cannot be written");
            }
        }
    }
}

/// Writes all, or tells what was not written.
fn write_all<'a>(sink: &mut Sink, mut left: &'a [u8]) -> Result<(), (io::Error, &'a [u8])> {
    while !left.is_empty() {
        match sink.write(left) {
            Ok(0) => return Err((ErrorKind::WriteZero.into(), left)),
            Ok(written) => left = left.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err((error, left)),
        }
    }
    sink.flush().map_err(|error| (error, left))
}

/// How many lines end here.
fn count(lines: &[u8]) -> u64 {
    u64::try_from(memchr::memchr_iter(b'\n', lines).count()).unwrap_or(u64::MAX)
}

/// The lines that one core has gathered.
#[derive(Debug)]
pub struct AccessBuffer {
    lines: RefCell<Vec<u8>>,
    moments: RefCell<Moments>,
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
        line.write(&mut self.moments.borrow_mut(), &mut lines);
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
                self.dropped.inc_by(count(&batch));
            }
            Err(_) => {} // only lines are sent here
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines, as a core hands them on.
    fn hand_on(log: &AccessLog, lines: &str) {
        log.buffer().hand_on(lines.as_bytes().to_vec());
    }

    fn dropped() -> IntCounter {
        IntCounter::new("dropped", "Lines.").unwrap()
    }

    /// Takes so many bytes, then fails.
    struct Failing(usize);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            if taken == 0 { Err(ErrorKind::BrokenPipe.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_that_a_sink_does_not_take_are_counted() {
        let dropped = dropped();
        let log = AccessLog::start(Box::new(Failing(5)), dropped.clone()).unwrap();
        hand_on(&log, "one\ntwo\nthree\n");
        hand_on(&log, "four\n");
        assert!(log.stop(std::future::pending()).await);
        assert_eq!(dropped.get(), 3);
    }

    /// Takes nothing before the other end is dropped.
    struct Stalled(Receiver<()>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_sink_that_has_stalled_holds_up_neither_a_reload_nor_the_end() {
        let ((gate, closed), dropped) = (sync_channel(1), dropped());
        let log = AccessLog::start(Box::new(Stalled(closed)), dropped.clone()).unwrap();
        while dropped.get() == 0 {
            hand_on(&log, "line\n");
        }
        log.reopen(Box::new(io::sink()));
        assert!(!log.stop(std::future::ready(())).await);
        drop(gate);
    }
}

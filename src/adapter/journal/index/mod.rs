//! Finds the records of single calls without reading journals through: an index by request id, for the runs of the last
//! seven days. It follows what the gateway writes and lies beside it in parts (`part`), so that it outlives the process;
//! in memory there is one unfinished part for each file that is being written. One thread keeps it and answers.

mod finder;
mod part;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use self::finder::Finder;
pub(super) use self::part::file_of;
use crate::domain::id::{AccountId, Incarnation};
use crate::ports::BoxFuture;
use crate::ports::call_records::{CallRecords, FindError, FoundCalls};

/// How often the index follows what was written.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// Questions that wait, at most.
const WAITING_MAX: usize = 64;

type Answer = Result<FoundCalls, FindError>;

struct Question {
    account: AccountId,
    request_id: String,
    answer: oneshot::Sender<Answer>,
}

/// The index, and the thread that keeps it until this is dropped.
pub struct CallIndex {
    questions: Option<SyncSender<Question>>,
    thread: Option<JoinHandle<()>>,
}

impl CallIndex {
    /// Begins to keep an index of the run `run` and the earlier ones, whose files are in `journal`.
    pub(super) fn begin(journal: PathBuf, run: Incarnation) -> std::io::Result<Self> {
        let finder = Finder::new(journal, run);
        let (questions, asked) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("receipts".to_owned()).spawn(move || keep(finder, &asked))?;
        Ok(Self { questions: Some(questions), thread: Some(thread) })
    }
}

impl CallRecords for CallIndex {
    fn find(&self, account: &AccountId, request_id: &str) -> BoxFuture<'static, Answer> {
        let (answer, answered) = oneshot::channel();
        let question = Question { account: account.clone(), request_id: request_id.to_owned(), answer };
        let asked = self.questions.as_ref().map(|questions| questions.try_send(question));
        Box::pin(async move {
            match asked {
                Some(Ok(())) => answered.await.unwrap_or_else(|_| Err(gone())),
                Some(Err(TrySendError::Full(_))) => Err(FindError::Busy),
                Some(Err(TrySendError::Disconnected(_))) | None => Err(gone()),
            }
        })
    }
}

fn gone() -> FindError {
    FindError::Io("the index's thread has ended".to_owned())
}

impl Drop for CallIndex {
    fn drop(&mut self) {
        self.questions = None; // the thread ends when nobody can ask any more
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic of it has been reported by the panic hook
        }
    }
}

/// Follows and answers, until nobody can ask any more.
fn keep(mut finder: Finder, asked: &Receiver<Question>) {
    let (mut behind, mut failing) = (true, false);
    loop {
        let wait = if behind { Duration::ZERO } else { FOLLOW_EVERY };
        let question = match asked.recv_timeout(wait) {
            Ok(question) => Some(question),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // A little at a time, so that nobody waits long.
        let followed = finder.follow();
        behind = *followed.as_ref().unwrap_or(&false);
        if let (Err(error), false) = (&followed, failing) {
            tracing::warn!(%error, "the index of calls, from which receipts are made, cannot follow");
        }
        failing = followed.is_err();
        if let Some(Question { account, request_id, answer }) = question {
            let found = followed.and_then(|_| finder.find(&account, &request_id));
            let found = found.map_err(|error| FindError::Io(error.to_string()));
            let empty = |found: &FoundCalls| found.records.is_empty() && found.open.is_empty();
            let found = match found {
                Ok(found) if behind && empty(&found) => Err(FindError::NotReady),
                found => found,
            };
            let _ = answer.send(found); // nobody waits any longer: fine
        }
    }
}

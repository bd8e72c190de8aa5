//! Commits: one run of one script. What it needs of the index of keys is in `index`.

use jiff::Timestamp;
use redis::cmd;

use super::keys::bucket_of;
use super::reply::{self, Answer, stamp_text, unforeseen};
use super::{Shared, feed};
use crate::adapter::documents::{self, HEAD, Present};
use crate::domain::account::Account;
use crate::ports::account_store::{
    Commit, CommitError, DOCUMENT_BYTES_WARN, Stamp, StoreError, TIME_OFF_MAX, TURN_MAX, Write,
};
use crate::ports::gateways::Notice;

/// An entry of an account's history, as it is kept.
#[derive(serde::Serialize)]
struct Ended<'a> {
    product: &'a str,
    ended_at: Timestamp,
    package: &'a crate::domain::package::Package,
}

/// The documents of a commit, as they are kept.
struct Texts {
    head: Option<String>,
    pool: Option<String>,
}

impl Shared {
    pub(super) async fn commit(&self, commit: Commit) -> Result<Timestamp, CommitError> {
        let texts = self.texts(&commit).await?;
        if let Some(write) = &commit.head {
            self.claim_all(&write.value).await?;
        }
        let arguments = self.arguments(&commit, texts)?;
        let (keys, account) = (&self.keys, &commit.account);
        let bucket = bucket_of(account);
        let keys = [
            keys.server(bucket),
            keys.stamps(account),
            keys.account(account),
            keys.pools(account),
            keys.ended(account),
            keys.accounts(bucket),
            keys.outbox(bucket),
            keys.events(bucket),
        ];
        let answer = match self.run(&self.scripts.commit, &keys, arguments).await {
            Ok(answer) => answer,
            Err(fault) => {
                // It may have happened: whoever has cached the account must look again.
                self.told(&commit);
                return Err(fault.about(account).into());
            }
        };
        match answer.word.as_str() {
            "written" | "repeated" => {
                self.told(&commit);
                let before = answer.rest.into_iter().next().and_then(reply::text);
                if let (Some(write), Some(before)) = (&commit.head, before) {
                    self.release_all(&write.value, &before, answer.now).await;
                }
                Ok(answer.now)
            }
            _ => Err(refusal(answer, account)),
        }
    }

    /// Tells this process at once, before the commit is answered; the others hear it from the script.
    fn told(&self, commit: &Commit) {
        if commit.head.is_some() {
            self.ear.tell(Notice::Changed(commit.account.clone()));
        }
    }

    async fn texts(&self, commit: &Commit) -> Result<Texts, CommitError> {
        let head = match &commit.head {
            Some(write) => Some(self.text(commit, HEAD, &write.value, write.expected).await?),
            None => None,
        };
        let pool = match &commit.pool {
            Some(write) => {
                let name = documents::pool_name(&write.value.product);
                Some(self.text(commit, &name, &write.value, write.expected).await?)
            }
            None => None,
        };
        Ok(Texts { head, pool })
    }

    /// A document's text. How large it was before is asked only for one that is large now.
    async fn text(
        &self,
        commit: &Commit,
        name: &str,
        value: &impl serde::Serialize,
        expected: Option<Stamp>,
    ) -> Result<String, CommitError> {
        let stamp = expected.unwrap_or(Stamp { counter: 0, random: 0 });
        let account = &commit.account;
        let any_size = Some(Present { stamp, bytes: usize::MAX });
        let body = documents::encode(account, name, value, any_size)?;
        if body.len() < DOCUMENT_BYTES_WARN {
            return Ok(body);
        }
        let question = match commit.pool.as_ref().filter(|_| name != HEAD) {
            None => cmd("STRLEN").arg(self.keys.account(account)).to_owned(),
            Some(write) => {
                let mut question = cmd("HSTRLEN");
                question.arg(self.keys.pools(account)).arg(write.value.product.as_str());
                question
            }
        };
        let answer = self.link.ask(&question).await.map_err(|fault| fault.about(account))?;
        let bytes = reply::text(answer).and_then(|text| text.parse().ok()).unwrap_or(0);
        documents::encode(account, name, value, Some(Present { stamp, bytes }))
    }

    /// What the script is told, after the epoch; see its head.
    fn arguments(&self, commit: &Commit, texts: Texts) -> Result<Vec<String>, CommitError> {
        fn stamps<T>(write: Option<&Write<T>>) -> [String; 2] {
            let expected = write.and_then(|write| write.expected).map(stamp_text).unwrap_or_default();
            [expected, write.map(|write| stamp_text(write.stamp)).unwrap_or_default()]
        }
        let flag = |set: bool| if set { "1" } else { "" }.to_owned();
        let (believed, account) = (&commit.believed, &commit.account);
        let server = believed.server.as_ref().map(|server| server.as_str().to_owned()).unwrap_or_default();
        let mut arguments = vec![server, believed.now.as_second().to_string()];
        arguments.push(believed.now.subsec_nanosecond().to_string());
        arguments.push(TIME_OFF_MAX.as_nanos().to_string());
        arguments.push(flag(commit.grants && !self.durable));
        arguments.push(commit.by.to_string());
        arguments.push(flag(commit.turn));
        arguments.push(TURN_MAX.as_micros().to_string());
        arguments.push(account.to_string());
        arguments.push(self.keys.notices());
        arguments.push(self.ear.signed(&feed::text_of(&Notice::Changed(account.clone()))));
        arguments.extend(stamps::<Account>(commit.head.as_ref()));
        arguments.push(texts.head.unwrap_or_default());
        let product = commit.pool.as_ref().map(|write| write.value.product.as_str()).unwrap_or_default();
        arguments.push(product.to_owned());
        arguments.extend(stamps(commit.pool.as_ref()));
        arguments.push(texts.pool.unwrap_or_default());
        let ended = if commit.pool.is_some() { commit.ended.as_slice() } else { &[] };
        arguments.push(ended.len().to_string());
        for package in ended {
            arguments.push(json(commit, &Ended { product, ended_at: believed.now, package })?);
        }
        for event in &commit.events {
            arguments.extend([event.id(), json(commit, event)?]);
        }
        Ok(arguments)
    }
}

fn json(commit: &Commit, value: &impl serde::Serialize) -> Result<String, CommitError> {
    serde_json::to_string(value).map_err(|error| {
        let (account, document) = (commit.account.clone(), "history or outbox".to_owned());
        StoreError::Broken { account, document, reason: error.to_string() }.into()
    })
}

/// Why the script has written nothing.
fn refusal(answer: Answer, account: &crate::domain::id::AccountId) -> CommitError {
    match answer.word.as_str() {
        "conflict" => match answer.account(account) {
            Ok(there) => CommitError::Conflict(there.map(Box::new)),
            Err(error) => error.into(),
        },
        "stranger" => CommitError::Stranger(answer.server),
        "time_off" => CommitError::TimeOff(answer.now),
        "busy" => CommitError::Busy,
        "closed" => CommitError::Closed,
        _ => CommitError::Store(StoreError::from(unforeseen())),
    }
}

//! Notices: published on one channel, heard on a connection of their own. What this process tells is heard by it at
//! once; its own words are passed over when they come back, except that they show that the feed works.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::sync::{broadcast, watch};
use tokio::time::{sleep, timeout};

use super::dial::{CONNECT_TIMEOUT, Dial};
use super::link::jittered;
use crate::adapter::documents::NOTICES_KEPT;
use crate::domain::id::{AccountId, Incarnation, ProductId};
use crate::ports::clock::Entropy;
use crate::ports::gateways::Notice;

/// What every gateway says with each heartbeat, so that a feed that is silent is known to be broken.
pub(super) const BEAT: &str = "beat";
/// A feed that has not even brought our own heartbeats for so long is begun anew.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Wait before the feed is begun anew, give or take half.
const PAUSE: Duration = Duration::from_millis(100);

/// What this process hears, and tells.
pub(super) struct Ear {
    channel: String,
    /// Signs what this process says.
    tag: String,
    notices: broadcast::Sender<Notice>,
    heard: Mutex<Option<Instant>>,
    /// When this process last sent a heartbeat.
    beaten: Mutex<Option<Instant>>,
    /// Whether the first try to listen is over, well or not.
    tried: watch::Sender<bool>,
}

fn read(at: &Mutex<Option<Instant>>) -> Option<Instant> {
    *at.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(at: &Mutex<Option<Instant>>) {
    *at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

impl Ear {
    pub(super) fn new(channel: String, entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes);
        let (notices, tried) = (broadcast::Sender::new(NOTICES_KEPT), watch::Sender::new(false));
        let tag = format!("{:016x}", u64::from_le_bytes(bytes));
        Self { channel, tag, notices, heard: Mutex::default(), beaten: Mutex::default(), tried }
    }

    /// Waits for the end of the first try to listen.
    pub(super) async fn first(&self) {
        let _ = self.tried.subscribe().wait_for(|tried| *tried).await; // the sender is our own
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Tells those in this process.
    pub(super) fn tell(&self, notice: Notice) {
        let _ = self.notices.send(notice); // fails when nobody listens
    }

    /// A text as it is published.
    pub(super) fn signed(&self, text: &str) -> String {
        format!("{} {text}", self.tag)
    }

    pub(super) fn heard_at(&self) -> Option<Instant> {
        read(&self.heard)
    }

    /// From now on silence means that the feed is broken.
    pub(super) fn expect_beats(&self) {
        note(&self.beaten);
    }

    /// Takes in a published text.
    fn hear(&self, text: &str) {
        note(&self.heard);
        let Some((tag, text)) = text.split_once(' ') else { return };
        if tag != self.tag {
            notice_of(text).into_iter().for_each(|notice| self.tell(notice));
        }
    }
}

/// Listens until the store is closed.
pub(super) async fn listen(dial: Arc<Dial>, ear: Arc<Ear>, entropy: Arc<dyn Entropy>) {
    let mut missed = false;
    loop {
        if let Some(feed) = subscribe(&dial, &ear.channel).await {
            note(&ear.heard);
            if missed {
                ear.tell(Notice::Missed);
            }
            missed = true; // from its end to the beginning of the next
            ear.tried.send_replace(true);
            follow(feed, &ear).await;
        }
        ear.tried.send_replace(true);
        sleep(jittered(PAUSE, &*entropy)).await;
    }
}

async fn subscribe(dial: &Dial, channel: &str) -> Option<PubSub> {
    let attempt = async {
        let mut feed = dial.pubsub().await?;
        feed.subscribe(channel).await?;
        Ok::<_, redis::RedisError>(feed)
    };
    match timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(Ok(feed)) => Some(feed),
        Ok(Err(error)) => {
            tracing::debug!(%error, "notices cannot be heard; it is tried again");
            None
        }
        Err(_) => None,
    }
}

/// Hears what is published until the connection breaks or is silent for too long.
async fn follow(feed: PubSub, ear: &Ear) {
    let mut messages = Box::pin(feed.into_on_message());
    loop {
        match timeout(SILENCE_MAX, messages.next()).await {
            Ok(Some(message)) => ear.hear(&String::from_utf8_lossy(message.get_payload_bytes())),
            Ok(None) => return,
            Err(_) if read(&ear.beaten).is_some_and(|at| at.elapsed() < SILENCE_MAX) => return,
            Err(_) => {} // nobody beats: nothing is to be heard
        }
    }
}

/// A notice as it is published.
pub(super) fn text_of(notice: &Notice) -> String {
    match notice {
        Notice::Changed(account) => format!("changed {account}"),
        Notice::Recall { account, product, by } => format!("recall {account} {product} {by}"),
        Notice::Answered { account, product, by } => format!("answered {account} {product} {by}"),
        Notice::CheckIn => "check-in".to_owned(),
        Notice::Missed => "missed".to_owned(),
    }
}

/// A published text; `None`: it says nothing to us.
fn notice_of(text: &str) -> Option<Notice> {
    let words: Vec<&str> = text.split(' ').collect();
    let pool = |account: &str, product: &str, by: &str| {
        let by = Incarnation::try_from(by.to_owned()).ok()?;
        Some((AccountId::new(account).ok()?, ProductId::new(product).ok()?, by))
    };
    match words.as_slice() {
        ["changed", account] => AccountId::new(account).ok().map(Notice::Changed),
        ["recall", account, product, by] => {
            pool(account, product, by).map(|(account, product, by)| Notice::Recall { account, product, by })
        }
        ["answered", account, product, by] => {
            pool(account, product, by).map(|(account, product, by)| Notice::Answered { account, product, by })
        }
        ["check-in"] => Some(Notice::CheckIn),
        ["missed"] => Some(Notice::Missed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<Notice>) {
        assert_eq!(notice_of(text), expected, "{text}");
        assert!(expected.is_none_or(|notice| text_of(&notice) == text), "{text}");
    }

    #[test]
    fn notices_are_heard_as_they_were_told() {
        let (account, product) = (AccountId::new("acme").unwrap(), ProductId::new("chat").unwrap());
        let by = Incarnation::try_from("gw-1#7".to_owned()).unwrap();
        check("changed acme", Some(Notice::Changed(account.clone())));
        let recall = Notice::Recall { account: account.clone(), product: product.clone(), by: by.clone() };
        check("recall acme chat gw-1#7", Some(recall));
        check("answered acme chat gw-1#7", Some(Notice::Answered { account, product, by }));
        check("check-in", Some(Notice::CheckIn));
        check("missed", Some(Notice::Missed));
        for other in [BEAT, "probe", "", "changed", "changed a b", "changed -", "recall acme chat gw", "recall acme"] {
            check(other, None);
        }
    }
}

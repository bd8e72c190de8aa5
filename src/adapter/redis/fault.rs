//! What a server's or the library's error means for a gateway, and what its operator can do about it; why a server is not
//! used.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::domain::id::AccountId;
use crate::ports::account_store::StoreError;

/// Why a server that was reached is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not let us in.
    #[error("{0}")]
    Login(String),
    /// It is not what is needed.
    #[error("{0}")]
    Unfit(String),
}

/// Why there is no connection.
#[derive(Debug, Clone)]
pub(super) enum Down {
    /// The server was reached and cannot be used as it is.
    Refused(Refusal),
    /// It cannot be reached.
    Away(String),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server does not answer as it should.
    Away(String),
    /// The server has no memory: it has written nothing.
    Full(String),
    /// Something else stands in the place of one of our keys.
    Foreign(String),
    /// The server does not know the script.
    Forgotten,
}

/// What is to be done with the connection on which an error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Nothing is wrong with it.
    Keep,
    /// It is used up, or leads to a server that is no longer the primary: another one may serve at once.
    Replace,
    /// It does not answer in time: another one may be better.
    Doubt,
}

impl Fault {
    /// Reads an error.
    pub(super) fn of(error: &RedisError, timeout: Duration) -> Self {
        let said = error.to_string();
        match error.code() {
            Some("NOSCRIPT") => Self::Forgotten,
            Some("WRONGTYPE") => Self::Foreign(format!("a key of another kind stands in its place ({said})")),
            // A script is stopped by this at its first command that needs memory, or not at all.
            Some("OOM") => Self::Full(meaning(error, timeout).unwrap_or(said)),
            _ => Self::Away(meaning(error, timeout).unwrap_or(said)),
        }
    }

    /// Of a command that may have been sent before: what a refusal says of this time alone proves nothing.
    pub(super) fn of_repeated(self) -> Self {
        match self {
            Self::Full(text) => Self::Away(text),
            other @ (Self::Away(_) | Self::Foreign(_) | Self::Forgotten) => other,
        }
    }

    /// Something of an account was asked for.
    pub(super) fn about(self, account: &AccountId) -> StoreError {
        match self {
            Self::Foreign(reason) => {
                StoreError::Broken { account: account.clone(), document: "keys".to_owned(), reason }
            }
            Self::Away(_) | Self::Full(_) | Self::Forgotten => self.into(),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Away(text) | Fault::Foreign(text) => Self::Unavailable(text),
            Fault::Full(text) => Self::Full(text),
            Fault::Forgotten => Self::Unavailable("the server forgets scripts at once (NOSCRIPT)".to_owned()),
        }
    }
}

/// What to do with the connection.
pub(super) fn reaction(error: &RedisError) -> Reaction {
    use ServerErrorKind::{MasterDown, ReadOnly};
    let kind = error.kind();
    if error.is_timeout() {
        return Reaction::Doubt;
    }
    let demoted = matches!(kind, ErrorKind::Server(ReadOnly | MasterDown));
    let broken = matches!(kind, ErrorKind::Io | ErrorKind::ClusterConnectionNotFound | ErrorKind::Parse);
    if demoted || broken || error.is_unrecoverable_error() { Reaction::Replace } else { Reaction::Keep }
}

/// A text for operators; `None`: the error says it best itself.
fn meaning(error: &RedisError, timeout: Duration) -> Option<String> {
    if error.is_timeout() {
        return Some(no_answer(timeout));
    }
    let detail = error.detail().unwrap_or_default();
    let text = match error.code()? {
        "READONLY" => {
            "the server has become a replica (READONLY); a failover is under way, or the address is not the \
                       primary's"
        }
        "LOADING" => "the server is still loading its data (LOADING); it answers when that is done",
        "BUSY" => "someone's script blocks the server (BUSY); wait, or stop it with SCRIPT KILL",
        "OOM" => "the server has no memory left (OOM); raise its maxmemory or make room",
        "MISCONF" => "the server cannot write its disk and takes no writes (MISCONF); see its log",
        "NOREPLICAS" => "the server has too few replicas to take writes (NOREPLICAS, min-replicas-to-write)",
        "MASTERDOWN" => "the server is a replica that has lost its primary (MASTERDOWN)",
        "CLUSTERDOWN" => "the Cluster is down or lacks slots (CLUSTERDOWN); see CLUSTER INFO",
        "MOVED" | "ASK" | "TRYAGAIN" => "the Cluster is moving the slot; it answers when that is done",
        "CROSSSLOT" => "the server is a Cluster's or a proxy for one; set `store.redis.cluster: true`",
        "NOAUTH" => "the server wants a password; set `store.redis.password`",
        "WRONGPASS" => "the server does not accept the user or its password",
        "NOPERM" => return Some(format!("the ACL user may not do it ({detail})")),
        _ => return None,
    };
    Some(text.to_owned())
}

/// The text for a wait that was too long.
pub(super) fn no_answer(timeout: Duration) -> String {
    format!("the server gave no answer within {timeout:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error as a server sends it.
    fn error(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    fn check(line: &str, words: &str, expected: Reaction) {
        let error = error(line);
        let text = StoreError::from(Fault::of(&error, Duration::from_millis(250))).to_string();
        assert!(text.contains(words), "{line}: {text}");
        assert_eq!(reaction(&error), expected, "{line}");
    }

    #[test]
    fn errors_say_what_to_do() {
        check("READONLY You can't write against a read only replica.", "a failover is under way", Reaction::Replace);
        check("LOADING Redis is loading the dataset in memory", "still loading", Reaction::Keep);
        check("BUSY Redis is busy running a script.", "SCRIPT KILL", Reaction::Keep);
        check("OOM command not allowed when used memory > 'maxmemory'.", "raise its maxmemory", Reaction::Keep);
        check("MISCONF Redis is configured to save RDB snapshots", "cannot write its disk", Reaction::Keep);
        check("CLUSTERDOWN Hash slot not served", "CLUSTER INFO", Reaction::Keep);
        check("MOVED 3999 127.0.0.1:6381", "moving the slot", Reaction::Keep);
        check("TRYAGAIN Multiple keys request during rehashing", "moving the slot", Reaction::Keep);
        check("NOAUTH Authentication required.", "store.redis.password", Reaction::Keep);
        check("NOPERM User x has no permissions to run the 'eval' command", "'eval'", Reaction::Keep);
        check("WRONGTYPE Operation against a key", "another kind", Reaction::Keep);
        check("ERR something new", "something new", Reaction::Keep);
        check("NOREPLICAS Not enough good replicas to write.", "too few replicas", Reaction::Keep);
    }

    #[test]
    fn only_a_command_that_was_sent_once_is_surely_refused_for_want_of_memory() {
        let fault = Fault::of(&error("OOM command not allowed"), Duration::from_millis(250));
        assert!(matches!(StoreError::from(fault.clone()), StoreError::Full(_)));
        assert!(matches!(StoreError::from(fault.of_repeated()), StoreError::Unavailable(_)));
    }

    #[test]
    fn a_broken_connection_is_replaced_and_a_slow_one_doubted() {
        let io = |kind| RedisError::from(std::io::Error::from(kind));
        assert_eq!(reaction(&io(std::io::ErrorKind::BrokenPipe)), Reaction::Replace);
        assert_eq!(reaction(&io(std::io::ErrorKind::TimedOut)), Reaction::Doubt);
        let slow = Fault::of(&io(std::io::ErrorKind::TimedOut), Duration::from_millis(250));
        assert_eq!(slow, Fault::Away("the server gave no answer within 250ms".to_owned()));
    }
}

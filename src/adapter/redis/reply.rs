//! Answers of the server, taken apart. Nothing here trusts that they have the right form.

use jiff::Timestamp;
use redis::Value;

use super::fault::Fault;
use crate::adapter::documents::{self, Document, HEAD};
use crate::domain::id::{AccountId, ProductId};
use crate::ports::account_store::{Loaded, Stamp, StoreError};
use crate::ports::gateways::ServerId;

/// What marks who has the turn at a pool, among the stamps.
const TURN: &str = "turn/";

/// The bytes of a text; `None`: there is none.
pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    if let Value::BulkString(bytes) = value {
        return Some(bytes);
    }
    if let Value::SimpleString(text) | Value::VerbatimString { text, .. } = value {
        return Some(text.into());
    }
    if let Value::Int(number) = value { Some(number.to_string().into_bytes()) } else { None }
}

/// A text; `None`: there is none, or it is none.
pub(super) fn text(value: Value) -> Option<String> {
    bytes(value).and_then(|bytes| String::from_utf8(bytes).ok())
}

/// The elements of a list; none if it is no list.
pub(super) fn list(value: Value) -> Vec<Value> {
    if let Value::Array(items) | Value::Set(items) = value { items } else { Vec::new() }
}

/// Names and values, which some servers send one after the other.
pub(super) fn pairs(value: Value) -> Vec<(String, Vec<u8>)> {
    let pair = |(name, value)| Some((text(name)?, bytes(value)?));
    if let Value::Map(pairs) = value {
        return pairs.into_iter().filter_map(pair).collect();
    }
    let (mut found, mut items) = (Vec::new(), list(value).into_iter());
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        found.extend(pair((name, value)));
    }
    found
}

/// A time as TIME gives it: seconds and microseconds.
pub(super) fn time(seconds: Option<Value>, microseconds: Option<Value>) -> Option<Timestamp> {
    let number = |value: Option<Value>| text(value?)?.parse::<i64>().ok();
    let nanoseconds = i32::try_from(number(microseconds)?.checked_mul(1_000)?).ok()?;
    Timestamp::new(number(seconds)?, nanoseconds).ok()
}

/// What every script answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    /// What has happened.
    pub(super) word: String,
    /// The server's time.
    pub(super) now: Timestamp,
    /// Which server it was.
    pub(super) server: ServerId,
    /// What else the script says.
    pub(super) rest: Vec<Value>,
}

impl Answer {
    pub(super) fn read(value: Value) -> Result<Self, Fault> {
        let mut items = list(value).into_iter();
        let word = items.next().and_then(text);
        let now = time(items.next(), items.next());
        let server = items.next().and_then(text).map(|text| ServerId::new(&text));
        match (word, now, server) {
            (Some(word), Some(now), Some(server)) => Ok(Self { word, now, server, rest: items.collect() }),
            _ => Err(unforeseen()),
        }
    }

    /// The account that the script has found; `None`: there is none.
    pub(super) fn account(self, account: &AccountId) -> Result<Option<Loaded>, StoreError> {
        let mut rest = self.rest.into_iter();
        let head = rest.next().and_then(bytes);
        let pools = rest.next().map(pairs).unwrap_or_default();
        let stamps = rest.next().map(pairs).unwrap_or_default();
        documents::assemble(account, found(account, head, pools, stamps)?, (self.now, &self.server))
    }
}

/// Texts and stamps, brought together.
fn found(
    account: &AccountId,
    head: Option<Vec<u8>>,
    pools: Vec<(String, Vec<u8>)>,
    stamps: Vec<(String, Vec<u8>)>,
) -> Result<Vec<Document>, StoreError> {
    let broken = |document: &str, reason: &str| StoreError::Broken {
        account: account.clone(),
        document: document.to_owned(),
        reason: reason.to_owned(),
    };
    let named =
        |product: &String| ProductId::new(product).map(|id| documents::pool_name(&id)).unwrap_or(product.clone());
    let head = head.map(|body| (HEAD.to_owned(), body));
    let pools = pools.into_iter().map(|(product, body)| (named(&product), body));
    let bodies: Vec<_> = head.into_iter().chain(pools).collect();
    let mut documents = Vec::with_capacity(bodies.len());
    for (name, body) in bodies {
        let stamp = stamps.iter().find(|(of, _)| *of == name).map(|(_, stamp)| stamp);
        let stamp = stamp.ok_or_else(|| broken(&name, "it has no stamp"))?;
        let stamp = std::str::from_utf8(stamp).ok().and_then(read_stamp);
        let stamp = stamp.ok_or_else(|| broken(&name, "its stamp cannot be read"))?;
        let body = String::from_utf8(body).map_err(|_| broken(&name, "it is not UTF-8 text"))?;
        documents.push(Document { name, stamp, body });
    }
    for (name, _) in stamps.iter().filter(|(name, _)| !name.starts_with(TURN)) {
        if !documents.iter().any(|document| document.name == *name) {
            return Err(broken(name, "it is missing, though its stamp is there"));
        }
    }
    Ok(documents)
}

/// A stamp's text: its counter, and its random half in hexadecimal digits.
pub(super) fn stamp_text(stamp: Stamp) -> String {
    format!("{}-{:016x}", stamp.counter, stamp.random)
}

fn read_stamp(text: &str) -> Option<Stamp> {
    let (counter, random) = text.split_once('-')?;
    Some(Stamp { counter: counter.parse().ok()?, random: u64::from_str_radix(random, 16).ok()? })
}

/// An answer that no script of ours gives.
pub(super) fn unforeseen() -> Fault {
    Fault::Away("the server's answer has another form than that of our scripts; is a proxy in between?".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn stamps_keep_all_their_bits() {
        for stamp in [Stamp { counter: 1, random: 0 }, Stamp { counter: u64::MAX, random: u64::MAX }] {
            assert_eq!(read_stamp(&stamp_text(stamp)), Some(stamp));
        }
        for bad in ["", "1", "1-", "-1", "1-xyz", "a-1"] {
            assert_eq!(read_stamp(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers_of_another_form_are_none() {
        let good = vec![bulk("loaded"), bulk("1772366400"), bulk("250000"), bulk("run-epoch"), bulk("more")];
        let answer = Answer::read(Value::Array(good.clone())).unwrap();
        assert_eq!((answer.word.as_str(), answer.server.as_str()), ("loaded", "run-epoch"));
        assert_eq!((answer.now, answer.rest.len()), ("2026-03-01T12:00:00.25Z".parse().unwrap(), 1));
        for cut in 0..4 {
            assert!(Answer::read(Value::Array(good[..cut].to_vec())).is_err(), "{cut}");
        }
        assert!(Answer::read(Value::Nil).is_err());
        assert!(Answer::read(Value::Okay).is_err());
    }

    /// What is found of an account whose head has the text `{}`, with other stamps and pools.
    fn check(pools: &[(&str, &str)], stamps: &[(&str, &str)], expected: Result<usize, &str>) {
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect::<Vec<_>>()
        };
        let account = AccountId::new("a").unwrap();
        let documents = found(&account, Some(b"{}".to_vec()), owned(pools), owned(stamps));
        match (documents, expected) {
            (Ok(documents), Ok(number)) => assert_eq!(documents.len(), number),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (found, expected) => panic!("{found:?} {expected:?}"),
        }
    }

    #[test]
    fn texts_and_stamps_belong_together() {
        let (head, pool) = (("account", "1-0a"), ("pool/chat", "2-0b"));
        check(&[], &[head], Ok(1));
        check(&[("chat", "{}")], &[head, pool], Ok(2));
        check(&[("chat", "{}")], &[head, pool, ("turn/chat", "gw#1 123")], Ok(2));
        check(&[("chat", "{}")], &[head], Err("pool/chat of account a cannot be used: it has no stamp"));
        check(&[], &[], Err("it has no stamp"));
        check(&[], &[head, pool], Err("it is missing, though its stamp is there"));
        check(&[], &[("account", "")], Err("its stamp cannot be read"));
    }
}

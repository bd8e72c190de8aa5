//! Questions to the tables, asked by either connection.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::adapter::documents::{self, Document, HEAD, Present};
use crate::domain::id::{AccountId, ProductId};
use crate::domain::key::KeyHash;
use crate::domain::package::Package;
use crate::ports::account_store::{AccountSummary, LIST_MAX, Loaded, Stamp, StoreError};
use crate::ports::gateways::ServerId;

/// Most rows of an answer, as SQLite counts them.
const ROWS_MAX: i64 = LIST_MAX as i64;

fn stamp(counter: i64, random: i64) -> Stamp {
    Stamp { counter: counter.cast_unsigned(), random: random.cast_unsigned() }
}

/// All documents of an account, as one moment has them.
pub(super) fn load(
    db: &Connection,
    account: &AccountId,
    at: (Timestamp, &ServerId),
) -> Result<Option<Loaded>, StoreError> {
    let document =
        |row: &Row<'_>| Ok(Document { name: row.get(0)?, stamp: stamp(row.get(1)?, row.get(2)?), body: row.get(3)? });
    let mut statement = db.prepare_cached("SELECT name, counter, random, body FROM documents WHERE account = ?1")?;
    let rows = statement.query_map([account.as_str()], document)?.collect::<rusqlite::Result<_>>()?;
    documents::assemble(account, rows, at)
}

/// What is there of a document, without its text.
pub(super) fn present(db: &Connection, account: &AccountId, name: &str) -> rusqlite::Result<Option<Present>> {
    const QUESTION: &str = "SELECT counter, random, octet_length(body) FROM documents WHERE account = ?1 AND name = ?2";
    let mut statement = db.prepare_cached(QUESTION)?;
    let present = |row: &Row<'_>| {
        let bytes = usize::try_from(row.get::<_, i64>(2)?).unwrap_or(usize::MAX); // no length is negative
        Ok(Present { stamp: stamp(row.get(0)?, row.get(1)?), bytes })
    };
    statement.query_row([account.as_str(), name], present).optional()
}

/// A page of accounts.
pub(super) fn list(db: &Connection, after: Option<&AccountId>) -> Result<Vec<AccountSummary>, StoreError> {
    const QUESTION: &str =
        "SELECT account, body FROM documents WHERE name = ?1 AND account > ?2 ORDER BY account LIMIT ?3";
    let mut statement = db.prepare_cached(QUESTION)?;
    let after = after.map_or("", AccountId::as_str);
    let text = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    let mut page = Vec::new();
    for row in statement.query_map((HEAD, after, ROWS_MAX), text)? {
        let (account, body) = row?;
        let id = AccountId::new(&account).map_err(|fault| StoreError::Unavailable(fault.to_string()))?;
        page.push(AccountSummary { id, name: documents::account_name(&body).unwrap_or_default() });
    }
    Ok(page)
}

/// Whose key it is.
pub(super) fn owner(db: &Connection, hash: &KeyHash) -> rusqlite::Result<Option<AccountId>> {
    let mut statement = db.prepare_cached("SELECT account FROM key_index WHERE hash = ?1")?;
    statement.query_row([hash.to_string()], |row| account_id(&row.get::<_, String>(0)?)).optional()
}

fn account_id(text: &str) -> rusqlite::Result<AccountId> {
    let type_of = rusqlite::types::Type::Text;
    AccountId::new(text).map_err(|fault| rusqlite::Error::FromSqlConversionFailure(0, type_of, Box::new(fault)))
}

/// An account's ended packages, latest first.
pub(super) fn ended(db: &Connection, account: &AccountId) -> Result<Vec<(ProductId, Package)>, StoreError> {
    const QUESTION: &str = "SELECT product, package, body FROM history WHERE account = ?1 ORDER BY place DESC LIMIT ?2";
    let mut statement = db.prepare_cached(QUESTION)?;
    let texts = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
    let mut packages = Vec::new();
    for row in statement.query_map((account.as_str(), ROWS_MAX), texts)? {
        let (product, package, body) = row?;
        let broken = |reason: String| StoreError::Broken {
            account: account.clone(),
            document: format!("history of package {package}"),
            reason,
        };
        let product = ProductId::new(&product).map_err(|fault| broken(fault.to_string()))?;
        let package = serde_json::from_str(&body).map_err(|error| broken(error.to_string()))?;
        packages.push((product, package));
    }
    Ok(packages)
}

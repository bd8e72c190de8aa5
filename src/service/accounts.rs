//! What operators do with accounts, keys and packages; apps are in `apps`, new texts of keys in `rotation`. Each change is load, `domain::account::apply`, commit; the rules
//! stay in `domain`, the words of the wire in `admin`.

pub mod apps;
mod ids;
mod queues;
pub mod reseal;
mod rotation;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;

pub use self::ids::command_from;
use self::queues::Queues;
use super::commands::{CommandLog, Told, books, commit_of, crowded, opening};
use super::desk::{BUSY_WAIT, Desk};
use crate::domain::account::{Account, Change, apply};
use crate::domain::allocation::Allocation;
use crate::domain::amount::Units;
use crate::domain::budget::Budget;
use crate::domain::command::{Action, Command, KeyChange, Refusal};
use crate::domain::id::{AccountId, CommandId, KeyId, PackageId, ProductId};
use crate::domain::key::ApiKey;
use crate::domain::limit::Limits;
use crate::domain::network::Network;
use crate::domain::offer::Offer;
use crate::domain::package::Package;
use crate::ports::account_store::{AccountSummary, CommitError, Loaded, StoreError};
use crate::ports::journal::{JournalError, JournalledCommand};
use crate::protocol::api_key::{ApiKeyText, KEY_RANDOM_BYTES};
use crate::protocol::app_text::AppTextFault;
use crate::protocol::keyring::{Keyring, SealBroken};

/// How often a change is tried against documents that others change at the same time.
const COMMIT_ATTEMPTS_MAX: usize = 8;
/// Longest name or description, in characters.
pub const TEXT_CHARS_MAX: usize = 200;
/// Longest list of products, models or networks on one key or app.
pub const ALLOWED_MAX: usize = 100;

/// The operators' use-cases.
#[derive(Clone)]
pub struct Accounts {
    desk: Desk,
    log: Arc<CommandLog>,
    keyring: Keyring,
    queues: Arc<Queues>,
}

/// A result, and whether it was there before: the same command id is applied once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done<T> {
    /// What the command made or changed.
    pub value: T,
    /// True when an earlier command with the same id did it.
    pub repeated: bool,
}

/// A key that was added.
#[derive(Debug, Clone)]
pub struct KeyAdded {
    /// What the account keeps of it.
    pub key: ApiKey,
    /// The key itself, only here and only now; `None` when an earlier command with the same id made the key.
    pub text: Option<ApiKeyText>,
}

/// What a new key is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewKey {
    /// The owner's words.
    pub description: String,
    /// First moment at which it is refused.
    pub expires_at: Option<Timestamp>,
    /// The only products it opens; `None`: all.
    pub products: Option<Vec<ProductId>>,
    /// The only models it opens; `None`: all.
    pub models: Option<Vec<String>>,
    /// The only networks from which it is accepted; `None`: all.
    pub networks: Option<Vec<Network>>,
    /// To what its calls are allotted.
    pub allocation: Allocation,
    /// How many calls it may make.
    pub limits: Limits,
    /// How many units its calls may use.
    pub budget: Budget,
}

/// What a package is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPackage<'a> {
    /// What was bought.
    pub offer: &'a Offer,
    /// First moment of use; `None`: now.
    pub valid_from: Option<Timestamp>,
    /// To what it is allotted.
    pub allocation: Allocation,
}

impl<'a> NewPackage<'a> {
    /// One that begins now and is allotted to nothing in particular.
    pub fn of(offer: &'a Offer) -> Self {
        Self { offer, valid_from: None, allocation: Allocation::default() }
    }
}

/// An operator's decision on units in suspense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The package.
    pub package: PackageId,
    /// How many of its units.
    pub units: Units,
    /// True: they were used; false: they go back for sale.
    pub used: bool,
}

/// All there is to see of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its documents, with the store's time.
    pub loaded: Loaded,
    /// Packages that have left the documents, latest first.
    pub ended: Vec<(ProductId, Package)>,
}

/// A text or list of the caller's that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputFault {
    /// Too long, or with control characters.
    #[error("`{0}` has at most {TEXT_CHARS_MAX} characters and no control characters")]
    Text(&'static str),
    /// Nothing where something is needed.
    #[error("`{0}` is empty")]
    Empty(&'static str),
    /// Too many entries.
    #[error("`{0}` has at most {ALLOWED_MAX} entries")]
    List(&'static str),
    /// A text of an app that cannot be one.
    #[error("`{0}`: {1}")]
    AppText(&'static str, AppTextFault),
    /// The name of the app that purchases make.
    #[error("`name`: an app with this name is made by purchases; choose another one")]
    ReservedName,
    /// A key or package that would be over before it begins.
    #[error("`{field}` makes it end at {end}, which is over already")]
    Over {
        /// The field that says so.
        field: &'static str,
        /// Its end.
        end: Timestamp,
    },
}

/// Why no account was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The id is taken.
    #[error("there is an account {0} already; choose another id, or leave it out to get a new one")]
    Exists(AccountId),
    /// The name is not accepted.
    #[error(transparent)]
    Input(#[from] InputFault),
    /// It could not be written down before it is done.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an account cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// There is none.
    #[error("there is no account {0}")]
    UnknownAccount(AccountId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an account was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such account.
    #[error("there is no account {0}")]
    UnknownAccount(AccountId),
    /// The rules forbid it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What was asked for is not accepted.
    #[error(transparent)]
    Input(#[from] InputFault),
    /// The command's id was applied before, to something else or to something that is gone.
    #[error("the id {0} was used for another change, or what it made is gone; use a new one")]
    CommandReused(CommandId),
    /// The account's documents are full.
    #[error("the account's document would have {bytes} bytes, which is too large; revoke keys or open another account")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A pool's document has as many packages as leave room for leases: of which product, and its size with one more.
    #[error(
        "the account's packages of {0} would have {1} bytes; buy again when some have ended, or open another account"
    )]
    Crowded(ProductId, usize),
    /// Others changed the documents at each of our attempts.
    #[error("the account is being changed by others; try again")]
    Busy,
    /// A secret was sealed with a key that this gateway does not have.
    #[error(transparent)]
    Sealed(#[from] SealBroken),
    /// An AppKey or AppCode that another account has.
    #[error("this AppKey or AppCode is in use already; choose another one")]
    Taken,
    /// The random source gives nothing random.
    #[error("the system's random source is broken")]
    NotRandom,
    /// It could not be written down before it is done.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store failed. If it had no room, nothing was changed. Otherwise nobody knows whether the change happened, and it
    /// will once the store answers: the same command id makes asking again safe.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of a command.
enum Applied {
    Now(Change),
    Before(Loaded),
}

impl Accounts {
    /// Over a store, with the gateway's own secrets.
    pub fn new(desk: Desk, log: Arc<CommandLog>, keyring: Keyring) -> Self {
        Self { desk, log, keyring, queues: Arc::new(Queues::new()) }
    }

    /// Opens an account, with an id of its own choice or a new one.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        &self,
        command: Option<CommandId>,
        id: Option<AccountId>,
        name: &str,
    ) -> Result<Done<Account>, OpenError> {
        check_text("name", name)?;
        if name.trim().is_empty() {
            return Err(InputFault::Empty("name").into());
        }
        let chosen = id.is_some();
        let command = self.command_id(command);
        let id = id.unwrap_or_else(|| ids::account_of(&command));
        let now = self.desk.now();
        let told = Told::Open { id: command.clone(), name: name.to_owned() };
        let _under_way = self.log.under_way(&id, &command);
        let record = self.log.write(&id, &told, now).await?;
        let mut head = Account::open(id.clone(), name.to_owned(), now);
        head.commands.insert(command.clone(), now);
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            match self.desk.commit(opening(&self.desk, head.clone())).await {
                Ok(()) => return Ok(Done { value: head, repeated: false }),
                Err(CommitError::Conflict(Some(there)))
                    if !chosen || there.head.value.commands.contains_key(&command) =>
                {
                    return Ok(Done { value: there.head.value, repeated: true });
                }
                Err(CommitError::Conflict(_)) => {
                    self.log.refused(record);
                    return Err(OpenError::Exists(id));
                }
                Err(CommitError::TimeOff(_) | CommitError::Stranger(_)) => {} // the desk knows better now
                Err(CommitError::Busy) => tokio::time::sleep(BUSY_WAIT).await,
                Err(error @ (CommitError::TooLarge { .. } | CommitError::KeyTaken | CommitError::Closed)) => {
                    // A new document is small and has neither keys nor leases.
                    self.log.refused(record);
                    let (document, reason) = ("head".to_owned(), error.to_string());
                    return Err(StoreError::Broken { account: id, document, reason }.into());
                }
                Err(CommitError::Store(error)) => {
                    self.log.failed(record, &error);
                    return Err(error.into());
                }
            }
        }
        self.log.refused(record);
        Err(StoreError::Unavailable("its time keeps stepping".to_owned()).into())
    }

    /// A page of accounts in the order of their ids, after the given one.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, after: Option<AccountId>) -> Result<Vec<AccountSummary>, StoreError> {
        self.desk.store.list(after).await
    }

    /// An account's documents, and its packages that have left them.
    ///
    /// # Errors
    /// See [`ShowError`].
    pub async fn show(&self, account: &AccountId) -> Result<Shown, ShowError> {
        let loaded = self.desk.load(account).await?;
        let mut loaded = loaded.ok_or_else(|| ShowError::UnknownAccount(account.clone()))?;
        let ended = self.desk.store.ended(account).await?;
        // One that ended between the two readings is in both: it is shown where it is now.
        let now = loaded.now;
        for pool in loaded.pools.values_mut() {
            // What the next report will find in suspense is shown there already.
            pool.value.suspend_silent(now, &mut Vec::new());
            pool.value.packages.retain(|package| ended.iter().all(|(_, gone)| gone.id != package.id));
        }
        Ok(Shown { loaded, ended })
    }

    /// Adds a key. Its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_key(
        &self,
        account: &AccountId,
        command: Option<CommandId>,
        new: NewKey,
    ) -> Result<KeyAdded, ChangeError> {
        check_allowed(Some(&new.description), new.products.as_deref(), new.models.as_deref())?;
        check_networks(new.networks.as_deref())?;
        let loaded = self.load(account).await?;
        let now = loaded.now;
        if let Some(end) = new.expires_at.filter(|end| *end <= now) {
            return Err(InputFault::Over { field: "expires_at", end }.into());
        }
        let mut random = [0; KEY_RANDOM_BYTES];
        self.desk.entropy.fill(&mut random);
        let text = ApiKeyText::from_random(random).ok_or(ChangeError::NotRandom)?;
        let command = self.command_id(command);
        let id = ids::key_of(account, &command);
        // Longer than commands are remembered: a key that is still there is not added again.
        if let Some(key) = key_in(&loaded.head.value, &id) {
            return Ok(KeyAdded { key, text: None });
        }
        let key = ApiKey {
            id,
            hash: self.keyring.of_api_key(text.expose()),
            hint: text.hint(),
            former: Vec::new(),
            description: new.description,
            created_at: now,
            expires_at: new.expires_at,
            disabled: false,
            products: new.products,
            models: new.models,
            networks: new.networks,
            project: new.allocation.project,
            tags: new.allocation.tags,
            limits: new.limits,
            budget: new.budget,
        };
        let command = Command { id: command, action: Action::AddKey(key.clone()) };
        match self.apply(account, &command).await? {
            Applied::Now(_) => Ok(KeyAdded { key, text: Some(text) }),
            Applied::Before(there) => {
                let key = key_in(&there.head.value, &key.id).ok_or(ChangeError::CommandReused(command.id))?;
                Ok(KeyAdded { key, text: None })
            }
        }
    }

    /// Changes what is given of a key; returns the key as it is now.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change_key(&self, account: &AccountId, key: &KeyId, change: KeyChange) -> Result<ApiKey, ChangeError> {
        let (products, models) = (change.products.as_ref(), change.models.as_ref());
        let products = products.and_then(Option::as_deref);
        let models = models.and_then(Option::as_deref);
        check_allowed(change.description.as_deref(), products, models)?;
        check_networks(change.networks.as_ref().and_then(Option::as_deref))?;
        let id = self.command_id(None);
        let command = Command { id, action: Action::ChangeKey(key.clone(), change) };
        let head = match self.apply(account, &command).await? {
            Applied::Now(change) => change.head,
            Applied::Before(there) => Some(there.head.value),
        };
        let changed = head.and_then(|head| key_in(&head, key));
        changed.ok_or_else(|| Refusal::UnknownKey(key.clone()).into())
    }

    /// Sets how many calls the account may make, in place of all limits that there are.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn limit_account(&self, account: &AccountId, limits: Limits) -> Result<(), ChangeError> {
        let command = Command { id: self.command_id(None), action: Action::LimitAccount(limits) };
        self.apply(account, &command).await.map(drop)
    }

    /// Removes a key for ever.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn revoke_key(&self, account: &AccountId, key: &KeyId) -> Result<(), ChangeError> {
        let command = Command { id: self.command_id(None), action: Action::RevokeKey(key.clone()) };
        self.apply(account, &command).await.map(drop)
    }

    /// Puts a package of an offer into the account's pool for the offer's product; returns it with its product.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_package(
        &self,
        account: &AccountId,
        command: Option<CommandId>,
        new: NewPackage<'_>,
    ) -> Result<Done<(ProductId, Package)>, ChangeError> {
        let NewPackage { offer, valid_from, allocation: Allocation { project, tags } } = new;
        let now = self.desk.now();
        let end = offer.validity.end(valid_from.unwrap_or(now), &offer.zone);
        if let Some(end) = end.filter(|end| *end < now) {
            return Err(InputFault::Over { field: "valid_from", end }.into());
        }
        let package = ids::package_from(self.desk.entropy.as_ref());
        let id = self.command_id(command);
        let spare_app = if offer.for_apps { Some(Box::new(self.spare_app(account, &id)?)) } else { None };
        let (bought, offered) = (package.clone(), offer.clone());
        let action = Action::AddPackage { package: bought, offer: offered, valid_from, project, tags, spare_app };
        let command = Command { id, action };
        match self.apply(account, &command).await? {
            Applied::Now(change) => {
                let added = package_in_change(change, &package).ok_or(Refusal::UnknownPackage(package))?;
                Ok(Done { value: (offer.product.clone(), added), repeated: false })
            }
            Applied::Before(there) => {
                let found = self.find_package(there, |package| package.command == command.id).await?;
                let value = found.ok_or(ChangeError::CommandReused(command.id))?;
                Ok(Done { value, repeated: true })
            }
        }
    }

    /// Books units in suspense as used, or puts them back for sale; returns the package as it is now, with its product.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn resolve_suspense(
        &self,
        account: &AccountId,
        command: Option<CommandId>,
        resolution: Resolution,
    ) -> Result<(ProductId, Package), ChangeError> {
        let Resolution { package, units, used } = resolution;
        let unknown = || Refusal::UnknownPackage(package.clone());
        let loaded = self.load(account).await?;
        let (product, _) = self.find_package(loaded, |there| there.id == package).await?.ok_or_else(unknown)?;
        let action = Action::ResolveSuspense { product: product.clone(), package: package.clone(), units, used };
        // A decision leaves no trace that names its command: an id that did something else must not pass for it.
        let id = ids::resolution_of(&package, &self.command_id(command));
        match self.apply(account, &Command { id, action }).await? {
            Applied::Now(change) => {
                let now = package_in_change(change, &package).ok_or_else(unknown)?;
                Ok((product, now))
            }
            Applied::Before(there) => {
                let now = self.find_package(there, |there| there.id == package).await?;
                Ok(now.ok_or_else(unknown)?)
            }
        }
    }

    /// Now, by the store's clock.
    pub fn now(&self) -> Timestamp {
        self.desk.now()
    }

    /// Applies a command: by the rules first, then it is written down, then it is committed.
    async fn apply(&self, account: &AccountId, command: &Command) -> Result<Applied, ChangeError> {
        let _turn = self.queues.turn(account).await.ok_or(ChangeError::Busy)?;
        let mut loaded = self.load(account).await?;
        let at = loaded.now;
        let command = &begun(command, at);
        let _under_way = self.log.under_way(account, &command.id);
        let mut record = None;
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let change = match apply(&books(&loaded), command, loaded.now) {
                Ok(change) => change,
                Err(refusal) => return Err(self.refused(record, refusal.into())),
            };
            if let Some((product, bytes)) = crowded(&loaded, &change) {
                return Err(self.refused(record, ChangeError::Crowded(product, bytes)));
            }
            let Some(commit) = commit_of(&self.desk, &loaded, &change) else { return Ok(Applied::Before(loaded)) };
            if record.is_none() {
                record = Some(self.log.write(account, &Told::Change(Box::new(command.clone())), at).await?);
            }
            match self.desk.commit(commit).await {
                Ok(()) => return Ok(Applied::Now(change)),
                Err(CommitError::Conflict(None)) => {
                    return Err(self.refused(record, ChangeError::UnknownAccount(account.clone())));
                }
                Err(CommitError::Conflict(Some(there))) => loaded = *there,
                Err(CommitError::TooLarge { bytes }) => {
                    return Err(self.refused(record, ChangeError::TooLarge { bytes }));
                }
                Err(CommitError::KeyTaken) => return Err(self.refused(record, ChangeError::Taken)),
                Err(CommitError::TimeOff(now)) => loaded.now = now,
                Err(CommitError::Stranger(_)) => match self.load(account).await {
                    Ok(there) => loaded = there,
                    Err(error) => return Err(self.refused(record, error)),
                },
                Err(CommitError::Busy | CommitError::Closed) => tokio::time::sleep(BUSY_WAIT).await,
                Err(CommitError::Store(error)) => {
                    record.into_iter().for_each(|record| self.log.failed(record, &error));
                    return Err(error.into());
                }
            }
        }
        Err(self.refused(record, ChangeError::Busy))
    }

    /// Sees to it that what the caller is told was not done never will be.
    fn refused(&self, record: Option<JournalledCommand>, error: ChangeError) -> ChangeError {
        record.into_iter().for_each(|record| self.log.refused(record));
        error
    }

    async fn load(&self, account: &AccountId) -> Result<Loaded, ChangeError> {
        self.desk.load(account).await?.ok_or_else(|| ChangeError::UnknownAccount(account.clone()))
    }

    async fn find_package(
        &self,
        loaded: Loaded,
        wanted: impl Fn(&Package) -> bool,
    ) -> Result<Option<(ProductId, Package)>, StoreError> {
        for (product, pool) in loaded.pools {
            if let Some(package) = pool.value.packages.into_iter().find(|package| wanted(package)) {
                return Ok(Some((product, package)));
            }
        }
        let ended = self.desk.store.ended(&loaded.head.value.id).await?;
        Ok(ended.into_iter().find(|(_, package)| wanted(package)))
    }

    fn command_id(&self, given: Option<CommandId>) -> CommandId {
        given.unwrap_or_else(|| ids::command_from(self.desk.entropy.as_ref()))
    }
}

/// The command with the beginning of its package: told again later, it makes the same one.
fn begun(command: &Command, now: Timestamp) -> Command {
    let mut command = command.clone();
    if let Action::AddPackage { valid_from, .. } = &mut command.action {
        valid_from.get_or_insert(now);
    }
    command
}

fn key_in(head: &Account, id: &KeyId) -> Option<ApiKey> {
    head.keys.iter().find(|key| key.id == *id).cloned()
}

fn package_in_change(change: Change, id: &PackageId) -> Option<Package> {
    let kept = change.pool.into_iter().flat_map(|pool| pool.packages);
    kept.chain(change.ended).find(|package| package.id == *id)
}

fn check_text(field: &'static str, text: &str) -> Result<(), InputFault> {
    let fits = text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(InputFault::Text(field)) }
}

fn check_allowed(
    description: Option<&str>,
    products: Option<&[ProductId]>,
    models: Option<&[String]>,
) -> Result<(), InputFault> {
    check_text("description", description.unwrap_or_default())?;
    if products.is_some_and(|list| list.len() > ALLOWED_MAX) {
        return Err(InputFault::List("products"));
    }
    let models = models.unwrap_or_default();
    if models.len() > ALLOWED_MAX {
        return Err(InputFault::List("models"));
    }
    models.iter().try_for_each(|model| check_text("models", model))
}

fn check_networks(networks: Option<&[Network]>) -> Result<(), InputFault> {
    let fits = networks.is_none_or(|list| list.len() <= ALLOWED_MAX);
    if fits { Ok(()) } else { Err(InputFault::List("networks")) }
}

//! A caller: the credential behind a call, and what it opens.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use secrecy::ExposeSecret;

use crate::domain::account::Account;
use crate::domain::allocation::Allocation;
use crate::domain::app::App;
use crate::domain::budget::Budget;
use crate::domain::id::{AccountId, ProductId};
use crate::domain::key::{ApiKey, KeyHash, KeyState};
use crate::domain::limit::{EachLimits, Level, Limits};
use crate::domain::network::{Network, any_contains};
use crate::domain::usage::CallerRef;
use crate::ports::account_store::Loaded;
use crate::protocol::keyring::Keyring;
use crate::protocol::signature::SigningKey;
use crate::service::accounts::apps::seal_owner;
use crate::service::budgets::KeyUse;
use crate::service::ledger::Ledger;
use crate::service::limits::{Limited, Limiter, Whose};
use crate::service::supply::LocalPool;

/// The credential behind a call, and its account. Of a signature it is known before the signature is checked.
#[derive(Debug)]
pub struct Caller {
    /// Whose it is.
    pub account: AccountId,
    /// The key or the app, as records name it.
    pub reference: CallerRef,
    /// To what its calls are allotted; those of apps to nothing in particular.
    pub allocation: Arc<Allocation>,
    opens: Opens,
    /// The pools it has drawn on, so that a warm call finds its own without hashing two names.
    pools: RwLock<Vec<Arc<LocalPool>>>,
    /// The account's limits and its own, over all products.
    limits: [Limits; 2],
    limited: [Option<Limited>; 2],
    /// What products set for both.
    limited_at: RwLock<Vec<Arc<LimitedAt>>>,
    /// What it has used of its budget, if it has one.
    used: Option<Arc<KeyUse>>,
}

/// What a product sets for a caller's account and for the caller.
#[derive(Debug)]
pub struct LimitedAt {
    product: ProductId,
    each: EachLimits,
    /// In this order.
    pub limited: [Option<Limited>; 2],
}

#[derive(Debug)]
enum Opens {
    /// With the hash of the text that was presented.
    Key(Box<ApiKey>, KeyHash),
    App {
        /// Those that it is bound to.
        products: Vec<ProductId>,
        /// Each with the first moment at which it is refused.
        secrets: Vec<(SigningKey, Option<Timestamp>)>,
        /// The only ones from which it is accepted; `None`: all.
        networks: Option<Vec<Network>>,
    },
}

impl Caller {
    /// The caller whose credential an account keeps under a hash.
    pub(super) fn find(loaded: &Loaded, hash: KeyHash, (keyring, limiter): (&Keyring, &Limiter)) -> Option<Self> {
        let head = &loaded.head.value;
        let has = |app: &&App| app.hash == hash || app.codes.iter().any(|code| code.hash == hash);
        let own: Limits;
        let (reference, allocation, opens) = match head.keys.iter().find(|key| key.hashes().any(|known| known == hash))
        {
            Some(key) => {
                own = key.limits;
                (CallerRef::Key(key.id.clone()), key.allocation(), Opens::Key(Box::new(key.clone()), hash))
            }
            None => {
                let app = head.apps.iter().find(has)?;
                own = app.limits;
                let secrets = signing_keys(head, app, keyring);
                let opens = Opens::App { products: app.products.clone(), secrets, networks: app.networks.clone() };
                (CallerRef::App(app.id.clone()), Allocation::default(), opens)
            }
        };
        let limits = [head.limits, own];
        let mut caller = Self {
            account: head.id.clone(),
            reference,
            allocation: Arc::new(allocation),
            opens,
            pools: RwLock::default(),
            limits,
            limited: [None, None],
            limited_at: RwLock::default(),
            used: None,
        };
        caller.limited = caller.limited(limits, None, limiter);
        if let Opens::Key(key, _) = &caller.opens
            && !key.budget.is_none()
        {
            let pools = loaded.pools.values().map(|pool| &pool.value);
            caller.used = Some(limiter.budgets.key(&caller.account, &key.id, pools));
        }
        Some(caller)
    }

    /// Whether the credential can be used at a moment.
    pub fn state_at(&self, now: Timestamp) -> KeyState {
        match &self.opens {
            Opens::Key(key, presented) => key.text_state_at(*presented, now),
            Opens::App { .. } => KeyState::Usable,
        }
    }

    /// Whether it is accepted from an address.
    pub fn accepted_from(&self, address: IpAddr) -> bool {
        let networks = match &self.opens {
            Opens::Key(key, _) => &key.networks,
            Opens::App { networks, .. } => networks,
        };
        networks.as_ref().is_none_or(|networks| any_contains(networks, address))
    }

    /// Whether it is an app.
    pub fn is_app(&self) -> bool {
        matches!(self.opens, Opens::App { .. })
    }

    /// Whether it opens a product: an app must be bound to it, a key opens all that no list of its own leaves out.
    pub fn opens(&self, product: &ProductId) -> bool {
        match &self.opens {
            Opens::Key(key, _) => key.opens(product),
            Opens::App { products, .. } => products.contains(product),
        }
    }

    /// Whether it opens a model.
    pub fn opens_model(&self, model: &str) -> bool {
        match &self.opens {
            Opens::Key(key, _) => key.opens_model(model),
            Opens::App { .. } => true,
        }
    }

    /// Whether it opens some models only.
    pub fn limits_models(&self) -> bool {
        matches!(&self.opens, Opens::Key(key, _) if key.models.is_some())
    }

    /// The keys that its signatures may be made with at a moment.
    pub(super) fn signing_keys(&self, now: Timestamp) -> impl Iterator<Item = &SigningKey> {
        let secrets = match &self.opens {
            Opens::Key(..) => &[],
            Opens::App { secrets, .. } => secrets.as_slice(),
        };
        secrets.iter().filter(move |(_, until)| until.is_none_or(|until| now < until)).map(|(key, _)| key)
    }

    /// Limits of the account and of the caller, over all products or of one.
    fn limited(
        &self,
        [account, own]: [Limits; 2],
        product: Option<&ProductId>,
        limiter: &Limiter,
    ) -> [Option<Limited>; 2] {
        let (id, product) = (|| self.account.clone(), || product.cloned());
        let level = if self.is_app() { Level::App } else { Level::Key };
        [
            limiter.limited(Level::Account, account, || Whose::Account(id(), product())),
            limiter.limited(level, own, || Whose::Caller(id(), self.reference.clone(), product())),
        ]
    }

    /// The limits of its account and its own, over all products.
    pub fn limits(&self) -> &[Option<Limited>; 2] {
        &self.limited
    }

    /// Its budget, and what it has used of it.
    pub fn budget(&self) -> Option<(&Budget, &Arc<KeyUse>)> {
        match &self.opens {
            Opens::Key(key, _) => self.used.as_ref().map(|used| (&key.budget, used)),
            Opens::App { .. } => None,
        }
    }

    /// What a product sets for each caller, as far as this one has no limits of its own.
    pub fn limits_at(&self, product: &ProductId, each: &EachLimits, limiter: &Limiter) -> Arc<LimitedAt> {
        let same = |at: &&Arc<LimitedAt>| at.product == *product && at.each == *each;
        let known = self.limited_at.read().unwrap_or_else(PoisonError::into_inner).iter().find(same).cloned();
        if let Some(known) = known {
            return known;
        }
        let [account, own] = &self.limits;
        let of_caller = if self.is_app() { each.app } else { each.key };
        let limits = [each.account.where_none_of(account), of_caller.where_none_of(own)];
        let limited = self.limited(limits, Some(product), limiter);
        let at = Arc::new(LimitedAt { product: product.clone(), each: *each, limited });
        let mut known = self.limited_at.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|at| at.product != *product); // one per product: bounded by the catalogue
        known.push(Arc::clone(&at));
        at
    }

    /// The caller's pool for a product.
    pub fn pool(&self, product: &ProductId, ledger: &Ledger) -> Arc<LocalPool> {
        let known = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = known.iter().find(|pool| pool.product == *product) {
            return Arc::clone(pool);
        }
        drop(known);
        let pool = ledger.pool(&self.account, product);
        let mut known = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        known.push(Arc::clone(&pool)); // one per product at most twice: bounded by the catalogue
        pool
    }
}

/// An app's secrets, ready to check signatures. One that cannot be opened is an operator's mistake: it is said, and the
/// app's other one still serves.
fn signing_keys(head: &Account, app: &App, keyring: &Keyring) -> Vec<(SigningKey, Option<Timestamp>)> {
    let mut keys = Vec::with_capacity(app.secrets.len());
    for secret in &app.secrets {
        match keyring.open(&secret.sealed, &seal_owner(&head.id, &app.app_key)) {
            Ok(text) => keys.push((SigningKey::new(text.expose_secret().as_bytes()), secret.until)),
            Err(error) => tracing::error!(account = %head.id, app = %app.id, %error, "an app cannot sign"),
        }
    }
    keys
}

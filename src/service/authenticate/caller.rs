//! A caller: the credential behind a call, and what it opens.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use secrecy::ExposeSecret;

use crate::domain::account::Account;
use crate::domain::allocation::Allocation;
use crate::domain::app::App;
use crate::domain::id::{AccountId, ProductId};
use crate::domain::key::{ApiKey, KeyHash, KeyState};
use crate::domain::network::{Network, any_contains};
use crate::domain::usage::CallerRef;
use crate::protocol::keyring::Keyring;
use crate::protocol::signature::SigningKey;
use crate::service::accounts::apps::seal_owner;
use crate::service::ledger::Ledger;
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
    pub(super) fn find(head: &Account, hash: KeyHash, keyring: &Keyring) -> Option<Self> {
        let has = |app: &&App| app.hash == hash || app.codes.iter().any(|code| code.hash == hash);
        let (reference, allocation, opens) = match head.keys.iter().find(|key| key.hashes().any(|known| known == hash))
        {
            Some(key) => (CallerRef::Key(key.id.clone()), key.allocation(), Opens::Key(Box::new(key.clone()), hash)),
            None => {
                let app = head.apps.iter().find(has)?;
                let secrets = signing_keys(head, app, keyring);
                let opens = Opens::App { products: app.products.clone(), secrets, networks: app.networks.clone() };
                (CallerRef::App(app.id.clone()), Allocation::default(), opens)
            }
        };
        let (account, allocation) = (head.id.clone(), Arc::new(allocation));
        Some(Self { account, reference, allocation, opens, pools: RwLock::default() })
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

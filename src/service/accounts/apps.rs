//! Apps: made, their secrets rotated and looked up, their AppCodes and bindings changed. A secret is sealed before a
//! document or a journal sees it, a code is kept as a hash.

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use super::{Accounts, Applied, ChangeError, InputFault, check_networks, check_text, ids};
use crate::domain::account::Account;
use crate::domain::app::{App, AppChange, AppCode, AppSecret, MARKETPLACE_APP};
use crate::domain::command::{Action, Command, Refusal};
use crate::domain::id::{AccountId, AppCodeId, AppId, CommandId, ProductId};
use crate::domain::limit::Limits;
use crate::domain::network::Network;
use crate::protocol::app_text::{
    AppTextFault, CODE_RANDOM_BYTES, HALF_BYTES, check_app_key, check_secret, code_from, code_hint, half_from, is_code,
};
use crate::protocol::keyring::SEAL_RANDOM_BYTES;

/// What a new app is to be.
#[derive(Debug, Clone, Default)]
pub struct NewApp {
    /// The owner's word for it.
    pub name: String,
    /// An AppKey that its clients have already; `None`: a new one.
    pub app_key: Option<String>,
    /// A secret that its clients have already; `None`: a new one.
    pub secret: Option<SecretString>,
    /// The products that it opens.
    pub products: Vec<ProductId>,
    /// The only networks from which it is accepted; `None`: all.
    pub networks: Option<Vec<Network>>,
}

/// An app with its present secret.
#[derive(Debug, Clone)]
pub struct AppWithSecret {
    /// What the account keeps of it.
    pub app: App,
    /// Signs its calls.
    pub secret: SecretString,
    /// True when an earlier command with the same id did what was asked.
    pub repeated: bool,
}

/// An AppCode that was added.
#[derive(Debug, Clone)]
pub struct CodeAdded {
    /// What the account keeps of it.
    pub code: AppCode,
    /// The code itself, if it was made here just now.
    pub text: Option<SecretString>,
    /// True when an earlier command with the same id added it.
    pub repeated: bool,
}

impl Accounts {
    /// Adds an app.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_app(
        &self,
        account: &AccountId,
        command: Option<CommandId>,
        new: NewApp,
    ) -> Result<AppWithSecret, ChangeError> {
        check_text("name", &new.name)?;
        if new.name.trim().is_empty() {
            return Err(InputFault::Empty("name").into());
        }
        if new.name == MARKETPLACE_APP {
            return Err(InputFault::ReservedName.into());
        }
        if new.products.len() > crate::domain::app::BINDINGS_MAX {
            return Err(InputFault::List("products").into());
        }
        check_networks(new.networks.as_deref())?;
        if let Some(key) = &new.app_key {
            check_app_key(key).map_err(|fault| InputFault::AppText("app_key", fault))?;
        }
        let command = self.command_id(command);
        let app = self.new_app(account, &command, new)?;
        let head = self.load(account).await?.head.value;
        if let Some(there) = app_in(&head, &app.id) {
            return self.with_secret(account, there, true);
        }
        let action = Action::AddApp(Box::new(app.clone()));
        match self.apply(account, &Command { id: command.clone(), action }).await? {
            Applied::Now(_) => self.with_secret(account, app, false),
            Applied::Before(there) => {
                let app = app_in(&there.head.value, &app.id).ok_or(ChangeError::CommandReused(command))?;
                self.with_secret(account, app, true)
            }
        }
    }

    /// An app and its present secret. Whoever asks is noted by the caller: this reads a secret.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn app_secret(&self, account: &AccountId, app: &AppId) -> Result<AppWithSecret, ChangeError> {
        let head = self.load(account).await?.head.value;
        let app = app_in(&head, app).ok_or_else(|| Refusal::UnknownApp(app.clone()))?;
        self.with_secret(account, app, false)
    }

    /// Puts a new secret in the place of the present one, which is accepted for `overlap` more.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn rotate_secret(
        &self,
        account: &AccountId,
        app: &AppId,
        new: Option<SecretString>,
        overlap: SignedDuration,
    ) -> Result<AppWithSecret, ChangeError> {
        let head = self.load(account).await?.head.value;
        let there = app_in(&head, app).ok_or_else(|| Refusal::UnknownApp(app.clone()))?;
        let now = self.desk.now();
        let secret = self.new_secret(account, &there.app_key, new, now)?;
        let overlap_until =
            (overlap > SignedDuration::ZERO).then(|| now.checked_add(overlap).unwrap_or(Timestamp::MAX));
        let changed = self.change_app(account, app, None, AppChange::RotateSecret { secret, overlap_until }).await?;
        self.with_secret(account, changed, false)
    }

    /// Adds an AppCode, a new one or one that clients have already.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_code(
        &self,
        account: &AccountId,
        app: &AppId,
        command: Option<CommandId>,
        given: Option<SecretString>,
    ) -> Result<CodeAdded, ChangeError> {
        if given.as_ref().is_some_and(|text| !is_code(text.expose_secret())) {
            return Err(InputFault::AppText("code", AppTextFault::Code).into());
        }
        let made = match &given {
            Some(_) => None,
            None => {
                let mut random = [0; CODE_RANDOM_BYTES];
                self.desk.entropy.fill(&mut random);
                Some(code_from(random).ok_or(ChangeError::NotRandom)?)
            }
        };
        let command = self.command_id(command);
        let id = ids::code_of(account, &command);
        let head = self.load(account).await?.head.value;
        let there = app_in(&head, app).ok_or_else(|| Refusal::UnknownApp(app.clone()))?;
        if let Some(code) = code_in(&there, &id) {
            return Ok(CodeAdded { code, text: None, repeated: true });
        }
        let text = given.as_ref().or(made.as_ref()).map(ExposeSecret::expose_secret).unwrap_or_default();
        let (hash, hint) = (self.keyring.of_app_code(text), code_hint(text));
        let code = AppCode { id: id.clone(), hash, hint, created_at: self.desk.now() };
        let changed = self.change_app(account, app, Some(command.clone()), AppChange::AddCode(code.clone())).await?;
        let code = code_in(&changed, &id).ok_or(ChangeError::CommandReused(command))?;
        let repeated = code.hash != hash; // the same command, at the same time, with another text
        Ok(CodeAdded { code, text: made.filter(|_| !repeated), repeated })
    }

    /// Removes an AppCode for ever.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove_code(&self, account: &AccountId, app: &AppId, code: &AppCodeId) -> Result<(), ChangeError> {
        self.change_app(account, app, None, AppChange::RemoveCode(code.clone())).await.map(drop)
    }

    /// Lets an app open a product, or no longer.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn bind_app(
        &self,
        account: &AccountId,
        app: &AppId,
        product: &ProductId,
        bound: bool,
    ) -> Result<App, ChangeError> {
        let product = product.clone();
        let change = if bound { AppChange::Bind(product) } else { AppChange::Unbind(product) };
        self.change_app(account, app, None, change).await
    }

    /// Sets how many calls an app may make, in place of all limits that there are.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn limit_app(&self, account: &AccountId, app: &AppId, limits: Limits) -> Result<App, ChangeError> {
        self.change_app(account, app, None, AppChange::Limit(limits)).await
    }

    /// Sets the only networks from which an app is accepted; `None`: all.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn allow_networks(
        &self,
        account: &AccountId,
        app: &AppId,
        networks: Option<Vec<Network>>,
    ) -> Result<App, ChangeError> {
        check_networks(networks.as_deref())?;
        self.change_app(account, app, None, AppChange::AllowNetworks(networks)).await
    }

    /// Removes an app for ever.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn delete_app(&self, account: &AccountId, app: &AppId) -> Result<(), ChangeError> {
        let id = self.command_id(None);
        let action = Action::ChangeApp(app.clone(), AppChange::Delete);
        self.apply(account, &Command { id, action }).await.map(drop)
    }

    /// What a purchase for apps needs if the account has no MARKETPLACE_APP yet.
    pub(super) fn spare_app(&self, account: &AccountId, command: &CommandId) -> Result<App, ChangeError> {
        self.new_app(account, command, NewApp { name: MARKETPLACE_APP.to_owned(), ..NewApp::default() })
    }

    fn new_app(&self, account: &AccountId, command: &CommandId, new: NewApp) -> Result<App, ChangeError> {
        let now = self.desk.now();
        let app_key = new.app_key.unwrap_or_else(|| self.random_half());
        Ok(App {
            id: ids::app_of(account, command),
            name: new.name,
            hash: self.keyring.of_app_key(&app_key),
            secrets: vec![self.new_secret(account, &app_key, new.secret, now)?],
            app_key,
            codes: Vec::new(),
            products: new.products,
            networks: new.networks,
            created_at: now,
            limits: Limits::NONE,
        })
    }

    fn new_secret(
        &self,
        account: &AccountId,
        app_key: &str,
        given: Option<SecretString>,
        now: Timestamp,
    ) -> Result<AppSecret, ChangeError> {
        let secret = given.unwrap_or_else(|| self.random_half().into());
        check_secret(&secret).map_err(|fault| InputFault::AppText("secret", fault))?;
        let mut random = [0; SEAL_RANDOM_BYTES];
        self.desk.entropy.fill(&mut random);
        let sealed = self.keyring.seal(secret.expose_secret(), &seal_owner(account, app_key), random);
        Ok(AppSecret { sealed: sealed.ok_or(ChangeError::NotRandom)?, created_at: now, until: None })
    }

    fn random_half(&self) -> String {
        let mut random = [0; HALF_BYTES];
        self.desk.entropy.fill(&mut random);
        half_from(random)
    }

    fn with_secret(&self, account: &AccountId, app: App, repeated: bool) -> Result<AppWithSecret, ChangeError> {
        let present = app.secrets.first().map(|secret| secret.sealed.as_str()).unwrap_or_default();
        let secret = self.keyring.open(present, &seal_owner(account, &app.app_key))?;
        Ok(AppWithSecret { app, secret, repeated })
    }

    /// Changes an app; returns it as it is now.
    pub(super) async fn change_app(
        &self,
        account: &AccountId,
        app: &AppId,
        command: Option<CommandId>,
        change: AppChange,
    ) -> Result<App, ChangeError> {
        let command = Command { id: self.command_id(command), action: Action::ChangeApp(app.clone(), change) };
        let head = match self.apply(account, &command).await? {
            Applied::Now(change) => change.head,
            Applied::Before(there) => Some(there.head.value),
        };
        let changed = head.and_then(|head| app_in(&head, app));
        changed.ok_or_else(|| Refusal::UnknownApp(app.clone()).into())
    }
}

/// Binds a sealed secret to its place: in another account, or under another AppKey, it does not open.
pub fn seal_owner(account: &AccountId, app_key: &str) -> String {
    format!("{account}/{app_key}")
}

fn app_in(head: &Account, id: &AppId) -> Option<App> {
    head.apps.iter().find(|app| app.id == *id).cloned()
}

fn code_in(app: &App, id: &AppCodeId) -> Option<AppCode> {
    app.codes.iter().find(|code| code.id == *id).cloned()
}

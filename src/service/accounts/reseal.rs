//! Seals apps' secrets anew with the key that seals now, so that former ones can be dropped.

use secrecy::ExposeSecret;

use super::apps::seal_owner;
use super::{Accounts, ChangeError};
use crate::domain::app::{App, AppChange, OtherSeal};
use crate::domain::command::Refusal;
use crate::domain::id::{AccountId, AppId};
use crate::protocol::keyring::SEAL_RANDOM_BYTES;

/// What became of an account's secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resealed {
    /// Secrets that are sealed with the present key now, and were not.
    pub resealed: u64,
    /// Secrets that were before.
    pub already: u64,
    /// Apps with a secret that no configured key opens.
    pub broken: Vec<AppId>,
}

impl Accounts {
    /// Seals the secrets of an account's apps with the present key, where another one has sealed them.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn reseal_apps(&self, account: &AccountId) -> Result<Resealed, ChangeError> {
        let mut done = Resealed::default();
        for app in self.load(account).await?.head.value.apps {
            let seals = self.other_seals(account, &app, &mut done)?;
            if seals.is_empty() {
                continue;
            }
            let count = u64::try_from(seals.len()).unwrap_or(u64::MAX);
            match self.change_app(account, &app.id, None, AppChange::Reseal(seals)).await {
                Ok(_) => done.resealed = done.resealed.saturating_add(count),
                Err(ChangeError::Refused(Refusal::UnknownApp(_))) => {} // deleted meanwhile
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn other_seals(&self, account: &AccountId, app: &App, done: &mut Resealed) -> Result<Vec<OtherSeal>, ChangeError> {
        let owner = seal_owner(account, &app.app_key);
        let mut seals = Vec::new();
        for secret in &app.secrets {
            if self.keyring.seals_now(&secret.sealed, &owner) {
                done.already = done.already.saturating_add(1);
                continue;
            }
            let Ok(text) = self.keyring.open(&secret.sealed, &owner) else {
                if done.broken.last() != Some(&app.id) {
                    done.broken.push(app.id.clone());
                }
                continue;
            };
            let mut random = [0; SEAL_RANDOM_BYTES];
            self.desk.entropy.fill(&mut random);
            let after = self.keyring.seal(text.expose_secret(), &owner, random).ok_or(ChangeError::NotRandom)?;
            seals.push(OtherSeal { before: secret.sealed.clone(), after });
        }
        Ok(seals)
    }
}

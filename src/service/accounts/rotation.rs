//! New texts for API keys: a key keeps its id, its settings and its records, and the text before works on for a while.

use jiff::{SignedDuration, Timestamp};

use super::{Accounts, Applied, ChangeError, KeyAdded, key_in};
use crate::domain::command::{Action, Command, Refusal};
use crate::domain::id::{AccountId, KeyId};
use crate::domain::key::NewText;
use crate::protocol::api_key::{ApiKeyText, KEY_RANDOM_BYTES};

impl Accounts {
    /// Puts a new text in the place of a key's present one, which is accepted for `overlap` more. The new one is in the
    /// answer and nowhere else.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn rotate_key(
        &self,
        account: &AccountId,
        key: &KeyId,
        overlap: SignedDuration,
    ) -> Result<KeyAdded, ChangeError> {
        let mut random = [0; KEY_RANDOM_BYTES];
        self.desk.entropy.fill(&mut random);
        let text = ApiKeyText::from_random(random).ok_or(ChangeError::NotRandom)?;
        let now = self.desk.now();
        let overlap_until =
            (overlap > SignedDuration::ZERO).then(|| now.checked_add(overlap).unwrap_or(Timestamp::MAX));
        let new = NewText { hash: self.keyring.of_api_key(text.expose()), hint: text.hint(), overlap_until };
        let command = Command { id: self.command_id(None), action: Action::RotateKey(key.clone(), new) };
        let head = match self.apply(account, &command).await? {
            Applied::Now(change) => change.head,
            Applied::Before(there) => Some(there.head.value),
        };
        let key = head.and_then(|head| key_in(&head, key)).ok_or_else(|| Refusal::UnknownKey(key.clone()))?;
        Ok(KeyAdded { key, text: Some(text) })
    }
}

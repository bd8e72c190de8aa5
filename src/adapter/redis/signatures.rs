//! Which signatures were used: a sorted set in each bucket, by the moment at which a signature is over. A signature's
//! bucket is its name's first byte.

use super::Shared;
use super::keys::BUCKETS;
use crate::domain::credential::SignatureUse;
use crate::ports::account_store::StoreError;
use crate::ports::replay::UsedSignature;

/// Digits of a name that are kept: 128 bits tell as many signatures apart as there will ever be.
const NAME_DIGITS: usize = 32;

impl Shared {
    /// Asks once: a second time the server would find the signature noted by the first.
    pub(super) async fn note_use(&self, used: UsedSignature, max: usize) -> Result<SignatureUse, StoreError> {
        let [dated, ends] = [used.dated, used.ends].map(|time| time.as_microsecond().to_string());
        let (keys, name) = self.place(&used);
        let arguments = vec![name, dated, ends, max.div_ceil(BUCKETS).to_string()];
        let answer = self.run_once(&self.scripts.note_use, &keys, arguments).await?;
        SignatureUse::ALL
            .into_iter()
            .find(|said| said.name() == answer.word)
            .ok_or_else(|| StoreError::Unavailable("the server's answer cannot be read".to_owned()))
    }

    /// Asks once, too: a second time the server could find another's use.
    pub(super) async fn take_back(&self, used: UsedSignature) -> Result<(), StoreError> {
        let (keys, name) = self.place(&used);
        self.run_once(&self.scripts.take_back, &keys, vec![name]).await?;
        Ok(())
    }

    /// Where it is kept, and its name there.
    fn place(&self, used: &UsedSignature) -> ([String; 2], String) {
        let bucket = used.name.0.first().copied().unwrap_or_default();
        let keys = [self.keys.server(bucket), self.keys.signatures(bucket)];
        (keys, used.name.to_string().chars().take(NAME_DIGITS).collect())
    }
}

//! What the handlers take of a request: a strict JSON body, the id of a command, ids in the path.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::refusal::{Refusal, bad_path_id};
use crate::domain::id::{CommandId, IdFault};

/// Largest request body, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// A JSON body; every refusal has our shape and names the field.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let Json(value) = Json::from_request(request, state).await?;
        Ok(Self(value))
    }
}

/// The `Idempotency-Key` header: the same key is done once.
pub(super) struct Idempotency(pub(super) Option<CommandId>);

impl<S: Send + Sync> FromRequestParts<S> for Idempotency {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let refuse = |message: &str| Refusal::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", message);
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        if values.next().is_some() {
            return Err(refuse("send one Idempotency-Key"));
        }
        let id = CommandId::new(&String::from_utf8_lossy(value.as_bytes()));
        id.map(|id| Self(Some(id))).map_err(|fault| refuse(&format!("Idempotency-Key: {fault}")))
    }
}

/// One id of the path.
pub(super) struct OneId<A>(pub(super) A);

impl<A, S> FromRequestParts<S> for OneId<A>
where
    A: TryFrom<String, Error = IdFault>,
    S: Send + Sync,
{
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(id) = path::<String, S>(parts, state).await?;
        A::try_from(id).map(Self).map_err(|fault| bad_path_id(&fault))
    }
}

/// Two ids of the path.
pub(super) struct TwoIds<A, B>(pub(super) A, pub(super) B);

impl<A, B, S> FromRequestParts<S> for TwoIds<A, B>
where
    A: TryFrom<String, Error = IdFault>,
    B: TryFrom<String, Error = IdFault>,
    S: Send + Sync,
{
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path((first, second)) = path::<(String, String), S>(parts, state).await?;
        let first = A::try_from(first).map_err(|fault| bad_path_id(&fault))?;
        let second = B::try_from(second).map_err(|fault| bad_path_id(&fault))?;
        Ok(Self(first, second))
    }
}

/// Three ids of the path.
pub(super) struct ThreeIds<A, B, C>(pub(super) A, pub(super) B, pub(super) C);

impl<A, B, C, S> FromRequestParts<S> for ThreeIds<A, B, C>
where
    A: TryFrom<String, Error = IdFault>,
    B: TryFrom<String, Error = IdFault>,
    C: TryFrom<String, Error = IdFault>,
    S: Send + Sync,
{
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path((first, second, third)) = path::<(String, String, String), S>(parts, state).await?;
        let first = A::try_from(first).map_err(|fault| bad_path_id(&fault))?;
        let second = B::try_from(second).map_err(|fault| bad_path_id(&fault))?;
        let third = C::try_from(third).map_err(|fault| bad_path_id(&fault))?;
        Ok(Self(first, second, third))
    }
}

async fn path<T, S>(parts: &mut Parts, state: &S) -> Result<Path<T>, Refusal>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    let read = Path::from_request_parts(parts, state).await;
    read.map_err(|fault| Refusal::new(StatusCode::NOT_FOUND, "invalid_id", fault.body_text()))
}

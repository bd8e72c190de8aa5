//! Parts of the OpenAPI document that many calls share: their parameters, and the refusals that come with what they take.
//! A refusal that a call words in its own way stands in the call's list, after these, and takes their place.

#![expect(dead_code, reason = "only their schemas are used")]

use utoipa::{IntoParams, IntoResponses};

use super::wire::ErrorBody;

/// What every call under `/admin/v1` can answer.
#[derive(IntoResponses)]
pub(super) enum Guarded {
    /// No admin token, or a wrong one.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The store does not answer, or the account is being changed by others; try again.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// What a call that takes a JSON body can answer.
#[derive(IntoResponses)]
pub(super) enum Bodied {
    /// No JSON.
    #[response(status = 400)]
    NoJson(ErrorBody),
    /// More than 64 KiB.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// Not sent as application/json.
    #[response(status = 415)]
    OtherKind(ErrorBody),
    /// A field is unknown, missing or not accepted; the message names it.
    #[response(status = 422)]
    NotAccepted(ErrorBody),
}

/// What a call with a JSON body and an `Idempotency-Key` answers more than one that is only [`Bodied`].
#[derive(IntoResponses)]
pub(super) enum Repeatable {
    /// No JSON, or a bad Idempotency-Key.
    #[response(status = 400)]
    NoJsonOrBadKey(ErrorBody),
}

/// What a call that lets an account's document grow can answer.
#[derive(IntoResponses)]
pub(super) enum Growing {
    /// The account's document is full.
    #[response(status = 409)]
    Full(ErrorBody),
}

/// What a call to an account can answer.
#[derive(IntoResponses)]
pub(super) enum InAccount {
    /// No such account.
    #[response(status = 404)]
    Unknown(ErrorBody),
}

/// What a call to an app can answer.
#[derive(IntoResponses)]
pub(super) enum InApp {
    /// No such account or app.
    #[response(status = 404)]
    Unknown(ErrorBody),
}

/// What a call to an API key can answer.
#[derive(IntoResponses)]
pub(super) enum InKey {
    /// No such account or key.
    #[response(status = 404)]
    Unknown(ErrorBody),
}

/// The path of an account.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AccountPath {
    /// The account's id
    account: String,
}

/// The path of an app.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AppPath {
    /// The account's id
    account: String,
    /// The app's id
    app: String,
}

/// The path of an API key.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct KeyPath {
    /// The account's id
    account: String,
    /// The key's id
    key: String,
}

/// The header that makes asking again safe.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct Keyed {
    /// The same key is done once within 30 days, whatever the body; asking again gives what it made. 1 to 64
    /// characters of a-z A-Z 0-9 - _ .
    #[param(rename = "Idempotency-Key")]
    idempotency_key: Option<String>,
}

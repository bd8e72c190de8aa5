//! Each refusal of the admin API gets its status and code here and nowhere else.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::wire::{ErrorBody, ErrorDetail};
use crate::domain::command::Refusal as CommandRefusal;
use crate::domain::id::IdFault;
use crate::ports::account_store::StoreError;
use crate::ports::journal::JournalError;
use crate::service::accounts::{ChangeError, OpenError, ShowError};

/// A request that was not done.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    body: ErrorBody,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let error = ErrorDetail { code: code.to_owned(), message: message.into(), problems: Vec::new() };
        Self { status, body: ErrorBody { error } }
    }

    pub(super) fn with_problems(mut self, problems: Vec<String>) -> Self {
        self.body.error.problems = problems;
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self.body)).into_response();
        let also = match status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, "1")),
            _ => None,
        };
        if let Some((name, value)) = also {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "an admin request found the store away");
                let message = format!(
                    "{error}; try again; a change may have been made all the same, or be made once the store answers: \
                     repeated with the same Idempotency-Key it is made once"
                );
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message)
            }
            StoreError::Full(_) => {
                tracing::warn!(%error, "an admin request found the store full");
                let message = format!("{error}; nothing was changed: make room, then repeat the request");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_full", message)
            }
            StoreError::Broken { .. } => {
                tracing::error!(%error, "a document needs repair");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "document_broken", error.to_string())
            }
        }
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        tracing::error!(%error, "a change could not be written down");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "journal_unavailable", error.to_string())
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        let message = error.to_string();
        match error {
            OpenError::Exists(_) => Self::new(StatusCode::CONFLICT, "account_exists", message),
            OpenError::Input(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", message),
            OpenError::Journal(error) => error.into(),
            OpenError::Store(error) => error.into(),
        }
    }
}

impl From<ShowError> for Refusal {
    fn from(error: ShowError) -> Self {
        let message = error.to_string();
        match error {
            ShowError::UnknownAccount(_) => Self::new(StatusCode::NOT_FOUND, "unknown_account", message),
            ShowError::Store(error) => error.into(),
        }
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            ChangeError::UnknownAccount(_) => (StatusCode::NOT_FOUND, "unknown_account"),
            ChangeError::Refused(refusal) => of_command(&refusal),
            ChangeError::Input(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_value"),
            ChangeError::CommandReused(_) => (StatusCode::CONFLICT, "idempotency_key_reused"),
            ChangeError::TooLarge { .. } | ChangeError::Crowded(..) => (StatusCode::CONFLICT, "account_full"),
            ChangeError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "account_busy"),
            ChangeError::Taken => (StatusCode::CONFLICT, "credential_taken"),
            ChangeError::Sealed(error) => {
                tracing::error!(%error, "an app's secret cannot be read");
                (StatusCode::INTERNAL_SERVER_ERROR, "secret_sealed")
            }
            ChangeError::NotRandom => (StatusCode::INTERNAL_SERVER_ERROR, "not_random"),
            ChangeError::Journal(error) => return error.into(),
            ChangeError::Store(error) => return error.into(),
        };
        Self::new(status, code, message)
    }
}

fn of_command(refusal: &CommandRefusal) -> (StatusCode, &'static str) {
    match refusal {
        CommandRefusal::TooManyKeys { .. } => (StatusCode::CONFLICT, "too_many_keys"),
        CommandRefusal::UnknownKey(_) => (StatusCode::NOT_FOUND, "unknown_key"),
        CommandRefusal::UnknownPackage(_) => (StatusCode::NOT_FOUND, "unknown_package"),
        CommandRefusal::OtherCurrency { .. } => (StatusCode::CONFLICT, "other_currency"),
        CommandRefusal::OutsideCalendar => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_value"),
        CommandRefusal::TooManyApps { .. } => (StatusCode::CONFLICT, "too_many_apps"),
        CommandRefusal::UnknownApp(_) => (StatusCode::NOT_FOUND, "unknown_app"),
        CommandRefusal::TooManyCodes { .. } => (StatusCode::CONFLICT, "too_many_codes"),
        CommandRefusal::UnknownCode(_) => (StatusCode::NOT_FOUND, "unknown_code"),
        CommandRefusal::TooManyBindings { .. } => (StatusCode::CONFLICT, "too_many_bindings"),
        CommandRefusal::CredentialTaken => (StatusCode::CONFLICT, "credential_taken"),
        CommandRefusal::NotInSuspense { .. } => (StatusCode::CONFLICT, "not_in_suspense"),
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
            StatusCode::UNPROCESSABLE_ENTITY => "invalid_value",
            _ => "invalid_json",
        };
        let text = rejection.body_text();
        // What axum says first names its own types; what follows names the field.
        let said = text.strip_prefix("Failed to deserialize the JSON body into the target type: ");
        Self::new(rejection.status(), code, said.unwrap_or(&text))
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_query", rejection.body_text())
    }
}

/// Of an id in the path: no such thing can exist.
pub(super) fn bad_path_id(fault: &IdFault) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "invalid_id", fault.to_string())
}

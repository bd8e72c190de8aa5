//! What texts and lists an operator may give; whose they are is no matter here.

use jiff::Timestamp;

use crate::domain::id::ProductId;
use crate::domain::network::Network;
use crate::protocol::app_text::AppTextFault;

/// Longest name or description, in characters.
pub const TEXT_CHARS_MAX: usize = 200;
/// Longest list of products, models or networks on one key or app.
pub const ALLOWED_MAX: usize = 100;

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

pub(super) fn check_text(field: &'static str, text: &str) -> Result<(), InputFault> {
    let fits = text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(InputFault::Text(field)) }
}

pub(super) fn check_allowed(
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

pub(super) fn check_networks(networks: Option<&[Network]>) -> Result<(), InputFault> {
    let fits = networks.is_none_or(|list| list.len() <= ALLOWED_MAX);
    if fits { Ok(()) } else { Err(InputFault::List("networks")) }
}

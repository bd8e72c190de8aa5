//! How many calls an account, a key or an app may make.

use std::fmt::Display;
use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;

use clap::{ArgGroup, Args};

use crate::domain::budget::{Budget, BudgetFault, MoneyBudget};
use crate::domain::id::{AccountId, AppId, KeyId};
use crate::domain::limit::Limits;
use crate::domain::money::{Currency, Money};

/// A limit. None at all is no number, and neither is a limit that lets nothing pass.
fn at_least_one<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    const LIFTED: &str = "it is at least 1; leave the flag out to lift this limit, or write --none alone to lift all";
    text.parse().map_err(|error| format!("{error}; {LIFTED}"))
}

/// Limits, in place of all that there are.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("limits").required(true).multiple(true)))]
pub struct LimitArgs {
    /// Calls in a second: so many at once, then evenly
    #[arg(long, value_name = "CALLS", group = "limits", value_parser = at_least_one::<NonZeroU32>)]
    pub per_second: Option<NonZeroU32>,
    /// Calls in a minute
    #[arg(long, value_name = "CALLS", group = "limits", value_parser = at_least_one::<NonZeroU32>)]
    pub per_minute: Option<NonZeroU32>,
    /// Calls in a day
    #[arg(long, value_name = "CALLS", group = "limits", value_parser = at_least_one::<NonZeroU32>)]
    pub per_day: Option<NonZeroU32>,
    /// Calls at one time
    #[arg(long, value_name = "CALLS", group = "limits", value_parser = at_least_one::<NonZeroU32>)]
    pub concurrent: Option<NonZeroU32>,
    /// No limit any more
    #[arg(long, group = "limits", conflicts_with_all = ["per_second", "per_minute", "per_day", "concurrent"])]
    pub none: bool,
}

impl From<LimitArgs> for Limits {
    fn from(given: LimitArgs) -> Self {
        let LimitArgs { per_second, per_minute, per_day, concurrent, none: _ } = given;
        Self { per_second, per_minute, per_day, concurrent }
    }
}

/// An account's limits.
#[derive(Debug, Args)]
pub struct AccountLimit {
    /// The account's id
    #[arg(value_parser = AccountId::new)]
    pub account: AccountId,
    /// Which limits.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// A key's limits.
#[derive(Debug, Args)]
pub struct KeyLimit {
    /// The account's id
    #[arg(value_parser = AccountId::new)]
    pub account: AccountId,
    /// The key's id
    #[arg(value_parser = KeyId::new)]
    pub key: KeyId,
    /// Which limits.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// An app's limits.
#[derive(Debug, Args)]
pub struct AppLimit {
    /// The account's id
    #[arg(value_parser = AccountId::new)]
    pub account: AccountId,
    /// The app's id
    #[arg(value_parser = AppId::new)]
    pub app: AppId,
    /// Which limits.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// A key's budget.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("budget").required(true).multiple(true)))]
#[command(group(ArgGroup::new("money").multiple(true)))]
pub struct KeyBudget {
    /// The account's id
    #[arg(value_parser = AccountId::new)]
    pub account: AccountId,
    /// The key's id
    #[arg(value_parser = KeyId::new)]
    pub key: KeyId,
    /// Units in a day, UTC
    #[arg(long, value_name = "UNITS", group = "budget", value_parser = at_least_one::<NonZeroU64>)]
    pub per_day: Option<NonZeroU64>,
    /// Units in a month, UTC
    #[arg(long, value_name = "UNITS", group = "budget", value_parser = at_least_one::<NonZeroU64>)]
    pub per_month: Option<NonZeroU64>,
    /// Units for ever
    #[arg(long, value_name = "UNITS", group = "budget", value_parser = at_least_one::<NonZeroU64>)]
    pub total: Option<NonZeroU64>,
    /// Of the amounts of money, as in CNY
    #[arg(long, value_name = "CODE", value_parser = Currency::new, requires = "money")]
    pub currency: Option<Currency>,
    /// What the units of a day may be worth, UTC
    #[arg(long, value_name = "AMOUNT", value_parser = Money::written, groups = ["budget", "money"], requires = "currency")]
    pub money_per_day: Option<Money>,
    /// What the units of a month may be worth, UTC
    #[arg(long, value_name = "AMOUNT", value_parser = Money::written, groups = ["budget", "money"], requires = "currency")]
    pub money_per_month: Option<Money>,
    /// What all units for ever may be worth
    #[arg(long, value_name = "AMOUNT", value_parser = Money::written, groups = ["budget", "money"], requires = "currency")]
    pub money_total: Option<Money>,
    /// No limit any more
    #[arg(long, group = "budget", conflicts_with_all = ["per_day", "per_month", "total", "currency", "money"])]
    pub none: bool,
}

impl TryFrom<KeyBudget> for Budget {
    type Error = BudgetFault;
    fn try_from(given: KeyBudget) -> Result<Self, BudgetFault> {
        let KeyBudget { per_day, per_month, total, currency, money_per_day, money_per_month, money_total, .. } = given;
        let amounts = [money_per_day, money_per_month, money_total];
        let money = currency.map(|currency| MoneyBudget::new(currency, amounts)).transpose()?;
        Ok(Self { per_day, per_month, total, money })
    }
}

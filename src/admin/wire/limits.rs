//! How limits look in OpenAPI; on the wire they are the domain's own.

use utoipa::ToSchema;

/// How many calls, each 1 to 4294967295: so many at once, then evenly. What is left out is not limited.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct CallLimits {
    /// In a second.
    #[schema(minimum = 1)]
    per_second: Option<u32>,
    /// In a minute.
    #[schema(minimum = 1)]
    per_minute: Option<u32>,
    /// In a day.
    #[schema(minimum = 1)]
    per_day: Option<u32>,
    /// At one time.
    #[schema(minimum = 1)]
    concurrent: Option<u32>,
}

/// How many units, each at least 1, by the calendar of UTC. What is left out is not limited.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct KeyBudget {
    /// From midnight to midnight.
    #[schema(minimum = 1)]
    per_day: Option<u64>,
    /// From the first of a month to the next.
    #[schema(minimum = 1)]
    per_month: Option<u64>,
    /// For ever, from when it is set.
    #[schema(minimum = 1)]
    total: Option<u64>,
    /// What the units may be worth, by the prices of the packages that pay.
    money: Option<MoneyBudget>,
}

/// How much money, by the calendar of UTC: at least one amount, each above zero. What is left out is not limited.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct MoneyBudget {
    /// The account's, by its three letters.
    #[schema(pattern = "^[A-Z]{3}$", example = "CNY")]
    currency: String,
    /// From midnight to midnight: digits, at most 9 places.
    #[schema(pattern = "^[0-9]{1,12}([.][0-9]{1,9})?$", example = "10.00")]
    per_day: Option<String>,
    /// From the first of a month to the next.
    #[schema(pattern = "^[0-9]{1,12}([.][0-9]{1,9})?$", example = "200.00")]
    per_month: Option<String>,
    /// For ever, from when it is set.
    #[schema(pattern = "^[0-9]{1,12}([.][0-9]{1,9})?$", example = "1000.00")]
    total: Option<String>,
}

/// What something costs.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct PriceView {
    /// How much, as a decimal without zeros at its end.
    #[schema(example = "49.9")]
    amount: String,
    /// The currency's three letters.
    #[schema(example = "CNY")]
    currency: String,
}

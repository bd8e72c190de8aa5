//! Offers: what can be bought, of which product, under which rules.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::Cx;
use super::product::Sold;
use crate::config::bounds::{OFFERS_MAX, RULES_MAX};
use crate::config::raw::{RawBillable, RawOffer};
use crate::config::read::{At, Given};
use crate::config::scalar::Zone;
use crate::config::suggest::{hint, listed};
use crate::config::{Meter, ProductKind};
use crate::domain::amount::Units;
use crate::domain::billable::{BillableStatuses, DatedRule};
use crate::domain::id::{OfferId, ProductId};
use crate::domain::offer::Offer;

/// Most product ids that a wrong one is compared with.
const COMPARED_MAX: usize = 100;
/// Most product ids that a message lists.
const LISTED_MAX: usize = 10;

type Offers = BTreeMap<OfferId, Arc<Offer>>;

pub(super) fn offers(given: Given<Vec<Given<RawOffer>>>, sold: &[Sold], cx: Cx<'_>) -> Option<Offers> {
    let Some(at) = given.optional()? else { return Some(Offers::new()) };
    cx.at_most(OFFERS_MAX, at.value.len(), "offers", at.place)?;
    let known = Known::new(sold);
    let mut lines: HashMap<OfferId, usize> = HashMap::new();
    let mut offers = Some(Offers::new());
    for given in at.value {
        let Given::Value(at) = given else {
            offers = None;
            continue;
        };
        let (id, offer) = offer(at, &known, cx);
        let before = id.as_ref().and_then(|id| lines.insert(id.value.clone(), cx.report.line_of(id.place)));
        if let (Some(id), Some(line)) = (id, before) {
            let message = format!("the offer `{}` is already on line {line}; give each offer its own id", id.value);
            cx.report.note(id.place, message);
        }
        match (offer, offers.as_mut()) {
            (Some(offer), Some(offers)) => drop(offers.insert(offer.id.clone(), Arc::new(offer))),
            (Some(_), None) => {}
            (None, _) => offers = None,
        }
    }
    offers
}

fn offer(at: At<RawOffer>, known: &Known<'_>, cx: Cx<'_>) -> (Option<At<OfferId>>, Option<Offer>) {
    let At { place, value: raw } = at;
    let id = raw.id.required("id", place, "calls-100", cx.report).and_then(|at| cx.rule(at, OfferId::new));
    let product = raw.product.required("product", place, "my-product", cx.report);
    let product = product.and_then(|at| product_of(at, known, cx));
    let for_apps = product.as_ref().and_then(|id| known.for_apps(id));
    let kind = raw.kind.required("kind", place, "per_call", cx.report); // one so far: nothing else to decide
    let calls = raw.calls.required("calls", place, "100", cx.report).map(|at| at.value.0);
    let validity = raw.validity.required("validity", place, "30d", cx.report);
    let price = raw.price.optional();
    let zone = raw.time_zone.or(Zone(TimeZone::UTC));
    let billable = billable(raw.billable, cx);
    let build = || {
        kind?;
        Some(Offer {
            id: id.as_ref()?.value.clone(),
            product: product?,
            quantity: Units::new(calls?),
            validity: validity?.value.0,
            zone: zone?.0,
            billable: billable?,
            price: price?.map(|at| at.value.0),
            for_apps: for_apps?,
        })
    };
    let offer = build();
    (id, offer)
}

/// What offers may name.
struct Known<'a> {
    products: HashMap<&'a str, &'a Sold>,
    /// The first ids of the alphabet, for messages. Empty if a product's id could not be read: any name may be its.
    shown: Vec<&'a str>,
}

impl<'a> Known<'a> {
    fn new(sold: &'a [Sold]) -> Self {
        let with_id = sold.iter().filter_map(|sold| Some((sold.id.as_ref()?.value.as_str(), sold)));
        // Backwards, so that of two products with one id the first is meant.
        let products: HashMap<_, _> = with_id.rev().collect();
        let readable = sold.iter().all(|sold| sold.id.is_some());
        let mut shown: Vec<&str> = if readable { products.keys().copied().collect() } else { Vec::new() };
        shown.sort_unstable();
        shown.truncate(COMPARED_MAX);
        Self { products, shown }
    }
}

impl Known<'_> {
    /// Whether a product is called by apps: whatever is no LLM product is.
    fn for_apps(&self, id: &ProductId) -> Option<bool> {
        let route = self.products.get(id.as_str())?.route.as_ref()?;
        Some(matches!(route.kind, ProductKind::Http { .. }))
    }
}

fn product_of(at: At<String>, known: &Known<'_>, cx: Cx<'_>) -> Option<ProductId> {
    let Some(found) = known.products.get(at.value.as_str()) else {
        let shown = || known.shown.iter().copied();
        if !known.shown.is_empty() {
            let (hint, listed) = (hint(&at.value, shown()), listed(shown().take(LISTED_MAX)));
            cx.report.note(at.place, format!("there is no product `{}`{hint}; write one of {listed}", at.value));
        }
        return None;
    };
    if found.meter == Some(Meter::None) {
        let message = format!(
            "the product `{}` has `meter: none`, so nothing of it can be sold; take the offer out or write \
                 `meter: calls`",
            at.value
        );
        cx.report.note(at.place, message);
        return None;
    }
    found.id.as_ref().map(|id| id.value.clone())
}

fn billable(given: Given<Vec<Given<RawBillable>>>, cx: Cx<'_>) -> Option<BillableStatuses> {
    let Some(At { place, value: raw }) = given.optional()? else { return Some(BillableStatuses::default()) };
    if raw.is_empty() {
        cx.report.note(place, "no rule; write one, as in `[{ statuses: success }]`, or take `billable` out");
        return None;
    }
    cx.at_most(RULES_MAX, raw.len(), "rules", place)?;
    let mut rules: Vec<DatedRule> = Vec::new();
    let mut complete = true;
    for given in raw {
        let Given::Value(at) = given else {
            complete = false;
            continue;
        };
        let from = at.value.from.optional();
        let statuses = at.value.statuses.required("statuses", at.place, "success", cx.report);
        let (Some(from), Some(statuses)) = (from, statuses) else {
            complete = false;
            continue;
        };
        let from = from.map(|at| at.value.0);
        if rules.iter().any(|rule| rule.from == from) {
            cx.report
                .note(at.place, "two rules begin at the same moment; give each its own `from`, and at most one none");
        }
        rules.push(DatedRule { from, statuses: statuses.value });
    }
    complete.then(|| BillableStatuses::new(rules))
}

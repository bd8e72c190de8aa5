//! What products must fulfil among themselves: no two of them may answer the same call.

use std::collections::HashMap;

use super::product::{Route, Sold};
use crate::config::ProductKind;
use crate::config::address::overlap;
use crate::config::problem::{PlaceId, Report};
use crate::config::scalar::size_text;

/// Where products of kind `llm` are found; `/v1/infers/…` lies below it.
const LLM_PATH: &str = "/v1";

pub(super) fn check(sold: &[Sold], buffered_bytes: Option<u64>, report: &Report<'_>) {
    let ids = sold.iter().filter_map(|sold| sold.id.as_ref());
    let ids = ids.map(|id| (id.value.as_str().to_owned(), id.place));
    each_once(ids, report, |id, line| {
        format!("the product `{id}` is already on line {line}; give each product its own id")
    });

    let routes: Vec<&Route> = sold.iter().filter_map(|sold| sold.route.as_ref()).collect();
    deployments_and_models(&routes, report);
    hosts_and_paths(&routes, report);
    for body_max in sold.iter().filter_map(|sold| sold.body_max.as_ref()) {
        if let Some(all) = buffered_bytes.filter(|all| body_max.value > *all) {
            let message = format!(
                "a body of {} never fits into `limits.buffered_bytes`, which is {}; make that larger or \
                     `body_max` smaller",
                size_text(body_max.value),
                size_text(all)
            );
            report.note(body_max.place, message);
        }
    }
}

/// Notes every value that was there before.
fn each_once(
    values: impl Iterator<Item = (String, PlaceId)>,
    report: &Report<'_>,
    message: impl Fn(&str, usize) -> String,
) {
    let mut lines: HashMap<String, usize> = HashMap::new();
    for (value, place) in values {
        match lines.get(&value) {
            Some(line) => report.note(place, message(&value, *line)),
            None => drop(lines.insert(value, report.line_of(place))),
        }
    }
}

fn deployments_and_models(routes: &[&Route], report: &Report<'_>) {
    let deployments = routes.iter().filter_map(|route| match &route.kind {
        ProductKind::Llm { deployment, .. } => Some((deployment.clone(), route.place)),
        ProductKind::Http { .. } => None,
    });
    each_once(deployments, report, |name, line| {
        format!("the deployment `{name}` is already on line {line}; give each product its own path segment")
    });
    let models = routes.iter().flat_map(|route| route.models.iter().map(|(name, place)| (name.clone(), *place)));
    each_once(models, report, |name, line| {
        format!(
            "the model name `{name}` is already sold on line {line}, and under `/v1` the name alone says what \
             is called; rename one of the two, for instance `{name}-2: <the seller's name>`"
        )
    });
}

fn hosts_and_paths(routes: &[&Route], report: &Report<'_>) {
    let llm = routes.iter().any(|route| matches!(route.kind, ProductKind::Llm { .. }));
    let mut seen = Vec::new();
    for route in routes {
        let ProductKind::Http { host, path, .. } = &route.kind else { continue };
        let path = path.strip_suffix('/').unwrap_or(path);
        seen.push((format!("{}{}", host.as_deref().unwrap_or("any host, path "), or_slash(path)), route.place));
        if llm && host.is_none() && overlap(path, LLM_PATH) {
            let message = format!(
                "the path `{}` overlaps `{LLM_PATH}`, where products of `kind: llm` are found; give this \
                 product a `host` or another path, as in `/weather`",
                or_slash(path)
            );
            report.note(route.place, message);
        }
    }
    each_once(seen.into_iter(), report, |found, line| {
        format!("another product, on line {line}, already has the same calls ({found}); change `host` or `path`")
    });
}

fn or_slash(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

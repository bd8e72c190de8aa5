//! Regular expressions for the JSON Schema: which texts a rule of `scalar` or `check` accepts, as far as they can say it.

use std::ops::RangeInclusive;

use schemars::Schema;
use serde_json::json;

use super::bounds::{
    DEPLOYMENT_BYTES_MAX, HOST_BYTES_MAX, KEY_BYTES_MIN, MODEL_BYTES_MAX, PARAMETER_BYTES_MAX, TOKEN_CHARS_MIN,
    USERNAME_BYTES_MAX,
};
use crate::domain::id::ID_BYTES_MAX;

/// A text in which each dollar begins what `interpolate` resolves.
pub(super) const TEXT: &str = r"^([^$]|\$\$|\$\{(file:[^${}]+|[A-Za-z_][A-Za-z0-9_]*(:-[^${}]*)?)\})*$";
/// Such a text in which something is resolved: what stands there then, nobody knows yet.
pub(super) const RESOLVED: &str = r"^[^$]*((\$\$|\$\{(file:[^${}]+|[A-Za-z_][A-Za-z0-9_]*(:-[^${}]*)?)\})[^$]*)+$";
/// A host's name or IPv4 address.
const HOST: &str = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?";
/// An IPv6 address in brackets, roughly.
const ADDRESS: &str = r"\[[0-9A-Fa-f:.]+\]";
/// A token of HTTP, as headers' names are.
const TOKEN: &str = "[!#%&'*+.^_`|~0-9A-Za-z-]+";
/// One segment of a plain path.
const SEGMENT: &str = r"/(?!\.{1,2}(/|$))[A-Za-z0-9._~!&'()*+,;=:@-]+";

/// The numbers of a range, with zeros before them or without.
pub(super) fn numbers(range: RangeInclusive<u64>) -> String {
    let (first, last) = (range.start().to_string(), range.end().to_string());
    let mut parts = Vec::new();
    for digits in first.len()..=last.len() {
        let least = if digits == first.len() { first.clone() } else { format!("1{}", "0".repeat(digits - 1)) };
        let most = if digits == last.len() { last.clone() } else { "9".repeat(digits) };
        same_length(&least, &most, "", &mut parts);
    }
    format!("0*({})", parts.join("|"))
}

/// Adds patterns for the numbers between two of as many digits, each behind a prefix.
fn same_length(least: &str, most: &str, prefix: &str, parts: &mut Vec<String>) {
    let (Some(low), Some(high)) = (least.chars().next(), most.chars().next()) else {
        parts.push(prefix.to_owned());
        return;
    };
    let (least_rest, most_rest) = (least.get(1..).unwrap_or_default(), most.get(1..).unwrap_or_default());
    if low == high {
        return same_length(least_rest, most_rest, &format!("{prefix}{low}"), parts);
    }
    let from_zero = least_rest.chars().all(|digit| digit == '0');
    let to_nine = most_rest.chars().all(|digit| digit == '9');
    if !from_zero {
        same_length(least_rest, &"9".repeat(least_rest.len()), &format!("{prefix}{low}"), parts);
    }
    let whole: Vec<char> =
        (low..=high).filter(|digit| (*digit != low || from_zero) && (*digit != high || to_nine)).collect();
    let rest = match least_rest.len() {
        0 => String::new(),
        1 => "[0-9]".to_owned(),
        more => format!("[0-9]{{{more}}}"),
    };
    match (whole.first(), whole.last()) {
        (Some(one), Some(other)) if one == other => parts.push(format!("{prefix}{one}{rest}")),
        (Some(one), Some(other)) => parts.push(format!("{prefix}[{one}-{other}]{rest}")),
        (_, None) | (None, _) => {}
    }
    if !to_nine {
        same_length(&"0".repeat(most_rest.len()), most_rest, &format!("{prefix}{high}"), parts);
    }
}

/// The numbers of a range in units, each with how many of the range's it is.
pub(super) fn in_units(range: &RangeInclusive<u64>, units: &[(&str, u64)]) -> String {
    let in_unit = |(name, each): &(&str, u64)| {
        let (least, most) = (range.start().div_ceil(*each), range.end() / each);
        (least <= most).then(|| format!("{}{name}", numbers(least..=most)))
    };
    let parts: Vec<String> = units.iter().filter_map(in_unit).collect();
    format!("^({})$", parts.join("|"))
}

/// Adds what a text must look like, unless something is resolved in it.
fn add(schema: &mut Schema, pattern: &str) {
    schema.insert("anyOf".to_owned(), json!([{ "pattern": pattern }, { "pattern": r"\$" }]));
}

/// What each item of a list must look like.
pub(super) fn each(form: fn(&mut Schema)) -> impl FnMut(&mut Schema) {
    move |schema| {
        let items = schema.get_mut("items").and_then(|items| <&mut Schema>::try_from(items).ok());
        if let Some(items) = items {
            form(items);
        }
    }
}

/// See [`crate::domain::id::IdFault`].
pub(super) fn id(schema: &mut Schema) {
    add(schema, &format!("^[A-Za-z0-9][A-Za-z0-9._-]{{0,{}}}$", ID_BYTES_MAX - 1));
}

/// The name of a key of receipts, or the prefix of a store's keys.
pub(super) fn name(schema: &mut Schema) {
    add(schema, &format!("^[A-Za-z0-9._-]{{1,{ID_BYTES_MAX}}}$"));
}

/// A query parameter.
pub(super) fn parameter(schema: &mut Schema) {
    add(schema, &format!("^[A-Za-z0-9._-]{{1,{PARAMETER_BYTES_MAX}}}$"));
}

/// A product's segment of the path.
pub(super) fn deployment(schema: &mut Schema) {
    add(schema, &format!(r"^(?!\.*$)[A-Za-z0-9._-]{{1,{DEPLOYMENT_BYTES_MAX}}}$"));
}

/// The path of a file or folder.
pub(super) fn path(schema: &mut Schema) {
    add(schema, r"^[^\u0000]*[^\s\u0000][^\u0000]*$");
}

/// Where the access log goes.
pub(super) fn access_log(schema: &mut Schema) {
    add(schema, r"^(off|stdout|[^\u0000]*/[^\u0000]*)$");
}

/// Any secret.
pub(super) fn secret(schema: &mut Schema) {
    add(schema, r"\S");
}

/// The admin token.
pub(super) fn token(schema: &mut Schema) {
    add(schema, &format!("^[!-~]{{{TOKEN_CHARS_MIN},}}$"));
}

/// A key of the gateway's own. Bytes are counted, so that what is not ASCII may have fewer characters.
pub(super) fn own_key(schema: &mut Schema) {
    add(schema, &format!(r"[^\u0000-\u007f]|^[\u0000-\u007f]{{{KEY_BYTES_MIN},}}$"));
}

/// A seller's key.
pub(super) fn bearer(schema: &mut Schema) {
    add(schema, "^[!-~]+$");
}

/// A private key in PEM.
pub(super) fn private_pem(schema: &mut Schema) {
    add(schema, "-----BEGIN PRIVATE KEY-----");
}

/// A public key in PEM.
pub(super) fn public_pem(schema: &mut Schema) {
    add(schema, "-----BEGIN PUBLIC KEY-----");
}

/// An ACL user.
pub(super) fn username(schema: &mut Schema) {
    add(schema, &format!("^[!-~]{{1,{USERNAME_BYTES_MAX}}}$"));
}

/// The name under which Sentinels watch a server.
pub(super) fn master(schema: &mut Schema) {
    add(schema, "^[!-~]+$");
}

/// A network or an address, roughly.
pub(super) fn network(schema: &mut Schema) {
    add(schema, "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$");
}

/// The URL of a Redis server.
pub(super) fn store_url(schema: &mut Schema) {
    let port = port();
    add(schema, &format!("^(rediss?://({HOST}|{ADDRESS})(:{port})?(/[0-9]{{0,5}})?|unix:/([^/].*)?)$"));
}

/// A seller's URL.
pub(super) fn base_url(schema: &mut Schema) {
    let port = port();
    add(schema, &format!("^https?://({HOST}|{ADDRESS})(:{port})?({SEGMENT})*/?$"));
}

/// Any URL of the web.
pub(super) fn web_url(schema: &mut Schema) {
    add(schema, &format!(r"^https?://({HOST}|{ADDRESS})(:[0-9]+)?([/?][^#\s]*)?$"));
}

fn port() -> String {
    numbers(1..=u64::from(u16::MAX))
}

/// A host without port.
pub(super) fn host(schema: &mut Schema) {
    add(schema, &format!("^(?=.{{1,{HOST_BYTES_MAX}}}$){HOST}$"));
}

/// The prefix of a path.
pub(super) fn path_prefix(schema: &mut Schema) {
    add(schema, &format!("^(/|({SEGMENT})+/?)$"));
}

/// A header's name.
pub(super) fn header(schema: &mut Schema) {
    add(schema, &format!("^{TOKEN}$"));
}

/// A header's name, or how names begin.
pub(super) fn header_pattern(schema: &mut Schema) {
    add(schema, r"^(\*|[!#%&'+.^_`|~0-9A-Za-z-]+\*?)$");
}

/// An origin of pages, or all.
pub(super) fn origin(schema: &mut Schema) {
    add(schema, r"^(\*|[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+)$");
}

/// A method, or all.
pub(super) fn method(schema: &mut Schema) {
    add(schema, r"^(\*|[A-Z]+)$");
}

/// The names of models, and the seller's for them.
pub(super) fn models(schema: &mut Schema) {
    let name = format!(r"^(?=.*\S)[^\u0000-\u001f\u007f-\u009f]{{1,{MODEL_BYTES_MAX}}}$");
    schema.insert("propertyNames".to_owned(), json!({ "pattern": name }));
    let sellers =
        json!({ "type": ["string", "null"], "pattern": TEXT, "anyOf": [{ "pattern": name }, { "pattern": r"\$" }] });
    schema.insert("additionalProperties".to_owned(), sellers);
}

/// Headers' names, with their values.
pub(super) fn headers(schema: &mut Schema) {
    schema.insert("propertyNames".to_owned(), json!({ "pattern": format!("^{TOKEN}$") }));
    let values = schema.get_mut("additionalProperties").and_then(|values| <&mut Schema>::try_from(values).ok());
    if let Some(values) = values {
        add(values, "^[!-~]([ -~]*[!-~])?$");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(range: RangeInclusive<u64>, expected: &str) {
        assert_eq!(numbers(range.clone()), format!("0*({expected})"), "{range:?}");
    }

    #[test]
    fn numbers_of_a_range() {
        check(1..=1, "1");
        check(0..=9, "[0-9]");
        check(1..=256, "[1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-6]");
        check(256..=1000, "25[6-9]|2[6-9][0-9]|[3-9][0-9]{2}|1000");
        check(1..=1_000_000, "[1-9]|[1-9][0-9]|[1-9][0-9]{2}|[1-9][0-9]{3}|[1-9][0-9]{4}|[1-9][0-9]{5}|1000000");
        check(168..=720, "16[8-9]|1[7-9][0-9]|[2-6][0-9]{2}|7[0-1][0-9]|720");
        check(10..=10, "10");
        check(7..=30, "[7-9]|[1-2][0-9]|30");
    }

    #[test]
    fn units_without_a_number_are_left_out() {
        let units = [("ms", 1), ("s", 1000), ("m", 60_000)];
        assert_eq!(in_units(&(10..=2000), &units), format!("^({}ms|0*([1-2])s)$", numbers(10..=2000)));
    }
}

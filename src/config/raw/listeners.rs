//! The keys under `listeners`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::bounds::CERTIFICATES_MAX;
use crate::config::pattern;
use crate::config::read::Given;
use crate::config::scalar::Listen;

/// Where the gateway listens: address and port; port 0 picks a free one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawListeners {
    /// Where buyers call: an address, or a section with one.
    #[schemars(extend("default" = "127.0.0.1:8080"))]
    pub(in crate::config) data: Given<RawDataListener>,
    /// Where operators and Prometheus call: an address, or a section with one. Outside this machine's own addresses the
    /// token needs 32 characters.
    #[schemars(extend("default" = "127.0.0.1:9090"))]
    pub(in crate::config) admin: Given<RawAdminListener>,
}

/// Where buyers call. The address alone may stand in its place.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "\0short")]
#[schemars(transform = or_address)]
pub(in crate::config) struct RawDataListener {
    /// Address and port.
    #[schemars(extend("default" = "127.0.0.1:8080"))]
    pub(in crate::config) address: Given<Listen>,
    /// Certificates. Default: TLS is not spoken.
    pub(in crate::config) tls: Given<RawServerTls>,
    /// Also speaks HTTP/2 without TLS, to clients that begin with it. With TLS it is spoken anyway.
    #[schemars(extend("default" = false))]
    pub(in crate::config) h2c: Given<bool>,
}

/// Where operators and Prometheus call. The address alone may stand in its place.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename = "\0short")]
#[schemars(transform = or_address)]
pub(in crate::config) struct RawAdminListener {
    /// Address and port.
    #[schemars(extend("default" = "127.0.0.1:9090"))]
    pub(in crate::config) address: Given<Listen>,
    /// Certificates. Default: TLS is not spoken.
    pub(in crate::config) tls: Given<RawAdminTls>,
}

/// Lets an address stand for a whole section.
fn or_address(schema: &mut schemars::Schema) {
    let section = std::mem::take(schema);
    let address = <Listen as JsonSchema>::json_schema(&mut schemars::SchemaGenerator::default());
    *schema = schemars::json_schema!({ "anyOf": [address, section] });
}

/// Certificates that a listener shows.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["certificates"]))]
pub(in crate::config) struct RawServerTls {
    /// 1 to 64 certificates. Shown is the first that is made out to the name the client asks for, else the first.
    #[schemars(extend("minItems" = 1, "maxItems" = CERTIFICATES_MAX))]
    pub(in crate::config) certificates: Given<Vec<Given<RawCertificate>>>,
}

/// Certificates that the admin listener shows, and those that it asks for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["certificates"]))]
pub(in crate::config) struct RawAdminTls {
    /// 1 to 64 certificates. Shown is the first that is made out to the name the client asks for, else the first.
    #[schemars(extend("minItems" = 1, "maxItems" = CERTIFICATES_MAX))]
    pub(in crate::config) certificates: Given<Vec<Given<RawCertificate>>>,
    /// PEM file with authorities: a client needs a certificate of one of them, beside the token. Default: none is asked for.
    #[schemars(transform = pattern::path)]
    pub(in crate::config) client_ca_file: Given<String>,
}

/// A certificate and its key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["cert_file", "key_file"]))]
pub(in crate::config) struct RawCertificate {
    /// PEM file with the certificate, then those that lead from it to the authority.
    #[schemars(transform = pattern::path)]
    pub(in crate::config) cert_file: Given<String>,
    /// PEM file with its key; it must be the owner's alone (chmod 600).
    #[schemars(transform = pattern::path)]
    pub(in crate::config) key_file: Given<String>,
}

//! The catalogue as the data plane uses it: products with their metrics, header rules and TLS set-ups made ready once.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::cors::Cors;
use super::secrets::Secrets;
use crate::config::{Catalog, Product, ProductKind, UpstreamTls};
use crate::domain::limit::{EachLimits, Level};
use crate::service::limits::{Limited, Limiter, Whose};
use crate::telemetry::metrics::{Metrics, ProductMetrics};

/// A product, ready to be called.
#[derive(Debug)]
pub struct Sold {
    /// Its place in [`Shelf::sold`]: the same on every core.
    pub index: usize,
    /// What the configuration says.
    pub product: Arc<Product>,
    /// Its metrics.
    pub metrics: ProductMetrics,
    /// Whose pages may call it.
    pub cors: Cors,
    /// The Host header that the seller gets.
    pub host: HeaderValue,
    /// What no answer of the seller may hold.
    pub secrets: Secrets,
    /// Whether it is an LLM product.
    pub llm: bool,
    /// What it sets for each account, key and app, if it does.
    pub each: Option<EachLimits>,
    /// How many calls it gets in all, if that is limited.
    pub limited: Option<Limited>,
    /// How the seller's certificate is checked, if TLS is spoken.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Sold {
    /// The seller's own name for a model, if it differs from the buyer's.
    pub fn sellers_model(&self, buyers: Option<&str>) -> Option<&str> {
        match &self.product.kind {
            ProductKind::Llm { models, .. } => {
                let buyers = buyers?;
                models.get(buyers).map(String::as_str).filter(|sellers| *sellers != buyers)
            }
            ProductKind::Http { .. } => None,
        }
    }
}

/// All products, and how calls find them.
#[derive(Debug)]
pub struct Shelf {
    /// In the order of their ids.
    pub sold: Vec<Arc<Sold>>,
    /// LLM products by deployment.
    pub deployments: HashMap<String, usize>,
    /// LLM products by the names of their models; those that take any name, by their deployment, as `/v1/models` lists
    /// them, unless it is the name of a model.
    pub models: HashMap<String, usize>,
    /// Other products, those with a host first, then the longest path first.
    pub apis: Vec<usize>,
    /// The query parameters that hold an AppCode of an LLM product: a call by model alone may have any of them.
    pub code_parameters: Vec<String>,
}

/// Why a product cannot be made ready.
#[derive(Debug, thiserror::Error)]
#[error("products.{product}: {what}")]
pub struct ShelfError {
    product: String,
    what: String,
}

impl Shelf {
    /// Makes all products ready.
    pub fn new(catalog: &Catalog, (metrics, limiter): (&Metrics, &Limiter)) -> Result<Self, ShelfError> {
        let (deployments, models) = (HashMap::new(), HashMap::new());
        let (sold, apis, code_parameters) = (Vec::new(), Vec::new(), Vec::new());
        let mut shelf = Self { sold, deployments, models, apis, code_parameters };
        for (index, product) in catalog.products.values().enumerate() {
            let fault = |what: String| ShelfError { product: product.id.to_string(), what };
            let upstream = &product.upstream;
            let llm = match &product.kind {
                ProductKind::Llm { deployment, models } => {
                    shelf.deployments.insert(deployment.clone(), index);
                    shelf.models.extend(models.keys().map(|name| (name.clone(), index)));
                    let new = |name: &&String| !shelf.code_parameters.contains(name);
                    let parameter = product.app_code_query.as_ref().filter(new).cloned();
                    shelf.code_parameters.extend(parameter);
                    true
                }
                ProductKind::Http { .. } => {
                    shelf.apis.push(index);
                    false
                }
            };
            shelf.sold.push(Arc::new(Sold {
                index,
                product: Arc::clone(product),
                metrics: metrics.product(product.id.as_str()),
                cors: Cors::new(&product.cors),
                host: HeaderValue::from_str(upstream.authority.as_str()).map_err(|error| fault(error.to_string()))?,
                secrets: Secrets::of(&upstream.headers),
                llm,
                each: (!product.each.is_none()).then_some(product.each),
                limited: limiter.limited(Level::Product, product.limits, || Whose::Product(product.id.clone())),
                tls: upstream.tls.as_ref().map(client_tls).transpose().map_err(fault)?,
            }));
        }
        for sold in &shelf.sold {
            if let ProductKind::Llm { deployment, models } = &sold.product.kind
                && models.is_empty()
            {
                shelf.models.entry(deployment.clone()).or_insert(sold.index);
            }
        }
        let sold = &shelf.sold;
        shelf.apis.sort_by_key(|index| std::cmp::Reverse(sold.get(*index).map(|sold| specificity(&sold.product.kind))));
        Ok(shelf)
    }
}

impl Shelf {
    /// The largest body of any product.
    pub fn body_max(&self) -> u64 {
        self.sold.iter().map(|sold| sold.product.body_max).max().unwrap_or_default()
    }
}

fn specificity(kind: &ProductKind) -> (bool, usize) {
    match kind {
        ProductKind::Http { host, path, .. } => (host.is_some(), path.len()),
        ProductKind::Llm { .. } => (false, 0),
    }
}

fn client_tls(tls: &UpstreamTls) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => add_file(&mut roots, path).map_err(|what| format!("ca_file {}: {what}", path.display()))?,
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    for certificate in CertificateDer::pem_reader_iter(BufReader::new(file)) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(()) }
}

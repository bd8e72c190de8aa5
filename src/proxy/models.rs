//! `/v1/models`: what a caller may call, free of charge, in OpenAI's shape.

use http::{HeaderValue, Response, header};
use serde::Serialize;

use super::body::AnswerBody;
use super::catalog::{Shelf, Sold};
use super::rejection::{Code, Rejection};
use super::route::{callable, published_path, quoted};
use super::words::texts;
use crate::config::ProductKind;
use crate::service::authenticate::Caller;

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    /// OpenAI's SDKs expect a number here; nobody knows when a seller made its model.
    created: u64,
    owned_by: &'a str,
    /// Where the product is published.
    base_path: String,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

/// Lists the models of one product or of all that the caller may call; or shows one of them. Where two products have one
/// name, the list of all has it once: it means the product that a call by this name reaches, which is the one that sells
/// a model of it, not the one that has it for its deployment. If the caller may not call that one, the name is not listed.
pub fn answer(
    shelf: &Shelf,
    caller: Option<&Caller>,
    sold: Option<&Sold>,
    model: Option<&str>,
) -> Result<Response<AnswerBody>, Rejection> {
    let mut data: Vec<Model<'_>> = callable(shelf, caller)
        .filter(|candidate| sold.is_none_or(|sold| sold.index == candidate.index))
        .flat_map(|candidate| {
            let reached = |model: &Model<'_>| sold.is_some() || shelf.models.get(model.id) == Some(&candidate.index);
            models_of(candidate).into_iter().filter(reached)
        })
        .filter(|model| caller.is_none_or(|caller| caller.opens_model(model.id)))
        .collect();
    data.sort_by_key(|model| model.id);
    let text = match model {
        None => serde_json::to_vec(&List { object: "list", data }),
        Some(wanted) => match data.iter().find(|model| model.id == wanted) {
            Some(model) => serde_json::to_vec(model),
            None => {
                let known: Vec<&str> = data.iter().map(|model| model.id).collect();
                let values = [("model", quoted(wanted)), ("known", known.join(", ").into())];
                let message = texts::NO_MODEL_FOR_KEY.with(values);
                return Err(Rejection::new(Code::ModelNotFound, message).param("model"));
            }
        },
    };
    let mut response = Response::new(AnswerBody::full(text.unwrap_or_default())); // names and numbers always serialise
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A product's models; one that takes any name is listed under its deployment.
fn models_of(sold: &Sold) -> Vec<Model<'_>> {
    let ProductKind::Llm { deployment, models } = &sold.product.kind else { return Vec::new() };
    let named: Vec<&String> = if models.is_empty() { vec![deployment] } else { models.keys().collect() };
    let model = |id| Model {
        id,
        object: "model",
        created: 0,
        owned_by: sold.product.id.as_str(),
        base_path: published_path(sold),
    };
    named.into_iter().map(|name| model(name.as_str())).collect()
}

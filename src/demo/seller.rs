//! The demo's seller: a small OpenAI-compatible server that says the same friendly thing to everybody. It plays the
//! part of a real backend; the gateway does not know the difference.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The model that it serves.
pub(super) const MODEL: &str = "hello-1";
/// Between two words of a streamed answer: a reader should see them come.
const WORD_PAUSE: Duration = Duration::from_millis(40);
/// Largest request body.
const BODY_BYTES_MAX: usize = 1024 * 1024;

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    messages: Vec<Value>,
    #[serde(default)]
    input: Value,
}

/// Starts the seller on a free port of this machine; it runs as long as the runtime does.
pub(super) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // A connection that breaks is the gateway's business.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    });
    Ok(address)
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return Ok(refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this seller reads"));
    };
    let Ok(asked) = serde_json::from_slice::<Asked>(&body.to_bytes()) else {
        return Ok(refusal(StatusCode::BAD_REQUEST, "the body is no JSON that this seller understands"));
    };
    Ok(match (head.method, head.uri.path()) {
        (Method::POST, "/v1/chat/completions") if asked.stream => streamed(&words(&asked)),
        (Method::POST, "/v1/chat/completions") => plain(&words(&asked), &asked),
        (Method::POST, "/v1/embeddings") => embeddings(&asked),
        _ => refusal(StatusCode::NOT_FOUND, "this seller serves /v1/chat/completions and /v1/embeddings"),
    })
}

fn words(asked: &Asked) -> Vec<String> {
    let last = asked.messages.last().and_then(|message| message.pointer("/content")?.as_str()).unwrap_or("nothing");
    let text = format!("Hello from the demo's seller! You said: {last}");
    text.split_inclusive(' ').map(str::to_owned).collect()
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let mut response = Response::new(Full::from(value.to_string()).boxed());
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn refusal(status: StatusCode, message: &str) -> Answer {
    let error = json!({"message": message, "type": "invalid_request_error", "param": null, "code": null});
    json_answer(status, &json!({ "error": error }))
}

/// One word is one token here.
fn usage(prompt: usize, completion: usize) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt.saturating_add(completion)})
}

fn plain(words: &[String], asked: &Asked) -> Answer {
    let message = json!({"role": "assistant", "content": words.concat()});
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    let usage = usage(asked.messages.len(), words.len());
    let (id, object) = ("chatcmpl-demo", "chat.completion");
    let value = json!({"id": id, "object": object, "created": 0, "model": MODEL, "choices": [choice], "usage": usage});
    json_answer(StatusCode::OK, &value)
}

fn streamed(words: &[String]) -> Answer {
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        let (id, object) = ("chatcmpl-demo", "chat.completion.chunk");
        let chunk = json!({"id": id, "object": object, "created": 0, "model": MODEL, "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let begun = chunk(json!({"role": "assistant", "content": ""}), Value::Null);
    let said = words.iter().map(|word| chunk(json!({ "content": word }), Value::Null));
    let ended = [chunk(json!({}), json!("stop")), "data: [DONE]\n\n".to_owned()];
    let events: Vec<String> = std::iter::once(begun).chain(said).chain(ended).collect();
    let paced = stream::unfold(events.into_iter(), |mut events| async move {
        let event = events.next()?;
        tokio::time::sleep(WORD_PAUSE).await;
        Some((Ok(Frame::data(Bytes::from(event))), events))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(paced)));
    let kind = http::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn embeddings(asked: &Asked) -> Answer {
    let inputs = asked.input.as_array().map_or(1, Vec::len);
    let one = |index| json!({"object": "embedding", "index": index, "embedding": [0.6, 0.8]});
    let data: Vec<Value> = (0..inputs).map(one).collect();
    let value = json!({"object": "list", "data": data, "model": MODEL, "usage": usage(inputs, 0)});
    json_answer(StatusCode::OK, &value)
}

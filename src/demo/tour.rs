//! The tour: a plain, a streamed and a refused call through real HTTP, with the headers that show the count going down,
//! the books before and after, and what to try next.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::http::{Answer, Ask, call};
use super::{CALLS, DemoError};

/// The books follow the calls within this time.
const BOOKS_FOLLOW_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at the books.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Headers that a reader wants to see.
const SHOWN: [&str; 6] = [
    "content-type",
    "x-request-id",
    "x-tollgate-remaining",
    "x-tollgate-unit",
    "x-tollgate-package-expires",
    "x-tollgate-error-code",
];

/// What the tour needs to know.
pub(super) struct Tour {
    pub data: SocketAddr,
    pub admin: SocketAddr,
    pub token: String,
    pub model: String,
    pub scripted: bool,
    pub dir: PathBuf,
}

/// What a package's books say.
struct Books {
    total: u64,
    settled: u64,
    remaining: u64,
}

impl Tour {
    /// Gives the tour.
    pub(super) async fn give(&self, out: &mut dyn Write) -> Result<(), DemoError> {
        let (account, key) = self.open_account().await?;
        let before = self.books(&account).await?;
        self.introduce(out, &account, &key).map_err(output)?;

        writeln!(out, "\n1. A plain call").map_err(output)?;
        let charged = u64::from(self.tour_call(out, &key, false).await? == StatusCode::OK);
        writeln!(out, "\n2. A streamed call").map_err(output)?;
        let charged = charged + u64::from(self.tour_call(out, &key, true).await? == StatusCode::OK);
        writeln!(out, "\n3. A refused call: the same key with a typo costs nothing").map_err(output)?;
        let typo = typo(&key);
        self.tour_call(out, &typo, false).await?;

        let after = self.books_after(&account, before.settled + charged).await?;
        compare(out, &before, &after).map_err(output)?;
        if after.settled == before.settled + charged && charged == 2 {
            return self.conclude(out, &account, &key).map_err(output);
        }
        let counted = after.settled.saturating_sub(before.settled);
        let hint = if self.scripted { "" } else { "; what stands above says why: is --upstream right?" };
        Err(DemoError::Tour(format!("{charged} of 2 calls were answered, and {counted} counted{hint}")))
    }

    async fn admin(&self, method: Method, path: &str, body: &Value) -> Result<Value, DemoError> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let ask = Ask { address: self.admin, method, path, bearer: &self.token, body };
        let answer = call(ask).await.map_err(DemoError::Tour)?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let value = serde_json::from_str(&text).ok().filter(|_| answer.status.is_success());
        value.ok_or_else(|| DemoError::Tour(format!("{path}: {} {text}", answer.status)))
    }

    /// The sample account: its id and a fresh key.
    async fn open_account(&self) -> Result<(String, String), DemoError> {
        let account = self.admin(Method::POST, "/admin/v1/accounts", &json!({ "name": "Demo Ltd" })).await?;
        let id = text(&account, "/id");
        let offer = json!({ "offer": format!("demo-{CALLS}") });
        self.admin(Method::POST, &format!("/admin/v1/accounts/{id}/packages"), &offer).await?;
        let wanted = json!({ "description": "made by the demo" });
        let key = self.admin(Method::POST, &format!("/admin/v1/accounts/{id}/keys"), &wanted).await?;
        Ok((id, text(&key, "/key")))
    }

    async fn books(&self, account: &str) -> Result<Books, DemoError> {
        let listed = self.admin(Method::GET, &format!("/admin/v1/accounts/{account}/packages"), &Value::Null).await?;
        let figure = |name: &str| listed.pointer(&format!("/packages/0/{name}")).and_then(Value::as_u64).unwrap_or(0);
        Ok(Books { total: figure("total"), settled: figure("settled"), remaining: figure("remaining") })
    }

    /// The books once they show what was charged: they follow the calls by a moment.
    async fn books_after(&self, account: &str, settled: u64) -> Result<Books, DemoError> {
        let begun = Instant::now();
        loop {
            let books = self.books(account).await?;
            if books.settled >= settled || begun.elapsed() > BOOKS_FOLLOW_WITHIN {
                return Ok(books);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn request(&self, stream: bool) -> Value {
        let content = if stream { "Count to three, please." } else { "Hello, Tollgate!" };
        json!({
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 48,
            "stream": stream,
        })
    }

    async fn tour_call(&self, out: &mut dyn Write, key: &str, stream: bool) -> Result<StatusCode, DemoError> {
        let path = "/v1/chat/completions";
        let body = self.request(stream).to_string();
        writeln!(out, "   > POST http://{}{path}\n   > {body}", self.data).map_err(output)?;
        let ask = Ask { address: self.data, method: Method::POST, path, bearer: key, body };
        let answer = call(ask).await.map_err(DemoError::Tour)?;
        show(out, &answer).map_err(output)?;
        Ok(answer.status)
    }

    fn introduce(&self, out: &mut dyn Write, account: &str, key: &str) -> io::Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        let seller = if self.scripted { "a scripted one, inside this process" } else { "yours" };
        writeln!(out, "Tollgate {version}: a marketplace on this machine\n")?;
        writeln!(out, "   buyers call     http://{}/v1", self.data)?;
        writeln!(out, "   operators call  http://{}/admin/v1", self.admin)?;
        writeln!(out, "   the seller is   {seller}; it serves the model {}", self.model)?;
        writeln!(out, "   the account is  {account}, with a package of {CALLS} calls")?;
        writeln!(out, "   its API key is  {key}")?;
        writeln!(out, "   files are in    {}", self.dir.display())
    }

    /// What to try next; it stands at the line's beginning, for Python would not run it otherwise when it is pasted.
    fn conclude(&self, out: &mut dyn Write, account: &str, key: &str) -> io::Result<()> {
        let (data, admin, model, dir) = (self.data, self.admin, &self.model, self.dir.display());
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("tollgate"));
        let program = program.display(); // whoever runs it out of its folder has it on no path
        writeln!(
            out,
            r#"
Try it yourself

curl -i http://{data}/v1/chat/completions \
  -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \
  -d '{{"model":"{model}","messages":[{{"role":"user","content":"Hi"}}]}}'

# Python: pip install openai
from openai import OpenAI
client = OpenAI(base_url="http://{data}/v1", api_key="{key}")
print(client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hi"}}]))

// Node: npm install openai, in a file that ends with .mjs
import OpenAI from "openai";
const client = new OpenAI({{ baseURL: "http://{data}/v1", apiKey: "{key}" }});
console.log(await client.chat.completions.create({{ model: "{model}", messages: [{{ role: "user", content: "Hi" }}] }}));

# What the operator sees
{program} packages list {account} --admin http://{admin} --admin-token-file {dir}/admin.token
{program} usage export --config {dir}/tollgate.yaml
curl http://{admin}/metrics

Serving until Ctrl-C."#
        )?;
        out.flush()
    }
}

fn compare(out: &mut dyn Write, before: &Books, after: &Books) -> io::Result<()> {
    writeln!(out, "\nThe books           before   after")?;
    for (name, before, after) in [
        ("bought", before.total, after.total),
        ("used", before.settled, after.settled),
        ("remaining", before.remaining, after.remaining),
    ] {
        writeln!(out, "   {name:<15} {before:>7} {after:>7}")?;
    }
    Ok(())
}

/// A text in an answer of the admin API; empty if it is not there, which the calls that follow will tell.
fn text(answer: &Value, pointer: &str) -> String {
    answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn output(error: io::Error) -> DemoError {
    DemoError::Io { what: "the tour cannot be printed".to_owned(), error }
}

/// The key with one character changed: its checksum tells.
fn typo(key: &str) -> String {
    let (kept, last) = key.split_at(key.len().saturating_sub(1));
    format!("{kept}{}", if last == "x" { 'y' } else { 'x' })
}

fn show(out: &mut dyn Write, answer: &Answer) -> io::Result<()> {
    writeln!(out, "   < {}", answer.status)?;
    let headers: &HeaderMap = &answer.headers;
    for name in SHOWN {
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
            writeln!(out, "   < {name}: {value}")?;
        }
    }
    let text = String::from_utf8_lossy(&answer.body);
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let (first, rest) = lines.split_at(lines.len().min(3));
    first.iter().try_for_each(|line| writeln!(out, "   < {line}"))?;
    match rest.last() {
        Some(last) if rest.len() > 1 => writeln!(out, "   < … {} more lines …\n   < {last}", rest.len() - 1),
        Some(last) => writeln!(out, "   < {last}"),
        None => Ok(()),
    }
}

//! Everything that this load runner knows of Tollgate: its configuration, how it says where it listens,
//! and the administrator's calls that make an account which may call.

use crate::client::Transport;
use crate::process::{Process, START_MAX};
use crate::target::{Endpoint, KEY_OF_NOBODY, Place, Signer};
use crate::tls::{Files, HOST};
use crate::{Result, SETTLE_POLL, wire};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const ADMIN_TOKEN: &str = "bench-admin-token-0123456789";

/// Who calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Anybody: the product is open, and not metered.
    Nobody,
    /// An account's API key.
    Key,
    /// An account's app, which signs.
    App,
    /// The same app by its AppCode.
    AppCode,
}

/// Makes an authority and a server's certificate in a folder of `dir`.
pub(crate) fn make_certificate(dir: &Path) -> Result<Files> {
    let files = Files(dir.join("certificates"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let output = command.arg("dev-certificate").arg(&files.0).args(["--host", HOST]).output()?;
    match output.status.success() {
        true => Ok(files),
        false => Err(format!("no certificate: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Starts a gateway of one worker in front of the stub, called in the given way. The metered product is sold to one
/// account with more calls than any run makes. Accounts are on the Redis server at `store`, or embedded.
pub(crate) async fn start(
    place: &Place<'_>,
    caller: Caller,
    transport: Transport,
    store: Option<&Path>,
) -> Result<(Process, Endpoint)> {
    let product = if caller == Caller::Nobody { "plain" } else { "metered" };
    let config = place.dir.join("tollgate.yaml");
    let mut settings = configuration(place.upstream, place.dir, store);
    settings["listeners"]["data"] = listener(&transport);
    fs::write(&config, settings.to_string())?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.arg("serve").arg("--config").arg(&config);
    let mut process = Process::start(product, &mut command, place.cores.target, place.cores, place.dir)?;
    let (data, admin) = process.wait_line(listening).await?;
    wait_ready(&mut process, admin).await?;
    let (headers, signer) = match caller {
        Caller::Nobody => (vec![KEY_OF_NOBODY.to_owned()], None),
        Caller::Key => {
            let account = buy_calls(admin).await?;
            let key = post(admin, &format!("{account}/keys"), &json!({ "description": "bench" })).await?;
            (vec![format!("authorization: Bearer {}", text(&key, "key")?)], None)
        }
        Caller::App | Caller::AppCode => {
            let account = buy_calls(admin).await?;
            let app = json!({ "name": "bench", "products": ["metered"] });
            let app = post(admin, &format!("{account}/apps"), &app).await?;
            if caller == Caller::App {
                let signer = Signer { app_key: text(&app, "app_key")?, secret: text(&app, "app_secret")? };
                (Vec::new(), Some(signer))
            } else {
                let codes = format!("{account}/apps/{}/codes", text(&app, "id")?);
                let code = post(admin, &codes, &json!({})).await?;
                (vec![format!("x-apig-appcode: {}", text(&code, "code")?)], None)
            }
        }
    };
    let path = format!("/v1/infers/{product}/v1/chat/completions");
    let endpoint = Endpoint { address: data, transport, path, headers, signer };
    Ok((process, endpoint))
}

fn listener(transport: &Transport) -> Value {
    let address = "127.0.0.1:0";
    match transport {
        Transport::Http1 => json!(address),
        Transport::H2c => json!({ "address": address, "h2c": true }),
        Transport::Tls(files) | Transport::Resumed(files) | Transport::H2(files) => {
            let pair = json!({ "cert_file": files.certificate(), "key_file": files.key() });
            json!({ "address": address, "tls": { "certificates": [pair] } })
        }
    }
}

/// All but `listeners.data`.
fn configuration(upstream: SocketAddr, dir: &Path, store: Option<&Path>) -> Value {
    let (data_dir, access_log) = (dir.join("data"), dir.join("access.log"));
    let product = |id: &str, access: &str, meter: &str| {
        json!({
            "id": id, "kind": "llm", "deployment": id, "access": access, "meter": meter,
            "accept": ["signature", "app_code", "api_key"],
            "upstream": { "base_url": format!("http://{upstream}/v1") },
        })
    };
    // JSON is YAML too.
    let mut config = json!({
        "workers": 1,
        "listeners": { "admin": "127.0.0.1:0" },
        "admin": { "token": ADMIN_TOKEN },
        "secrets": { "hash_key": "0123456789abcdef0123456789abcdef" },
        "credentials": { "allow_app_code_without_tls": true },
        "data_dir": data_dir,
        // As in production: nginx and the bare proxy log nothing, this is ours to pay.
        "log": { "access": access_log },
        "products": [product("plain", "open", "none"), product("metered", "keys", "calls")],
        "offers": [{
            "id": "big", "product": "metered", "kind": "per_call",
            "calls": 100_000_000, "validity": "1y",
        }],
    });
    if let Some(socket) = store {
        let url = format!("unix:{}", socket.display());
        config["store"] = json!({ "volatile": true, "redis": { "url": url } });
    }
    config
}

/// The bound addresses, from the log line that tells them: first the buyers', then the administrator's.
fn listening(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line.get("message")?.as_str()? != "listening" {
        return None;
    }
    let address = |name: &str| line.get(name)?.as_str()?.parse().ok();
    Some((address("data")?, address("admin")?))
}

async fn wait_ready(process: &mut Process, admin: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + START_MAX;
    let request = wire::render("GET", "/readyz", admin, &[], "");
    while !matches!(wire::fetch(admin, &request).await, Ok((200, _))) {
        process.still_starting(deadline)?;
        tokio::time::sleep(SETTLE_POLL).await;
    }
    Ok(())
}

/// Makes an account with a package of calls; returns its path.
async fn buy_calls(admin: SocketAddr) -> Result<String> {
    let account = post(admin, "/admin/v1/accounts", &json!({ "name": "bench" })).await?;
    let account = format!("/admin/v1/accounts/{}", text(&account, "id")?);
    post(admin, &format!("{account}/packages"), &json!({ "offer": "big" })).await?;
    Ok(account)
}

async fn post(admin: SocketAddr, path: &str, body: &Value) -> Result<Value> {
    let headers = [format!("authorization: Bearer {ADMIN_TOKEN}")];
    let request = wire::render("POST", path, admin, &headers, &body.to_string());
    let (status, body) = wire::fetch(admin, &request).await?;
    if !(200..300).contains(&status) {
        let body = String::from_utf8_lossy(&body);
        return Err(format!("POST {path} answers {status}: {body}").into());
    }
    Ok(serde_json::from_slice(&body)?)
}

fn text(value: &Value, field: &str) -> Result<String> {
    let found = value.get(field).and_then(Value::as_str);
    Ok(found.ok_or_else(|| format!("no {field} in {value}"))?.to_owned())
}

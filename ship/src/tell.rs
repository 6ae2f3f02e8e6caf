//! Who is told of a crash: a webhook, and the events of its pod. Each at most once for a crash, and
//! not more than some in a minute.

use crate::config::{Upload, Webhook};
use crate::record::Record;
use crate::ship::{Shop, now};
use crate::state::Uploaded;
use crate::upload::short;
use anyhow::{Context, Result, ensure};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Most events in a minute.
const EVENTS: u32 = 20;
/// Where a pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How often a server that cannot be reached is tried.
const TRIES: u32 = 4;

/// Lets so many through in a minute, and counts the others.
struct Gate {
    per_minute: u32,
    inside: Mutex<(Vec<Instant>, u64)>,
}

impl Gate {
    fn new(per_minute: u32) -> Self {
        Gate { per_minute, inside: Mutex::new((Vec::new(), 0)) }
    }

    /// Whether one more may pass; if so, how many were held back since the last.
    fn pass(&self, now: Instant) -> Option<u64> {
        let mut inside = self.inside.lock().ok()?;
        let (passed, held) = &mut *inside;
        passed.retain(|at| now.duration_since(*at) < Duration::from_secs(60));
        if passed.len() >= self.per_minute as usize {
            *held += 1;
            return None;
        }
        passed.push(now);
        Some(std::mem::take(held))
    }
}

/// All that are told.
pub(crate) struct Tellers {
    http: reqwest::Client,
    webhook: Option<(Webhook, Option<Vec<u8>>, Gate)>,
    event: Option<Gate>,
}

impl Tellers {
    /// Prepares the webhook and the events that `[upload]` asks for.
    ///
    /// # Errors
    /// The key of the webhook, or `ca_file`, cannot be read.
    pub(crate) fn new(upload: &Upload) -> Result<Self> {
        let webhook = upload.webhook.clone().map(|webhook| -> Result<_> {
            let secret = webhook.secret_file.as_ref().map(|path| -> Result<_> {
                let key =
                    std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
                let key = key.trim_ascii().to_vec();
                ensure!(!key.is_empty(), "{} is empty", path.display());
                Ok(key)
            });
            let gate = Gate::new(webhook.per_minute);
            Ok((webhook, secret.transpose()?, gate))
        });
        let mut http = reqwest::Client::builder().timeout(Duration::from_secs(20));
        if let Some(path) = &upload.ca_file {
            let pem = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            for certificate in reqwest::Certificate::from_pem_bundle(&pem)? {
                http = http.add_root_certificate(certificate);
            }
        }
        let event = upload.event.then(|| Gate::new(EVENTS));
        Ok(Tellers { http: http.build()?, webhook: webhook.transpose()?, event })
    }

    /// Tells of a crash that has been uploaded. What fails is logged.
    pub(crate) async fn tell(&self, shop: &Shop, id: &str, record: &Record, uploaded: &Uploaded) {
        if let Some((webhook, secret, gate)) = &self.webhook {
            let result = self.webhook(shop, id, record, uploaded, (webhook, secret, gate)).await;
            if let Err(e) = result {
                log::warn!("{id}: the webhook was not told: {}", short(&format!("{e:#}")));
            }
        }
        if let Some(gate) = &self.event
            && let Err(e) = self.event(shop, id, record, uploaded, gate).await
        {
            log::warn!("{id}: no event was made: {}", short(&format!("{e:#}")));
        }
    }

    async fn webhook(
        &self,
        shop: &Shop,
        id: &str,
        record: &Record,
        uploaded: &Uploaded,
        (webhook, secret, gate): (&Webhook, &Option<Vec<u8>>, &Gate),
    ) -> Result<()> {
        let mut state = shop.states.load(id).unwrap_or_default();
        if state.webhook.is_some() {
            return Ok(());
        }
        // Noted before it is sent: a process that is killed in between tells nobody, not twice.
        state.webhook = Some(now());
        shop.states.save(id, &state)?;
        let Some(held) = gate.pass(Instant::now()) else { return Ok(()) };
        let body = serde_json::to_vec(&json!({
            "id": id,
            "time": record.time,
            "node": shop.node,
            "namespace": record.pod_namespace,
            "pod": record.pod_name,
            "container": record.container_name,
            "container_id": record.container_id,
            "image": record.image,
            "exe": record.exe,
            "comm": record.comm,
            "pid": record.pid,
            "signal": record.signal_name,
            "outcome": record.outcome,
            "reason": record.reason,
            "crashes": record.count.unwrap_or(1),
            "uploaded": uploaded,
            "report": shop.upload.report.then(|| sibling(&uploaded.url, "report.html")),
            "held_back": held,
        }))?;
        let mut request = self
            .http
            .post(&webhook.url)
            .header("content-type", "application/json")
            .header("x-oci-coredump-id", id);
        if let Some(secret) = secret {
            request = request.header("x-oci-coredump-signature-256", signature(secret, &body)?);
        }
        send(request.body(body)).await?;
        Ok(())
    }

    /// The event has a name of its own, so that the API server refuses a second one.
    async fn event(
        &self,
        shop: &Shop,
        id: &str,
        record: &Record,
        uploaded: &Uploaded,
        gate: &Gate,
    ) -> Result<()> {
        let (Some(namespace), Some(pod)) = (&record.pod_namespace, &record.pod_name) else {
            return Ok(());
        };
        let mut state = shop.states.load(id).unwrap_or_default();
        if state.event.is_some() {
            return Ok(());
        }
        state.event = Some(now());
        shop.states.save(id, &state)?;
        if gate.pass(Instant::now()).is_none() {
            return Ok(());
        }
        let account = std::env::var_os("OCI_COREDUMP_SERVICE_ACCOUNT").unwrap_or(ACCOUNT.into());
        let account = Path::new(&account);
        let token = std::fs::read_to_string(account.join("token")).context("service account")?;
        let ca = std::fs::read(account.join("ca.crt")).context("service account")?;
        let host = std::env::var("KUBERNETES_SERVICE_HOST").context("KUBERNETES_SERVICE_HOST")?;
        let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or("443".into());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let mut http = reqwest::Client::builder().timeout(Duration::from_secs(20)).no_proxy();
        for certificate in reqwest::Certificate::from_pem_bundle(&ca)? {
            http = http.add_root_certificate(certificate);
        }
        let is_name = |text: &str| {
            text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        };
        ensure!(is_name(namespace) && is_name(pod), "{namespace:?}/{pod:?} is no name of a pod");
        let body = event(namespace, pod, id, record, uploaded, &shop.node);
        let url = format!("https://{host}:{port}/api/v1/namespaces/{namespace}/events");
        let request = http.build()?.post(url).bearer_auth(token.trim());
        let request = request.header("content-type", "application/json");
        send(request.body(serde_json::to_vec(&body)?)).await
    }
}

fn event(
    namespace: &str,
    pod: &str,
    id: &str,
    record: &Record,
    uploaded: &Uploaded,
    node: &str,
) -> serde_json::Value {
    let container = record.container_name.as_deref().unwrap_or(&record.container_id);
    let mut message = format!(
        "{} of process {} ({}): {}",
        record.signal_name,
        record.pid,
        record.comm.escape_debug(),
        uploaded.url
    );
    // The API server takes 1,024 bytes.
    let mut end = message.len().min(1000);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!("oci-coredump.{}", id.to_ascii_lowercase()),
            "namespace": namespace,
        },
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod,
            // `kubectl describe pod` shows the events of this very pod only.
            "uid": record.pod_uid.as_deref().unwrap_or_default(),
            "fieldPath": format!("spec.containers{{{container}}}"),
        },
        "reason": "CoreDumped",
        "message": message,
        "type": "Warning",
        "source": { "component": "oci-coredump", "host": node },
        "firstTimestamp": record.time,
        "lastTimestamp": record.time,
        "count": record.count.unwrap_or(1).min(i32::MAX as u64),
    })
}

/// Sends a request. Only one that has not reached the server is sent again.
async fn send(request: reqwest::RequestBuilder) -> Result<()> {
    for turn in 1.. {
        let again = request.try_clone().context("the request")?;
        match again.send().await {
            Ok(answer) if answer.status() == reqwest::StatusCode::CONFLICT => return Ok(()),
            Ok(answer) => {
                return answer.error_for_status().map(drop).map_err(|e| e.without_url().into());
            }
            Err(e) if e.is_connect() && turn < TRIES => {
                tokio::time::sleep(Duration::from_secs(1 << turn)).await;
            }
            // The address may hold a secret, which is not for a log.
            Err(e) => return Err(e.without_url().into()),
        }
    }
    Ok(())
}

/// `sha256=` and the HMAC of the body, as GitHub's webhooks have it.
fn signature(secret: &[u8], body: &[u8]) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)?;
    mac.update(body);
    let bytes = mac.finalize().into_bytes();
    Ok(bytes.iter().fold("sha256=".to_owned(), |text, byte| text + &format!("{byte:02x}")))
}

/// The URL of another file of the same crash.
fn sibling(url: &str, name: &str) -> String {
    let dir = url.rfind('/').map_or(url, |at| &url[..at]);
    format!("{dir}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of GitHub's documentation, "Validating webhook deliveries".
    #[test]
    fn signatures_are_githubs() {
        assert_eq!(
            signature(b"It's a Secret to Everybody", b"Hello, World!").unwrap(),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }

    #[test]
    fn a_gate_counts_what_it_holds_back() {
        let gate = Gate::new(2);
        let start = Instant::now();
        assert_eq!((gate.pass(start), gate.pass(start)), (Some(0), Some(0)));
        assert_eq!((gate.pass(start), gate.pass(start)), (None, None));
        assert_eq!(gate.pass(start + Duration::from_secs(61)), Some(2));
    }

    #[test]
    fn an_event_is_one_that_the_server_takes() {
        let record = Record { comm: "a\n\u{202e}".repeat(999), ..Record::default() };
        let uploaded =
            Uploaded { url: "s3://b/x".into(), time: now(), size: 1, sha256: String::new() };
        let event = event("shop", "web-0", "20260101T000000Z-7-ABC", &record, &uploaded, "n");
        assert_eq!(event["metadata"]["name"], "oci-coredump.20260101t000000z-7-abc");
        let message = event["message"].as_str().unwrap();
        assert!(message.len() <= 1024 && !message.contains('\n'));
    }
}

//! Keys of Alibaba's and Huawei's clouds: of the environment, of a Kubernetes service account, else
//! of the role of this instance. They are never logged: these types do not print themselves.

use anyhow::{Context, Result};
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use object_store::{CredentialProvider, StaticCredentialProvider};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Alibaba's metadata service.
const ALIBABA: &str = "http://100.100.100.200/latest";
/// Huawei's.
const HUAWEI: &str = "http://169.254.169.254/openstack/latest/securitykey";
/// How long keys are used: all hold for an hour at least, and new ones come earlier.
const AGE: Duration = Duration::from_secs(1800);

/// Keys of the environment; each has several names.
fn environment(id: &[&str], secret: &[&str], token: &[&str]) -> Option<AwsCredentialProvider> {
    let first = |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok());
    let keys =
        AwsCredential { key_id: first(id)?, secret_key: first(secret)?, token: first(token) };
    Some(Arc::new(StaticCredentialProvider::new(keys)))
}

/// Alibaba's keys: of the environment; of the service account of an ACK pod (RRSA); else of the RAM
/// role of this ECS instance, which ALIBABA_CLOUD_ECS_METADATA may name.
///
/// # Errors
/// There is no client for HTTP.
pub(crate) fn alibaba() -> Result<AwsCredentialProvider> {
    let keys = environment(
        &["ALIBABA_CLOUD_ACCESS_KEY_ID", "OSS_ACCESS_KEY_ID"],
        &["ALIBABA_CLOUD_ACCESS_KEY_SECRET", "OSS_ACCESS_KEY_SECRET"],
        &["ALIBABA_CLOUD_SECURITY_TOKEN", "OSS_SESSION_TOKEN"],
    );
    let of = |name: &str| std::env::var(name).ok();
    let account = || {
        Some(Origin::AlibabaAccount {
            token: of("ALIBABA_CLOUD_OIDC_TOKEN_FILE")?.into(),
            provider: of("ALIBABA_CLOUD_OIDC_PROVIDER_ARN")?,
            role: of("ALIBABA_CLOUD_ROLE_ARN")?,
        })
    };
    let instance = || Origin::AlibabaInstance(of("ALIBABA_CLOUD_ECS_METADATA"));
    keys.map_or_else(|| Role::of(account().unwrap_or_else(instance)), Ok)
}

/// Huawei's keys: of the environment, else of the agency of this ECS instance.
///
/// # Errors
/// There is no client for HTTP.
pub(crate) fn huawei() -> Result<AwsCredentialProvider> {
    let keys = environment(
        &["HUAWEICLOUD_SDK_AK", "OBS_ACCESS_KEY_ID"],
        &["HUAWEICLOUD_SDK_SK", "OBS_SECRET_ACCESS_KEY"],
        &["HUAWEICLOUD_SDK_SECURITY_TOKEN", "OBS_SECURITY_TOKEN"],
    );
    keys.map_or_else(|| Role::of(Origin::HuaweiInstance), Ok)
}

/// Where keys come from that hold for a time.
enum Origin {
    /// The RAM role of an instance, if it is named.
    AlibabaInstance(Option<String>),
    /// The token of a service account, and the identity provider that has signed it.
    AlibabaAccount { token: PathBuf, provider: String, role: String },
    /// The agency of an instance.
    HuaweiInstance,
}

/// Keys that hold for a time.
struct Role {
    origin: Origin,
    http: reqwest::Client,
    kept: Mutex<Option<(Instant, Arc<AwsCredential>)>>,
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Role")
    }
}

/// Keys as the services of both clouds write them.
#[derive(Deserialize)]
struct Keys {
    #[serde(alias = "AccessKeyId", alias = "access")]
    id: String,
    #[serde(alias = "AccessKeySecret", alias = "secret")]
    secret: String,
    #[serde(alias = "SecurityToken", alias = "securitytoken")]
    token: String,
}

/// The answers that have keys in them.
#[derive(Deserialize)]
struct Answer {
    #[serde(alias = "Credentials")]
    credential: Keys,
}

impl Role {
    fn of(origin: Origin) -> Result<AwsCredentialProvider> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10));
        // The service of an instance is on its own network.
        let http = match origin {
            Origin::AlibabaAccount { .. } => http,
            _ => http.no_proxy(),
        };
        Ok(Arc::new(Role { origin, http: http.build()?, kept: Mutex::new(None) }))
    }

    async fn fetch(&self) -> Result<AwsCredential> {
        let text = async |request: reqwest::RequestBuilder| -> Result<String> {
            let answer = request.send().await.map_err(reqwest::Error::without_url)?;
            Ok(answer.error_for_status()?.text().await?)
        };
        let keys: Keys = match &self.origin {
            Origin::AlibabaInstance(role) => {
                // Instances may be set to answer only who has a token; older ones have none.
                let request = self.http.put(format!("{ALIBABA}/api/token"));
                let request = request.header("x-aliyun-ecs-metadata-token-ttl-seconds", "600");
                let token = text(request).await.unwrap_or_default();
                let get = async |name: &str| {
                    let path = format!("{ALIBABA}/meta-data/ram/security-credentials/{name}");
                    let request = self.http.get(path);
                    text(match token.as_str() {
                        "" => request,
                        token => request.header("x-aliyun-ecs-metadata-token", token),
                    })
                    .await
                };
                let role = match role {
                    Some(role) => role.clone(),
                    None => get("").await?.trim().to_owned(),
                };
                serde_json::from_str(&get(&role).await?)?
            }
            Origin::AlibabaAccount { token, provider, role } => {
                let shown = || format!("read {}", token.display());
                let token = std::fs::read_to_string(token).with_context(shown)?;
                let time = crate::ship::now();
                let nonce = format!("{:032x}", rand::random::<u128>());
                let pairs = [
                    ("Action", "AssumeRoleWithOIDC"),
                    ("Version", "2015-04-01"),
                    ("Format", "JSON"),
                    ("Timestamp", time.as_str()),
                    ("SignatureNonce", nonce.as_str()),
                    ("OIDCProviderArn", provider.as_str()),
                    ("OIDCToken", token.trim()),
                    ("RoleArn", role.as_str()),
                    ("RoleSessionName", "oci-coredump-ship"),
                ];
                let form = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(pairs)
                    .finish();
                let request = self.http.post("https://sts.aliyuncs.com/").body(form);
                let kind = "application/x-www-form-urlencoded";
                let answer = text(request.header("content-type", kind)).await?;
                serde_json::from_str::<Answer>(&answer)?.credential
            }
            Origin::HuaweiInstance => {
                serde_json::from_str::<Answer>(&text(self.http.get(HUAWEI)).await?)?.credential
            }
        };
        let Keys { id, secret, token } = keys;
        Ok(AwsCredential { key_id: id, secret_key: secret, token: Some(token) })
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Role {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut kept = self.kept.lock().await;
        if let Some((since, keys)) = kept.as_ref()
            && since.elapsed() < AGE
        {
            return Ok(keys.clone());
        }
        let keys = self.fetch().await.map_err(|e| object_store::Error::Generic {
            store: "credentials",
            source: format!("no keys in the environment, and none of a role: {e:#}").into(),
        })?;
        let keys = Arc::new(keys);
        *kept = Some((Instant::now(), keys.clone()));
        Ok(keys)
    }
}

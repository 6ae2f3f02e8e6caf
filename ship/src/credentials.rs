//! Credentials that the library does not look for itself: AWS shared files, and Alibaba's
//! environment and RAM roles. They are never logged: none of these types prints itself.

use crate::config::Upload;
use anyhow::{Context, Result, bail};
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use object_store::{CredentialProvider, StaticCredentialProvider};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Alibaba's metadata service.
const METADATA: &str = "http://100.100.100.200/latest/meta-data/ram/security-credentials/";
/// How long keys of a role are used: they hold for six hours, and new ones come an hour earlier.
const AGE: Duration = Duration::from_secs(1800);

/// The keys of an AWS shared credentials file: the one of the configuration, else that of
/// AWS_SHARED_CREDENTIALS_FILE where the environment has no keys of its own.
///
/// # Errors
/// The file cannot be read, or has no such profile.
pub(crate) fn shared(upload: &Upload) -> Result<Option<StaticCredentialProvider<AwsCredential>>> {
    let named = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").map(Into::into);
    let named = named.filter(|_| std::env::var_os("AWS_ACCESS_KEY_ID").is_none());
    let Some(path) = upload.credentials_file.clone().or(named) else { return Ok(None) };
    let shown = || format!("credentials file {}", path.display());
    let text = std::fs::read_to_string(&path).with_context(shown)?;
    let profile = match std::env::var("AWS_PROFILE") {
        Ok(name) if upload.profile == "default" => name,
        _ => upload.profile.clone(),
    };
    let keys = section(&text, &profile);
    let (Some(id), Some(secret)) =
        (keys.get("aws_access_key_id"), keys.get("aws_secret_access_key"))
    else {
        bail!("{}: no keys of profile {profile:?} in it", shown());
    };
    Ok(Some(StaticCredentialProvider::new(AwsCredential {
        key_id: (*id).to_owned(),
        secret_key: (*secret).to_owned(),
        token: keys.get("aws_session_token").map(|token| (*token).to_owned()),
    })))
}

/// One section of an INI file.
fn section<'a>(text: &'a str, name: &str) -> BTreeMap<&'a str, &'a str> {
    let lines = text.lines().map(str::trim);
    let from = lines.skip_while(|line| {
        line.strip_prefix('[').and_then(|l| l.strip_suffix(']')).map(str::trim) != Some(name)
    });
    let own = from.skip(1).take_while(|line| !line.starts_with('['));
    own.filter_map(|line| line.split_once('=')).map(|(k, v)| (k.trim(), v.trim())).collect()
}

/// Alibaba's keys: of the environment, else of the RAM role of this ECS instance, which
/// ALIBABA_CLOUD_ECS_METADATA may name. `None`: nothing of Alibaba's is in the environment.
pub(crate) fn alibaba() -> Result<Option<AwsCredentialProvider>> {
    let first = |names: [&str; 2]| names.into_iter().find_map(|name| std::env::var(name).ok());
    let id = first(["ALIBABA_CLOUD_ACCESS_KEY_ID", "OSS_ACCESS_KEY_ID"]);
    let secret = first(["ALIBABA_CLOUD_ACCESS_KEY_SECRET", "OSS_ACCESS_KEY_SECRET"]);
    if let (Some(key_id), Some(secret_key)) = (id, secret) {
        let token = first(["ALIBABA_CLOUD_SECURITY_TOKEN", "OSS_SESSION_TOKEN"]);
        let keys = AwsCredential { key_id, secret_key, token };
        return Ok(Some(Arc::new(StaticCredentialProvider::new(keys))));
    }
    let role = std::env::var("ALIBABA_CLOUD_ECS_METADATA").ok();
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
    Ok(Some(Arc::new(RamRole { role, http, kept: Mutex::new(None) })))
}

/// The RAM role of an ECS instance.
struct RamRole {
    role: Option<String>,
    http: reqwest::Client,
    kept: Mutex<Option<(Instant, Arc<AwsCredential>)>>,
}

impl std::fmt::Debug for RamRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RamRole")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    access_key_id: String,
    access_key_secret: String,
    security_token: String,
}

impl RamRole {
    async fn fetch(&self) -> Result<AwsCredential> {
        let get = async |path: &str| -> Result<String> {
            let answer = self.http.get(format!("{METADATA}{path}")).send().await?;
            Ok(answer.error_for_status()?.text().await?)
        };
        let role = match &self.role {
            Some(role) => role.clone(),
            None => get("").await?.trim().to_owned(),
        };
        let keys: Keys = serde_json::from_str(&get(&role).await?)?;
        Ok(AwsCredential {
            key_id: keys.access_key_id,
            secret_key: keys.access_key_secret,
            token: Some(keys.security_token),
        })
    }
}

#[async_trait::async_trait]
impl CredentialProvider for RamRole {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut kept = self.kept.lock().await;
        if let Some((since, keys)) = kept.as_ref()
            && since.elapsed() < AGE
        {
            return Ok(keys.clone());
        }
        let keys = self.fetch().await.map_err(|e| object_store::Error::Generic {
            store: "OSS",
            source: format!("no keys of a RAM role: {e:#}").into(),
        })?;
        let keys = Arc::new(keys);
        *kept = Some((Instant::now(), keys.clone()));
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_of_a_shared_file() {
        let text = "[default]\naws_access_key_id = a\n\n[other]\naws_access_key_id=b\nx = y = z\n";
        assert_eq!(section(text, "default")["aws_access_key_id"], "a");
        assert_eq!(
            section(text, "other"),
            BTreeMap::from([("aws_access_key_id", "b"), ("x", "y = z")])
        );
        assert!(section(text, "none").is_empty());
    }
}

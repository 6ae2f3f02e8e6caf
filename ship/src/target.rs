//! The storage behind a URL.

use crate::answers::BoundedAnswers;
use crate::by_s3::{OBS, OSS};
use crate::config::Upload;
use crate::credentials;
use anyhow::{Context, Result, bail, ensure};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Longest time for one request with all its retries. A longer outage is the caller's to wait for.
const RETRY: Duration = Duration::from_secs(180);
/// Longest time that one part may take.
const PART: Duration = Duration::from_secs(600);
/// Longest time without a byte while an object is read.
const SILENCE: Duration = Duration::from_secs(60);

/// A storage that takes objects in parts which outlive this process.
pub(crate) trait Cloud: ObjectStore + MultipartStore {}
impl<T: ObjectStore + MultipartStore> Cloud for T {}

/// How objects get there.
#[derive(Clone)]
pub(crate) enum Kind {
    /// By requests over the network.
    Cloud(Arc<dyn Cloud>),
    /// The same, but an object whose upload is interrupted begins again: the only way to have
    /// Azure's large objects in a storage class.
    Whole(Arc<dyn ObjectStore>),
    /// As files below a directory.
    Local(Arc<LocalFileSystem>, PathBuf),
}

/// A storage and the prefix in it.
#[derive(Clone)]
pub(crate) struct Target {
    pub kind: Kind,
    /// Whether what is said of an object is also said of one in parts: not of Azure's.
    pub says_of_parts: bool,
    /// The URL of the prefix, without a slash at its end.
    pub url: String,
    prefix: Path,
    storage_class: Option<String>,
}

impl Target {
    /// What is said of an object that goes up in parts which outlive this process.
    pub(crate) fn attributes_of_parts(&self, content_type: &'static str) -> Attributes {
        match self.says_of_parts {
            true => self.attributes(content_type),
            false => Attributes::new(),
        }
    }

    /// Opens the storage of `url`, with the settings of `[upload]`. Nothing is asked of it.
    /// `reading`: for objects of any size, so that a request may take any time.
    ///
    /// # Errors
    /// The URL, a setting or a file that it names cannot be used.
    pub(crate) fn open(url: &str, upload: &Upload, reading: bool) -> Result<Self> {
        let parsed = parse(url)?;
        let bucket = parsed.host_str().unwrap_or_default().to_owned();
        let client = || client(upload, reading);
        let kind = match parsed.scheme() {
            "s3" => s3(aws(upload)?, &bucket, upload, client()?)?,
            "oss" => s3(OSS.builder(&bucket, upload)?, &bucket, upload, client()?)?,
            "obs" => s3(OBS.builder(&bucket, upload)?, &bucket, upload, client()?)?,
            "gs" => Kind::Cloud(Arc::new(gs(&bucket, upload, client()?)?)),
            "az" if upload.storage_class.is_some() => {
                Kind::Whole(Arc::new(az(&bucket, upload, client()?)?))
            }
            "az" => Kind::Cloud(Arc::new(az(&bucket, upload, client()?)?)),
            "file" => {
                let dir = parsed.to_file_path().ok().context("expected file:///DIRECTORY")?;
                if !reading {
                    std::fs::create_dir_all(&dir)
                        .with_context(|| format!("make {}", dir.display()))?;
                }
                let local = LocalFileSystem::new_with_prefix(&dir).context("open")?;
                Kind::Local(Arc::new(local.with_fsync(true)), dir)
            }
            other => bail!("{url:?}: {other:?} is none of {}", SCHEMES.join(", ")),
        };
        let prefix = match &kind {
            Kind::Local(..) => Path::default(),
            _ => Path::from_url_path(parsed.path()).context("its path")?,
        };
        let url = url.trim_end_matches('/').to_owned();
        let says_of_parts = parsed.scheme() != "az";
        Ok(Target { kind, says_of_parts, url, prefix, storage_class: upload.storage_class.clone() })
    }

    /// The storage, for what all of them can.
    pub(crate) fn store(&self) -> &dyn ObjectStore {
        match &self.kind {
            Kind::Cloud(cloud) => cloud.as_ref(),
            Kind::Whole(cloud) => cloud.as_ref(),
            Kind::Local(local, _) => local.as_ref(),
        }
    }

    /// The path in the storage of a name below the URL.
    pub(crate) fn path(&self, name: &str) -> Path {
        let parts = name.split('/').filter(|part| !part.is_empty());
        parts.fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// What is said of an object. A directory cannot keep it.
    pub(crate) fn attributes(&self, content_type: &'static str) -> Attributes {
        let mut all = Attributes::new();
        if !matches!(self.kind, Kind::Local(..)) {
            all.insert(Attribute::ContentType, content_type.into());
            if let Some(class) = &self.storage_class {
                all.insert(Attribute::StorageClass, class.clone().into());
            }
        }
        all
    }
}

const SCHEMES: [&str; 6] = ["s3", "oss", "obs", "gs", "az", "file"];

/// A URL that names a storage. Pure.
///
/// # Errors
/// Names the rule that it breaks.
pub(crate) fn parse(url: &str) -> Result<Url> {
    let parsed = Url::parse(url).with_context(|| format!("{url:?}: expected SCHEME://BUCKET"))?;
    let scheme = parsed.scheme();
    ensure!(SCHEMES.contains(&scheme), "{url:?}: {scheme:?} is none of {}", SCHEMES.join(", "));
    ensure!(
        parsed.username().is_empty() && parsed.password().is_none(),
        "a URL holds no credentials"
    );
    let expected = "expected SCHEME://BUCKET/PREFIX, or file:///DIRECTORY";
    let rest = url.split_once(':').map_or("", |(_, rest)| rest);
    ensure!(
        rest.starts_with("//")
            && (scheme == "file") == parsed.host_str().unwrap_or_default().is_empty(),
        "{url:?}: {expected}"
    );
    ensure!(
        parsed.query().is_none() && parsed.fragment().is_none() && parsed.port().is_none(),
        "{url:?} has a query, a fragment or a port; {expected}"
    );
    // What the library would leave out or resolve: then it is somewhere else than the URL says.
    let is_odd = |part: &str| {
        let part = part.to_ascii_lowercase().replace("%2e", ".");
        part.is_empty() || part == "." || part == ".."
    };
    let path = rest.trim_start_matches('/').trim_end_matches('/');
    ensure!(
        !path.split('/').any(is_odd) && !url.chars().any(char::is_control),
        "{url:?}: an empty part, a dot or two, or a control character in its path"
    );
    Ok(parsed)
}

fn client(upload: &Upload, reading: bool) -> Result<ClientOptions> {
    // The default resolver is one of this program's own: that of a static C library needs a
    // shared one beside it. Proxies are taken from the environment.
    let mut client = ClientOptions::new()
        .with_config(object_store::ClientConfigKey::RandomizeAddresses, "false")
        .with_user_agent(concat!("oci-coredump-ship/", env!("CARGO_PKG_VERSION")).parse()?)
        .with_connect_timeout(Duration::from_secs(10))
        .with_allow_http(upload.allow_http);
    client = match reading {
        true => client.with_timeout_disabled().with_read_timeout(SILENCE),
        false => client.with_timeout(PART),
    };
    for certificate in certificates(upload)? {
        client = client.with_root_certificate(certificate);
    }
    Ok(client)
}

fn certificates(upload: &Upload) -> Result<Vec<Certificate>> {
    let Some(path) = &upload.ca_file else { return Ok(Vec::new()) };
    let shown = || format!("ca_file {}", path.display());
    let pem = std::fs::read(path).with_context(shown)?;
    let all = Certificate::from_pem_bundle(&pem).with_context(shown)?;
    ensure!(!all.is_empty(), "{}: no certificate in it", shown());
    Ok(all)
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: 5, retry_timeout: RETRY }
}

/// Amazon's storage, and all that are used in its way.
fn aws(upload: &Upload) -> Result<AmazonS3Builder> {
    let mut builder = AmazonS3Builder::from_env();
    if let Some(region) = &upload.region {
        builder = builder.with_region(region);
    }
    if let Some(keys) = credentials::shared(upload)? {
        builder = builder.with_credentials(Arc::new(keys) as AwsCredentialProvider);
    }
    Ok(builder)
}

fn s3(
    mut builder: AmazonS3Builder,
    bucket: &str,
    upload: &Upload,
    client: ClientOptions,
) -> Result<Kind> {
    builder = builder
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_http_connector(BoundedAnswers)
        .with_retry(retry());
    if let Some(endpoint) = &upload.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    if let Some(is) = upload.virtual_hosted {
        builder = builder.with_virtual_hosted_style_request(is);
    }
    let settings = [
        ("aws_server_side_encryption", &upload.encryption),
        ("aws_sse_kms_key_id", &upload.kms_key),
    ];
    for (name, value) in settings {
        if let Some(value) = value {
            builder = builder.with_config(name.parse::<AmazonS3ConfigKey>()?, value);
        }
    }
    Ok(Kind::Cloud(Arc::new(builder.build()?)))
}

fn gs(
    bucket: &str,
    upload: &Upload,
    client: ClientOptions,
) -> Result<object_store::gcp::GoogleCloudStorage> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_http_connector(BoundedAnswers)
        .with_retry(retry());
    if let Some(endpoint) = &upload.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    Ok(builder.build()?)
}

fn az(
    container: &str,
    upload: &Upload,
    client: ClientOptions,
) -> Result<object_store::azure::MicrosoftAzure> {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_client_options(client)
        .with_allow_http(upload.allow_http)
        .with_http_connector(BoundedAnswers)
        .with_retry(retry());
    if let Some(account) = &upload.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &upload.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    Ok(builder.build()?)
}

//! Clouds whose storage is used by its S3 interface, with names and credentials of their own.

use crate::config::Upload;
use crate::roles;
use anyhow::{Result, bail};
use object_store::aws::{AmazonS3Builder, AwsCredentialProvider};
use url::Url;

/// Signature version 4, the bucket in the server's name. The environment is that of its cloud:
/// variables of AWS are not for it.
pub(crate) struct ByS3 {
    scheme: &'static str,
    /// What is before the region in the name of a server.
    before: &'static str,
    /// The region's server, behind the name of the bucket. `REGION` stands for the region.
    server: &'static str,
    /// What is behind the region in the name of a server.
    after: &'static str,
    example: &'static str,
    keys: fn() -> Result<AwsCredentialProvider>,
}

/// Alibaba OSS.
///
/// # References
/// "Access OSS using AWS SDKs", help.aliyun.com.
pub(crate) const OSS: ByS3 = ByS3 {
    scheme: "oss",
    before: "oss-",
    server: "s3.oss-REGION.aliyuncs.com",
    after: ".aliyuncs.com",
    example: "cn-hangzhou",
    keys: roles::alibaba,
};

/// Huawei OBS.
///
/// # References
/// "Regions and Endpoints", "Authentication of Signature in a Header", support.huaweicloud.com.
pub(crate) const OBS: ByS3 = ByS3 {
    scheme: "obs",
    before: "obs.",
    server: "obs.REGION.myhuaweicloud.com",
    after: ".myhuaweicloud.com",
    example: "cn-north-4",
    keys: roles::huawei,
};

impl ByS3 {
    /// The storage of a bucket, but for the client.
    ///
    /// # Errors
    /// There is no region, by which requests are signed, or credentials cannot be looked for.
    pub(crate) fn builder(&self, bucket: &str, upload: &Upload) -> Result<AmazonS3Builder> {
        let said = upload.region.as_deref().map(|region| region.trim_start_matches(self.before));
        let found = upload.endpoint.as_deref().and_then(|endpoint| self.region_of(endpoint));
        let Some(region) = said.map(str::to_owned).or(found) else {
            let ByS3 { scheme, example, .. } = self;
            bail!("{scheme}:// needs `region`, such as {example:?}: requests are signed for it");
        };
        let builder = AmazonS3Builder::new()
            .with_virtual_hosted_style_request(true)
            .with_region(&region)
            .with_credentials((self.keys)()?);
        Ok(match &upload.endpoint {
            Some(_) => builder,
            None => {
                let server = self.server.replace("REGION", &region);
                builder.with_endpoint(format!("https://{bucket}.{server}"))
            }
        })
    }

    /// The region in the name of one of the cloud's servers.
    fn region_of(&self, endpoint: &str) -> Option<String> {
        let url = Url::parse(endpoint).ok()?;
        let name = url.host_str()?.strip_suffix(self.after)?;
        let at = name.rfind(self.before).filter(|at| *at == 0 || name[..*at].ends_with('.'))?;
        let region = name[at + self.before.len()..].trim_end_matches("-internal");
        (!region.is_empty()).then(|| region.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_in_the_names_of_servers() {
        for (cloud, endpoint, region) in [
            (&OSS, "https://b.s3.oss-cn-hangzhou-internal.aliyuncs.com", Some("cn-hangzhou")),
            (&OSS, "https://b.oss-eu-central-1.aliyuncs.com", Some("eu-central-1")),
            (&OSS, "https://cores.example.org", None),
            (&OSS, "https://my-oss-b.aliyuncs.com", None),
            (&OBS, "https://b.obs.cn-north-4.myhuaweicloud.com", Some("cn-north-4")),
        ] {
            assert_eq!(cloud.region_of(endpoint).as_deref(), region, "{endpoint}");
        }
    }

    #[test]
    fn without_a_region_nothing_is_signed() {
        let upload =
            Upload { endpoint: Some("https://cores.example.org".into()), ..Upload::default() };
        let error = OSS.builder("b", &upload).unwrap_err().to_string();
        assert!(error.contains("needs `region`, such as \"cn-hangzhou\""), "{error}");
    }
}

//! AWS shared credentials files, which the library does not look for itself. They are never logged:
//! these types do not print themselves.

use crate::config::Upload;
use anyhow::{Context, Result, bail};
use object_store::StaticCredentialProvider;
use object_store::aws::AwsCredential;
use std::collections::BTreeMap;

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

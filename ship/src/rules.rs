//! What the values of `[upload]` must be, beyond their types. Pure.

use crate::config::Upload;
use crate::glob::matches;
use crate::near;
use crate::record::FIELDS;
use std::path::Path;
use url::Url;

/// What `encryption` may be.
const ENCRYPTIONS: [&str; 3] = ["AES256", "aws:kms", "aws:kms:dsse"];

/// The signals of signal(7) whose action is Core.
const SIGNALS: [&str; 10] = [
    "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGSEGV", "SIGXCPU", "SIGXFSZ",
    "SIGSYS",
];

/// What may become of a core.
const OUTCOMES: [&str; 4] = ["written", "truncated", "none", "started"];

/// A key, as it is written, and the rule that its value breaks.
type Broken<'a> = (&'a str, String);

impl Upload {
    /// Checks what each value says.
    pub(crate) fn rules(&self) -> Result<(), Broken<'_>> {
        let url = self.url.as_deref().map_or(Ok(()), |url| crate::target::parse(url).map(drop));
        let is_few = (1..=2).contains(&self.concurrent);
        let rule = |is_kept: bool, rule: &str| (!is_kept).then(|| rule.to_owned());
        let scheme = self.url.as_deref().and_then(|url| url.split(':').next());
        let (webhook, endpoint) = (self.webhook.as_ref(), self.endpoint.as_deref());
        let region = self.region.as_deref().unwrap_or("x");
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let encryption = self.encryption.as_deref().unwrap_or(ENCRYPTIONS[0]);
        let is_kms = encryption.starts_with("aws:kms");
        let (field, field_rule) = self.field();
        let broken = [
            ("url", url.err().map(|e| format!("{e:#}"))),
            (field, field_rule),
            ("key", crate::key::check(&self.key).err().map(|e| format!("{e:#}"))),
            ("concurrent", rule(is_few, "expected 1 or 2")),
            ("state", rule(self.state.is_absolute(), "the path must be absolute")),
            ("rate", rule(self.rate != Some(0), "0 would never upload anything")),
            ("endpoint", endpoint.and_then(|url| broken_url(url, self.allow_http))),
            (
                "endpoint",
                rule(!endpoint.unwrap_or_default().contains(['?', '#']), "it has no query"),
            ),
            (
                "region",
                rule(
                    !region.is_empty() && region.chars().all(is_word),
                    "expected a name such as eu-central-1",
                ),
            ),
            (
                "encryption",
                rule(
                    ENCRYPTIONS.contains(&encryption),
                    &format!("expected one of {}", ENCRYPTIONS.join(", ")),
                ),
            ),
            (
                "kms_key",
                rule(self.kms_key.is_none() || is_kms, "it takes encryption = \"aws:kms\""),
            ),
            (
                "account",
                rule(
                    self.account.is_none() || scheme.is_none_or(|s| s == "az"),
                    "only az:// has accounts",
                ),
            ),
            (
                "keep_until_uploaded",
                rule(
                    self.keep_until_uploaded.as_deref().is_none_or(is_age),
                    "expected a time such as 7d or 2 weeks",
                ),
            ),
            ("webhook", webhook.and_then(|webhook| broken_url(&webhook.url, true))),
        ];
        broken.into_iter().find_map(|(key, why)| Some((key, why?))).map_or(Ok(()), Err)
    }

    /// The key of `select` that breaks a rule.
    fn field(&self) -> (&str, Option<String>) {
        for (field, glob) in &self.select {
            if !FIELDS.contains(&field.as_str()) {
                return (field, Some(near::unknown("field", field, &FIELDS)));
            }
            let values: &[&str] = match field.as_str() {
                "signal" => &SIGNALS,
                "outcome" => &OUTCOMES,
                _ => continue,
            };
            if !values.iter().any(|value| matches(glob, value)) {
                return (field, Some(near::unknown(field, glob, values)));
            }
        }
        ("select", None)
    }

    /// Whether neither the state nor what is uploaded comes into the store.
    pub(crate) fn is_outside(&self, store: &Path) -> Result<(), Broken<'_>> {
        let inside = || format!("it is in the store, {}", store.display());
        let dir = self.url.as_deref().and_then(|url| url.strip_prefix("file://"));
        match (self.state.starts_with(store), dir.is_some_and(|d| Path::new(d).starts_with(store)))
        {
            (true, _) => Err(("state", inside())),
            (_, true) => Err(("url", inside())),
            _ => Ok(()),
        }
    }
}

/// The rule that the URL of a server breaks. It may hold a secret, and is not repeated.
fn broken_url(url: &str, allow_http: bool) -> Option<String> {
    let Ok(parsed) = Url::parse(url) else { return Some("expected https://HOST".into()) };
    match parsed.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => return Some("http:// takes allow_http = true".into()),
        _ => return Some("expected https://HOST or http://HOST".into()),
    }
    let has_words = !parsed.username().is_empty() || parsed.password().is_some();
    match has_words {
        true => Some("a URL holds no user name and no password".into()),
        false => None,
    }
}

/// Whether a text is a time as the helper reads it.
fn is_age(text: &str) -> bool {
    let whole_days = jiff::SpanRelativeTo::days_are_24_hours();
    let span = text.parse::<jiff::Span>().ok();
    span.and_then(|span| span.to_duration(whole_days).ok()).is_some_and(|d| d.as_secs() >= 0)
}

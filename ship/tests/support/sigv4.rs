//! Signature version 4 by its description, so that requests can be checked as a cloud checks them.
//!
//! # References
//! "Authenticating Requests: Using the Authorization Header", docs.aws.amazon.com.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::BTreeMap;

/// The head of a request.
pub struct Head {
    pub method: String,
    /// Path and query, as they were sent.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Head {
    /// The requests in what a witness has heard.
    pub fn all(text: &str) -> Vec<Head> {
        let lines: Vec<&str> = text.lines().collect();
        let first = |line: &str| {
            let (method, rest) = line.strip_suffix(" HTTP/1.1")?.split_once(' ')?;
            let is = method.bytes().all(|b| b.is_ascii_uppercase()) && rest.starts_with('/');
            is.then(|| (method.to_owned(), rest.to_owned()))
        };
        let head = |at: usize| {
            let (method, target) = first(lines[at])?;
            let own = lines[at + 1..].iter().map_while(|line| line.split_once(": "));
            let headers = own.map(|(k, v)| (k.to_lowercase(), v.trim().to_owned())).collect();
            Some(Head { method, target, headers })
        };
        (0..lines.len()).filter_map(head).collect()
    }

    fn field(&self, name: &str) -> &str {
        let said = self.headers["authorization"].strip_prefix("AWS4-HMAC-SHA256 ").unwrap();
        let mut pairs = said.split(',').filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(key, _)| *key == name).unwrap().1
    }

    /// The signature that it has.
    pub fn said(&self) -> &str {
        self.field("Signature")
    }

    /// Date, region, service and end of its scope.
    pub fn scope(&self) -> &str {
        self.field("Credential").split_once('/').unwrap().1
    }

    /// The signature that it must have.
    pub fn signature(&self, secret: &str) -> String {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let mut query: Vec<String> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
            .collect();
        query.sort();
        let signed = self.field("SignedHeaders");
        let headers: String =
            signed.split(';').map(|name| format!("{name}:{}\n", self.headers[name])).collect();
        let hash = &self.headers["x-amz-content-sha256"];
        let canonical =
            format!("{}\n{path}\n{}\n{headers}\n{signed}\n{hash}", self.method, query.join("&"));
        let (date, scope) = (&self.headers["x-amz-date"], self.scope());
        let hash = super::sha256(canonical.as_bytes());
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
        let first = format!("AWS4{secret}").into_bytes();
        let key = scope.split('/').fold(first, |key, word| mac(&key, word));
        mac(&key, &text).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

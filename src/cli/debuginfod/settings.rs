//! What the environment and the configuration say of servers. Pure.

use crate::config;

/// What the environment and the configuration say, in elfutils' words.
#[derive(Debug, PartialEq)]
pub(super) struct Settings {
    /// The servers, in the order in which they are asked.
    pub urls: Vec<String>,
    /// Most bytes of one file.
    pub max_size: u64,
    /// Seconds in which a server must have sent 100 KiB more.
    pub timeout: u64,
    /// Most seconds for one file.
    pub max_time: u64,
    /// How often a server is tried again.
    pub retries: u64,
    /// A file with headers of the request.
    pub headers: Option<String>,
    /// The configuration, for what is kept.
    pub config: config::Debuginfod,
    /// What is ignored and why, one line each.
    pub problems: Vec<String>,
}

impl Settings {
    /// What `variable` of the environment, and the configuration say.
    pub(super) fn new(
        config: config::Debuginfod,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let mut problems = Vec::new();
        let named = variable("DEBUGINFOD_URLS");
        let words: Vec<&str> = match &named {
            Some(text) => text.split_whitespace().collect(),
            None => config.urls.iter().map(String::as_str).collect(),
        };
        let mut urls = Vec::new();
        for word in words {
            if word.starts_with("http://") || word.starts_with("https://") {
                urls.push(word.trim_end_matches('/').to_owned());
            } else if word.starts_with("ima:") {
                problems.push(format!(
                    "{word} is ignored: signatures are not verified, only build-ids are"
                ));
            } else {
                problems.push(format!("{word} is left out: expected http:// or https://"));
            }
        }
        if urls.is_empty() {
            problems.push(
                "there is no server to ask: set DEBUGINFOD_URLS, or urls in [debuginfod] of the \
                 configuration"
                    .into(),
            );
        }
        // 0 stands for the default, as there.
        let mut number = |name: &str, default: u64| {
            let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return default };
            match text.trim().parse() {
                Ok(0) => default,
                Ok(n) => n,
                Err(_) => {
                    problems.push(format!("{name}={text:?}: expected a number, taking {default}"));
                    default
                }
            }
        };
        let most = config.max_file.finite().unwrap_or(u64::MAX);
        Settings {
            timeout: number("DEBUGINFOD_TIMEOUT", 90),
            max_time: number("DEBUGINFOD_MAXTIME", 600),
            retries: number("DEBUGINFOD_RETRY_LIMIT", 2),
            max_size: number("DEBUGINFOD_MAXSIZE", u64::MAX).min(most),
            headers: variable("DEBUGINFOD_HEADERS_FILE").filter(|path| !path.is_empty()),
            urls,
            config,
            problems,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Limit;

    fn settings(config: config::Debuginfod, variables: &[(&str, &str)]) -> Settings {
        Settings::new(config, |name| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn urls_of_the_environment_come_before_those_of_the_configuration() {
        let config =
            config::Debuginfod { urls: vec!["https://a/".into()], ..config::Debuginfod::default() };
        assert_eq!(settings(config.clone(), &[]).urls, ["https://a"]);
        let text = "http://b/x/  ima:enforcing https://c file:///d e";
        let read = settings(config.clone(), &[("DEBUGINFOD_URLS", text)]);
        assert_eq!(read.urls, ["http://b/x", "https://c"]);
        assert_eq!(read.problems.len(), 3, "{:?}", read.problems);
        assert!(read.problems[0].starts_with("ima:enforcing is ignored"));
        let none = settings(config, &[("DEBUGINFOD_URLS", "")]);
        assert!(none.urls.is_empty() && none.problems[0].contains("no server to ask"));
    }

    #[test]
    fn bounds() {
        let config = || config::Debuginfod {
            max_file: Limit::Finite(1000),
            urls: vec!["http://a".into()],
            ..config::Debuginfod::default()
        };
        let read = settings(config(), &[]);
        assert_eq!((read.max_size, read.timeout, read.max_time, read.retries), (1000, 90, 600, 2));
        let given = [
            ("DEBUGINFOD_TIMEOUT", "5"),
            ("DEBUGINFOD_MAXTIME", "0"),
            ("DEBUGINFOD_MAXSIZE", "100"),
            ("DEBUGINFOD_RETRY_LIMIT", "often"),
        ];
        let read = settings(config(), &given);
        assert_eq!((read.max_size, read.timeout, read.max_time, read.retries), (100, 5, 600, 2));
        assert_eq!(
            read.problems,
            ["DEBUGINFOD_RETRY_LIMIT=\"often\": expected a number, taking 2"]
        );
    }
}

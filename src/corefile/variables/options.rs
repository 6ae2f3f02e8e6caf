//! What is asked of variables: of how many frames, and what is not to be shown.

use crate::config;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VariableOptions {
    /// Of how many frames, the innermost first.
    pub frames: usize,
    /// Whether text, and what is behind the pointers of a container type, is shown.
    pub contents: bool,
    /// Globs of the names of variables and members whose values are not shown, in any case.
    pub hide: Vec<String>,
}

impl VariableOptions {
    /// Whether the value of what has this name is not shown.
    pub(super) fn hides(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.hide.iter().any(|glob| config::matches(&glob.to_lowercase(), &name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_hidden() {
        let hide = config::Config::default().hide;
        let options = VariableOptions { frames: 8, contents: true, hide };
        for (name, hidden) in [
            ("password", true),
            ("dbPassword", true),
            ("API_TOKEN", true),
            ("client_secret", true),
            ("pass", true),
            ("user_pwd", true),
            ("http_auth", true),
            ("passed", false),
            ("count", false),
        ] {
            assert_eq!(options.hides(name), hidden, "{name}");
        }
    }
}

//! Globs of `[select]` and `[upload] select`, and of the verbs that select crashes.

/// Whether `glob` (`*` any run, `?` any one character) matches all of `text`.
pub fn matches(glob: &str, text: &str) -> bool {
    let (g, t): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    // Linear memory, quadratic time at worst: `reach[i]` says whether the glob so far
    // matches the first i characters.
    let mut reach = vec![false; t.len() + 1];
    reach[0] = true;
    for c in g {
        if c == '*' {
            let first = reach.iter().position(|r| *r).unwrap_or(t.len() + 1);
            reach.iter_mut().skip(first).for_each(|r| *r = true);
        } else {
            for i in (0..t.len()).rev() {
                reach[i + 1] = reach[i] && (c == '?' || c == t[i]);
            }
            reach[0] = false;
        }
    }
    reach[t.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (g, t, yes) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("?*", "", false),
            ("a?c", "abc", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xaybb", true),
            ("prod-*", "prod-1", true),
            ("prod-*", "test", false),
            ("a?c*", "abc", true),
        ] {
            assert_eq!(matches(g, t), yes, "{g:?} {t:?}");
        }
    }
}

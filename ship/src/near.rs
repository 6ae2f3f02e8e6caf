//! Hints for misspelt words: the nearest known one.

/// Most letters that are changed, inserted or deleted in a word that was meant.
const MOST: usize = 3;

/// Whether a word is another one with a mistake.
pub(crate) fn is_misspelt(word: &str, known: &str) -> bool {
    word != known && strsim::damerau_levenshtein(word, known) <= 2
}

/// That there is no such thing, and what there is.
pub(crate) fn unknown(thing: &str, word: &str, known: &[&str]) -> String {
    format!("there is no {thing} {word:?}; {}", hint(word, known))
}

fn hint(word: &str, known: &[&str]) -> String {
    let distance = |known: &str| strsim::damerau_levenshtein(word, known);
    let near = known.iter().min_by_key(|known| distance(known));
    match near.filter(|known| distance(known) <= MOST.min(known.len() / 2)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", known.join(", ")),
    }
}

/// A message of the parser in one line, with the nearest word where it names those that there are.
pub(crate) fn plain(message: &str) -> String {
    let line = message.trim().lines().next().unwrap_or_default();
    let words: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
    let kind = match line {
        _ if line.starts_with("unknown field") => "key",
        _ if line.starts_with("unknown variant") => "value",
        _ => return line.to_owned(),
    };
    let Some((word, known)) = words.split_first() else { return line.to_owned() };
    format!("there is no such {kind}; {}", hint(word, known))
}

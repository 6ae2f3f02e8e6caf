//! The name of a crash's directory in the storage: a template of the record's fields. Pure.

use crate::record::Record;
use anyhow::{Result, bail};

/// Longest part that a container may have chosen, in bytes.
const LONGEST: usize = 100;
/// Longest name, in bytes: S3 takes 1,024, with the prefix and the file's name.
const MOST: usize = 800;

/// The fields of a template.
const FIELDS: [&str; 10] = [
    "namespace",
    "pod",
    "container",
    "container_id",
    "node",
    "time",
    "date",
    "record",
    "signal",
    "comm",
];

/// Checks a template.
///
/// # Errors
/// Names the field that there is not, or the rule that it breaks.
pub(crate) fn check(template: &str) -> Result<()> {
    pieces(template)?;
    if template.split('/').any(|part| part == "." || part == "..") {
        bail!("{template:?}: `.` and `..` are no names");
    }
    Ok(())
}

enum Piece<'a> {
    Text(&'a str),
    Field(&'a str),
}

fn pieces(template: &str) -> Result<Vec<Piece<'_>>> {
    let mut out = Vec::new();
    let mut rest = template;
    while let Some((text, more)) = rest.split_once('{') {
        let Some((field, more)) = more.split_once('}') else { bail!("a {{ is not closed") };
        if !FIELDS.contains(&field) {
            bail!(crate::near::unknown("field", field, &FIELDS));
        }
        out.extend([Piece::Text(text), Piece::Field(field)]);
        rest = more;
    }
    out.push(Piece::Text(rest));
    Ok(out)
}

/// The directory of a crash, relative to the URL. It ends in the record's ID, so that no two
/// crashes have the same.
pub(crate) fn expand(template: &str, record: &Record, id: &str, node: &str) -> String {
    let mut out = String::new();
    for piece in pieces(template).unwrap_or_default() {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Field("record") => out.push_str(&plain(id)),
            Piece::Field("node") => out.push_str(&plain(node)),
            Piece::Field("date") => out.push_str(&plain(record.time.get(..10).unwrap_or(""))),
            Piece::Field(name) => out.push_str(&plain(&record.field(name))),
        }
    }
    let parts: Vec<&str> = out.split('/').filter(|part| !part.is_empty()).collect();
    let mut name = parts.join("/");
    if name.len() > MOST {
        let mut end = MOST;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
    }
    if template.contains("{record}") && name.contains(&plain(id)) {
        return name;
    }
    format!("{}/{}", name.trim_end_matches('/'), plain(id)).trim_start_matches('/').to_owned()
}

/// A name of a container as one component of plain characters.
fn plain(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let text: String =
        text.chars().map(|c| if is_plain(c) { c } else { '_' }).take(LONGEST).collect();
    match text.as_str() {
        "" => "-".into(),
        dots if dots.chars().all(|c| c == '.') => dots.replace('.', "_"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        let mut record = Record { time: "2026-01-02T03:04:05Z".into(), ..Record::default() };
        let of = |template: &str, record: &Record| {
            expand(template, record, "20260102T030405Z-7-abc", "n1")
        };
        record.pod_namespace = Some("shop".into());
        record.pod_name = Some("../..".into());
        record.container_name = Some("a/b\n\u{202e}".into());
        assert_eq!(
            of("{namespace}/{pod}/{container}", &record),
            "shop/.._../a_b__/20260102T030405Z-7-abc"
        );
        record.pod_name = Some("..".into());
        assert_eq!(of("x/{pod}/{date}", &record), "x/__/2026-01-02/20260102T030405Z-7-abc");
        assert_eq!(of("{record}.{node}", &record), "20260102T030405Z-7-abc.n1");
        assert_eq!(of("", &record), "20260102T030405Z-7-abc");
        record.pod_name = Some("p".repeat(5000));
        let long = of(&"{pod}/".repeat(30), &record);
        assert!(long.len() < 900 && long.ends_with("/20260102T030405Z-7-abc"), "{long}");
        for bad in ["{x}", "a{", "../{pod}"] {
            check(bad).unwrap_err();
        }
    }
}

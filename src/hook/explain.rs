//! What the hook would do for a bundle, in words (`oci-coredump plan`). Changes nothing.

use super::request::{self, Asked};
use super::state::State;
use super::{plan, remarks};
use crate::config::Config;
use crate::container_identity;
use crate::first_process::IGNORED;
use crate::record::Names;
use anyhow::Result;
use std::path::Path;

/// What the hook would do for a bundle.
#[derive(Debug)]
pub struct Explanation {
    /// The plan, or why there is none: one fact on each line.
    pub text: String,
    /// Whether the container would get what it asks for. `true` if it asks for nothing.
    pub is_honoured: bool,
}

/// Explains what the hook would do for a bundle. Changes nothing.
///
/// # Errors
/// config.json cannot be read, or the state is invalid.
pub fn explain(bundle: &Path, state: Option<&[u8]>, config: &Config) -> Result<Explanation> {
    let bundle = std::path::absolute(bundle)?;
    let id = container_identity::id_of(&bundle).unwrap_or_default().to_owned();
    let state = match state {
        Some(text) => State { bundle, ..State::parse(text)? },
        None => State { id, bundle, ..State::default() },
    };
    let mut lines = Vec::new();
    let note = |note: &String| format!("note: {note}");
    let is_honoured = match request::read(&state, config)? {
        Asked::Nothing { why } => {
            lines.push(format!("nothing: {why}"));
            true
        }
        Asked::Refused { names, required, why } => {
            lines.extend(called(&names, None));
            lines.extend(why.rules.iter().map(|rule| format!("refused: {rule:#}")));
            lines.extend(why.notes.iter().map(note));
            lines.push(match required || config.strict {
                true => "the container would not start: its core pattern is required".into(),
                false => "the container would start without a core pattern of its own".into(),
            });
            false
        }
        Asked::Request { request, required } => {
            let plan = plan::plan(&request, config);
            lines.push(format!(
                "pattern {:?} from {}{}",
                request.wishes.pattern.to_string(),
                request.wishes.key,
                if required { ", required" } else { "" }
            ));
            lines.extend(called(&request.names, request.engine));
            let steps = plan.lines();
            let mut notes = [plan.warnings, plan.remarks].concat();
            if let Some(program) = request.bundle.first_program() {
                notes.push(format!("{program:?} is the first process: {IGNORED}"));
            }
            let pattern = &request.wishes.pattern;
            if request.bundle.has_directory(&state.bundle, pattern) {
                let remark = remarks::names_directory(pattern, config.core_uses_pid);
                notes.extend(Some(remark).filter(|remark| !notes.contains(remark)));
            }
            lines.extend(notes.iter().map(note));
            lines.extend(steps.iter().enumerate().map(|(i, s)| format!("{}. {s}", i + 1)));
            true
        }
    };
    Ok(Explanation { text: lines.join("\n"), is_honoured })
}

/// A line with what the container is called, if that is known.
fn called(names: &Names, engine: Option<&str>) -> Option<String> {
    let parts = [
        ("container", names.container_name.as_deref()),
        ("pod", names.pod_name.as_deref()),
        ("namespace", names.pod_namespace.as_deref()),
        ("image", names.image.as_deref()),
        ("engine", engine),
    ];
    let known: Vec<String> =
        parts.iter().filter_map(|(what, name)| Some(format!("{what} {:?}", (*name)?))).collect();
    (!known.is_empty()).then(|| format!("for {}", known.join(", ")))
}

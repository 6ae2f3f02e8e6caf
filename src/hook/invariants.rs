//! Invariants of the hook for untrusted input; see [`crate::fuzzing`].

use super::config_json::{Bundle, Life};
use super::plan;
use super::request::Request;
use super::state::{Stage, State};
use crate::annotation;
use crate::config::Config;
use crate::container_identity::ContainerIdentity;
use std::path::Path;

/// Reads a state, as a runtime passes it on stdin.
pub(crate) fn state(text: &[u8]) {
    let Ok(state) = State::parse(text) else { return };
    crate::registry::check_id(&state.id).expect("it was checked");
    assert!(state.bundle.is_absolute() && state.process().map_or(true, |pid| pid > 1));
    let _ = [false, true].map(|registered| Stage::of(&state, registered).may_fail());
}

/// A config.json, from parsing to the plan.
pub(crate) fn bundle(text: &[u8]) {
    let Ok(annotations) = annotation::of_config_json(text) else { return };
    crate::invariants::asked(&annotations);
    let names = ContainerIdentity::at("c", &annotations, text, Path::new("/bundle")).names;
    let container = names.container_name.as_deref();
    let default = "/cores/core".parse().expect("it is a path");
    let Ok(Some(wishes)) = annotation::wishes(&annotations, container, Some(&default)) else {
        return;
    };
    let Ok(bundle) = Bundle::parse(text) else { return };
    bundle.rootfs(Path::new("/bundle"));
    assert!(bundle.termination_log().is_none_or(|path| path.starts_with('/')));
    let life = Life { id: "c", auto_remove: true };
    let directory = wishes.pattern.directory();
    if let Some(volume) = directory.and_then(|directory| bundle.volume_at(&directory, life)) {
        assert!(
            volume.target.starts_with('/')
                && volume.target.len() > 1
                && !Path::new(&volume.target).components().any(|c| c.as_os_str() == "..")
        );
        assert!(volume.source.is_none_or(|source| source.starts_with('/')));
    }
    let hard = bundle.core_limit().map(|(_, hard)| hard);
    let request = Request { wishes, names, engine: None, auto_remove: true, bundle };
    let plan = plan::plan(&request, &Config::default());
    for step in &plan.on_host {
        if let (plan::HostStep::Limit(bytes, raise), Some(hard)) = (step, hard) {
            assert!(bytes.raw() <= hard && !raise, "over the limit of config.json");
        }
    }
    assert!(!plan.to_string().is_empty());
}

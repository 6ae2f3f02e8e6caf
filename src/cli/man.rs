//! `man`: prints the manual page.

use anyhow::Result;
use std::io::Write;
use std::process::ExitCode;

/// Print the man page.
///
/// Example: oci-coredump man | man -l -
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Prints it: the program, and the synopsis, description and options of each verb.
pub(super) fn run(out: &mut impl Write, mut all: clap::Command) -> Result<ExitCode> {
    all.build();
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(all.clone());
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    for verb in all.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = verb.get_name().to_uppercase();
        writeln!(text, ".SH {name}")?;
        let page = clap_mangen::Man::new(verb.clone());
        let mut part = Vec::new();
        page.render_description_section(&mut part)?;
        page.render_synopsis_section(&mut part)?;
        page.render_options_section(&mut part)?;
        page.render_extra_section(&mut part)?;
        // As parts of the verb's section.
        text.extend_from_slice(
            &String::from_utf8_lossy(&part).replace(".SH ", ".SS ").into_bytes(),
        );
    }
    page.render_extra_section(&mut text)?;
    out.write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

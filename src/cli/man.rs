//! `man`: prints or writes the manual pages, one for the program and one for each verb.

use anyhow::{Context, Result};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Print a manual page: that of the program, or of one command.
///
/// Example: oci-coredump man list | man -l -
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The command.
    #[arg(value_name = "COMMAND")]
    verb: Option<String>,
    /// Write all pages into this directory, as oci-coredump.1 and oci-coredump-COMMAND.1.
    #[arg(long, value_name = "DIR", conflicts_with = "verb")]
    all: Option<PathBuf>,
}

/// Prints one page, or writes all.
pub(super) fn run(
    out: &mut impl Write,
    args: &Args,
    mut program: clap::Command,
) -> Result<ExitCode> {
    program.build();
    let verbs = pages(&program);
    if let Some(dir) = &args.all {
        for page in [&program].into_iter().chain(verbs) {
            let path = dir.join(format!("{}.1", title(page)));
            std::fs::write(&path, text(page, &program)?)
                .with_context(|| format!("write {}", path.display()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let page = match &args.verb {
        None => &program,
        Some(word) => verbs
            .into_iter()
            .find(|verb| verb.get_name() == word)
            .with_context(|| format!("there is no command {word:?}"))?,
    };
    out.write_all(&text(page, &program)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The commands that have a page.
fn pages(program: &clap::Command) -> Vec<&clap::Command> {
    let is_shown = |verb: &&clap::Command| !verb.is_hide_set() && verb.get_name() != "help";
    program.get_subcommands().filter(is_shown).collect()
}

/// The name of a page, as man(1) is asked for it.
fn title(page: &clap::Command) -> String {
    page.get_display_name().unwrap_or(page.get_name()).to_owned()
}

fn text(page: &clap::Command, program: &clap::Command) -> Result<Vec<u8>> {
    let is_program = page.get_name() == program.get_name();
    // What stands after the options has headings of its own.
    let after = page.get_after_long_help().or(page.get_after_help()).map(ToString::to_string);
    let man = clap_mangen::Man::new(page.clone()).title(title(page));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if is_program {
        writeln!(text, ".SH COMMANDS")?;
        for verb in pages(page) {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            writeln!(text, ".TP\n\\fB{}\\fR(1)\n{}", escaped(&title(verb)), escaped(&about))?;
        }
    }
    sections(&mut text, &after.unwrap_or_default())?;
    if !is_program {
        writeln!(
            text,
            ".SH \"SEE ALSO\"\n\\fB{}\\fR(1): files, environment, exit status",
            escaped(program.get_name())
        )?;
    }
    Ok(text)
}

/// Paragraphs: prose, or a heading that ends in a colon and lines that stay as they are.
fn sections(text: &mut Vec<u8>, after: &str) -> Result<()> {
    for paragraph in after.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        match paragraph.split_once(":\n") {
            Some((heading, lines)) if !heading.contains('\n') && lines.starts_with(' ') => {
                writeln!(text, ".SH {:?}\n.nf\n{}\n.fi", heading.to_uppercase(), escaped(lines))?;
            }
            _ if paragraph.starts_with(' ') => {
                writeln!(text, ".PP\n.nf\n{}\n.fi", escaped(paragraph))?;
            }
            _ if text.windows(11).any(|w| w == b".SH \"NOTES\"") => {
                writeln!(text, ".PP\n{}", escaped(paragraph))?;
            }
            _ => writeln!(text, ".SH \"NOTES\"\n{}", escaped(paragraph))?,
        }
    }
    Ok(())
}

/// Text in roff: no line of it is a request, no letter of it an escape.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line = |line: &str| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

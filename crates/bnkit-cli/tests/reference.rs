//! `docs/reference.md` says what the arguments declare. `BNKIT_BLESS=1 cargo test --workspace --test reference` writes it anew.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, ArgAction, Command, CommandFactory};

#[allow(dead_code, reason = "only the declarations are read")]
#[path = "../src/args/mod.rs"]
mod args;

const SHARED: &str = "Shared options";

/// Text for Markdown: what looks like an element or a column is none.
fn escaped(text: &str) -> String {
    text.replace('<', "\\<").replace('|', "\\|")
}

/// Help in several paragraphs below a list item; lines that are indented are an example.
fn indented(help: &str) -> String {
    let mut text = String::new();
    let mut example = false;
    for line in help.lines() {
        let starts = line.starts_with("  ");
        if starts != example && !line.is_empty() {
            if example {
                // The blank line before the end belongs behind it.
                text.truncate(text.trim_end().len());
                text.push('\n');
            }
            text.push_str(if starts { "  ```yaml\n" } else { "  ```\n\n" });
            example = starts;
        }
        match (line.is_empty(), example) {
            (true, _) => text.push('\n'),
            (false, true) => writeln!(text, "  {}", &line[2..]).expect("text"),
            (false, false) => writeln!(text, "  {}", escaped(line)).expect("text"),
        }
    }
    if example {
        text.push_str("  ```\n");
    }
    text.trim_start().to_owned()
}

/// `-o`, `--output OUT`, or `MODEL`.
fn name(arg: &Arg) -> String {
    let value = arg.get_value_names().unwrap_or_default().join(" ");
    let value = match arg.get_action() {
        ArgAction::Set | ArgAction::Append => value,
        _ => String::new(),
    };
    let long = arg.get_long().map(|long| format!("--{long} {value}"));
    let short = arg.get_short().map(|short| format!("-{short}"));
    let names: Vec<String> = match (short, long) {
        (None, None) => vec![format!("`{value}`")],
        (short, long) => [short, long]
            .into_iter()
            .flatten()
            .map(|name| format!("`{}`", name.trim_end()))
            .collect(),
    };
    names.join(", ")
}

/// One argument as a list item.
fn item(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    assert!(!help.is_empty(), "{} has no help", arg.get_id());
    let mut text = format!("- {}: {}", name(arg), indented(&help));
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| takes_value)
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}` ({})", value.get_name(), escaped(&help.to_string())),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    if !values.is_empty() {
        writeln!(text, "  One of: {}.", values.join(", ")).expect("text");
    }
    let defaults: Vec<_> = arg.get_default_values().iter().collect();
    if let ([default], true) = (&defaults[..], takes_value) {
        writeln!(text, "  Default: `{}`.", default.to_string_lossy()).expect("text");
    }
    text
}

/// The arguments under one heading; none has the heading "Options".
fn list(page: &mut String, title: &str, args: &[&Arg]) {
    if args.is_empty() {
        return;
    }
    write!(page, "\n{title}:\n\n").expect("text");
    for arg in args {
        page.push_str(&item(arg));
    }
}

fn section(page: &mut String, command: &Command) {
    let name = command.get_name();
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let about = match about.contains("\n  ") || about.contains(":  ") {
        // Lines that must stay as they are.
        true => about.replacen("\n\n", "\n\n```text\n", 1) + "\n```",
        false => escaped(&about),
    };
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    write!(page, "\n## {name}\n\n{about}\n\n```text\n{usage}\n```\n").expect("text");
    let args: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && !arg.is_hide_set())
        .filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
        .collect();
    let with = |heading: Option<&str>, positional: bool| -> Vec<&Arg> {
        let of =
            |arg: &&Arg| arg.get_help_heading() == heading && arg.is_positional() == positional;
        args.iter().copied().filter(of).collect()
    };
    list(page, "Arguments", &with(None, true));
    list(page, "Options", &with(None, false));
    let mut headings: Vec<&str> = args
        .iter()
        .filter_map(|arg| arg.get_help_heading())
        .collect();
    headings.dedup();
    let mut seen = Vec::new();
    for heading in headings {
        if !seen.contains(&heading) {
            list(page, heading, &with(Some(heading), false));
            seen.push(heading);
        }
    }
}

/// The page as it should be.
fn page() -> String {
    let mut command = args::Cli::command();
    command.build();
    let mut page = String::from(
        "# Commands and options\n\nMade from what the program declares, by `BNKIT_BLESS=1 cargo test --workspace --test reference`; \
         `bnkit COMMAND --help` says the same. What they mean together is told in [the command line](cli.md).\n\n",
    );
    let commands: Vec<&Command> = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .collect();
    let links: Vec<String> = commands
        .iter()
        .map(|command| format!("[{0}](#{0})", command.get_name()))
        .collect();
    writeln!(page, "{} · [{SHARED}](#shared-options)", links.join(" · ")).expect("text");
    for command in commands {
        section(&mut page, command);
    }
    write!(
        page,
        "\n## {SHARED}\n\nEvery command has these, before or after its name.\n\n"
    )
    .expect("text");
    for arg in command.get_arguments().filter(|arg| arg.is_global_set()) {
        page.push_str(&item(arg));
    }
    page.push_str("- `-h`, `--help`: Print help; `-h` is the short one\n");
    page.push_str(
        "- `-V`, `--version`: Print the version; `--version` with commit, target and compiler\n",
    );
    let codes = command.get_after_help().expect("exit codes").to_string();
    let (_, codes) = codes.split_once('\n').expect("a title");
    write!(
        page,
        "\n## Exit codes\n\n| code | meaning |\n| --- | --- |\n"
    )
    .expect("text");
    for line in codes.lines() {
        let (code, meaning) = line
            .trim()
            .split_once("  ")
            .expect("a code and its meaning");
        writeln!(page, "| {code} | {} |", escaped(meaning)).expect("text");
    }
    page
}

#[test]
fn the_page_of_commands_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
    let page = page();
    if std::env::var_os("BNKIT_BLESS").is_some() {
        std::fs::write(&path, &page).expect("docs/reference.md");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(page.lines()).position(|(a, b)| a != b);
    assert!(
        found == page,
        "docs/reference.md is stale from line {:?} on: BNKIT_BLESS=1 cargo test --workspace --test reference",
        line.map(|line| line + 1)
    );
}

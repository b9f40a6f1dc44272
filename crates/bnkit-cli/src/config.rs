//! `--config FILE`: a YAML file whose sections are commands and whose keys are the long names of their options.
//!
//! There is no second list of options here: the values become the *defaults* of the declared arguments, after they
//! have been parsed once like any command line. So whatever is said on the command line wins, a new option can be
//! configured from the day it is declared, and a wrong value is reported in the same words as on the command line.

#[cfg(test)]
mod corpus;
mod place;
#[cfg(test)]
mod schema;

use std::path::Path;

use anyhow::bail;
use bnkit::yaml;
use clap::builder::Resettable;
use clap::{Arg, ArgAction, Command};
use serde_yaml::Value;

/// Options that make no sense in the file.
const NOT_HERE: [&str; 3] = ["config", "help", "version"];

/// The section, and the option, that says what is done to images.
const PREPROCESS: &str = "preprocess";

/// Options whose values can be descriptions by name in the file, or a list of them.
const DESCRIBED: [&str; 2] = [PREPROCESS, "suppress"];

/// The command with the defaults that the file at `path` asks for, if the command named `running` is to run. The other
/// sections are checked all the same: a typo should not wait for its day.
pub(crate) fn apply(command: Command, running: &str, path: &Path) -> anyhow::Result<Command> {
    let text = yaml::read(path)?;
    let file: Value =
        serde_yaml::from_str(&text).map_err(|error| Place::file(path).error(&error))?;
    let sections = match file {
        Value::Null => return Ok(command),
        Value::Mapping(sections) => sections,
        _ => bail!(Place::file(path).error("expected a section per command, as in \"fold:\"")),
    };
    // What all commands share comes first, so that a command's own section wins.
    let (shared, sections): (Vec<_>, Vec<_>) = sections
        .iter()
        .partition(|(name, _)| name.as_str() == Some(PREPROCESS));
    let command = shared
        .into_iter()
        .try_fold(command, |command, (_, value)| {
            preprocess(command, running, path, &text, value)
        })?;
    sections
        .into_iter()
        .try_fold(command, |command, (name, options)| {
            let place = Place {
                path,
                text: &text,
                keys: vec![key(name)],
            };
            let changed = section(command.clone(), &place, options)?;
            Ok(if place.keys[0] == running {
                changed
            } else {
                command
            })
        })
}

/// The command with what is done to images, wherever it runs on any: a section of its own, for all commands.
fn preprocess(
    command: Command,
    running: &str,
    path: &Path,
    text: &str,
    value: &Value,
) -> anyhow::Result<Command> {
    let find = |command: &Command| {
        let mut options = command.get_arguments();
        options
            .find(|arg| arg.get_long() == Some(PREPROCESS))
            .cloned()
    };
    // It is checked with any command that has the option.
    let Some(arg) = command.get_subcommands().find_map(find) else {
        return Ok(command);
    };
    let runs = command.find_subcommand(running).and_then(find).is_some();
    let place = Place {
        path,
        text,
        keys: vec![PREPROCESS.to_owned()],
    };
    let values = values(&arg, value)
        .map_err(|wrong| place.error(format!("section {PREPROCESS:?}: {wrong}")))?;
    check(&arg, &values)
        .map_err(|wrong| place.error(format!("section {PREPROCESS:?}: {wrong}")))?;
    let id = arg.get_id().clone();
    Ok(match runs {
        true => command.mut_subcommand(running, |section| {
            section.mut_arg(id, |arg| arg.default_values(values))
        }),
        false => command,
    })
}

/// The command with the defaults of one section.
fn section(command: Command, place: &Place<'_>, options: &Value) -> anyhow::Result<Command> {
    let name = &place.keys[0];
    let Some(declared) = command.find_subcommand(name).cloned() else {
        let known = command
            .get_subcommands()
            .map(Command::get_name)
            .chain([PREPROCESS])
            .collect::<Vec<_>>()
            .join(", ");
        let near = near(name, command.get_subcommands().map(Command::get_name));
        bail!(place.error(format!("unknown section {name:?}{near}: there are {known}")));
    };
    let options = match options {
        Value::Null => return Ok(command),
        Value::Mapping(options) => options,
        _ => bail!(place.error(format!(
            "section {name:?}: expected options, as in \"samples: 8\""
        ))),
    };
    options
        .iter()
        .try_fold(command, |command, (option, value)| {
            let place = place.below(key(option));
            default(command, &declared, &place, value)
        })
}

/// The command with the default of one option.
fn default(
    command: Command,
    declared: &Command,
    place: &Place<'_>,
    value: &Value,
) -> anyhow::Result<Command> {
    let (section, option) = (&place.keys[0], &place.keys[1]);
    let named = |arg: &&Arg| arg.get_long() == Some(option) && !NOT_HERE.contains(&option.as_str());
    let (arg, shared) = match (
        declared.get_arguments().find(named),
        command.get_arguments().find(named),
    ) {
        (Some(arg), _) => (arg.clone(), false),
        (None, Some(arg)) => (arg.clone(), true),
        (None, None) => {
            let options = declared.get_arguments().chain(command.get_arguments());
            let near = near(option, options.filter_map(Arg::get_long));
            bail!(place.error(format!(
                "section {section:?}: unknown option {option:?}{near}"
            )))
        }
    };
    let values = values(&arg, value)
        .map_err(|wrong| place.error(format!("section {section:?}: {option}: {wrong}")))?;
    check(&arg, &values).map_err(|wrong| place.error(format!("section {section:?}: {wrong}")))?;
    let change = |arg: Arg| arg.default_values(values);
    let id = arg.get_id().clone();
    Ok(if shared {
        command.mut_arg(id, change)
    } else {
        command.mut_subcommand(section, |section| section.mut_arg(id, change))
    })
}

/// ", did you mean …?", if something is called nearly so.
fn near<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> String {
    let likeness = |name: &'n str| (strsim::jaro_winkler(wrong, name), name);
    let best = names
        .filter(|name| !NOT_HERE.contains(name))
        .map(likeness)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((likeness, name)) if likeness > 0.8 => format!(" (did you mean {name:?}?)"),
        _ => String::new(),
    }
}

/// The words that a value stands for.
fn values(arg: &Arg, value: &Value) -> Result<Vec<String>, &'static str> {
    let described = arg.get_long().is_some_and(|name| DESCRIBED.contains(&name));
    let scalar = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        // The option takes a description in words, too: JSON is YAML.
        Value::Mapping(_) if described => {
            serde_json::to_string(value).map_err(|_| "expected names and values")
        }
        _ => Err("expected a text or a number"),
    };
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Bool(on)) => Ok(vec![on.to_string()]),
        (ArgAction::SetTrue, _) => Err("expected true or false"),
        (ArgAction::Append, Value::Sequence(list)) => list.iter().map(scalar).collect(),
        (_, Value::Sequence(_)) => Err("expected one value, not a list"),
        _ => Ok(vec![scalar(value)?]),
    }
}

/// Whether the words would be accepted on the command line.
fn check(arg: &Arg, values: &[String]) -> Result<(), String> {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return Ok(());
    }
    let long = arg.get_long().unwrap_or_default();
    let words = values.iter().map(|value| format!("--{long}={value}"));
    // What other options it needs or excludes is looked at with the whole command line.
    let arg = arg
        .clone()
        .conflicts_with(Resettable::Reset)
        .requires(Resettable::Reset);
    let alone = Command::new("config").no_binary_name(true).arg(arg);
    let Err(error) = alone.try_get_matches_from(words) else {
        return Ok(());
    };
    let text = error.to_string();
    let first = text
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    Err(first.trim_start_matches("error: ").to_owned())
}

fn key(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other)
            .map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned()),
    }
}

/// Where in the file something is wrong.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
    keys: Vec<String>,
}

impl<'a> Place<'a> {
    fn file(path: &'a Path) -> Self {
        Self {
            path,
            text: "",
            keys: Vec::new(),
        }
    }

    fn below(&self, key: String) -> Self {
        let keys = self.keys.iter().cloned().chain([key]).collect();
        Self { keys, ..*self }
    }

    fn error(&self, message: impl std::fmt::Display) -> anyhow::Error {
        let path = self.path.display();
        match place::of_key(self.text, &self.keys) {
            Some((line, column)) => anyhow::anyhow!("{path}:{line}:{column}: {message}"),
            None => anyhow::anyhow!("{path}: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory;

    fn parsed(yaml: &str, words: &[&str]) -> Result<clap::ArgMatches, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        let command = apply(
            Cli::command(),
            words
                .iter()
                .find(|word| word.starts_with(['f', 'v']))
                .unwrap(),
            file.path(),
        )
        .map_err(|error| {
            let text = error.to_string();
            text.replace(&file.path().display().to_string(), "c.yaml")
        })?;
        let words = ["bnkit"].iter().chain(words);
        Ok(command
            .try_get_matches_from(words)
            .unwrap()
            .subcommand()
            .unwrap()
            .1
            .clone())
    }

    #[test]
    fn values_become_defaults_and_the_command_line_wins() {
        let yaml = "fold:\n  only: [a, b]\n  samples: 8\n  dry-run: true\n  threads: 3\n  quiet: true\n  rtol: 1e-4\n";
        let matches = parsed(yaml, &["fold", "m.onnx", "--only", "c"]).unwrap();
        assert_eq!(
            matches
                .get_many::<String>("only")
                .unwrap()
                .collect::<Vec<_>>(),
            ["c"]
        );
        assert_eq!(matches.get_one::<u32>("samples"), Some(&8));
        assert_eq!(matches.get_one::<f64>("rtol"), Some(&1e-4));
        assert!(matches.get_flag("dry_run") && matches.get_flag("quiet"));
        assert_eq!(
            matches
                .get_one::<std::num::NonZeroUsize>("threads")
                .unwrap()
                .get(),
            3
        );
        let matches = parsed(yaml, &["--threads", "5", "fold", "m.onnx", "--samples=2"]).unwrap();
        assert_eq!(
            matches
                .get_many::<String>("only")
                .unwrap()
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(matches.get_one::<u32>("samples"), Some(&2));
        assert_eq!(
            matches
                .get_one::<std::num::NonZeroUsize>("threads")
                .unwrap()
                .get(),
            5
        );
    }

    #[test]
    fn only_the_section_of_the_command_counts() {
        let matches = parsed("verify: {samples: 9, threads: 2}\n", &["fold", "m.onnx"]).unwrap();
        assert_eq!(matches.get_one::<u32>("samples"), Some(&4));
        assert_eq!(matches.get_one::<std::num::NonZeroUsize>("threads"), None);
    }

    #[test]
    fn an_empty_file_or_section_changes_nothing() {
        for yaml in [
            "",
            "# nothing\n",
            "fold:\n",
            "fold: {}\n",
            "fold: {only: []}\n",
        ] {
            let matches = parsed(yaml, &["fold", "m.onnx"]).unwrap();
            assert!(
                !matches.contains_id("only") && !matches.get_flag("dry_run"),
                "{yaml}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let error = |yaml| parsed(yaml, &["fold", "m.onnx"]).unwrap_err();
        assert_eq!(
            error("verify:\n  samples: 1\nfold:\n  # sample: 1\n  sample: 3\n"),
            "c.yaml:5:3: section \"fold\": unknown option \"sample\" (did you mean \"samples\"?)"
        );
        assert_eq!(
            error("fold: {onyl: [a]}"),
            "c.yaml:1:8: section \"fold\": unknown option \"onyl\" (did you mean \"only\"?)"
        );
        assert_eq!(
            error("\nfodl:\n"),
            "c.yaml:2:1: unknown section \"fodl\" (did you mean \"fold\"?): there are fold, check, inspect, recalibrate, validate, run, stats, merge, verify, diff, pair, unfold, convert, release, explain, completions, man, preprocess"
        );
        assert_eq!(
            error("fold:\n  samples: 0\n"),
            "c.yaml:2:3: section \"fold\": invalid value '0' for '--samples <N>': 0 is not in 1..=4294967295"
        );
        assert_eq!(
            error("fold: {dry-run: 1}"),
            "c.yaml:1:8: section \"fold\": dry-run: expected true or false"
        );
        assert_eq!(
            error("fold: {atol: [1]}"),
            "c.yaml:1:8: section \"fold\": atol: expected one value, not a list"
        );
        assert_eq!(
            error("fold: {config: x}"),
            "c.yaml:1:8: section \"fold\": unknown option \"config\""
        );
        assert!(
            error("fold: [").starts_with("c.yaml: "),
            "{}",
            error("fold: [")
        );
        assert!(error("- fold").contains("expected a section per command"));
        assert!(error("fold: 3").contains("expected options"));
        assert!(error("fold: {require: everything}").contains("[possible values: end-to-end]"));
    }
}

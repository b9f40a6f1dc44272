//! `bnkit check`.

use std::path::PathBuf;

use bnkit::check::{Level, Levels, Suppression};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::values;

/// Look for what is unhealthy in a checkpoint: statistics, exports, and what folding would make of it
///
/// Each finding has a code (`bnkit explain CODE`) and a level: error, warning or note. Any error ends with exit code 1.
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Check {
    /// The checkpoint to read: an ONNX model, a safetensors file, or the index.json of a sharded one
    pub(crate) model: PathBuf,

    #[command(flatten)]
    pub(crate) levels: ChosenLevels,

    /// Accept the findings of CODE in nodes (modules) that match GLOB, for a REASON (repeatable)
    #[arg(long, value_name = "CODE:GLOB=REASON", value_parser = values::suppression)]
    pub(crate) suppress: Vec<Suppression>,

    /// Epsilon of the BatchNorms of a state dict, which does not hold it [default: 1e-5, Keras 1e-3]
    #[arg(long, value_name = "E", value_parser = values::tolerance)]
    pub(crate) eps: Option<f64>,

    /// How BatchNorms are going to be folded, for the rules about that: half folds are fine
    #[arg(long, help_heading = "Folding")]
    pub(crate) aggressive: bool,

    /// A BatchNorm that becomes Mul and Add is fine
    #[arg(long, help_heading = "Folding")]
    pub(crate) lower: bool,

    /// Branches that are added become one Conv
    #[arg(long, help_heading = "Folding")]
    pub(crate) merge_branches: bool,

    /// Initializers that are graph inputs too are constants
    #[arg(long, help_heading = "Folding")]
    pub(crate) assume_constant: bool,
}

/// `--allow`, `--warn` and `--deny`: one list in three options, in which the last word about a code counts. Written by hand, because
/// only the matches know the order.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChosenLevels(pub(crate) Levels);

const OPTIONS: [(&str, Level, &str); 3] = [
    ("allow", Level::Allow, "Do not look for CODE (repeatable)"),
    ("warn", Level::Warning, "Make CODE a warning (repeatable)"),
    (
        "deny",
        Level::Error,
        "Make CODE an error, or everything that is a warning: --deny warnings (repeatable)",
    ),
];

/// In place of a code: everything that is a warning.
const WARNINGS: &str = "warnings";

impl Args for ChosenLevels {
    fn augment_args(command: Command) -> Command {
        OPTIONS
            .into_iter()
            .fold(command, |command, (name, _, help)| {
                let arg = Arg::new(name)
                    .long(name)
                    .value_name("CODE")
                    .action(ArgAction::Append)
                    .value_parser(move |text: &str| code(text, name == "deny"))
                    .help(help)
                    .help_heading("Levels; the last word about a code counts");
                command.arg(arg)
            })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// A code of a check, or "warnings" where that means something.
fn code(text: &str, warnings: bool) -> Result<String, String> {
    if !(warnings && text == WARNINGS) {
        let known = Levels::default().set(text, Level::Note);
        known.map_err(|error| error.to_string())?;
    }
    Ok(text.to_owned())
}

impl FromArgMatches for ChosenLevels {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut levels = Levels::default();
        // What the file says comes first, so that the command line wins; there, the order counts.
        let mut said: Vec<(Option<usize>, String, Level)> = Vec::new();
        for (name, level, _) in OPTIONS {
            let codes = matches.get_many::<String>(name).into_iter().flatten();
            let here = matches.value_source(name) == Some(ValueSource::CommandLine);
            let mut places = matches.indices_of(name).into_iter().flatten();
            said.extend(codes.map(|code| {
                let place = places.next().filter(|_| here);
                (place, code.clone(), level)
            }));
        }
        said.sort_by_key(|(place, ..)| *place);
        let file: Vec<&str> = said
            .iter()
            .filter(|(place, ..)| place.is_none())
            .map(|(_, code, _)| code.as_str())
            .collect();
        let twice = (1..file.len()).find(|&at| file[..at].contains(&file[at]));
        if let Some(twice) = twice.map(|at| file[at]) {
            let message = format!("the configuration file gives \"{twice}\" two levels\n");
            return Err(clap::Error::raw(ErrorKind::ValueValidation, message));
        }
        for (_, code, level) in said {
            if code == WARNINGS {
                levels.deny_warnings();
                continue;
            }
            levels
                .set(&code, level)
                .map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, error))?;
        }
        Ok(Self(levels))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(words: &[&str]) -> Levels {
        let command = ChosenLevels::augment_args(Command::new("check").no_binary_name(true));
        let matches = command.try_get_matches_from(words).unwrap();
        ChosenLevels::from_arg_matches(&matches).unwrap().0
    }

    #[test]
    fn the_last_word_counts() {
        let of = |words: &[&str]| levels(words).of("dead-channel", Level::Note);
        assert_eq!(of(&[]), Level::Note);
        let allow_last = [
            "--deny",
            "dead-channel",
            "--warn=not-folded",
            "--allow",
            "dead-channel",
        ];
        assert_eq!(of(&allow_last), Level::Allow);
        let deny_last = ["--allow", "dead-channel", "--deny", "dead-channel"];
        assert_eq!(of(&deny_last), Level::Error);
        let warned = ["--deny", "warnings", "--warn", "dead-channel"];
        assert_eq!(of(&warned), Level::Error);
    }

    #[test]
    fn unknown_codes_are_refused() {
        let command = ChosenLevels::augment_args(Command::new("check").no_binary_name(true));
        for words in [["--allow", "warnings"], ["--deny", "into-conv"]] {
            assert!(command.clone().try_get_matches_from(words).is_err());
        }
    }
}

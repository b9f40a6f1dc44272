//! `bnkit release`: the stages are commands of their own, and their command lines are what reproduces them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bnkit::calibrate::{Interrupt, Source};
use bnkit::data::images::is_folder_of_images;
use bnkit::pipeline::FoldJob;
use bnkit::release::{self, Calibration, Commands, ReleaseJob};
use clap::{CommandFactory, FromArgMatches};

use super::{Answer, answer, check, fold, recalibrate, target, validate};
use crate::args::Cli;
use crate::args::release::{Calibration as How, Release};
use crate::args::{
    check::Check, fold::Fold, recalibrate::Recalibrate, run::Run, validate::Validate,
};
use crate::config;
use crate::interrupt;
use crate::output::Output;
use crate::progress::Bar;

pub(super) fn run(
    args: &Release,
    config: Option<&Path>,
    force: bool,
    output: &Output,
) -> anyhow::Result<Answer> {
    let out = match &args.output {
        Some(out) => out.clone(),
        None => target::beside(&args.model, "release"),
    };
    target::writable(&out, &args.model, force)?;
    output.check(&[&args.model, &out])?;
    let bar = Bar::new(output.quiet());
    let stages = Stages { args, config };
    let job = ReleaseJob {
        force,
        hash: output.wants_hashes(),
        profiles: output.wants_plots(),
        ..stages.job(out, interrupt::on_signals(&bar)?)?
    };
    let report = release::release(&job, &bar)?;
    drop(bar);
    output.result(&report)?;
    Ok(answer(report.failure.as_deref()))
}

struct Stages<'a> {
    args: &'a Release,
    config: Option<&'a Path>,
}

impl Stages<'_> {
    fn job(&self, out: PathBuf, interrupt: Interrupt) -> anyhow::Result<ReleaseJob> {
        let args = self.args;
        let mut commands = Commands::default();
        let (check, words) = self.check()?;
        commands.check = Some(shell(&words));
        let how = args.calibration.unwrap_or(match args.data {
            Some(_) => How::Validate,
            None => How::None,
        });
        let mut input = args.model.clone();
        let mut before_fold = String::new();
        let calibration = match how {
            How::None => Calibration::None,
            How::Validate => {
                let (job, words) = self.validate(interrupt.clone())?;
                commands.calibration = Some(shell(&words));
                Calibration::Validate(Box::new(job))
            }
            How::Recalibrate => {
                let (job, mut words) = self.recalibrate(interrupt.clone())?;
                input = target::beside(&args.model, "recalibrated");
                words.extend(["-o".into(), input.clone().into()]);
                commands.calibration = Some(shell(&words));
                before_fold = format!("{} && ", shell(&words));
                Calibration::Recalibrate(Box::new(job))
            }
        };
        let (fold, words) = self.fold(&input)?;
        commands.fold = Some(format!("{before_fold}{}", shell(&words)));
        let labelled = match &args.labels {
            None => None,
            Some(labels) => {
                let (data, words) = self.accuracy(labels)?;
                commands.accuracy = Some(shell(&words));
                Some(data)
            }
        };
        if args.max_accuracy_drop.is_some() && labelled.is_none() {
            bail!("--max-accuracy-drop needs --labels FILE");
        }
        Ok(ReleaseJob {
            check,
            calibration,
            fold,
            labelled,
            max_accuracy_drop: args.max_accuracy_drop,
            commands,
            interrupt,
            ..ReleaseJob::new(&args.model, out)
        })
    }

    fn check(&self) -> anyhow::Result<(bnkit::check::CheckJob, Vec<OsString>)> {
        let words = self.words("check", &self.args.model);
        let args: Check = self.parsed(&words)?;
        Ok((check::job(&args, false), words))
    }

    fn validate(
        &self,
        interrupt: Interrupt,
    ) -> anyhow::Result<(bnkit::calibrate::ValidateJob, Vec<OsString>)> {
        let mut words = self.words("validate", &self.args.model);
        let mut args: Validate = self.parsed(&words)?;
        if args.data.data.is_none() && add(&mut words, "--data", self.args.data.as_deref()) {
            args = self.parsed(&words)?;
        }
        // The accuracy is a stage of its own.
        args.data.labels = None;
        let data = args.data.options().context("stage validate")?;
        Ok((validate::job(&args, data, false, interrupt), words))
    }

    fn recalibrate(
        &self,
        interrupt: Interrupt,
    ) -> anyhow::Result<(bnkit::calibrate::RecalibrateJob, Vec<OsString>)> {
        let mut words = self.words("recalibrate", &self.args.model);
        let mut args: Recalibrate = self.parsed(&words)?;
        if args.shard.is_some() || args.partial.is_some() || args.fold.fold {
            bail!(
                "section \"recalibrate\": shard, partial and fold have no place in a release, which runs all the data and folds in a stage of its own"
            );
        }
        if args.data.data.is_none()
            && args.from.is_none()
            && add(&mut words, "--data", self.args.data.as_deref())
        {
            args = self.parsed(&words)?;
        }
        args.data.labels = None;
        args.max_accuracy_drop = None;
        let source: Source = recalibrate::source(&args).context("stage recalibrate")?;
        Ok((recalibrate::job(&args, source, interrupt), words))
    }

    /// `input` is what the command reads that does the same.
    fn fold(&self, input: &Path) -> anyhow::Result<(FoldJob, Vec<OsString>)> {
        let mut words = self.words("fold", input);
        let mut args: Fold = self.parsed(&words)?;
        if args.dry_run || args.keep_stats.is_some() {
            bail!("section \"fold\": dry-run and keep-stats have no place in a release");
        }
        let tensors = self.args.data.as_deref();
        let tensors = tensors.filter(|path| !is_folder_of_images(path));
        if args.proof.data.data.is_none() && add(&mut words, "--data", tensors) {
            args = self.parsed(&words)?;
        }
        if let Some(share) = self.args.min_folded {
            args.min_folded = Some(share);
            words.extend(["--min-folded".into(), share.to_string().into()]);
        }
        if args.no_verify && args.proof.end_to_end() {
            bail!(
                "section \"fold\": require: end-to-end asks for a proof and no-verify forbids it"
            );
        }
        Ok((fold::job(&args, None, false, false), words))
    }

    fn accuracy(
        &self,
        labels: &Path,
    ) -> anyhow::Result<(bnkit::calibrate::DataOptions, Vec<OsString>)> {
        let mut words = self.words("run", &self.args.model);
        let data = self.args.test_data.as_deref().or(self.args.data.as_deref());
        add(&mut words, "--data", data);
        add(&mut words, "--labels", Some(labels));
        words.extend(["--mode".into(), "eval".into()]);
        let args: Run = self.parsed(&words)?;
        let data = args.data.options().context("--labels")?;
        Ok((data, words))
    }

    /// `bnkit COMMAND MODEL --config FILE`.
    fn words(&self, command: &str, model: &Path) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["bnkit".into(), command.into(), model.into()];
        add(&mut words, "--config", self.config);
        words
    }

    /// The arguments of the command that the words name.
    fn parsed<A: FromArgMatches>(&self, words: &[OsString]) -> anyhow::Result<A> {
        let mut command = Cli::command();
        if let (Some(path), Some(running)) = (self.config, words[1].to_str()) {
            command = config::apply(command, running, path)?;
        }
        let matches = command.try_get_matches_from(words)?;
        let (_, matches) = matches.subcommand().context("no command")?;
        Ok(A::from_arg_matches(matches)?)
    }
}

/// Adds an option, if it has a value.
fn add(words: &mut Vec<OsString>, option: &str, value: Option<&Path>) -> bool {
    if let Some(value) = value {
        words.extend([option.into(), value.into()]);
    }
    value.is_some()
}

/// Words as a POSIX shell reads them.
fn shell(words: &[OsString]) -> String {
    let quoted = words.iter().map(|word| {
        let word = word.to_string_lossy();
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./=:,@%+".contains(letter);
        match !word.is_empty() && word.chars().all(plain) {
            true => word.into_owned(),
            false => format!("'{}'", word.replace('\'', "'\\''")),
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_read_more() {
        let words = ["bnkit", "a b", "it's", "", "$(x)", "--min-folded", "0.9"];
        assert_eq!(
            shell(&words.map(OsString::from)),
            "bnkit 'a b' 'it'\\''s' '' '$(x)' --min-folded 0.9"
        );
    }
}

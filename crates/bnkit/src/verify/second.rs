//! What a second engine adds where tract cannot run a model: level 3, in single precision. Level 2 needs doubles, so no verdict is
//! `equivalent` here; but a model that computes something else is found, as a whole and as it is shipped.

use bnkit_engine::{Engine, Second};
use bnkit_model::onnx::{Model, Precision};

use super::end_to_end::{self, Subject, single};
use super::inputs::Sample;
use super::samples::{samples_on, try_on};
use super::{Runner, Verification, VerifyOptions};
use crate::report::Verdict;
use crate::{Error, Result};

/// What came of it.
enum Outcome {
    /// Nothing, maybe for this reason.
    NotRun(Option<String>),
    /// The models ran on this engine.
    Ran(&'static str, single::Shipped),
    /// The original runs on this engine, and the other model cannot be compared with it.
    Broken(&'static str, String),
}

/// Adds level 3 to a proof whose folds are right one by one.
pub(super) fn prove(
    runner: &Runner<'_>,
    folded: &Model,
    mut verification: Verification,
) -> Result<Verification> {
    if verification.verdict != Verdict::EquivalentLocal {
        return Ok(verification);
    }
    let shipped = folded.to_bytes(Precision::Stored)?;
    let dir = runner.original.dir();
    let subject = Subject::unrelated((runner.reference, dir), (&shipped, dir));
    match run(runner.original, &subject, runner.options)? {
        Outcome::NotRun(why) => verification.notes.extend(why),
        Outcome::Ran(engine, found) => add(&mut verification, engine, found),
        Outcome::Broken(engine, why) => {
            verification.engine = engine.into();
            verification.verdict = Verdict::NotEquivalent;
            verification.notes.push(why);
        }
    }
    Ok(verification)
}

/// Compares two models of which nothing else is known, where tract cannot run one of them for the reason `why`.
pub(super) fn compare(
    a: &Model,
    subject: &Subject,
    options: &VerifyOptions,
    why: &str,
) -> Result<Verification> {
    let cannot = |why: String| Err(Error::Request(format!("cannot compare: {why}")));
    match run(a, subject, options)? {
        Outcome::NotRun(None) => cannot(why.to_owned()),
        Outcome::NotRun(Some(also)) => cannot(format!("{why}; {also}")),
        Outcome::Broken(engine, why) => cannot(format!("on {engine}, {why}")),
        Outcome::Ran(engine, found) if found.outputs.is_empty() => {
            cannot(format!("{why}; on {engine}, {}", found.gaps.join("; ")))
        }
        Outcome::Ran(engine, found) => {
            let mut verification = Verification::with(Verdict::EquivalentLocal);
            verification.notes.push(why.to_owned());
            add(&mut verification, engine, found);
            Ok(verification)
        }
    }
}

fn run(model: &Model, subject: &Subject, options: &VerifyOptions) -> Result<Outcome> {
    let engine = match bnkit_engine::second() {
        Ok(Second::Found(engine)) => engine,
        Ok(Second::NotFound(why)) => return Ok(Outcome::NotRun(Some(why.to_owned()))),
        Ok(_) => return Ok(Outcome::NotRun(None)),
        Err(error) => return Err(Error::Request(error.to_string())),
    };
    on(engine, model, subject, options)
}

fn on(
    engine: &'static dyn Engine,
    model: &Model,
    subject: &Subject,
    options: &VerifyOptions,
) -> Result<Outcome> {
    let name = engine.name();
    let not_run =
        |why: String| Outcome::NotRun(Some(format!("{name} cannot run it either: {why}")));
    let tried = |sample: &Sample| try_on(engine, subject.original, model, sample);
    let samples = match samples_on(subject.original, options, &tried)? {
        Ok(samples) => samples,
        Err(why) => return Ok(not_run(why)),
    };
    Ok(
        match single::run(engine, subject, &samples, &options.end_to_end()) {
            Ok(found) => Outcome::Ran(name, found),
            Err(end_to_end::Error::Interrupted) => return Err(Error::Interrupted),
            Err(end_to_end::Error::Unsupported(why)) => not_run(why.to_string()),
            Err(error) => Outcome::Broken(name, error.to_string()),
        },
    )
}

fn add(verification: &mut Verification, engine: &'static str, found: single::Shipped) {
    verification.engine = engine.into();
    verification.samples = found.samples;
    verification.notes.push(format!(
        "as shipped, both models ran on {engine}, without its graph optimisations; level 2 was not run, as {engine} has no \
         convolutions in f64, and the noise floor is what a unit in the last place of the original's constants does"
    ));
    verification.notes.extend(found.gaps);
    verification.jumped(found.jumping);
    verification.outputs = found.outputs;
    if !found.pass {
        verification.verdict = Verdict::NotEquivalent;
    }
}

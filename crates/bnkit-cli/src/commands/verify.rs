//! `bnkit verify`.

use bnkit::pipeline;
use bnkit::report::{Verdict, VerifyReport};

use super::{Answer, answer};
use crate::args::verify::Verify;
use crate::output::Output;
use crate::print::proof::worst;
use crate::print::units::sci;
use crate::progress::Bar;

pub(super) fn run(args: &Verify, output: &Output) -> anyhow::Result<Answer> {
    output.check(&[&args.a, &args.b])?;
    let options = args.proof.options();
    let mut report = pipeline::verify(
        &args.a,
        &args.b,
        &options,
        output.wants_hashes(),
        &Bar::new(output.quiet()),
    )?;
    report.failure = objection(&report, args.proof.end_to_end());
    output.result(&report)?;
    Ok(answer(report.failure.as_deref()))
}

/// What there is to object to, in one sentence.
fn objection(report: &VerifyReport, end_to_end: bool) -> Option<String> {
    let proof = &report.verification;
    match proof.verdict {
        Verdict::Equivalent => None,
        Verdict::EquivalentLocal | Verdict::Skipped if end_to_end => Some(
            "the models could not be compared end to end, and --require end-to-end asks for that"
                .to_owned(),
        ),
        Verdict::EquivalentLocal | Verdict::Skipped => None,
        Verdict::NotEquivalent => {
            let (a, b) = (&report.a.path, &report.b.path);
            Some(
                match worst(&proof.outputs).filter(|output| !output.within) {
                    Some(output) => format!(
                        "{b} is not equivalent to {a}: output {:?} differs by {}, {} is accepted",
                        output.name,
                        sci(output.max_abs),
                        sci(output.tolerance)
                    ),
                    None => format!("{b} is not equivalent to {a}"),
                },
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;

    #[test]
    fn only_a_difference_or_a_missed_demand_is_objected_to() {
        let mut report = samples::verify();
        assert_eq!(objection(&report, true), None);
        report.verification.verdict = Verdict::EquivalentLocal;
        assert_eq!(objection(&report, false), None);
        assert!(objection(&report, true).unwrap().contains("end to end"));
        report.verification = samples::different();
        let why = objection(&report, false).unwrap();
        assert_eq!(
            why,
            "b.onnx is not equivalent to a.onnx: output \"logits\" differs by 1.2e-2, 1.5e-5 is accepted"
        );
    }
}

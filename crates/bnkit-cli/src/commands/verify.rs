//! `bnkit verify`.

use bnkit::pipeline;

use super::{Answer, answer};
use crate::args::verify::Verify;
use crate::output::Output;
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
    report.failure = report.objection(args.proof.end_to_end());
    output.result(&report)?;
    Ok(answer(report.failure.as_deref()))
}

#[cfg(test)]
mod tests {
    use bnkit::report::Verdict;

    use crate::print::samples;

    #[test]
    fn only_a_difference_or_a_missed_demand_is_objected_to() {
        let mut report = samples::verify();
        assert_eq!(report.objection(true), None);
        report.verification.verdict = Verdict::EquivalentLocal;
        assert_eq!(report.objection(false), None);
        assert!(report.objection(true).unwrap().contains("end to end"));
        report.verification = samples::different();
        let why = report.objection(false).unwrap();
        assert_eq!(
            why,
            "b.onnx is not equivalent to a.onnx: output \"logits\" differs by 1.2e-2, 1.5e-5 is accepted"
        );
    }
}

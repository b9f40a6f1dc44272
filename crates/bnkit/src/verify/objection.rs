//! What there is to object to in a comparison of two models, in one sentence.

use crate::report::{OutputComparison, Verdict, VerifyReport};

/// The output that is closest to its tolerance, or furthest beyond it; NaN is worst.
pub fn worst(outputs: &[OutputComparison]) -> Option<&OutputComparison> {
    let badness = |output: &OutputComparison| match output.max_abs {
        0.0 => 0.0,
        difference if difference.is_nan() => f64::INFINITY,
        difference => difference / output.tolerance,
    };
    outputs.iter().max_by(|a, b| {
        let by_verdict = b.within.cmp(&a.within);
        by_verdict.then_with(|| badness(a).total_cmp(&badness(b)))
    })
}

impl VerifyReport {
    /// Why the answer is no; `None` if it is yes. With `end_to_end`, no verdict below `equivalent` is good enough.
    pub fn objection(&self, end_to_end: bool) -> Option<String> {
        let proof = &self.verification;
        match proof.verdict {
            Verdict::Equivalent => None,
            Verdict::EquivalentLocal | Verdict::Skipped if end_to_end => Some(
                "the models could not be compared end to end, and --require end-to-end asks for that"
                    .to_owned(),
            ),
            Verdict::EquivalentLocal | Verdict::Skipped => None,
            Verdict::NotEquivalent => {
                let (a, b) = (&self.a.path, &self.b.path);
                Some(match worst(&proof.outputs).filter(|output| !output.within) {
                    Some(output) => format!(
                        "{b} is not equivalent to {a}: output {:?} differs by {}, {} is accepted",
                        output.name,
                        magnitude(output.max_abs),
                        magnitude(output.tolerance)
                    ),
                    None => format!("{b} is not equivalent to {a}"),
                })
            }
        }
    }
}

fn magnitude(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value.is_nan() => "NaN".to_owned(),
        value if value.is_infinite() => "Inf".to_owned(),
        value => format!("{value:.1e}"),
    }
}

//! What the runs of a proof showed, as a report says it.

use super::end_to_end::{self, EndToEnd, Jumping, OutputReport};
use crate::report::{F64Summary, OutputComparison, Verdict, Verification};

impl Verification {
    /// Nothing was checked.
    pub(crate) fn skipped() -> Self {
        Self::with(Verdict::Skipped)
    }

    /// A verdict, and nothing else yet.
    pub(super) fn with(verdict: Verdict) -> Self {
        Self {
            verdict,
            engine: "tract".into(),
            samples: 0,
            algebra: None,
            f64: None,
            culprit: None,
            outputs: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Takes over what the runs showed.
    pub(super) fn ran(&mut self, found: EndToEnd) {
        self.samples = found.samples;
        self.f64 = Some(F64Summary {
            max_rel: found.double.max_rel,
        });
        let gaps = found.outputs.iter().filter_map(OutputReport::gap);
        self.notes.extend(gaps);
        self.outputs = found.outputs.into_iter().map(comparison).collect();
        self.jumped(found.jumping);
    }

    /// Says what was compared in place of outputs that jump.
    pub(super) fn jumped(&mut self, jumping: Vec<Jumping>) {
        for jump in jumping {
            let mut note = format!(
                "{} \"{}\" jumps: the outputs behind it ({}) were compared at what enters it ({})",
                jump.operator,
                jump.node,
                jump.outputs.join(", "),
                jump.compared.join(", ")
            );
            if !jump.uncompared.is_empty() {
                note.push_str(&format!(
                    "; nothing was shown for {}",
                    jump.uncompared.join(", ")
                ));
            }
            self.notes.push(note);
        }
    }
}

fn comparison(output: end_to_end::OutputReport) -> OutputComparison {
    OutputComparison {
        name: output.name,
        max_abs: output.metrics.max_abs,
        max_rel: output.metrics.max_rel,
        rms: output.metrics.rms,
        snr_db: output.metrics.snr_db,
        argmax_agreement: output.metrics.argmax_agreement,
        noise_floor: output.noise_floor,
        tolerance: output.tolerance,
        within: output.pass,
    }
}

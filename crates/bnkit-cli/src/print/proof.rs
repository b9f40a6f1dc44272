//! The proof, as part of other reports: the verdict, and one line per level.

use std::io::{self, Write};

use anstyle::Style;
use bnkit::report::{OutputComparison, Verdict, Verification};
pub(crate) use bnkit::verify::worst;

use super::plain::plain;
use super::style::{BAD, DOUBTFUL, FAINT, GOOD, paint};
use super::table::Table;
use super::units::{count, sci};
use super::{Detail, more};

pub(super) fn text(proof: &Verification, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    let (style, verdict, meaning) = verdict(proof);
    writeln!(
        out,
        "{}{}",
        paint(style, verdict),
        paint(FAINT, format!(": {meaning}"))
    )?;
    for (level, finding) in levels(proof) {
        writeln!(out, "  {level:<12} {finding}")?;
    }
    if let Some(culprit) = &proof.culprit {
        writeln!(
            out,
            "  {:<12} {}: without this fold the models agree",
            "culprit",
            plain(culprit)
        )?;
    }
    proof
        .notes
        .iter()
        .try_for_each(|note| writeln!(out, "  {:<12} {}", "note", plain(note)))?;
    let different = proof.outputs.iter().filter(|output| !output.within).count();
    if detail == Detail::Short && different == 0 || proof.outputs.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut shown: Vec<&OutputComparison> = proof.outputs.iter().collect();
    shown.retain(|output| detail == Detail::Full || !output.within);
    table(&shown).text(out, "  ", detail.limit())?;
    match more(shown.len().saturating_sub(detail.limit())) {
        Some(line) => writeln!(out, "  {line}"),
        None => Ok(()),
    }
}

pub(super) fn markdown(proof: &Verification, out: &mut dyn Write) -> io::Result<()> {
    let (_, verdict, meaning) = verdict(proof);
    writeln!(out, "**{verdict}**: {meaning}\n")?;
    levels(proof)
        .iter()
        .try_for_each(|(level, finding)| writeln!(out, "- {level}: {finding}"))?;
    if let Some(culprit) = &proof.culprit {
        writeln!(out, "- culprit: `{}`", plain(culprit))?;
    }
    proof
        .notes
        .iter()
        .try_for_each(|note| writeln!(out, "- {}", plain(note)))?;
    if proof.outputs.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    table(&proof.outputs.iter().collect::<Vec<_>>()).markdown(out)
}

fn verdict(proof: &Verification) -> (Style, &'static str, &'static str) {
    match proof.verdict {
        Verdict::Equivalent => (GOOD, "Equivalent", "both models compute the same"),
        // Level 3 without level 2: what a second engine gives.
        Verdict::EquivalentLocal if proof.f64.is_none() && !proof.outputs.is_empty() => (
            DOUBTFUL,
            "Equivalent, locally",
            "right as far as it could be checked; as a whole, the models were compared in single precision only",
        ),
        Verdict::EquivalentLocal => (
            DOUBTFUL,
            "Equivalent, locally",
            "right as far as it could be checked; the models could not be compared as a whole",
        ),
        Verdict::NotEquivalent => (
            BAD,
            "Not equivalent",
            "the models differ by more than rounding explains",
        ),
        Verdict::Skipped => (DOUBTFUL, "Not proved", "nothing was checked, as asked"),
    }
}

/// One line per level that was reached: its name and what was found.
fn levels(proof: &Verification) -> Vec<(&'static str, String)> {
    let mut levels = Vec::new();
    if let Some(algebra) = &proof.algebra {
        let folds = count(algebra.checked, "fold");
        levels.push((
            "constants",
            format!(
                "{folds} recomputed on another path, at most {} ulp apart",
                ulps(algebra.max_ulp)
            ),
        ));
    }
    if let Some(exact) = &proof.f64 {
        levels.push((
            "in f64",
            format!("largest relative difference {}", sci(exact.max_rel)),
        ));
    }
    if let Some(worst) = worst(&proof.outputs) {
        let mut finding = format!(
            "max |Δ| {}, accepted {}",
            sci(worst.max_abs),
            sci(worst.tolerance)
        );
        if let Some(snr) = worst.snr_db {
            finding += &format!(", SNR {snr:.1} dB");
        }
        if let Some(agreement) = worst.argmax_agreement {
            finding += &format!(", argmax agrees {}", percent(agreement));
        }
        let which = match proof.outputs.len() {
            1 => format!(" ({:?}, {}", worst.name, count(proof.samples, "sample")),
            all => format!(
                " ({:?}, the worst of {all} outputs, {}",
                worst.name,
                count(proof.samples, "sample")
            ),
        };
        levels.push((
            "as shipped",
            format!("{finding}{which} on {})", proof.engine),
        ));
    }
    levels
}

fn table(outputs: &[&OutputComparison]) -> Table {
    let mut table = Table::new(&[
        "output",
        "max |Δ|",
        "relative",
        "RMS",
        "SNR dB",
        "argmax",
        "noise floor",
        "accepted",
        "within",
    ]);
    for output in outputs {
        table.row([
            output.name.clone(),
            sci(output.max_abs),
            sci(output.max_rel),
            sci(output.rms),
            output
                .snr_db
                .map_or_else(|| "-".to_owned(), |snr| format!("{snr:.1}")),
            output
                .argmax_agreement
                .map_or_else(|| "-".to_owned(), percent),
            sci(output.noise_floor),
            sci(output.tolerance),
            if output.within { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table
}

/// Rounded down, so that 100 % means all.
fn percent(share: f64) -> String {
    let tenths = (share * 1000.0 + 1e-9).floor() / 10.0;
    format!("{tenths}%")
}

fn ulps(ulps: f64) -> String {
    if ulps >= 1e4 {
        sci(ulps)
    } else {
        format!("{}", (ulps * 100.0).ceil() / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;

    fn plain(proof: &Verification, detail: Detail) -> String {
        let mut out = Vec::new();
        text(proof, &mut out, detail).unwrap();
        anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string()
    }

    #[test]
    fn one_line_per_level() {
        let expected = "\
Equivalent: both models compute the same
  constants    3 folds recomputed on another path, at most 1 ulp apart
  in f64       largest relative difference 3.1e-14
  as shipped   max |Δ| 2.4e-6, accepted 1.5e-5, SNR 128.4 dB, argmax agrees 100% (\"logits\", 4 samples on tract)
";
        assert_eq!(plain(&samples::equivalent(), Detail::Short), expected);
        assert!(plain(&samples::equivalent(), Detail::Full).contains("noise floor"));
    }

    #[test]
    fn without_level_2_the_models_were_compared_as_a_whole_all_the_same() {
        let proof = Verification {
            verdict: Verdict::EquivalentLocal,
            engine: "onnxruntime 1.32.0".into(),
            f64: None,
            ..samples::equivalent()
        };
        let expected = "\
Equivalent, locally: right as far as it could be checked; as a whole, the models were compared in single precision only
  constants    3 folds recomputed on another path, at most 1 ulp apart
  as shipped   max |Δ| 2.4e-6, accepted 1.5e-5, SNR 128.4 dB, argmax agrees 100% (\"logits\", 4 samples on onnxruntime 1.32.0)
";
        assert_eq!(plain(&proof, Detail::Short), expected);
    }

    #[test]
    fn a_difference_is_shown_by_output() {
        let text = plain(&samples::different(), Detail::Short);
        assert!(text.starts_with("Not equivalent: "), "{text}");
        assert!(
            text.contains(
                "culprit      /conv1/BatchNormalization: without this fold the models agree\n"
            ),
            "{text}"
        );
        assert!(text.contains("\n  logits   1.2e-2"), "{text}");
        assert!(!text.contains("\n  boxes"), "{text}");
    }

    #[test]
    fn the_worst_output_is_the_one_beyond_its_tolerance() {
        assert_eq!(worst(&samples::different().outputs).unwrap().name, "logits");
        let mut outputs = samples::different().outputs;
        outputs[0].max_abs = f64::NAN;
        outputs[0].within = false;
        assert_eq!(worst(&outputs).unwrap().name, "boxes");
        assert!(worst(&[]).is_none());
    }

    #[test]
    fn a_hundred_percent_means_all() {
        assert_eq!(percent(1.0), "100%");
        assert_eq!(percent(0.9999), "99.9%");
        assert_eq!(percent(0.0), "0%");
        assert_eq!(ulps(1.0), "1");
        assert_eq!(ulps(0.5), "0.5");
    }
}

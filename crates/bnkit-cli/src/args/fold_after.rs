//! `--fold` of `recalibrate` and `merge`: fold the result, with the proof of `bnkit fold`.

use bnkit::calibrate::FoldAfter;
use bnkit::fold::Options;
use bnkit::verify::VerifyOptions;
use clap::Args;

use super::proof::Tolerances;

#[derive(Debug, Args)]
#[command(next_help_heading = "Fold")]
pub(crate) struct AfterFold {
    /// Fold the recalibrated model too, and prove that it is equal before it is written
    #[arg(long)]
    pub(crate) fold: bool,

    /// With --fold: fold backwards through an Add or Sub of two computed branches too
    #[arg(long)]
    pub(crate) through_branches: bool,

    /// With --fold: fail if a BatchNorm has to stay
    #[arg(long)]
    pub(crate) require_all_folded: bool,

    /// With --fold: write the model without proving anything
    #[arg(long)]
    pub(crate) no_verify: bool,

    #[command(flatten)]
    pub(crate) tolerances: Tolerances,
}

impl AfterFold {
    /// What is to be done, if something is. `on` adds the inputs of the proof.
    ///
    /// # Errors
    /// If options of a fold are there without `--fold`, or contradict each other.
    pub(crate) fn job(
        &self,
        assume_constant: bool,
        on: impl FnOnce(&mut VerifyOptions),
    ) -> anyhow::Result<Option<FoldAfter>> {
        if !self.fold {
            for (option, given) in [
                ("--through-branches", self.through_branches),
                ("--require-all-folded", self.require_all_folded),
                ("--no-verify", self.no_verify),
                ("--require", self.tolerances.require.is_some()),
                ("--atol", self.tolerances.atol.is_some()),
                ("--rtol", self.tolerances.rtol.is_some()),
            ] {
                anyhow::ensure!(!given, "{option} is for a fold: say --fold too");
            }
            return Ok(None);
        }
        anyhow::ensure!(
            !(self.no_verify && self.tolerances.end_to_end()),
            "--require end-to-end asks for a proof and --no-verify forbids it"
        );
        let mut verify = self.tolerances.options();
        on(&mut verify);
        Ok(Some(FoldAfter {
            fold: Options {
                assume_constant,
                through_branches: self.through_branches,
                ..Options::default()
            },
            verify: (!self.no_verify).then_some(verify),
            require_end_to_end: self.tolerances.end_to_end(),
            require_all_folded: self.require_all_folded,
        }))
    }
}

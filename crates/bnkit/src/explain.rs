//! What codes mean, for `bnkit explain`.

/// What kind of thing a code names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A rule that folds.
    Rule,
    /// A reason for leaving something alone.
    Refusal,
    /// A warning that changes nothing.
    Warning,
    /// An error in the statistics.
    Error,
}

/// A code and what it means.
#[derive(Debug, Clone, Copy)]
pub struct Explanation {
    /// The stable code.
    pub code: &'static str,
    /// What it names.
    pub kind: Kind,
    /// One line.
    pub title: &'static str,
    /// Some paragraphs of Markdown: what it means, why, and what to do.
    pub text: &'static str,
}

/// All explanations, rules first, sorted by code within a kind.
pub fn all() -> Vec<Explanation> {
    vec![Explanation {
        code: "shared-output",
        kind: Kind::Refusal,
        title: "the value is read by others too",
        text: "stub",
    }]
}

/// The explanation of a code.
pub fn find(code: &str) -> Option<Explanation> {
    all()
        .into_iter()
        .find(|explanation| explanation.code == code)
}

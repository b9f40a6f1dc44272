//! Recognising an architecture below a prefix, and what its rules say about every BatchNorm there.

use std::collections::{BTreeMap, HashMap};

use super::index::{Index, Kind};
use super::pattern::Pattern;
use super::presets::{Architecture, Epsilon, Rule, View};
use super::{Layer, Layout};
use crate::state::groups::{BatchNormGroup, Naming};

/// What is said about a BatchNorm.
#[derive(Debug, Clone)]
pub(crate) enum Decision {
    /// A layer feeds it.
    Pair { layer: Layer, epsilon: Option<f64> },
    /// It stays, and why.
    Left(String),
}

/// An architecture that was recognised.
#[derive(Debug)]
pub(crate) struct Scope {
    /// What the module paths begin with, separator included.
    pub(crate) prefix: String,
    /// ε, if the architecture determines it.
    pub(crate) epsilon: Option<f64>,
    /// What is said, by the position of the BatchNorm.
    pub(crate) decisions: BTreeMap<usize, Decision>,
}

/// What the layer of a BatchNorm is, by one rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    pub(crate) module: String,
    pub(crate) transposed: bool,
    pub(crate) rule: usize,
}

/// Every place where `architecture` is recognised, and what almost was it.
pub(crate) fn recognise(
    architecture: &Architecture,
    naming: Naming,
    groups: &[BatchNormGroup],
    index: &Index<'_>,
) -> (Vec<Scope>, Vec<String>) {
    let (mut found, mut almost): (Vec<Scope>, Vec<String>) = (Vec::new(), Vec::new());
    let separator = separator(naming, groups);
    for prefix in prefixes(architecture, naming, separator, index) {
        if found.iter().any(|scope| prefix.starts_with(&scope.prefix)) {
            continue;
        }
        let inside: Vec<usize> = (0..groups.len())
            .filter(|&at| groups[at].naming == naming && groups[at].module.starts_with(&prefix))
            .collect();
        if inside.is_empty() {
            continue;
        }
        let rules = Rules::new(architecture.rules, architecture.leaves, separator);
        match decide(architecture, &rules, &prefix, &inside, groups, index) {
            Ok(decisions) => {
                let view = View {
                    index,
                    naming,
                    prefix: &prefix,
                };
                let epsilon = match architecture.epsilon {
                    Epsilon::Known(epsilon) => Some(epsilon),
                    Epsilon::ByShape(tell) => tell(&view),
                    Epsilon::Unknown(_) => None,
                };
                found.push(Scope {
                    prefix,
                    epsilon,
                    decisions,
                });
            }
            Err(why) => almost.push(why),
        }
    }
    (found, almost)
}

/// What separates the components of module paths: PyTorch's dot, or the first separator among flax' and Keras' modules.
fn separator(naming: Naming, groups: &[BatchNormGroup]) -> char {
    if naming == Naming::Torch {
        return '.';
    }
    let mine = groups.iter().filter(|group| group.naming == naming);
    let first = mine.filter_map(|group| group.module.chars().find(|c| matches!(c, '.' | '/')));
    first.into_iter().next().unwrap_or('/')
}

/// What stands before all markers of an architecture, shortest first.
fn prefixes(
    architecture: &Architecture,
    naming: Naming,
    separator: char,
    index: &Index<'_>,
) -> Vec<String> {
    let own = |path: &str| spell(path, separator);
    let Some(first) = architecture.markers.first().map(|marker| own(marker)) else {
        return Vec::new();
    };
    let mut found: Vec<String> = index
        .modules()
        .filter(|(of, _)| *of == naming)
        .filter_map(|(_, module)| module.strip_suffix(&first))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with(['.', '/']))
        .filter(|prefix| {
            let there = |marker: &&str| index.is_layer(naming, &format!("{prefix}{}", own(marker)));
            architecture.markers.iter().all(there) && !architecture.absent.iter().any(there)
        })
        .map(str::to_owned)
        .collect();
    found.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    found
}

/// A path of a table in the file's own spelling.
fn spell(path: &str, separator: char) -> String {
    path.replace('/', &separator.to_string())
}

/// What an architecture says about each BatchNorm of a scope.
///
/// # Errors
/// Why this is not the architecture.
fn decide(
    architecture: &Architecture,
    rules: &Rules<'_>,
    prefix: &str,
    inside: &[usize],
    groups: &[BatchNormGroup],
    index: &Index<'_>,
) -> Result<BTreeMap<usize, Decision>, String> {
    let mut decisions = BTreeMap::new();
    let mut taken: HashMap<String, usize> = HashMap::new();
    let mut broken: HashMap<usize, String> = HashMap::new();
    let mut by_rule: BTreeMap<usize, usize> = BTreeMap::new();
    for &at in inside {
        let bn = &groups[at];
        if let Some(reason) = rules.leaf(&bn.module[prefix.len()..]) {
            decisions.insert(at, Decision::Left(reason.to_owned()));
            continue;
        }
        let candidates = rules.candidates(bn, prefix, index);
        let why = match &candidates[..] {
            [] => format!("no rule names the layer before {:?}", bn.module),
            [one] => match index.fit(&one.module, bn, one.kind()) {
                Ok(layer) => {
                    by_rule.insert(at, one.rule);
                    match taken.insert(layer.module.clone(), at) {
                        None => {
                            let epsilon = None;
                            decisions.insert(at, Decision::Pair { layer, epsilon });
                            continue;
                        }
                        Some(other) => {
                            let why = format!(
                                "layer {:?} would feed {:?} and {:?}",
                                layer.module, groups[other].module, bn.module
                            );
                            decisions.insert(other, Decision::Left(why.clone()));
                            decisions.insert(at, Decision::Left(why.clone()));
                            why
                        }
                    }
                }
                Err(why) => {
                    broken.insert(one.rule, why.clone());
                    decisions.insert(at, Decision::Left(why.clone()));
                    why
                }
            },
            several => {
                let names: Vec<_> = several.iter().map(|c| format!("{:?}", c.module)).collect();
                let why = format!("several layers may feed it: {}", names.join(", "));
                decisions.insert(at, Decision::Left(why.clone()));
                why
            }
        };
        if !architecture.open {
            return Err(format!("not {}: {why}", architecture.name));
        }
    }
    // A rule that is wrong once is not this network's rule.
    for (at, rule) in by_rule {
        if let (Some(why), Some(Decision::Pair { .. })) = (broken.get(&rule), decisions.get(&at)) {
            decisions.insert(at, Decision::Left(doubt(why)));
        }
    }
    Ok(decisions)
}

/// Why a rule is not applied that fails elsewhere.
pub(crate) fn doubt(why: &str) -> String {
    format!("its layer would be named by a rule that is wrong elsewhere in this file: {why}")
}

/// Rules with their patterns parsed.
pub(crate) struct Rules<'a> {
    rules: Vec<Parsed>,
    leaves: Vec<(Pattern, &'a str)>,
}

struct Parsed {
    batch_norm: Pattern,
    /// None: the layer at the index before.
    layer: Option<Pattern>,
    with: Vec<Pattern>,
    without: Vec<Pattern>,
    transposed: bool,
}

impl Candidate {
    /// How its layer is declared.
    pub(crate) fn kind(&self) -> Kind {
        match self.transposed {
            true => Kind::Transposed(1),
            false => Kind::Plain,
        }
    }
}

impl<'a> Rules<'a> {
    /// The rules of a table, in the file's own spelling. The patterns of the tables are tested to be right.
    pub(crate) fn new(rules: &[Rule], leaves: &[(&str, &'a str)], separator: char) -> Self {
        let parse = |text: &str| Pattern::parse(&spell(text, separator)).ok();
        let all = |texts: &[&str]| texts.iter().filter_map(|text| parse(text)).collect();
        let rule = |rule: &Rule| match *rule {
            Rule::Next { batch_norm } => Some(Parsed {
                batch_norm: parse(batch_norm)?,
                layer: None,
                with: Vec::new(),
                without: Vec::new(),
                transposed: false,
            }),
            Rule::Named {
                layer,
                batch_norm,
                with,
                without,
                transposed,
            } => Some(Parsed {
                batch_norm: parse(batch_norm)?,
                layer: Some(parse(layer)?),
                with: all(with),
                without: all(without),
                transposed,
            }),
        };
        Self {
            rules: rules.iter().filter_map(rule).collect(),
            leaves: leaves
                .iter()
                .filter_map(|(text, why)| Some((parse(text)?, *why)))
                .collect(),
        }
    }

    /// Why no layer feeds the BatchNorm at `path` (without prefix), if a table says so.
    fn leaf(&self, path: &str) -> Option<&'a str> {
        let matches = |(pattern, _): &&(Pattern, &str)| {
            pattern.matches(path).is_some_and(|found| !found.is_empty())
        };
        self.leaves.iter().find(matches).map(|(_, why)| *why)
    }

    /// The layers that rules name for a BatchNorm and that are there, each once.
    pub(crate) fn candidates(
        &self,
        bn: &BatchNormGroup,
        prefix: &str,
        index: &Index<'_>,
    ) -> Vec<Candidate> {
        let path = &bn.module[prefix.len()..];
        let there =
            |module: &str| index.is_layer(bn.naming, module) || index.tensors_in(module) > 0;
        let mut found: Vec<Candidate> = Vec::new();
        for (rule, parsed) in self.rules.iter().enumerate() {
            for binding in parsed.batch_norm.matches(path).unwrap_or_default() {
                let own = |pattern: &Pattern| format!("{prefix}{}", pattern.fill(&binding));
                let module = match &parsed.layer {
                    Some(layer) => own(layer),
                    None => match before(&bn.module, index) {
                        Some(module) => module,
                        None => continue,
                    },
                };
                if index.is_layer(bn.naming, &module)
                    && parsed.with.iter().all(|pattern| there(&own(pattern)))
                    && !parsed.without.iter().any(|pattern| there(&own(pattern)))
                    && !found.iter().any(|other| other.module == module)
                {
                    found.push(Candidate {
                        module,
                        transposed: parsed.transposed,
                        rule,
                    });
                }
            }
        }
        found
    }
}

/// The layer just before a BatchNorm in a Sequential: at the index before, with a weight and perhaps a bias, nothing more.
pub(crate) fn before(module: &str, index: &Index<'_>) -> Option<String> {
    let (parent, number) = match module.rsplit_once('.') {
        Some((parent, number)) => (format!("{parent}."), number),
        None => (String::new(), module),
    };
    let number: usize = number.parse().ok()?;
    let layer = format!("{parent}{}", number.checked_sub(1)?);
    (index.is_layer(Naming::Torch, &layer) && index.tensors_in(&layer) <= 2).then_some(layer)
}

/// Whether a kernel can be that of a Conv as well as that of a ConvTranspose (without groups).
pub(crate) fn may_be_transposed(layer: &Layer, shape: &[usize]) -> bool {
    layer.layout == Layout::OutFirst && shape.len() > 2 && shape[0] == shape[1]
}

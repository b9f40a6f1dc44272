//! What a page shows beyond the text: numbers at the top, plots, the table of all layers. Values only; `html` draws them.

use bnkit::calibrate::Extremes;
use bnkit::report::{OutputComparison, Spread};

/// The parts of a page that the Markdown form has not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    pub(crate) cards: Vec<Card>,
    pub(crate) charts: Vec<Chart>,
    pub(crate) grid: Option<Grid>,
    /// Sections of the Markdown form that the grid takes the place of.
    pub(crate) replaced: &'static [&'static str],
}

/// One number at the top.
#[derive(Debug, Clone)]
pub(crate) struct Card {
    pub(crate) title: &'static str,
    pub(crate) value: String,
    pub(crate) note: String,
}

impl Card {
    pub(crate) fn new(
        title: &'static str,
        value: impl Into<String>,
        note: impl Into<String>,
    ) -> Self {
        Self {
            title,
            value: value.into(),
            note: note.into(),
        }
    }
}

/// A table that is sorted and filtered.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    pub(crate) title: &'static str,
    pub(crate) header: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// A cell of a grid.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    pub(crate) text: String,
    /// What it is sorted by, if not its text.
    pub(crate) number: Option<f64>,
    pub(crate) look: Look,
}

/// How a cell looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Look {
    #[default]
    Plain,
    /// A name of the model.
    Code,
    Good,
    Doubtful,
    Bad,
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    pub(crate) fn code(text: impl Into<String>) -> Self {
        Self {
            look: Look::Code,
            ..Self::text(text)
        }
    }

    pub(crate) fn number(number: f64, text: impl Into<String>) -> Self {
        Self {
            number: Some(number),
            ..Self::text(text)
        }
    }

    pub(crate) fn look(self, look: Look) -> Self {
        Self { look, ..self }
    }
}

/// A plot.
#[derive(Debug, Clone)]
pub(crate) enum Chart {
    Layers(LayerChart),
    Outputs(OutputChart),
}

/// One column per layer, with a range for each series.
#[derive(Debug, Clone)]
pub(crate) struct LayerChart {
    pub(crate) title: &'static str,
    /// How to read it, in a sentence.
    pub(crate) what: String,
    /// Values are positive and span magnitudes.
    pub(crate) log: bool,
    /// At most two; the legend is left out for one.
    pub(crate) series: Vec<&'static str>,
    pub(crate) layers: Vec<LayerMarks>,
    /// A line across, with its name.
    pub(crate) limit: Option<(f64, &'static str)>,
}

/// The ranges of one layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerMarks {
    pub(crate) name: String,
    pub(crate) spans: Vec<Option<Span>>,
}

/// A distribution as a column: from end to end, with bands and a middle where they are known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// 5 % to 95 %, and 25 % to 75 %.
    pub(crate) bands: Option<[(f64, f64); 2]>,
    pub(crate) middle: Option<f64>,
}

impl Span {
    /// From end to end.
    pub(crate) fn ends(min: f64, max: f64) -> Option<Self> {
        let span = Self {
            min,
            max,
            bands: None,
            middle: None,
        };
        (min.is_finite() && max.is_finite()).then_some(span)
    }

    pub(crate) fn of_spread(spread: &Spread) -> Option<Self> {
        let span = Self::ends(spread.min, spread.max)?;
        Some(Self {
            bands: Some([(spread.q05, spread.q95), (spread.q25, spread.q75)]),
            middle: Some(spread.median),
            ..span
        })
    }

    pub(crate) fn of_extremes(ends: &Extremes) -> Option<Self> {
        let span = Self::ends(ends.min, ends.max)?;
        Some(Self {
            middle: ends.median.is_finite().then_some(ends.median),
            ..span
        })
    }
}

/// The error of each output, its noise floor and what is accepted.
#[derive(Debug, Clone)]
pub(crate) struct OutputChart {
    pub(crate) outputs: Vec<OutputComparison>,
}

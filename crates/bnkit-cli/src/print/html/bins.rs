//! Many layers as fewer columns: a page with ten thousand BatchNorms has to open, too.

use crate::print::page::{LayerMarks, Span};

/// From this many layers on, neighbours share a column.
const MOST: usize = 400;
/// How many layers share one: the first of these that suffices.
const SHARED: [usize; 8] = [2, 5, 10, 20, 50, 100, 200, 500];

/// Layers as they are drawn, and how many share a column.
pub(super) struct Columns {
    pub(super) all: Vec<Column>,
    pub(super) shared: usize,
}

/// A column of a plot.
pub(super) struct Column {
    /// The number of its first layer, from 1.
    pub(super) number: usize,
    /// "#7 name", "#21–40 first … last".
    pub(super) name: String,
    pub(super) spans: Vec<Option<Span>>,
}

impl Columns {
    pub(super) fn of(layers: &[LayerMarks]) -> Self {
        let shared = match layers.len() {
            ..=MOST => 1,
            many => SHARED
                .into_iter()
                .find(|shared| many.div_ceil(*shared) <= MOST)
                .unwrap_or(many.div_ceil(MOST)),
        };
        let columns = layers.chunks(shared).enumerate();
        Self {
            all: columns
                .map(|(at, layers)| column(at * shared + 1, layers))
                .collect(),
            shared,
        }
    }
}

fn column(number: usize, layers: &[LayerMarks]) -> Column {
    let first = &layers[0];
    if let [only] = layers {
        return Column {
            number,
            name: format!("#{number} {}", only.name),
            spans: only.spans.clone(),
        };
    }
    let series = 0..first.spans.len();
    Column {
        number,
        name: format!(
            "#{number}–{} {} … {}",
            number + layers.len() - 1,
            first.name,
            layers[layers.len() - 1].name
        ),
        spans: series
            .map(|which| {
                let spans = layers.iter().filter_map(|layer| layer.spans[which]);
                together(&spans.collect::<Vec<_>>())
            })
            .collect(),
    }
}

/// From the lowest to the highest end, with the median of the medians: quantiles of quantiles would say nothing.
fn together(spans: &[Span]) -> Option<Span> {
    let low = spans.iter().map(|span| span.min).reduce(f64::min)?;
    let high = spans.iter().map(|span| span.max).reduce(f64::max)?;
    let mut middles: Vec<f64> = spans.iter().filter_map(|span| span.middle).collect();
    middles.sort_unstable_by(f64::total_cmp);
    Some(Span {
        middle: middles.get(middles.len() / 2).copied(),
        ..Span::ends(low, high)?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(number: usize) -> Vec<LayerMarks> {
        let layer = |at: usize| LayerMarks {
            name: format!("l{at}"),
            spans: vec![
                Span::ends(-(at as f64), at as f64 + 1.0).map(|span| Span {
                    middle: Some(at as f64),
                    ..span
                }),
                None,
            ],
        };
        (0..number).map(layer).collect()
    }

    #[test]
    fn few_layers_have_a_column_each() {
        let columns = Columns::of(&layers(MOST));
        assert_eq!((columns.all.len(), columns.shared), (MOST, 1));
        assert_eq!(columns.all[6].name, "#7 l6");
        assert!(Columns::of(&[]).all.is_empty());
    }

    #[test]
    fn neighbours_share_a_column_from_end_to_end() {
        let columns = Columns::of(&layers(10_001));
        assert_eq!((columns.all.len(), columns.shared), (201, 50));
        let second = &columns.all[1];
        assert_eq!((second.number, &*second.name), (51, "#51–100 l50 … l99"));
        let span = second.spans[0].unwrap();
        assert_eq!(
            (span.min, span.max, span.middle),
            (-99.0, 100.0, Some(75.0))
        );
        assert_eq!(second.spans[1], None);
        assert_eq!(columns.all[200].name, "#10001 l10000");
    }
}

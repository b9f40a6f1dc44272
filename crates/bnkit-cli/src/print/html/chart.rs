//! Plots as SVG. Colours are classes that the style sheet gives both themes; every mark has its numbers as a title, which browsers show as a
//! tooltip and the script reads out for the arrow keys.
//!
//! Written by hand: the plotting crates bake colours and fonts into attributes and know neither titles nor classes, and this page needs
//! nothing that they are good at.

use super::bins::{Column, Columns};
use super::scale::Scale;
use crate::print::calibrate::cut;
use crate::print::escape::markup;
use crate::print::page::{Chart, LayerChart, OutputChart, Span};
use crate::print::units::{sci, short};

const LEFT: f64 = 52.0;
const TOP: f64 = 10.0;
const HEIGHT: f64 = 170.0;
const BOTTOM: f64 = 26.0;
/// Beside the plot; with a limit there is room for its name.
const RIGHT: f64 = 10.0;
const NAMED_RIGHT: f64 = 34.0;
/// The plot is at least this wide, which still reads on a phone, and a layer at least that.
const WIDTH: f64 = 330.0;
const LAYER: f64 = 5.5;
/// A longer name of an output is cut; the tooltip has all of it.
const NAME: usize = 48;
/// A column is at most this wide.
const COLUMN: f64 = 14.0;
/// Layers between two numbers of the axis: the first of these with room.
const NUMBERED: [usize; 7] = [1, 2, 5, 10, 20, 50, 100];

/// All plots as a section; nothing if there is nothing to draw.
pub(super) fn section(charts: &[Chart]) -> String {
    let drawn: String = charts
        .iter()
        .enumerate()
        .filter_map(|(number, chart)| match chart {
            Chart::Layers(chart) => layers(number, chart),
            Chart::Outputs(chart) => outputs(number, chart),
        })
        .collect();
    match drawn.is_empty() {
        true => drawn,
        false => {
            format!("<section>\n<h2>Plots</h2>\n<div class=\"plots\">\n{drawn}</div>\n</section>\n")
        }
    }
}

fn layers(number: usize, chart: &LayerChart) -> Option<String> {
    let spans = || chart.layers.iter().flat_map(|layer| &layer.spans).flatten();
    let limit = chart.limit.map(|(value, _)| value);
    let scale = Scale::of(
        spans().flat_map(|span| [span.min, span.max]).chain(limit),
        chart.log,
    )?;
    spans().next()?;
    let columns = Columns::of(&chart.layers);
    let count = columns.all.len();
    let width = WIDTH.max(count as f64 * LAYER);
    let step = width / count as f64;
    let y = |value: f64| TOP + HEIGHT * (1.0 - scale.place(value));
    let mut svg = axis(&scale, width, y);
    if let Some((value, name)) = chart.limit {
        let at = y(value);
        svg += &format!(
            "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"limit-name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            LEFT + width,
            LEFT + width + 4.0,
            at + 4.0,
            markup(name)
        );
    }
    let every = NUMBERED
        .into_iter()
        .find(|every| *every as f64 * step >= 26.0);
    let every = every.unwrap_or(200);
    for (at, column) in columns.all.iter().enumerate() {
        let centre = LEFT + (at as f64 + 0.5) * step;
        svg += &mark(column, chart, centre, step, &y);
        let counted = if columns.shared == 1 { at + 1 } else { at };
        if at == 0 || counted % every == 0 {
            svg += &format!(
                "<text x=\"{centre:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                TOP + HEIGHT + 16.0,
                column.number
            );
        }
    }
    let legend = match chart.series.as_slice() {
        [_] => String::new(),
        many => many
            .iter()
            .enumerate()
            .map(|(at, name)| {
                format!(
                    "<li><svg width=\"12\" height=\"12\" aria-hidden=\"true\"><rect class=\"s{at}\" width=\"12\" height=\"12\"/></svg> {}</li>",
                    markup(name)
                )
            })
            .collect(),
    };
    let what = match columns.shared {
        1 => chart.what.clone(),
        shared => format!(
            "{} Here a column stands for {shared} neighbours: from the lowest end to the highest, with the median of their medians.",
            chart.what
        ),
    };
    let right = match chart.limit {
        Some(_) => NAMED_RIGHT,
        None => RIGHT,
    };
    Some(figure(
        number,
        (chart.title, &what),
        &legend,
        (LEFT + width + right, TOP + HEIGHT + BOTTOM),
        width > WIDTH,
        &svg,
    ))
}

/// One layer: its ranges, and an area that takes the pointer.
fn mark(
    column: &Column,
    chart: &LayerChart,
    centre: f64,
    step: f64,
    y: &dyn Fn(f64) -> f64,
) -> String {
    let mut told = column.name.clone();
    let mut drawn = String::new();
    let series = chart.series.len() as f64;
    let wide = (step * 0.8 / series).min(COLUMN);
    for (which, span) in column.spans.iter().enumerate() {
        let name = match series > 1.0 {
            true => format!("{} ", chart.series[which]),
            false => String::new(),
        };
        let Some(span) = span else {
            told += &format!(" · {name}none");
            continue;
        };
        told += &format!(" · {name}{}", numbers(span));
        let x = centre + (which as f64 - (series - 1.0) / 2.0) * wide;
        let mut bar = |low: f64, high: f64, part: f64, class: &str| {
            let (top, bottom) = (y(high), y(low));
            drawn += &format!(
                "<rect class=\"s{which}{class}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                x - (wide * part).max(1.0) / 2.0,
                (wide * part).max(1.0),
                (bottom - top).max(1.0)
            );
        };
        match span.bands {
            Some([outer, inner]) => {
                bar(span.min, span.max, 0.1, "");
                bar(outer.0, outer.1, 0.7, " wide");
                bar(inner.0, inner.1, 0.7, "");
            }
            None => bar(span.min, span.max, 0.7, ""),
        }
        if let Some(middle) = span.middle {
            let (left, right, at) = (x - wide * 0.45, x + wide * 0.45, y(middle));
            drawn += &format!(
                "<line class=\"middle\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
            );
        }
    }
    format!(
        "<g class=\"mark\"><title>{}</title>{drawn}<rect class=\"hit\" x=\"{:.1}\" y=\"{TOP}\" width=\"{step:.1}\" height=\"{HEIGHT}\"/></g>\n",
        markup(&told),
        centre - step / 2.0
    )
}

fn numbers(span: &Span) -> String {
    let middle = match span.middle {
        Some(middle) => format!(", median {}", short(middle)),
        None => String::new(),
    };
    let inner = match span.bands {
        Some([_, inner]) => format!(", half of them {} … {}", short(inner.0), short(inner.1)),
        None => String::new(),
    };
    format!("{} … {}{middle}{inner}", short(span.min), short(span.max))
}

/// Lines across with their values to the left.
fn axis(scale: &Scale, width: f64, y: impl Fn(f64) -> f64) -> String {
    scale
        .ticks()
        .into_iter()
        .map(|(value, name)| {
            let at = y(value);
            format!(
                "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                LEFT + width,
                LEFT - 6.0,
                at + 4.0,
                markup(&name)
            )
        })
        .collect()
}

/// A row per output: from the noise floor to what is accepted, and the error on it.
fn outputs(number: usize, chart: &OutputChart) -> Option<String> {
    const ROW: f64 = 40.0;
    let values = chart
        .outputs
        .iter()
        .flat_map(|output| [output.max_abs, output.noise_floor, output.tolerance]);
    let scale = Scale::of(values, true)?;
    let x = |value: f64| LEFT + WIDTH * scale.place(value);
    let height = ROW * chart.outputs.len() as f64;
    let mut svg = String::new();
    for (value, name) in scale.ticks() {
        let at = x(value);
        svg += &format!(
            "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            TOP + height,
            TOP + height + 16.0,
            markup(&name)
        );
    }
    for (at, output) in chart.outputs.iter().enumerate() {
        let top = TOP + ROW * at as f64;
        let bar = top + 20.0;
        let told = format!(
            "{}: error {}, noise floor {}, accepted {}{}",
            output.name,
            sci(output.max_abs),
            sci(output.noise_floor),
            sci(output.tolerance),
            if output.within { "" } else { ": beyond" }
        );
        let (floor, accepted) = (x(output.noise_floor), x(output.tolerance));
        let class = if output.within { "s0" } else { "s1" };
        // A NaN is beyond everything.
        let error = match output.max_abs.is_nan() {
            true => LEFT + WIDTH,
            false => x(output.max_abs),
        };
        svg += &format!(
            "<g class=\"mark\"><title>{}</title><text x=\"{LEFT}\" y=\"{:.1}\">{}</text>\
             <rect class=\"s0 wide\" x=\"{floor:.1}\" y=\"{bar:.1}\" width=\"{:.1}\" height=\"8\"/>\
             <line class=\"limit\" x1=\"{accepted:.1}\" x2=\"{accepted:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <circle class=\"{class}\" cx=\"{error:.1}\" cy=\"{:.1}\" r=\"5\"/>\
             <rect class=\"hit\" x=\"{LEFT}\" y=\"{top:.1}\" width=\"{WIDTH}\" height=\"{ROW}\"/></g>\n",
            markup(&told),
            top + 14.0,
            markup(&cut(&output.name, NAME)),
            (accepted - floor).max(1.0),
            bar - 4.0,
            bar + 12.0,
            bar + 4.0,
        );
    }
    let what = "Largest absolute difference of each output (dot), from its noise floor (left end of the bar) to what is accepted (dashed line).";
    Some(figure(
        number,
        ("Error of each output", what),
        "",
        (LEFT + WIDTH + RIGHT, TOP + height + BOTTOM),
        false,
        &svg,
    ))
}

/// A plot as a figure. One that is wide scrolls and takes the whole row; another one fits its place.
fn figure(
    number: usize,
    (title, what): (&str, &str),
    legend: &str,
    (width, height): (f64, f64),
    wide: bool,
    svg: &str,
) -> String {
    let (title, what) = (markup(title), markup(what));
    let class = if wide { "plot wide" } else { "plot" };
    let legend = match legend {
        "" => String::new(),
        items => format!("<ul class=\"legend\">{items}</ul>\n"),
    };
    format!(
        "<div class=\"{class}\">\n<h3 id=\"plot-{number}\">{title}</h3>\n<p class=\"what\">{what}</p>\n{legend}\
         <div class=\"scroll\" role=\"group\" tabindex=\"0\" aria-label=\"{title}: left and right arrow keys read the values\">\n\
         <svg width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-labelledby=\"plot-{number}\">\n\
         {svg}</svg></div>\n<p class=\"readout\" aria-live=\"polite\"></p>\n</div>\n"
    )
}

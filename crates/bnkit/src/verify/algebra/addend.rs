//! What a Gemm adds: beta and C together, in any shape that C may have.

use bnkit_model::DType;
use bnkit_model::onnx::{Node, ValueId};

use super::Algebra;
use super::book::{Answer, Book, Trouble, float};
use super::compare::{Expected, Found, Owner};
use super::exact::Exact;
use super::step::{Step, scale_and_shift};

/// What a Gemm adds, beta included: rows × columns, each of which may be 1 for all.
pub(super) struct Addend {
    rows: usize,
    columns: usize,
    pub(super) values: Exact,
}

impl Addend {
    /// β·C of the original; `None` if there is none.
    pub(super) fn read(book: &Book<'_>, value: ValueId, beta: f64) -> Answer<Self> {
        let numbers = book.numbers(value)?;
        let (rows, columns) = rows_and_columns(&numbers.dims)?;
        let mut values = Exact::stored(numbers.values);
        for index in 0..values.len() {
            // With beta = 0 it is not read, whatever it is.
            let value = if beta == 0.0 {
                0.0
            } else {
                beta * values.value[index]
            };
            (values.value[index], values.size[index]) = (value, value.abs());
        }
        values.terms = 1;
        Ok(Self {
            rows,
            columns,
            values,
        })
    }

    pub(super) fn row(values: Exact) -> Self {
        Self {
            rows: 1,
            columns: values.len(),
            values,
        }
    }

    /// Gives every column a value of its own.
    fn spread(&mut self, columns: usize) -> Answer<()> {
        if self.columns == columns {
            return Ok(());
        }
        if self.columns != 1 {
            return Err(Trouble::wrong("the addend does not fit the weight"));
        }
        let repeat = |values: &[f64]| {
            let each = values
                .iter()
                .flat_map(|&value| std::iter::repeat_n(value, columns));
            each.collect()
        };
        self.values.value = repeat(&self.values.value);
        self.values.size = repeat(&self.values.size);
        self.columns = columns;
        Ok(())
    }

    /// The position of an element of a matrix.
    fn place(&self, row: usize, column: usize) -> usize {
        row.min(self.rows - 1) * self.columns + column.min(self.columns - 1)
    }
}

/// The shape of C as a matrix.
fn rows_and_columns(dims: &[usize]) -> Answer<(usize, usize)> {
    match *dims {
        [] => Ok((1, 1)),
        [columns] => Ok((1, columns)),
        [rows, columns] => Ok((rows, columns)),
        _ => Err(Trouble::Wrong(format!("the addend has the shape {dims:?}"))),
    }
    .and_then(|(rows, columns)| match rows * columns {
        0 => Err(Trouble::wrong("the addend has no elements")),
        _ => Ok((rows, columns)),
    })
}

/// β·C becomes s·β·C + t, column by column. An absent one stays absent if nothing is shifted.
pub(super) fn scale_addend(addend: &mut Option<Addend>, step: &Step) -> Answer<()> {
    let Some(sum) = addend else {
        let mut row = None;
        scale_and_shift(&mut row, step);
        *addend = row.map(Addend::row);
        return Ok(());
    };
    sum.spread(step.features())?;
    for row in 0..sum.rows {
        for column in 0..sum.columns {
            let (pair, at) = (step.at(column), sum.place(row, column));
            sum.values.value[at] = sum.values.value[at] * pair.s + pair.t;
            sum.values.size[at] = sum.values.size[at] * pair.s_size + pair.t_size;
        }
    }
    sum.values.terms += step.s_terms() + step.t_terms() + 2;
    Ok(())
}

/// Adds `row` to every row of β·C.
pub(super) fn add(addend: &mut Option<Addend>, row: Exact) -> Answer<()> {
    let Some(sum) = addend else {
        *addend = Some(Addend::row(row));
        return Ok(());
    };
    sum.spread(row.len())?;
    for at in 0..sum.values.len() {
        sum.values.value[at] += row.value[at % row.len()];
        sum.values.size[at] += row.size[at % row.len()];
    }
    sum.values.terms += row.terms + 1;
    Ok(())
}

/// Compares β·C.
pub(super) fn compare_addend(
    book: &Book<'_>,
    node: &Node,
    expected: &Addend,
    (owner, dtype): (Owner, DType),
    result: &mut Algebra,
) -> Answer<()> {
    let beta = float(node, "beta", 1.0)?;
    let Some(value) = node.input(2).filter(|_| beta != 0.0) else {
        result.compare_absent(owner, &expected.values, ("C", dtype));
        return Ok(());
    };
    let name = &book.model.value(value).name;
    let tensor = book.stored(value)?;
    let (rows, columns) = rows_and_columns(tensor.dims())?;
    let fit = |a: usize, b: usize| a == b || a == 1 || b == 1;
    if !fit(rows, expected.rows) || !fit(columns, expected.columns) {
        let why = format!(
            "it has the shape {:?}, expected {} rows and {} columns",
            tensor.dims(),
            expected.rows,
            expected.columns
        );
        result.reject(owner, name, why);
        return Ok(());
    }
    // Both as large as the larger.
    let (all_rows, all_columns) = (rows.max(expected.rows), columns.max(expected.columns));
    let mut wide = Exact {
        terms: expected.values.terms,
        ..Exact::default()
    };
    for index in 0..all_rows * all_columns {
        let at = expected.place(index / all_columns, index % all_columns);
        wide.value.push(expected.values.value[at]);
        wide.size.push(expected.values.size[at]);
    }
    let mut found = Found::new(name, &tensor);
    found.factor = beta;
    found.quantum = book.quantum(value);
    result.compare(owner, &Expected::Sums(&wide), &found, |index| {
        let (row, column) = (index / all_columns, index % all_columns);
        row.min(rows - 1) * columns + column.min(columns - 1)
    })
}

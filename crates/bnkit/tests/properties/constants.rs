//! Constants in every form that a file may give them.

use bnkit_model::DType;
use bnkit_model::proto::TensorProto;

use super::net::{Net, Stored, declared, holding, int, tensor};
use super::tape::{Numbers, Tape};

/// What a constant is for: what its numbers may be, and what it may be shared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A kernel or matrix, scaled so that a product stays of the size of its input.
    Weight,
    /// Any vector: bias, γ, β, mean, or what is added.
    Vector,
    /// A variance.
    Variance,
    /// A γ.
    Scale,
    /// What is multiplied or divided by.
    Factor,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Vector => "vector",
            Self::Variance => "variance",
            Self::Scale => "scale",
            Self::Factor => "factor",
        }
    }

    fn draw(self, numbers: &mut Numbers, count: usize, fan: usize) -> Vec<f64> {
        match self {
            Self::Weight => {
                let bound = (3.0 / fan.max(1) as f64).sqrt();
                numbers.many(count, -bound, bound)
            }
            Self::Vector => numbers.many(count, -1.0, 1.0),
            Self::Variance => numbers.many(count, 0.2, 2.0),
            Self::Scale | Self::Factor => numbers.nonzero(count),
        }
    }
}

impl Net {
    /// A constant of `dims` with drawn numbers; sometimes one that is there already.
    pub(crate) fn constant(
        &mut self,
        tape: &mut Tape<'_>,
        role: Role,
        dtype: DType,
        dims: &[usize],
        fan: usize,
    ) -> String {
        // Not x / c · c, which rounding alone makes a factor of 1.
        if tape.once_in(5) && role != Role::Factor {
            let fits = |stored: &&Stored| {
                stored.role == role.name() && stored.dims == dims && stored.dtype == dtype
            };
            if let Some(stored) = self.stored.iter().rev().find(fits) {
                return stored.name.clone();
            }
        }
        let count = dims.iter().product();
        let mut values = role.draw(&mut self.numbers, count, fan);
        match (role, tape.below(12)) {
            // Channels that do nothing, or nothing but scale.
            (Role::Vector, 9) => values.fill(0.0),
            (Role::Vector, 10) if count > 0 => values[0] = 0.0,
            (Role::Scale | Role::Factor, 10) => values.fill(1.0),
            (Role::Variance, 11) if count > 0 => values[0] = 1e-9,
            _ => {}
        }
        self.given(tape, role, dtype, dims, values)
    }

    /// A constant of these values (a form may make all of them equal).
    pub(crate) fn given(
        &mut self,
        tape: &mut Tape<'_>,
        role: Role,
        dtype: DType,
        dims: &[usize],
        values: Vec<f64>,
    ) -> String {
        // A Cast from a wider type must not round: runs in f64 do not.
        let values = values
            .into_iter()
            .map(|x| dtype.round(x))
            .map(round)
            .collect();
        let name = self.write(tape, role.name(), dtype, dims, values);
        self.stored.push(Stored {
            name: name.clone(),
            role: role.name(),
            dims: dims.to_vec(),
            dtype,
        });
        name
    }

    fn put(&mut self, stem: &str, dtype: DType, dims: &[usize], values: &[f64]) -> String {
        let name = self.fresh(stem);
        self.initializer(tensor(&name, dtype, dims, values));
        name
    }

    fn write(
        &mut self,
        tape: &mut Tape<'_>,
        stem: &str,
        dtype: DType,
        dims: &[usize],
        values: Vec<f64>,
    ) -> String {
        // Half of all constants are plain initializers.
        let wide = if dtype == DType::F32 {
            DType::F64
        } else {
            DType::F32
        };
        match tape.below(24) {
            12 | 13 => {
                let name = self.fresh(stem);
                self.initializer(typed(tensor(&name, dtype, dims, &values), dtype, &values));
                name
            }
            14 | 15 => {
                let held = tensor("", dtype, dims, &values);
                self.node("Constant", &[], vec![holding("value", held)])
            }
            16 => {
                let plain = self.put(stem, dtype, dims, &values);
                self.node("Identity", &[&plain], vec![])
            }
            17 if self.opset >= 15 => {
                let plain = self.put(stem, wide, dims, &values);
                let like = self.values.iter().find(|value| value.dtype == dtype);
                match like.map(|value| value.name.clone()) {
                    Some(like) => self.node("CastLike", &[&plain, &like], vec![]),
                    None => self.put(stem, dtype, dims, &values),
                }
            }
            18 if self.opset >= 13 => {
                let plain = self.put(stem, wide, dims, &values);
                let to = int("to", i64::from(dtype.to_onnx()));
                self.node("Cast", &[&plain], vec![to])
            }
            19 if self.opset >= 8 && !values.is_empty() => {
                let plain = self.put(stem, dtype, &[1], &values[..1]);
                let shape = self.shape(dims);
                self.node("Expand", &[&plain, &shape], vec![])
            }
            20 => {
                let plain = self.put(stem, dtype, &[values.len()], &values);
                let shape = self.shape(dims);
                self.node("Reshape", &[&plain, &shape], vec![])
            }
            21 if dims.len() == 2 => {
                // Stored the other way round.
                let (rows, columns) = (dims[0], dims[1]);
                let turned: Vec<f64> = (0..columns)
                    .flat_map(|column| (0..rows).map(move |row| row * columns + column))
                    .map(|at| values[at])
                    .collect();
                let plain = self.put(stem, dtype, &[columns, rows], &turned);
                self.node("Transpose", &[&plain], vec![])
            }
            22 => {
                let half: Vec<f64> = values.iter().map(|value| value * 0.5).collect();
                let plain = self.put(stem, dtype, dims, &half);
                self.node("Add", &[&plain, &plain], vec![])
            }
            23 if self.ir_version >= 4 && tape.once_in(4) => {
                // A default that callers may override: no constant.
                let plain = self.put(stem, dtype, dims, &values);
                let fixed: Vec<Option<usize>> = dims.iter().map(|&dim| Some(dim)).collect();
                self.graph.input.push(declared(&plain, dtype, &fixed));
                plain
            }
            _ => self.put(stem, dtype, dims, &values),
        }
    }

    /// A tensor of sizes or axes.
    pub(crate) fn integers(&mut self, values: &[i64]) -> String {
        let name = self.fresh("sizes");
        let values: Vec<f64> = values.iter().map(|&value| value as f64).collect();
        self.initializer(tensor(&name, DType::I64, &[values.len()], &values));
        name
    }

    pub(crate) fn shape(&mut self, dims: &[usize]) -> String {
        let dims: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        self.integers(&dims)
    }
}

/// To f32: f64 constants are stored in that, too.
fn round(value: f64) -> f64 {
    DType::F32.round(value)
}

/// The same tensor with its elements in a typed field.
fn typed(mut tensor: TensorProto, dtype: DType, values: &[f64]) -> TensorProto {
    let raw = tensor.raw_data.take().unwrap_or_default();
    match dtype {
        DType::F32 => tensor.float_data = values.iter().map(|&value| value as f32).collect(),
        DType::F64 => tensor.double_data = values.to_vec(),
        // 16 bits each, in the lower half of an int32.
        _ => {
            let bits = |pair: &[u8]| i32::from(u16::from_le_bytes([pair[0], pair[1]]));
            tensor.int32_data = raw.chunks_exact(2).map(bits).collect();
        }
    }
    tensor
}

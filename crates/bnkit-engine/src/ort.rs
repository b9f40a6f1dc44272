//! ONNX Runtime, for models that tract cannot run: the feature `ort`, and a library that is loaded when it is first needed.
//!
//! It runs without its graph optimisations, as these fold BatchNorms, of the reference as well; with one thread and its deterministic
//! kernels, so that a verdict can be had again; and with the model in memory, external data included, so that it opens no file that a
//! model names. Its CPU kernels of most operators know no doubles, Conv among them, so there is no run in double precision here.
//!
//! Only a library that the environment names is loaded: a proof must not depend on what happens to lie about.

mod version;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bnkit_model::{DType, Tensor, tensor::element_count};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::{Session, SessionInputValue, builder::GraphOptimizationLevel};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType as Element, ValueType};
use prost::Message;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::type_proto::Value as TypeValue;
use tract_onnx::pb::{GraphProto, ModelProto, TensorShapeProto};

use crate::engine::{Engine, Second, Values, begin};
use crate::normalise::{Context, Mode, for_each_graph, opset, to_eval};
use crate::quiet::catch;
use crate::session::{Input, add_outputs, resolve};
use crate::{EngineError, LoadOptions, Precision, Result, spec};

/// The variable that names the library.
const VARIABLE: &str = "ORT_DYLIB_PATH";
/// Protobuf can read no more from memory.
const LARGEST: usize = i32::MAX as usize;

/// A loaded library.
struct OnnxRuntime {
    name: String,
    environment: Environment,
}

/// The engine, if the environment names its library.
pub(crate) fn find() -> Result<Second> {
    // A process can have one environment of the library's, so it stays until the end.
    static ENGINE: OnceLock<std::result::Result<OnnxRuntime, String>> = OnceLock::new();
    let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(Second::NotFound(
            "ONNX Runtime was not found: ORT_DYLIB_PATH can name its library, libonnxruntime.so or the like",
        ));
    };
    match ENGINE.get_or_init(|| OnnxRuntime::load(path.into())) {
        Ok(engine) => Ok(Second::Found(engine)),
        Err(why) => Err(EngineError::model(why.as_str())),
    }
}

impl OnnxRuntime {
    fn load(named: PathBuf) -> std::result::Result<Self, String> {
        let wrong = |why: String| {
            format!(
                "{VARIABLE} is {}: {why}; it must name the library of an ONNX Runtime, 1.{} or later",
                named.display(),
                ort::MINOR_VERSION
            )
        };
        // A name that is no file here is left to the system's search.
        let path = match named.exists() {
            true => std::path::absolute(&named).map_err(|error| wrong(error.to_string()))?,
            false => named.clone(),
        };
        let environment = catch(|| environment(&path)).and_then(|result| result);
        Ok(Self {
            environment: environment.map_err(wrong)?,
            name: match version::of(&path) {
                Some(version) => format!("onnxruntime {version}"),
                None => "onnxruntime".to_owned(),
            },
        })
    }

    fn session(&self, model: &[u8]) -> ort::Result<Session> {
        Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::Disable)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_deterministic_compute(true)?
            // What goes wrong comes back as an error, too; nobody but bnkit-cli prints.
            .with_log_level(LogLevel::Fatal)?
            .commit_from_memory(model)
    }
}

fn environment(path: &Path) -> std::result::Result<Environment, String> {
    let builder = ort::init_from(path).map_err(|error| error.to_string())?;
    let built = builder.with_name("bnkit").with_telemetry(false).build();
    let environment = built.map_err(|error| error.to_string())?;
    environment.set_log_level(LogLevel::Fatal);
    Ok(environment)
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(
        &self,
        model: &[u8],
        options: &LoadOptions,
        samples: &[Values],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Values>> {
        begin(go_on)?;
        let (model, inputs) = prepare(model, options)?;
        let load = catch(|| self.session(&model)).map_err(EngineError::unsupported_model)?;
        let mut session =
            load.map_err(|error| EngineError::unsupported_model(first_line(&error)))?;
        drop(model);
        samples
            .iter()
            .map(|sample| {
                begin(go_on)?;
                let given = inputs
                    .iter()
                    .map(|input| Ok((input.name.clone(), input.for_ort(sample)?.into())))
                    .collect::<Result<Vec<(String, SessionInputValue)>>>()?;
                catch(|| run(&mut session, given))
                    .map_err(EngineError::run)?
                    .map_err(|error| EngineError::run(first_line(&error)))
            })
            .collect()
    }
}

/// The model as the library gets it, and its inputs.
fn prepare(model: &[u8], options: &LoadOptions) -> Result<(Vec<u8>, Vec<Input>)> {
    let mut proto = spec::decode(model)?;
    if options.precision == Precision::F64 {
        return Err(EngineError::unsupported_model(
            "ONNX Runtime has no kernels for doubles for most operators",
        ));
    }
    let context = Context {
        opset: opset(&proto),
        precision: options.precision,
        model_dir: options.model_dir,
        perturbation: options.perturbation,
        mode: Mode::Eval,
    };
    if let Some(graph) = proto.graph.as_mut() {
        add_outputs(graph, options.extra_outputs);
    }
    to_eval(&mut proto, &context)?;
    let inputs = spec::true_inputs(spec::graph(&proto)?)
        .map(|input| resolve(spec::spec(input)?, options.input_dims))
        .collect::<Result<Vec<_>>>()?;
    forget_shapes(&mut proto, &inputs)?;
    if proto.encoded_len() > LARGEST {
        return Err(EngineError::unsupported_model(
            "ONNX Runtime reads at most 2 GB from memory",
        ));
    }
    Ok((proto.encode_to_vec(), inputs))
}

/// Takes away what a model says about shapes, and about types of what it computes: some of it is wrong, or of before floats were
/// widened, and the library finds all of it by itself.
fn forget_shapes(model: &mut ModelProto, inputs: &[Input]) -> Result<()> {
    let Some(graph) = model.graph.as_mut() else {
        return Ok(());
    };
    for output in &mut graph.output {
        output.r#type = None;
    }
    for value in &mut graph.input {
        let rank = inputs.iter().find(|input| input.name == value.name);
        if let (Some(input), Some(TypeValue::TensorType(tensor))) = (
            rank,
            value.r#type.as_mut().and_then(|kind| kind.value.as_mut()),
        ) {
            tensor.shape = Some(TensorShapeProto {
                dim: vec![Dimension::default(); input.dims.len()],
            });
        }
    }
    for_each_graph(graph, &mut |graph: &mut GraphProto| {
        graph.value_info.clear();
        Ok(())
    })
}

impl Input {
    /// Its value among those that a caller gave, in the library's hands.
    fn for_ort(&self, given: &[(String, Tensor)]) -> Result<DynValue> {
        let tensor = self.tensor(given)?;
        match to_ort(&tensor) {
            Some(value) => value.map_err(|error| self.wrong(first_line(&error))),
            None => Err(self.wrong(format!("tensors of {} cannot be run", self.dtype))),
        }
    }
}

fn run(session: &mut Session, inputs: Vec<(String, SessionInputValue<'_>)>) -> ort::Result<Values> {
    let outputs = session.run(inputs)?;
    outputs
        .iter()
        .map(|(name, value)| Ok((name.to_owned(), from_ort(name, &value)?)))
        .collect()
}

/// Numbers of one type, little-endian as everywhere, and in the library's hands.
macro_rules! elements {
    ($tensor:expr, $type:ty) => {{
        let (chunks, _) = $tensor.data().as_chunks::<{ size_of::<$type>() }>();
        let values: Vec<$type> = chunks
            .iter()
            .map(|&le| <$type>::from_le_bytes(le))
            .collect();
        value($tensor, values)
    }};
}

/// Ours, in the library's hands; `None` for types that are widened before, or that no kernel takes.
fn to_ort(tensor: &Tensor) -> Option<ort::Result<DynValue>> {
    Some(match tensor.dtype() {
        DType::F32 => elements!(tensor, f32),
        DType::F64 => elements!(tensor, f64),
        DType::I8 => elements!(tensor, i8),
        DType::I16 => elements!(tensor, i16),
        DType::I32 => elements!(tensor, i32),
        DType::I64 => elements!(tensor, i64),
        DType::U8 => elements!(tensor, u8),
        DType::U16 => elements!(tensor, u16),
        DType::U32 => elements!(tensor, u32),
        DType::U64 => elements!(tensor, u64),
        DType::Bool => {
            let values: Vec<bool> = tensor.data().iter().map(|&byte| byte != 0).collect();
            value(tensor, values)
        }
        _ => return None,
    })
}

fn value<T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static>(
    tensor: &Tensor,
    values: Vec<T>,
) -> ort::Result<DynValue> {
    ort::value::Tensor::from_array((tensor.dims(), values)).map(|tensor| tensor.into_dyn())
}

/// The library's, in ours.
fn from_ort(name: &str, value: &DynValue) -> ort::Result<Tensor> {
    let wrong = |what: String| ort::Error::new(format!("output {name:?}: {what}"));
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(wrong(format!("no tensor, but {}", value.dtype())));
    };
    let dims = shape.iter().map(|&dim| usize::try_from(dim).ok());
    let dims: Vec<usize> = dims
        .collect::<Option<_>>()
        .ok_or_else(|| wrong(format!("its shape is {shape:?}")))?;
    // Of a tensor without elements the library may have no pointer to give.
    let some = element_count(&dims) != Some(0);
    macro_rules! bytes {
        ($type:ty) => {
            match some {
                true => {
                    let (_, values) = value.try_extract_tensor::<$type>()?;
                    values.iter().flat_map(|x| x.to_le_bytes()).collect()
                }
                false => vec![],
            }
        };
    }
    let (dtype, data) = match ty {
        Element::Float32 => (DType::F32, bytes!(f32)),
        Element::Float64 => (DType::F64, bytes!(f64)),
        Element::Int8 => (DType::I8, bytes!(i8)),
        Element::Int16 => (DType::I16, bytes!(i16)),
        Element::Int32 => (DType::I32, bytes!(i32)),
        Element::Int64 => (DType::I64, bytes!(i64)),
        Element::Uint8 => (DType::U8, bytes!(u8)),
        Element::Uint16 => (DType::U16, bytes!(u16)),
        Element::Uint32 => (DType::U32, bytes!(u32)),
        Element::Uint64 => (DType::U64, bytes!(u64)),
        Element::Bool => {
            let data: Vec<u8> = match some {
                true => {
                    let (_, values) = value.try_extract_tensor::<bool>()?;
                    values.iter().map(|&bit| bit.into()).collect()
                }
                false => vec![],
            };
            (DType::Bool, data)
        }
        other => return Err(wrong(format!("its elements are {other}"))),
    };
    Tensor::new(dtype, dims, data).map_err(|error| wrong(error.to_string()))
}

/// The library's messages quote the model, over many lines.
fn first_line(error: &ort::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let short: String = line.chars().take(300).collect();
    format!("ONNX Runtime: {short}")
}

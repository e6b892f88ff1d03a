//! From bytes to a verified graph: versions, cuts, types of the inputs, then the walk, then what of it is used.

use super::importer::{Importer, State, fits};
use super::index::{Index, Producer};
use super::problem::{ImportError, MAX_OPSET, MIN_OPSET, ProblemKind};
use super::proto::tensor_shape_proto::dimension::Value as DimValue;
use super::proto::{GraphProto, ModelProto, TensorShapeProto, ValueInfoProto, type_proto};
use super::tensors::{self, Folder, type_name};
use super::{ImportOptions, problem::TensorProblem};
use crate::graph::attrs::onnx_dtype;
use crate::graph::{Graph, ValueId};
use crate::names::near;
use crate::tensor::{DType, Dim, TensorType};
use prost::Message;
use std::collections::{HashMap, HashSet};

/// A decoded model with what the walk needs to know about all of it.
struct Model<'a> {
    graph: &'a GraphProto,
    index: Index<'a>,
    opset: i64,
    folder: &'a Folder,
    functions: HashSet<String>,
}

pub(super) fn import(
    bytes: bytes::Bytes,
    folder: &Folder,
    options: &ImportOptions,
) -> Result<Graph, ImportError> {
    let is_text = std::str::from_utf8(&bytes).is_ok_and(|t| !t.contains('\0'));
    let model = ModelProto::decode(bytes).map_err(|e| {
        ImportError::Decode(if is_text { "it is a text file".to_owned() } else { e.to_string() })
    })?;
    let Some(graph) = &model.graph else { return Err(ImportError::Decode("it has no graph".into())) };
    if graph.output.is_empty() {
        return Err(ImportError::Decode("its graph has no outputs".into()));
    }
    let functions = model.functions.iter().map(|f| match f.domain() {
        "" | "ai.onnx" => f.name().to_owned(),
        domain => format!("{domain}:{}", f.name()),
    });
    let opset = opset(&model);
    let mut model =
        Model { graph, index: Index::new(graph), opset: MAX_OPSET, folder, functions: functions.collect() };
    let mut errors = model.option_errors(options);
    match opset {
        Ok(v) => model.opset = v,
        Err(e) => errors.insert(0, e),
    }
    all_at_once(errors)?;
    model.import(options)
}

fn all_at_once(mut errors: Vec<ImportError>) -> Result<(), ImportError> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(ImportError::Several(errors)),
    }
}

fn option_error(option: &'static str, name: &str, why: &str) -> ImportError {
    ImportError::Option { option, name: name.to_owned(), why: why.to_owned() }
}

fn opset(model: &ModelProto) -> Result<i64, ImportError> {
    let mut own = model.opset_import.iter().filter(|o| matches!(o.domain(), "" | "ai.onnx"));
    let first = own.next().map(|o| o.version());
    if let Some(other) = own.map(|o| o.version()).find(|v| Some(*v) != first) {
        return Err(ImportError::Opsets { first: first.unwrap_or_default(), other });
    }
    match first {
        Some(v) if (MIN_OPSET..=MAX_OPSET).contains(&v) => Ok(v),
        Some(v) => Err(ImportError::Opset { found: v.to_string() }),
        None => Err(ImportError::Opset { found: "none".into() }),
    }
}

impl<'a> Model<'a> {
    fn option_errors(&self, options: &ImportOptions) -> Vec<ImportError> {
        let mut errors = Vec::new();
        let all = [("--inputs", &options.inputs), ("--outputs", &options.outputs)];
        for (option, names) in all {
            let mut seen = HashSet::new();
            for name in names {
                if !seen.insert(name) {
                    errors.push(option_error(option, name, "is given twice"));
                } else {
                    errors.extend(self.missing(option, name));
                }
            }
        }
        for name in options.shapes.keys() {
            let is_input = match self.index.producer(name) {
                Some(Producer::Input(_)) => options.inputs.is_empty() || options.inputs.contains(name),
                _ => options.inputs.contains(name),
            };
            match self.missing("--shape", name) {
                Some(e) => errors.push(e),
                None if !is_input => errors.push(option_error("--shape", name, "is not an input")),
                None => {}
            }
        }
        errors
    }

    fn missing(&self, option: &'static str, name: &str) -> Option<ImportError> {
        if self.index.producer(name).is_some() {
            return None;
        }
        let near = near(name, self.index.names());
        Some(ImportError::NoSuchTensor { option, name: name.to_owned(), near })
    }

    fn importer<'b>(&'b self, cut: &'b HashSet<&'b str>) -> Importer<'b> {
        let outer = self.index.names().map(str::to_owned).collect();
        Importer::new(self.opset, self.folder, &self.functions, cut, outer)
    }

    fn import(&self, options: &ImportOptions) -> Result<Graph, ImportError> {
        let outputs: Vec<&str> = if options.outputs.is_empty() {
            self.graph.output.iter().map(|o| o.name()).collect()
        } else {
            options.outputs.iter().map(|o| self.own_name(o)).collect()
        };
        let cut: HashSet<&str> = options.inputs.iter().map(String::as_str).collect();
        let needed = self.index.needed(&outputs, &cut, &|_| false);
        let idle = options.inputs.iter().filter(|n| !needed.stopped_at.contains(*n));
        let mut errors: Vec<ImportError> =
            idle.map(|n| option_error("--inputs", n, "is not needed for the outputs")).collect();
        for i in needed.inputs.iter().filter(|_| !cut.is_empty()) {
            let why = "is needed for the outputs, too, but not listed";
            errors.push(option_error("--inputs", self.graph.input[*i].name(), why));
        }
        all_at_once(errors)?;
        let mut importer = self.importer(&cut);
        let inputs = if cut.is_empty() {
            let all = options.outputs.is_empty();
            let declared = self.graph.input.iter().enumerate();
            let mut inputs = Vec::new();
            for (i, v) in declared.filter(|(i, v)| self.index.producer(v.name()) == Some(Producer::Input(*i)))
            {
                let used = needed.inputs.contains(&i);
                match declared_type(v, options.shapes.get(v.name())) {
                    Ok(ty) if used || all => {
                        importer.put_input(v.name(), Some(ty));
                        inputs.push(v.name().to_owned());
                    }
                    Err(kinds) if used => importer.refuse_input(v.name(), kinds),
                    _ => {}
                }
            }
            inputs
        } else {
            self.cut_inputs(&mut importer, options);
            options.inputs.clone()
        };
        importer.walk(self.graph, needed);
        emit(self.graph.name(), importer, &inputs, &outputs)
    }

    /// The name as the model holds it, which lives as long.
    fn own_name(&self, name: &str) -> &'a str {
        let graph = self.graph;
        let nodes = graph.node.iter().flat_map(|n| &n.output).map(String::as_str);
        let all = nodes.chain(graph.input.iter().map(|v| v.name()));
        let mut all = all.chain(graph.initializer.iter().map(|t| t.name()));
        all.find(|n| *n == name).unwrap_or_default()
    }

    /// Types of the names at which the model is cut: as declared, else as inferred from what lies before.
    fn cut_inputs(&self, importer: &mut Importer, options: &ImportOptions) {
        let declared: HashMap<&str, &ValueInfoProto> =
            [&self.graph.value_info, &self.graph.output, &self.graph.input]
                .into_iter()
                .flatten()
                .map(|v| (v.name(), v))
                .collect();
        let mut open = Vec::new();
        for name in &options.inputs {
            let given = options.shapes.get(name);
            let stated = match (self.index.producer(name), declared.get(name.as_str())) {
                (Some(Producer::Initializer(i)), _) => {
                    let t = tensors::read(&self.graph.initializer[i], self.folder);
                    t.map_err(|p| vec![p.into()]).and_then(|c| with_shape(c.ty(), given))
                }
                (_, Some(v)) => declared_type(v, given),
                _ => Err(vec![no_shape(name)]),
            };
            match stated {
                Ok(ty) => importer.put_input(name, Some(ty)),
                Err(kinds) => open.push((name, kinds)),
            }
        }
        if open.is_empty() {
            return;
        }
        let names: Vec<&str> = open.iter().map(|(n, _)| self.own_name(n)).collect();
        let types = self.inferred(&names);
        for ((name, kinds), ty) in open.into_iter().zip(types) {
            let given = options.shapes.get(name);
            let wrong = |k: &ProblemKind| {
                matches!(k, ProblemKind::GivenShape { .. } | ProblemKind::NegativeDim { .. })
            };
            let ty = match (ty, given) {
                _ if kinds.iter().any(wrong) => Err(kinds),
                (Some(ty), _) => with_shape(ty, given),
                // What lies before is not supported, which is why it is cut off: numbers, unless it is said otherwise.
                (None, Some(shape)) => Ok(TensorType { dtype: DType::F32, shape: shape.clone() }),
                (None, None) => Err(kinds),
            };
            match ty {
                Ok(ty) => importer.put_input(name, Some(ty)),
                Err(kinds) => importer.refuse_input(name, kinds),
            }
        }
    }

    /// Types of inner tensors by our own inference; problems on the way are of no interest.
    fn inferred(&self, names: &[&'a str]) -> Vec<Option<TensorType>> {
        let cut = HashSet::new();
        let mut importer = self.importer(&cut);
        let needed = self.index.needed(names, &cut, &|_| false);
        for v in needed.inputs.iter().map(|i| &self.graph.input[*i]) {
            importer.put_input(v.name(), declared_type(v, None).ok());
        }
        importer.walk(self.graph, needed);
        let known = |n: &&str| match importer.state(n) {
            Some(State::Is(k)) => Some(k.ty.clone()),
            _ => None,
        };
        names.iter().map(known).collect()
    }
}

/// The type under the shape that was given, which must not contradict it.
fn with_shape(ty: TensorType, given: Option<&Vec<Dim>>) -> Result<TensorType, Vec<ProblemKind>> {
    let Some(given) = given else { return Ok(ty) };
    let declared: Vec<Option<usize>> = ty.shape.iter().map(|d| d.fixed()).collect();
    if contradicts(given, &declared) {
        let declared = dims_text(ty.shape.iter());
        return Err(vec![ProblemKind::GivenShape { given: dims_text(given), declared }]);
    }
    Ok(TensorType { dtype: ty.dtype, shape: given.clone() })
}

/// Whether a shape has another rank, or another size where the model fixes one.
fn contradicts(given: &[Dim], declared: &[Option<usize>]) -> bool {
    let differs = |(g, d): (&Dim, &Option<usize>)| d.is_some() && g.fixed() != *d;
    given.len() != declared.len() || given.iter().zip(declared).any(differs)
}

fn dims_text(dims: impl IntoIterator<Item = impl ToString>) -> String {
    let dims: Vec<String> = dims.into_iter().map(|d| d.to_string()).collect();
    format!("[{}]", dims.join(","))
}

fn no_shape(name: &str) -> ProblemKind {
    let hint = format!(": give it with --shape {}=1x3x224x224", option_name(name));
    ProblemKind::NoType { what: "shape", hint }
}

fn option_name(name: &str) -> &str {
    if name.is_empty() { "NAME" } else { name }
}

/// The type that a model declares for an input, under the shape that was given.
fn declared_type(v: &ValueInfoProto, given: Option<&Vec<Dim>>) -> Result<TensorType, Vec<ProblemKind>> {
    let Some(type_proto::Value::TensorType(t)) = v.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(vec![ProblemKind::NoType { what: "tensor type", hint: String::new() }]);
    };
    let dtype = onnx_dtype(i64::from(t.elem_type())).ok_or_else(|| {
        let (tensor, got) = (v.name().to_owned(), type_name(t.elem_type()));
        TensorProblem::ElementType { tensor, got }.into()
    });
    match (dtype, declared_shape(v.name(), t.shape.as_ref(), given)) {
        (Ok(dtype), Ok(shape)) => Ok(TensorType { dtype, shape }),
        (dtype, shape) => Err(dtype.err().into_iter().chain(shape.err()).collect()),
    }
}

fn declared_shape(
    name: &str,
    stated: Option<&TensorShapeProto>,
    given: Option<&Vec<Dim>>,
) -> Result<Vec<Dim>, ProblemKind> {
    let shape = match (stated, given) {
        (None, None) => return Err(no_shape(name)),
        (None, Some(given)) => given.clone(),
        (Some(stated), given) => {
            let dims = stated.dim.iter().enumerate().map(|(i, d)| declared_dim(i, d.value.as_ref()));
            let dims = dims.collect::<Result<Vec<_>, _>>()?;
            let fixed: Vec<Option<usize>> = dims.iter().map(|d| d.as_ref().ok().copied()).collect();
            match given {
                Some(given) if contradicts(given, &fixed) => {
                    let declared = dims_text(dims.iter().map(|d| match d {
                        Ok(size) => size.to_string(),
                        Err(open) => open.clone(),
                    }));
                    return Err(ProblemKind::GivenShape { given: dims_text(given), declared });
                }
                Some(given) => given.clone(),
                None => only_batch_open(name, &dims)?,
            }
        }
    };
    let sizes = shape.iter().map(|d| d.at(1).and_then(|d| i64::try_from(d).ok()).unwrap_or(i64::MAX));
    let dims = sizes.collect();
    if !fits(&TensorType { dtype: DType::F32, shape: shape.clone() }) {
        return Err(TensorProblem::Dims { tensor: name.to_owned(), dims }.into());
    }
    Ok(shape)
}

/// The shape where nothing but the first dimension is open, which is then the batch.
fn only_batch_open(name: &str, dims: &[Result<usize, String>]) -> Result<Vec<Dim>, ProblemKind> {
    let symbolic = dims.iter().enumerate().skip(1).find_map(|(axis, d)| Some((axis, d.clone().err()?)));
    if let Some((axis, dim)) = symbolic {
        let sizes = dims.iter().enumerate().map(|(i, d)| match d {
            Ok(d) => d.to_string(),
            Err(_) if i == 0 => "N".to_owned(),
            Err(_) => "224".to_owned(),
        });
        let example = sizes.collect::<Vec<_>>().join("x");
        let name = option_name(name).to_owned();
        return Err(ProblemKind::SymbolicDim { name, axis, dim, example });
    }
    Ok(dims.iter().map(|d| d.as_ref().map_or(Dim::Batch(1), |d| Dim::Fixed(*d))).collect())
}

/// The size, or what stands for one that is open.
fn declared_dim(axis: usize, d: Option<&DimValue>) -> Result<Result<usize, String>, ProblemKind> {
    match d {
        // Some exporters write -1 for an open dimension.
        Some(DimValue::DimValue(-1)) => Ok(Err("-1".to_owned())),
        Some(DimValue::DimValue(v)) => {
            usize::try_from(*v).map(Ok).map_err(|_| ProblemKind::NegativeDim { axis, value: *v })
        }
        Some(DimValue::DimParam(p)) if !p.is_empty() => Ok(Err(format!("{p:?}"))),
        _ => Ok(Err("unnamed".to_owned())),
    }
}

/// The graph of what was walked: nodes that the outputs need, and the constants that these take.
fn emit(
    name: &str,
    mut importer: Importer,
    inputs: &[String],
    outputs: &[&str],
) -> Result<Graph, ImportError> {
    let mut constants = HashMap::new();
    for o in outputs {
        let place = || format!("output {o:?}");
        let resolved = importer.resolve(o);
        let kind = match importer.state(o).cloned() {
            Some(State::Is(k)) => match k.constant {
                Some(c) => match importer.tensor(o, &c) {
                    Ok(t) => {
                        constants.insert((*o).to_owned(), t);
                        continue;
                    }
                    Err(kind) => kind,
                },
                None if resolved == *o => continue,
                None => ProblemKind::SameTensor(resolved),
            },
            _ => continue,
        };
        importer.problem(place(), kind);
    }
    let mut seen = HashSet::new();
    for o in outputs.iter().filter(|o| !seen.insert(**o)) {
        importer.problem(format!("output {o:?}"), ProblemKind::Duplicate((*o).to_owned()));
    }
    if !importer.problems.is_empty() {
        return Err(ImportError::Problems(importer.problems));
    }
    let mut used: HashSet<String> = outputs.iter().map(|o| (*o).to_owned()).collect();
    let mut kept = Vec::new();
    for node in std::mem::take(&mut importer.nodes).into_iter().rev() {
        if node.outputs.iter().any(|o| used.contains(o)) {
            used.extend(node.inputs.iter().cloned());
            kept.push(node);
        }
    }
    let mut graph = Graph::new(if name.is_empty() { "model" } else { name });
    let mut ids: HashMap<String, ValueId> = HashMap::new();
    for i in inputs {
        if let Some(State::Is(k)) = importer.state(i) {
            ids.insert(i.clone(), graph.add_input(i.clone(), k.ty.clone()));
        }
    }
    for node in kept.into_iter().rev() {
        for i in &node.inputs {
            if let Some(State::Is(k)) = importer.state(i).cloned()
                && let Some(c) = k.constant
                && !ids.contains_key(i)
            {
                let place = node.name.clone();
                let tensor = importer.tensor(i, &c);
                let tensor = tensor.map_err(|kind| problem(&place, kind))?;
                ids.insert(i.clone(), graph.add_constant(i.clone(), tensor));
            }
        }
        let place = || format!("{} ({})", node.name, node.op.def().name);
        let missing = |n: &String| problem(&place(), ProblemKind::NoProducer(n.clone()));
        let args: Result<Vec<ValueId>, ImportError> =
            node.inputs.iter().map(|n| ids.get(n).copied().ok_or_else(|| missing(n))).collect();
        let added = graph.add_node(
            node.name.clone(),
            Some(node.source.clone()),
            node.op.clone(),
            &args?,
            &node.outputs,
        );
        let added = added.map_err(|e| problem(&place(), e.into()))?;
        ids.extend(node.outputs.iter().cloned().zip(added));
    }
    for o in outputs {
        let id = match (ids.get(*o), constants.remove(*o)) {
            (Some(id), _) => *id,
            (None, Some(t)) => graph.add_constant(*o, t),
            (None, None) => return Err(problem("model outputs", ProblemKind::NoProducer((*o).to_owned()))),
        };
        graph.outputs.push(id);
    }
    graph.verify()?;
    Ok(graph)
}

fn problem(place: &str, kind: ProblemKind) -> ImportError {
    ImportError::Problems(vec![super::problem::Problem { place: place.to_owned(), kind }])
}

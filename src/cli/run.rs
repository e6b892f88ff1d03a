//! `samebit run`: infer once, write the outputs.

use super::files::Files;
use super::model::{CutArgs, ProfileArg};
use super::prepare::prepare;
use super::{Common, Outcome, show};
use crate::analysis::calibrate::{refuse_unfit, runnable};
use crate::analysis::nan::Nans;
use crate::data::dump::{Kind, TensorInfo, encode_name};
use crate::data::read_input;
use crate::data::write_npy;
use crate::error::{Error, write_file};
use crate::exec::{Engine, NanCount, batch_of};
use crate::gpu::Device;
use crate::graph::{Graph, ValueId};
use crate::passes::convert::simulation;
use crate::quant::QParams;
use crate::tensor::{DType, Data, Tensor};
use clap::{Args, ValueEnum};
use globset::Glob;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InputLayout {
    /// As the graph has it
    Nchw,
    /// Channels last
    Nhwc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// NumPy
    Npy,
    /// Little-endian elements alone
    Bin,
    /// One element a line
    Txt,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// ONNX model or graph file
    model: PathBuf,
    /// A file for an input: npy, npz:KEY, jpg, png, txt, csv, bin or raw. NAME= may be left out where there is one input
    #[arg(long, value_name = "NAME=FILE", required = true)]
    input: Vec<String>,
    /// Write the tensors to this folder, and the inputs that gave them
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Write the inputs to this folder as a host must give them: quantized as the model does first, as NAME.npy, and as
    /// NAME.bin with rows padded to 16 bytes; index.json says what they are
    #[arg(long, value_name = "DIR")]
    prepare: Option<PathBuf>,
    /// How to write the tensors
    #[arg(long, value_delimiter = ',', default_value = "npy", requires = "dump", value_enum)]
    format: Vec<Format>,
    /// Tensors to write beside the outputs: a pattern on their names, * is any text
    #[arg(long, value_name = "GLOB")]
    layers: Option<String>,
    /// Layout of the input files (images are always channels last), and of prepared ones
    #[arg(long, value_enum, default_value = "nchw")]
    layout: InputLayout,
    /// Write tensors of codes as codes, with their scales in index.json, instead of what they stand for
    #[arg(long)]
    codes: bool,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    profile: ProfileArg,
    #[command(flatten)]
    pub(super) common: Common,
}

impl RunArgs {
    pub(super) fn files(&self) -> Files<'_> {
        let file =
            |text: &'_ String| PathBuf::from(text.split_once('=').map_or(text.as_str(), |(_, file)| file));
        let files = Files::default()
            .reads(&self.model)
            .fills("--dump", self.dump.as_deref())
            .fills("--prepare", self.prepare.as_deref());
        self.input.iter().fold(files, |f, text| f.reads(&file(text)))
    }
}

pub(super) fn run(args: &RunArgs) -> Result<Outcome, Error> {
    let label = args.model.display().to_string();
    let graph = args.cut.load_one(&args.model)?;
    let graph = if args.codes {
        // As `convert` gives it, with the names that `verify` looks for.
        refuse_unfit(&label, &graph)?;
        simulation(graph).map_err(|e| Error::Usage(format!("{label}: {e}")))?
    } else {
        runnable(&label, graph)?
    };
    let graph = args.profile.apply(&label, graph)?;
    let code_params = graph.code_params();
    if args.codes && code_params.is_empty() {
        return Err(Error::Usage(format!(
            "{label}: --codes: is in stage {} and has no codes; `samebit convert` makes a graph that has",
            graph.stage.name()
        )));
    }
    let inputs = read_inputs(&args.input, args.layout == InputLayout::Nhwc, &graph)?;
    let wanted = wanted(args, &graph)?;
    let prepared =
        args.prepare.as_deref().map(|dir| prepare(dir, &graph, &inputs, args.layout == InputLayout::Nhwc));
    let prepared = prepared.transpose()?;
    let device = Device::open(&args.common.device)?;
    let names: Vec<String> = wanted.iter().map(|v| graph.value(*v).name.clone()).collect();
    let given: Vec<(ValueId, String)> = graph
        .inputs
        .iter()
        .filter(|v| !wanted.contains(v))
        .map(|v| (*v, graph.value(*v).name.clone()))
        .collect();
    let frames = batch_of(&graph, &inputs)?;
    let mut engine = Engine::new(graph, &device);
    let start = Instant::now();
    let trace = engine.run(&inputs, &wanted)?;
    let seconds = start.elapsed().as_secs_f64();
    let nans = nans(&mut engine, trace.nans, &inputs)?;
    nans.iter().for_each(|n| show::remark(&format!("warning: {n}")));
    if !args.common.quiet {
        show::remark(&format!("{device}, {seconds:.3} s"));
    }
    if let Some(dir) = &args.dump {
        std::fs::create_dir_all(dir).map_err(|source| Error::Io { path: dir.clone(), source })?;
    }
    let mut outputs = Vec::new();
    let mut rows = Vec::new();
    let mut written = Vec::new();
    for (id, name) in wanted.iter().zip(names) {
        let (t, params) = in_form(&trace.values[id], code_params.get(id), args.codes);
        rows.push(row(&name, &t));
        let tensor = Written { name, t, params };
        outputs.push(tensor.save(args)?);
        written.push(tensor);
    }
    // A dump with its inputs can be compared with another model by itself.
    let mut of_inputs = Vec::new();
    for (id, name) in given.into_iter().filter(|_| args.dump.is_some()) {
        let at = engine.graph().inputs.iter().position(|v| *v == id);
        let Some(t) = at.and_then(|i| inputs.get(i)).cloned() else { continue };
        let tensor = Written { name, t, params: code_params.get(&id) };
        of_inputs.push(tensor.save(args)?);
        written.push(tensor);
    }
    if let Some(dir) = &args.dump {
        write_index(dir, &written, frames)?;
    }
    let header = ["tensor", "type", "min", "max", "mean", "largest at"].map(str::to_owned);
    show::line(&show::table(&header, &rows, 2));
    Ok(Outcome::fine(json!({
        "device": device.to_string(),
        "dispatches": trace.dispatches,
        "cpu_ops": super::cpu_ops(&trace.cpu_ops),
        "outputs": outputs,
        "inputs": of_inputs,
        "prepared": prepared,
        "nan": super::nan_json(&nans),
        "seconds": seconds,
    })))
}

/// The NaN that quantizers were given, with the number of the first frame that has one.
fn nans(engine: &mut Engine, counts: Vec<NanCount>, inputs: &[Tensor]) -> Result<Nans, Error> {
    if counts.is_empty() {
        return Ok(Nans::default());
    }
    let frames = batch_of(engine.graph(), inputs)?;
    let samples: Vec<(usize, String)> = (0..frames).map(|i| (i, i.to_string())).collect();
    Ok(Nans::of_run(engine, counts, inputs, &samples, &mut Vec::new())?)
}

/// The inputs of a graph from texts such as `NAME=FILE`.
pub(super) fn read_inputs(texts: &[String], nhwc: bool, graph: &Graph) -> Result<Vec<Tensor>, Error> {
    let list = || {
        let all = graph.inputs.iter().map(|v| format!("{} {}", graph.value(*v).name, graph.value(*v).ty));
        all.collect::<Vec<_>>().join(", ")
    };
    let mut found: Vec<Option<Tensor>> = vec![None; graph.inputs.len()];
    for text in texts {
        let named = graph
            .inputs
            .iter()
            .position(|v| text.strip_prefix(&graph.value(*v).name).is_some_and(|rest| rest.starts_with('=')));
        let (i, file) = match named {
            Some(i) => (i, &text[graph.value(graph.inputs[i]).name.len() + 1..]),
            None if graph.inputs.len() == 1 && !text.contains('=') => (0, text.as_str()),
            None => {
                return Err(Error::Usage(format!("--input {text}: the model's inputs are {}", list())));
            }
        };
        let t = read_input(file.as_ref(), &graph.value(graph.inputs[i]).ty, nhwc)?;
        if found[i].replace(t).is_some() {
            return Err(Error::Usage(format!("--input {text}: given twice")));
        }
    }
    let missing: Vec<&str> = (0..found.len())
        .filter(|i| found[*i].is_none())
        .map(|i| graph.value(graph.inputs[i]).name.as_str())
        .collect();
    if !missing.is_empty() {
        let text = missing.join(", ");
        return Err(Error::Usage(format!("no --input for {text}; the model's inputs are {}", list())));
    }
    Ok(found.into_iter().flatten().collect())
}

/// Outputs, then what `--layers` names.
fn wanted(args: &RunArgs, graph: &Graph) -> Result<Vec<ValueId>, Error> {
    let mut out = graph.outputs.clone();
    if let Some(pattern) = &args.layers {
        let glob = Glob::new(pattern)
            .map_err(|e| Error::Usage(format!("--layers {pattern}: {e}")))?
            .compile_matcher();
        let produced = graph.nodes().iter().flat_map(|n| n.outputs.iter().copied());
        let before = out.len();
        let mut matched = false;
        for v in produced.filter(|v| glob.is_match(&graph.value(*v).name)) {
            matched = true;
            if !out[..before].contains(&v) {
                out.push(v);
            }
        }
        if !matched {
            let help = "`samebit print` lists the tensors";
            return Err(Error::Usage(format!("--layers {pattern} matches no tensor; {help}")));
        }
    }
    Ok(out)
}

/// A tensor as it is written, with the parameters of its codes.
struct Written<'a> {
    name: String,
    t: Tensor,
    params: Option<&'a QParams>,
}

impl Written<'_> {
    /// Writes it where that is asked for; says what it is.
    fn save(&self, args: &RunArgs) -> Result<Value, Error> {
        let mut files = Vec::new();
        for (dir, format) in args.dump.iter().flat_map(|d| args.format.iter().map(move |f| (d, *f))) {
            files.push(write(dir, &self.name, &self.t, format)?.display().to_string());
        }
        Ok(json!({
            "name": self.name,
            "shape": self.t.shape(),
            "dtype": self.t.dtype().name(),
            "scale": self.params.map(QParams::scales),
            "zero_point": self.params.map(QParams::zero_points),
            "file": files.first(),
            "files": files,
        }))
    }
}

/// Writes a tensor under its percent-encoded name.
fn write(dir: &Path, name: &str, t: &Tensor, format: Format) -> Result<PathBuf, Error> {
    let path = |extension: &str| dir.join(format!("{}.{extension}", encode_name(name)));
    match format {
        Format::Npy => {
            let path = path("npy");
            write_npy(&path, t)?;
            Ok(path)
        }
        Format::Bin => {
            let path = path("bin");
            write_file(&path, t.bytes())?;
            Ok(path)
        }
        Format::Txt => {
            let path = path("txt");
            let lines: Vec<String> = match t.data() {
                Data::F32(v) => v.iter().map(f32::to_string).collect(),
                _ => (0..t.len()).map(|i| t.number(i).to_string()).collect(),
            };
            write_file(&path, (lines.join("\n") + "\n").as_bytes())?;
            Ok(path)
        }
    }
}

/// The index of the dump folder.
fn write_index(dir: &Path, tensors: &[Written], frames: usize) -> Result<(), Error> {
    let mut infos = serde_json::Map::new();
    for Written { name, t, params } in tensors {
        let info = TensorInfo {
            shape: t.shape().to_vec(),
            dtype: t.dtype().name().to_owned(),
            scale: params.map_or_else(Vec::new, |p| p.scales().to_vec()),
            zero_point: params.map_or_else(Vec::new, |p| p.zero_points().to_vec()),
            axis: params.and_then(QParams::axis),
            kind: if params.is_some() { Kind::Codes } else { Kind::Values },
        };
        infos.insert(name.clone(), serde_json::to_value(info).expect("plain data"));
    }
    let samples: Vec<String> = (0..frames).map(|i| i.to_string()).collect();
    let index = json!({ "tensors": infos, "samples": samples });
    write_file(&dir.join("index.json"), format!("{index:#}\n").as_bytes())
}

/// A tensor as it is written: codes with their parameters, or what they stand for.
fn in_form<'a>(t: &Tensor, params: Option<&'a QParams>, codes: bool) -> (Tensor, Option<&'a QParams>) {
    match (params, t.codes()) {
        (Some(p), Some(q)) if !codes && p.scales().len() == 1 => {
            let step = p.step(0);
            (Tensor::from_f32(t.shape(), q.iter().map(|q| step.dequantize(*q)).collect()), None)
        }
        _ => (t.clone(), params.filter(|_| codes)),
    }
}

/// What people look at first.
fn row(name: &str, t: &Tensor) -> Vec<String> {
    let mut out = vec![name.to_owned(), t.ty().to_string()];
    if t.is_empty() {
        out.extend(std::iter::repeat_n("-".to_owned(), 4));
        return out;
    }
    let (mut at, mut high, mut low, mut sum) = (0, t.number(0), t.number(0), 0.0);
    for i in 0..t.len() {
        let x = t.number(i);
        if x > high {
            (at, high) = (i, x);
        }
        low = low.min(x);
        sum += x;
    }
    #[allow(clippy::cast_precision_loss, reason = "a mean for people")]
    let mean = sum / t.len() as f64;
    let digits = if t.dtype() == DType::F32 { 6 } else { 0 };
    out.extend([format!("{low:.digits$}"), format!("{high:.digits$}"), format!("{mean:.6}"), at.to_string()]);
    out
}

//! `samebit fingerprint read`.

use super::{MANIFEST, alike, load, remarks, short, unfit};
use crate::analysis::fingerprint::{
    AnswerOptions, Answers, Candidates, Judged, Layout, Reading, Slack, read,
};
use crate::cli::files::Files;
use crate::cli::run::read_inputs;
use crate::cli::{Common, Outcome, cpu_ops, number, show};
use crate::data::{DataError, Dataset, Loader, LoaderOptions};
use crate::error::Error;
use crate::gpu::Device;
use crate::graph::Graph;
use crate::tensor::{DType, Tensor};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AnswerLayout {
    /// As the shapes say
    Auto,
    /// As the graph has it
    Nchw,
    /// Channels last
    Nhwc,
}

#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// The graph or ONNX model that the black box ran
    model: PathBuf,
    /// What it answered: a folder of npy files named as the tensors, or an npz
    answers: PathBuf,
    /// The folder that `fingerprint probes` wrote (default: that of the answers, or the one it lies in)
    #[arg(long, value_name = "DIR", group = "source")]
    probes: Option<PathBuf>,
    /// A file for an input, as `run` takes it
    #[arg(long, value_name = "NAME=FILE", group = "source")]
    input: Vec<String>,
    /// Data set of the frames that it ran on
    #[arg(long, value_name = "DATA", group = "source")]
    data: Option<PathBuf>,
    /// Use the first N frames only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// What a tensor of the answers is called in the model, where the names do not say it
    #[arg(long, value_name = "THEIRS=OURS")]
    map: Vec<String>,
    /// Layout of the answers
    #[arg(long, value_enum, default_value = "auto")]
    layout: AnswerLayout,
    /// A candidate of your own beside the profiles that come with the engine: a TOML file
    #[arg(long, value_name = "PROFILE")]
    profile: Vec<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl ReadArgs {
    pub(super) fn files(&self) -> Files<'_> {
        let files = Files::default().reads(&self.model).reads(&self.answers);
        self.data.iter().fold(files, |f, d| f.reads(d))
    }
}

pub(super) fn run(args: &ReadArgs) -> Result<Outcome, Error> {
    if args.limit == Some(0) {
        return Err(Error::Usage("--limit must be at least 1".into()));
    }
    let (candidates, hash) = load(&args.model, &args.profile)?;
    let graph = &candidates.fit[0].graph;
    let map = args.map.iter().map(|text| match text.split_once('=') {
        Some((theirs, ours)) => Ok((theirs.to_owned(), ours.to_owned())),
        None => Err(Error::Usage(format!("--map {text}: give THEIRS=OURS"))),
    });
    let options = AnswerOptions {
        map: map.collect::<Result<_, _>>()?,
        layout: match args.layout {
            AnswerLayout::Auto => Layout::Auto,
            AnswerLayout::Nchw => Layout::ChannelsFirst,
            AnswerLayout::Nhwc => Layout::ChannelsLast,
        },
        limit: args.limit,
    };
    let answers = Answers::read(&args.answers, graph, &options)?;
    let answers = match inputs(args, graph, &hash, answers.frames)? {
        Some(inputs) => answers.with_inputs(graph, inputs)?,
        None => answers,
    };
    let device = Device::open(&args.common.device)?;
    let found = read(&candidates, &answers, &device)
        .map_err(|e| Error::Usage(format!("{}: {e}", args.answers.display())))?;
    report(args, &candidates, &found);
    let ties = answers.ties(graph);
    if let Some((name, count)) = ties.as_ref().filter(|_| !args.common.quiet) {
        show::remark(&format!(
            "note: {count} elements of input {name} lie where quantizers of several targets give several codes; give the \
             codes of the input, or use probes"
        ));
    }
    let votes = candidates.names().into_iter().map(|p| {
        let (elements, against) = found.votes(p);
        json!({ "profile": p, "possible": found.profiles.iter().any(|q| q == p), "elements": elements, "against": against })
    });
    let ignored = found.ignored.iter().map(|i| json!({ "name": i.name, "reason": i.reason }));
    let json = json!({
        "profiles": found.profiles,
        "votes": votes.collect::<Vec<_>>(),
        "frames": found.frames,
        "ops": found.ops.iter().map(judged).collect::<Vec<_>>(),
        "outputs": found.outputs.iter().map(judged).collect::<Vec<_>>(),
        "same_arithmetic": alike(&candidates),
        "unfit": unfit(&candidates),
        "ignored": ignored.collect::<Vec<_>>(),
        "note": candidates.note,
        "input_ties": ties.map(|(name, count)| json!({ "input": name, "elements": count })),
        "device": device.to_string(),
        "dispatches": found.dispatches,
        "cpu_ops": cpu_ops(&found.cpu_ops),
    });
    Ok(Outcome { json, not_good: found.profiles.is_empty() })
}

/// What the black box ran on, where that is told beside its answers.
fn inputs(args: &ReadArgs, graph: &Graph, hash: &str, frames: usize) -> Result<Option<Answers>, Error> {
    let most = args.limit.unwrap_or(usize::MAX);
    if !args.input.is_empty() {
        let inputs = read_inputs(&args.input, false, graph)?;
        let rows = inputs.first().and_then(|t| t.shape().first().copied()).unwrap_or(1);
        if graph.is_batched() && rows > most {
            return Err(Error::Usage(format!("--limit {most}: give --input that many frames, not {rows}")));
        }
        let frames = if graph.is_batched() { rows } else { 1 };
        let samples = (0..frames).map(|i| i.to_string()).collect();
        return Ok(Some(Answers::of_inputs(graph, inputs, samples)));
    }
    if let Some(path) = &args.data {
        return Ok(Some(of_data(path, graph, frames.min(most))?));
    }
    let beside = [args.answers.as_path(), args.answers.parent().unwrap_or(Path::new("."))];
    let found = beside.into_iter().find(|dir| dir.join(MANIFEST).is_file());
    let Some(dir) = args.probes.as_deref().or(found) else { return Ok(None) };
    let path = dir.join(MANIFEST);
    let text = std::fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    let manifest: Value = serde_json::from_slice(&text)
        .map_err(|e| DataError::new(&path, format!("not what `fingerprint probes` writes: {e}")))?;
    if manifest["sha256"] != hash {
        let of = manifest["model"].as_str().unwrap_or("another model");
        let what =
            format!("these are probes of {of}, whose contents are not those of {}", args.model.display());
        return Err(DataError::new(&path, what)
            .help("make probes of this model, or give the other one")
            .into());
    }
    let options = AnswerOptions { limit: args.limit, ..AnswerOptions::default() };
    Ok(Some(Answers::read(dir, graph, &options)?))
}

/// The first frames of a data set.
fn of_data(path: &Path, graph: &Graph, frames: usize) -> Result<Answers, Error> {
    let inputs: Vec<_> =
        graph.inputs.iter().map(|v| (graph.value(*v).name.clone(), graph.value(*v).ty.clone())).collect();
    let data = Dataset::open(path)?;
    if data.len() < frames {
        let what = format!("has {} samples, the answers have {frames} frames", data.len());
        return Err(DataError::new(path, what).into());
    }
    let options = LoaderOptions { batch: frames.max(1), ..LoaderOptions::default() };
    let mut loader = Loader::new(data.limit(frames).inputs_for(&inputs)?, options)?;
    let batch = loader.next().transpose()?;
    let batch = batch.ok_or_else(|| DataError::new(path, "holds no samples"))?;
    if batch.frames() != frames {
        let what = format!("{} of the first {frames} samples can be read", batch.frames());
        return Err(DataError::new(path, what).help("leave out what cannot be read, or use --limit").into());
    }
    let inputs: Vec<Tensor> = batch.inputs.iter().map(|t| batch.without_padding(t)).collect();
    Ok(Answers::of_inputs(graph, inputs, batch.ids))
}

/// An element of a type.
fn element(dtype: DType, x: f64) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "codes and sums are integers of 32 bits at most")]
    if dtype == DType::F32 { number(x) } else { (x as i64).into() }
}

fn judged(j: &Judged) -> Value {
    let excluded = j.excluded.iter().map(|e| {
        json!({
            "profile": e.profile,
            "element": e.element,
            "sample": e.sample,
            "got": element(j.dtype, e.got),
            "expected": element(j.dtype, e.expected),
            "mismatches": e.mismatches,
            "max_abs": number(e.max_abs),
        })
    });
    let differences = j
        .differences
        .iter()
        .map(|d| json!({ "profile": d.profile, "elements": d.elements, "max_abs": number(d.max_abs) }));
    let (slack, reason) = match j.slack {
        Slack::None => ("none", None),
        Slack::OneCode(why) => ("one code", Some(why)),
        Slack::Open(why) => ("open", Some(why)),
        Slack::Floats => ("floats", None),
    };
    let nodes = j.nodes.iter().map(|(name, op)| json!({ "op": name, "operator": op }));
    json!({
        "op": j.op,
        "operator": j.nodes.last().map(|n| n.1),
        "nodes": nodes.collect::<Vec<_>>(),
        "tensor": j.tensor,
        "answer": j.answer,
        "elements": j.elements,
        "telling": j.telling,
        "slack": slack,
        "reason": reason,
        "profiles": j.profiles,
        "excluded": excluded.collect::<Vec<_>>(),
        "differences": differences.collect::<Vec<_>>(),
    })
}

/// Which profiles a tensor leaves, in few words.
fn left(j: &Judged, all: usize) -> String {
    match (&j.slack, j.profiles.len()) {
        (Slack::Open(_), _) => "says nothing".to_owned(),
        (_, 0) => "none".to_owned(),
        (_, n) if n == all => "all".to_owned(),
        (_, n) if n > 3 => {
            format!("all but {}", names(&j.excluded.iter().map(|e| e.profile.as_str()).collect::<Vec<_>>()))
        }
        _ => names(&j.profiles),
    }
}

fn names<S: AsRef<str>>(all: &[S]) -> String {
    all.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

fn report(args: &ReadArgs, candidates: &Candidates, found: &Reading) {
    let all = candidates.names().len();
    let row = |j: &Judged, what: String| {
        let op = j.nodes.last().map_or("-", |n| n.1).to_owned();
        vec![what, op, left(j, all), j.elements.to_string(), j.telling.to_string()]
    };
    let of_op = |j: &Judged| match j.nodes.len() {
        0 | 1 => short(&j.op),
        n => format!("{} and {} before it", short(&j.op), n - 1),
    };
    let mut rows: Vec<Vec<String>> = found.ops.iter().map(|j| row(j, of_op(j))).collect();
    rows.extend(found.outputs.iter().map(|j| row(j, format!("the whole model, at {}", short(&j.tensor)))));
    let header = ["operator", "", "possible", "elements", "that tell"].map(str::to_owned);
    show::line(&show::table(&header, &rows, 3));
    for profile in candidates.names() {
        let Some((j, e)) = found.witness(profile) else { continue };
        let (elements, against) = found.votes(profile);
        show::line(&format!(
            "not {profile}: {} {:?} is {}, it gives {}, at {}; {against} of {elements} elements speak against it",
            short(&j.answer),
            e.element,
            e.got,
            e.expected,
            short(&j.op)
        ));
    }
    for j in found.ops.iter() {
        let rule = match j.slack {
            Slack::OneCode(why) => format!("one code is allowed, as {why}"),
            Slack::Open(why) => format!("not counted, as {why}"),
            Slack::None | Slack::Floats => continue,
        };
        let left = |p: &String| found.profiles.is_empty() || found.profiles.contains(p);
        for d in j.differences.iter().filter(|d| left(&d.profile)) {
            let (op, of, profile) = (short(&j.op), j.elements, &d.profile);
            show::line(&match d.elements {
                0 => format!("{op}: all {of} codes are those of {profile}"),
                n => format!(
                    "{op}: {n} of {of} codes are not those of {profile}, by {} at most; {rule}",
                    d.max_abs
                ),
            });
        }
    }
    show::line(&match found.profiles.as_slice() {
        [] => "no profile is possible".to_owned(),
        [one] => format!("possible: {one}"),
        more => format!("possible: {}; nothing that was compared tells them apart", names(more)),
    });
    if args.common.quiet {
        return;
    }
    remarks(candidates);
    for i in &found.ignored {
        show::remark(&format!("not compared: {}: {}", short(&i.name), i.reason));
    }
}

//! `samebit fingerprint probes`.

use super::{MANIFEST, alike, load, remarks, short, unfit};
use crate::analysis::fingerprint::{Candidates, ProbeInput, ProbeOptions, Probes, SeparatedAt, probes};
use crate::cli::files::Files;
use crate::cli::{Common, Outcome, cpu_ops, show};
use crate::data::dump::{DumpWriter, Kind, TensorInfo, encode_name};
use crate::data::{Dataset, Loader, LoaderOptions};
use crate::error::{Error, write_file};
use crate::gpu::Device;
use crate::graph::Graph;
use crate::quant::QParams;
use crate::tensor::{DType, Tensor};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct ProbesArgs {
    /// Calibrated graph, ONNX model with quantizers, or graph on codes
    model: PathBuf,
    /// Folder for the inputs and probes.json, which says what they are
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Data set whose samples are tried first, moved to the numbers that codes of the inputs stand for
    #[arg(long, value_name = "DATA")]
    data: Option<PathBuf>,
    /// A candidate of your own beside the profiles that come with the engine: a TOML file
    #[arg(long, value_name = "PROFILE")]
    profile: Vec<String>,
    /// Frames to try, at most
    #[arg(long, value_name = "N", default_value_t = ProbeOptions::default().tries)]
    tries: usize,
    /// Elements in which every two profiles should differ
    #[arg(long, value_name = "N", default_value_t = ProbeOptions::default().witnesses)]
    witnesses: u64,
    /// Seed of the inputs that are drawn
    #[arg(long, value_name = "K", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

impl ProbesArgs {
    pub(super) fn files(&self) -> Files<'_> {
        let files = Files::default().reads(&self.model).fills("-o", Some(&self.output));
        self.data.iter().fold(files, |f, d| f.reads(d))
    }
}

pub(super) fn run(args: &ProbesArgs) -> Result<Outcome, Error> {
    if args.tries == 0 || args.witnesses == 0 {
        return Err(Error::Usage("--tries and --witnesses must be at least 1".into()));
    }
    let (candidates, hash) = load(&args.model, &args.profile)?;
    let device = Device::open(&args.common.device)?;
    let options = ProbeOptions { tries: args.tries, seed: args.seed, witnesses: args.witnesses };
    let data = data(args, &candidates.fit[0].graph)?;
    let mut progress = show::Progress::new(args.common.quiet, "probes", args.tries);
    let found = probes(&candidates, data, &device, &options, |done| progress.set(done))?;
    drop(progress);
    let files = write(args, &found)?;
    let json = json!({
        "model": args.model.display().to_string(),
        "sha256": hash,
        "seed": args.seed,
        "tried": found.tried,
        "frames": found.samples,
        "inputs": files,
        "outputs": outputs(&candidates.fit[0].graph),
        "profiles": candidates.names(),
        "unfit": unfit(&candidates),
        "same_arithmetic": alike(&candidates),
        "indistinguishable": found.together(&candidates),
        "pairs": pairs(&candidates, &found),
        "note": candidates.note,
        "device": device.to_string(),
        "dispatches": found.dispatches,
        "cpu_ops": cpu_ops(&found.cpu_ops),
    });
    let path = args.output.join(MANIFEST);
    write_file(&path, format!("{json:#}\n").as_bytes())?;
    report(args, &candidates, &found);
    Ok(Outcome::fine(json))
}

type Frames = Result<(Vec<Tensor>, Vec<String>), Error>;

/// Batches of the data set, without rows that fill one up.
fn data(args: &ProbesArgs, graph: &Graph) -> Result<Box<dyn Iterator<Item = Frames>>, Error> {
    let Some(path) = &args.data else { return Ok(Box::new(std::iter::empty())) };
    let inputs: Vec<_> =
        graph.inputs.iter().map(|v| (graph.value(*v).name.clone(), graph.value(*v).ty.clone())).collect();
    let bound = Dataset::open(path)?.limit(args.tries).inputs_for(&inputs)?;
    let frames = Loader::new(bound, LoaderOptions::default())?.map(|batch| {
        let batch = batch?;
        Ok((batch.inputs.iter().map(|t| batch.without_padding(t)).collect(), batch.ids))
    });
    Ok(Box::new(frames))
}

fn outputs(graph: &Graph) -> Vec<&str> {
    graph.outputs.iter().map(|v| graph.value(*v).name.as_str()).collect()
}

/// Writes the inputs as a dump folder; what it says of them.
fn write(args: &ProbesArgs, found: &Probes) -> Result<Vec<Value>, Error> {
    // Probes of before are replaced, and their list is no part of a dump.
    let path = args.output.join(MANIFEST);
    if path.is_file() {
        std::fs::remove_file(&path).map_err(|source| Error::Io { path, source })?;
    }
    let mut dump = DumpWriter::create(&args.output)?;
    let mut out = Vec::new();
    for ProbeInput { name, values, codes } in &found.inputs {
        let plain = values.dtype() != DType::F32;
        dump.append_as(name, values, info(values, None, plain))?;
        let mut row = json!({ "name": name, "dtype": values.dtype().name(), "file": file(name) });
        if let Some((codes, params)) = codes {
            let name = format!("{name}/codes");
            dump.append_as(&name, codes, info(codes, Some(params), true))?;
            row["codes"] = json!({
                "name": name,
                "dtype": codes.dtype().name(),
                "file": file(&name),
                "scale": params.scales(),
                "zero_point": params.zero_points(),
            });
        }
        out.push(row);
    }
    dump.finish(&found.samples, None)?;
    Ok(out)
}

fn file(name: &str) -> String {
    format!("{}.npy", encode_name(name))
}

fn info(t: &Tensor, params: Option<&QParams>, codes: bool) -> TensorInfo {
    TensorInfo {
        shape: Vec::new(),
        dtype: t.dtype().name().into(),
        scale: params.map_or_else(Vec::new, |p| p.scales().to_vec()),
        zero_point: params.map_or_else(Vec::new, |p| p.zero_points().to_vec()),
        axis: None,
        kind: if codes { Kind::Codes } else { Kind::Values },
    }
}

fn pairs(candidates: &Candidates, found: &Probes) -> Vec<Value> {
    let one = |p: &crate::analysis::fingerprint::Pair| {
        let (at, tensor, witnesses) = match &p.at {
            SeparatedAt::Outputs(n) => ("outputs", None, *n),
            SeparatedAt::Inside(name, n) => ("inside", Some(name), *n),
            SeparatedAt::Nowhere => ("nowhere", None, 0),
        };
        json!({
            "a": candidates.fit[p.a].profiles,
            "b": candidates.fit[p.b].profiles,
            "separated": at,
            "tensor": tensor,
            "witnesses": witnesses,
        })
    };
    found.pairs.iter().map(one).collect()
}

fn report(args: &ProbesArgs, candidates: &Candidates, found: &Probes) {
    let name = |i: usize| candidates.fit[i].profiles.join(" = ");
    let rows: Vec<Vec<String>> = found
        .pairs
        .iter()
        .map(|p| {
            let (at, witnesses) = match &p.at {
                SeparatedAt::Outputs(n) => ("outputs".to_owned(), n.to_string()),
                SeparatedAt::Inside(tensor, n) => (format!("inside only: {}", short(tensor)), n.to_string()),
                SeparatedAt::Nowhere => ("nowhere".to_owned(), "0".to_owned()),
            };
            vec![name(p.a), name(p.b), at, witnesses]
        })
        .collect();
    if !rows.is_empty() {
        let header = ["profile", "other", "differ in", "elements"].map(str::to_owned);
        show::line(&show::table(&header, &rows, 3));
    }
    show::line(&format!(
        "{}: {} of {} frames that were tried tell the profiles apart",
        args.output.display(),
        found.samples.len(),
        found.tried
    ));
    for group in found.together(candidates) {
        show::line(&format!("nothing that was tried tells these apart: {}", group.join(", ")));
    }
    if !args.common.quiet {
        remarks(candidates);
    }
}

//! The command line: one file per subcommand, each a thin layer over a library call.

mod calibrate;
mod check;
mod compile;
mod convert;
mod devices;
mod edit;
mod eval;
mod export;
mod files;
mod fingerprint;
mod import;
mod memory;
mod merge;
mod model;
mod output;
mod prepare;
mod print;
mod profile;
mod quickstart;
mod run;
mod save_onnx;
mod save_ranges;
mod show;
mod verify;

use crate::error::Error;
use crate::gpu::Choice;
use clap::{Args, Parser, Subcommand};
use files::Files;
use output::is_stdout;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// GPU engine for quantized models: the same bits on every device.
#[derive(Debug, Parser)]
#[command(name = "samebit", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 fine, 1 the answer is \"not good\", 2 an error.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
struct Common {
    /// Where to run: auto (a hardware GPU, else the CPU), cpu, gpu, gpu:N or gpu:NAME (see `samebit devices`)
    #[arg(long, default_value = "auto", global = true, value_name = "DEVICE")]
    device: Choice,
    /// Write the whole result as JSON to this file; - is standard output
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print results only: no progress, no remarks
    #[arg(long, short, global = true)]
    quiet: bool,
    /// CPU threads to use (default: all)
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List adapters, drivers, features and limits, and what `auto` would take
    Devices(devices::DevicesArgs),
    /// Turn an ONNX model of operator sets 9 to 21 into a graph file
    Import(model::ConversionArgs),
    /// Print a model as text with stable ids
    Print(print::PrintArgs),
    /// Find the scales of a model's quantizers on a data set
    Calibrate(calibrate::CalibrateArgs),
    /// Replace operators of a calibrated graph by their integer forms, where these compute something else
    Export(export::ExportArgs),
    /// Turn a calibrated graph into one on codes
    Convert(convert::ConvertArgs),
    /// Change single quantizers of a calibrated graph: remove them, or give them another type, range, scale or state
    Edit(edit::EditArgs),
    /// Turn a graph on codes into a deployment file: small, checked, with memory and kernels chosen
    Compile(compile::CompileArgs),
    /// Report what of a model is worth a look before and after calibration
    Check(check::CheckArgs),
    /// Statistics of every tensor of a model over a data set
    Profile(profile::ProfileArgs),
    /// Measure models on a data set, side by side
    Eval(eval::EvalArgs),
    /// Join the partial results of `eval --shard`, and print their figures when no shard is missing, or the statistics of
    /// `calibrate --shard`
    Merge(merge::MergeArgs),
    /// Run a model once and write its outputs
    Run(run::RunArgs),
    /// Write a graph, float or with calibrated quantizers, as an ONNX model of operator set 21, quantizers as
    /// QuantizeLinear and DequantizeLinear
    SaveOnnx(model::ConversionArgs),
    /// Write the scales of a calibrated graph, or of an ONNX model with quantizers, as JSON for ONNX Runtime's quantizer or AIMET; `calibrate --ranges` reads them
    SaveRanges(save_ranges::SaveRangesArgs),
    /// Compare the codes of two artefacts, of one on two devices, or of one and what another runtime dumped
    Verify(verify::VerifyArgs),
    /// Tell from a black box's answers which target's arithmetic it obeys
    Fingerprint(fingerprint::FingerprintArgs),
    /// The whole pipeline on the bundled model and data: no download, no GPU needed
    Quickstart(quickstart::QuickstartArgs),
}

/// What a command found.
struct Outcome {
    /// The whole result.
    json: serde_json::Value,
    /// Whether the answer is "not good" (exit code 1).
    not_good: bool,
}

impl Outcome {
    fn fine(json: serde_json::Value) -> Outcome {
        Outcome { json, not_good: false }
    }
}

/// Parses the arguments, runs the command, prints an error once, and says how the process should end.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let (json, result) = dispatch(cli.command);
    let result = match (result, show::failure()) {
        (Ok(_), Some(source)) => Err(Error::Io { path: "standard output".into(), source }),
        (result, _) => result,
    };
    let (json_value, code) = match result {
        Ok(outcome) => (outcome.json, u8::from(outcome.not_good)),
        Err(e) => {
            eprintln!("error: {e}");
            (serde_json::json!({ "error": e.to_string() }), 2)
        }
    };
    match json.map_or(Ok(()), |path| write_json(&path, &json_value)) {
        Ok(()) => ExitCode::from(code),
        // One message is enough.
        Err(_) if code == 2 => ExitCode::from(2),
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(2)
        }
    }
}

/// Runs a command; says where its JSON goes, too.
fn dispatch(command: Command) -> (Option<PathBuf>, Result<Outcome, Error>) {
    match command {
        Command::Devices(a) => start(&a.common, Files::default(), || devices::run(&a)),
        Command::Import(a) => start(&a.common, a.files(), || import::run(&a)),
        Command::Print(a) => start(&a.common, a.files(), || print::run(&a)),
        Command::Profile(a) => start(&a.common, a.files(), || profile::run(&a)),
        Command::Check(a) => start(&a.common, a.files(), || check::run(&a)),
        Command::Calibrate(a) => start(&a.common, a.files(), || calibrate::run(&a)),
        Command::Export(a) => start(&a.common, a.files(), || export::run(&a)),
        Command::Edit(a) => start(&a.common, a.files(), || edit::run(&a)),
        Command::Compile(a) => start(&a.common, a.files(), || compile::run(&a)),
        Command::Convert(a) => start(&a.common, a.files(), || convert::run(&a)),
        Command::Eval(a) => start(&a.common, a.files(), || eval::run(&a)),
        Command::Merge(a) => start(&a.common, a.files(), || merge::run(&a)),
        Command::Run(a) => start(&a.common, a.files(), || run::run(&a)),
        Command::Verify(a) => start(&a.common, a.files(), || verify::run(&a)),
        Command::Fingerprint(a) => start(a.common(), a.files(), || fingerprint::run(&a)),
        Command::SaveOnnx(a) => start(&a.common, a.files(), || save_onnx::run(&a)),
        Command::SaveRanges(a) => start(&a.io.common, a.files(), || save_ranges::run(&a)),
        Command::Quickstart(a) => start(&a.common, a.files(), || quickstart::run(&a)),
    }
}

/// Checks the files, then runs `f`. What would overwrite another file gets no JSON either.
fn start(
    common: &Common,
    files: Files<'_>,
    f: impl FnOnce() -> Result<Outcome, Error>,
) -> (Option<PathBuf>, Result<Outcome, Error>) {
    let files = files.writes("--json", common.json.as_deref());
    if files.take_stdout() {
        show::results_to_stderr();
    }
    // Before hours of work, not after them.
    match files.check() {
        Ok(()) => (common.json.clone(), with_threads(common, f)),
        Err(e) => (common.json.clone().filter(|path| is_stdout(path)), Err(e)),
    }
}

/// Sets the size of the thread pool that everything shares, then runs `f`.
fn with_threads(common: &Common, f: impl FnOnce() -> Result<Outcome, Error>) -> Result<Outcome, Error> {
    if let Some(n) = common.threads {
        const MOST: usize = 1024;
        if n == 0 || n > MOST {
            return Err(Error::Usage(format!("--threads {n}: give 1 to {MOST}")));
        }
        rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build_global()
            .map_err(|e| Error::Usage(format!("--threads {n}: {e}")))?;
    }
    f()
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).expect("a JSON value prints") + "\n";
    output::save_bytes(text.as_bytes(), path)
}

/// A number for JSON: infinities and NaN are texts.
fn number(x: f64) -> serde_json::Value {
    if x.is_nan() {
        "nan".into()
    } else if x.is_infinite() {
        if x > 0.0 { "inf".into() } else { "-inf".into() }
    } else {
        x.into()
    }
}

/// The JSON of the NaN that quantizers were given.
fn nan_json(nans: &crate::analysis::nan::Nans) -> serde_json::Value {
    let one = |n: &crate::analysis::nan::NanSeen| {
        let sample = n.first.as_ref().map(|(_, sample)| sample);
        serde_json::json!({ "quantizer": n.quantizer, "node": n.source, "count": n.count, "sample": sample })
    };
    nans.iter().map(one).collect()
}

/// The JSON of the ops that ran on the CPU although a GPU was asked for.
fn cpu_ops<'a, S: AsRef<str> + 'a>(ops: impl IntoIterator<Item = &'a (String, S)>) -> serde_json::Value {
    let one = |(node, reason): &(String, S)| serde_json::json!({ "node": node, "reason": reason.as_ref() });
    ops.into_iter().map(one).collect()
}

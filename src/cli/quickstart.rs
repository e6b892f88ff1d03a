//! `samebit quickstart`: the pipeline on the bundled model and data, by the commands that anyone would give.

use super::files::Files;
use super::{Cli, Common, Outcome, dispatch, show};
use crate::error::{Error, write_file};
use crate::gpu::{Choice, Device};
use clap::{Args, Parser};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The bundled files: a digit classifier of our own and scikit-learn's digits.
const FILES: &[(&str, &[u8])] = &[
    ("digits.onnx", include_bytes!("../../assets/quickstart/digits.onnx")),
    ("eval.toml", include_bytes!("../../assets/quickstart/eval.toml")),
    ("eval_x.npy", include_bytes!("../../assets/quickstart/eval_x.npy")),
    ("eval_y.npy", include_bytes!("../../assets/quickstart/eval_y.npy")),
    ("calib.toml", include_bytes!("../../assets/quickstart/calib.toml")),
    ("calib_x.npy", include_bytes!("../../assets/quickstart/calib_x.npy")),
    ("calib_y.npy", include_bytes!("../../assets/quickstart/calib_y.npy")),
    ("README.md", include_bytes!("../../assets/quickstart/README.md")),
];

#[derive(Debug, Args)]
pub(super) struct QuickstartArgs {
    /// Keep the model, the data and what is made of them in this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl QuickstartArgs {
    pub(super) fn files(&self) -> Files<'_> {
        Files::default().fills("--out", self.out.as_deref())
    }
}

pub(super) fn run(args: &QuickstartArgs) -> Result<Outcome, Error> {
    let temporary;
    let dir: &Path = match &args.out {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|source| Error::Io { path: dir.clone(), source })?;
            dir
        }
        None => {
            temporary =
                tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
            temporary.path()
        }
    };
    for (name, bytes) in FILES {
        write_file(&dir.join(name), bytes)?;
    }
    let device = Device::open(&args.common.device)?;
    if !args.common.quiet {
        show::remark(&format!(
            "a digit classifier, 200 handwritten digits to calibrate on and 797 to measure it, on {device}"
        ));
    }
    let mut tour = Tour { args, dir, commands: Vec::new(), dispatches: 0, cpu_ops: Vec::new() };
    let stages = tour.run(matches!(device, Device::Cpu))?;
    let Stages { rows, consistent } = stages;
    show::line(if consistent {
        "all float rows agree, and so do fake-quant, quantized and compiled"
    } else {
        "rows differ that should agree: see `samebit eval --help` and `samebit verify --help`"
    });
    if args.out.is_none() && !args.common.quiet {
        show::line("`quickstart --out DIR` keeps these files");
    }
    let json = json!({
        "device": device.to_string(),
        "dispatches": tour.dispatches,
        "cpu_ops": tour.cpu_ops,
        "commands": tour.commands,
        "stages": rows,
        "consistent": consistent,
    });
    Ok(Outcome { json, not_good: !consistent })
}

/// What came of the whole pipeline.
struct Stages {
    rows: Vec<Value>,
    consistent: bool,
}

/// Commands that run one after the other in one folder.
struct Tour<'a> {
    args: &'a QuickstartArgs,
    dir: &'a Path,
    commands: Vec<String>,
    dispatches: u64,
    cpu_ops: Vec<Value>,
}

impl Tour<'_> {
    fn run(&mut self, on_cpu: bool) -> Result<Stages, Error> {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let [onnx, calib, eval] = ["digits.onnx", "calib.toml", "eval.toml"].map(file);
        let [float, simulated] = ["float", "fake-quant"].map(|s| file(&format!("digits.{s}.samebit")));
        let [codes, compiled] = ["digits.quantized.samebit", "digits.bin"].map(file);
        self.command(&["import", &onnx, "-o", &float])?;
        self.command(&["calibrate", &onnx, "--data", &calib, "-o", &simulated])?;
        self.command(&["convert", &simulated, "-o", &codes])?;
        self.command(&["compile", &codes, "-o", &compiled])?;
        let mut verify = vec!["verify", &simulated, &compiled, "--data", &eval];
        if !on_cpu {
            verify.extend(["--device-b", "cpu"]);
        }
        let verified = self.command(&verify)?;
        let models =
            self.command(&["eval", &onnx, &float, &simulated, &codes, &compiled, "--data", &eval])?;
        let names = ["float", "float, graph file", "fake-quant", "quantized", "compiled"];
        let mut rows: Vec<Value> =
            rows(&models).into_iter().zip(names).map(|(m, stage)| row(stage, m, &models)).collect();
        if !on_cpu {
            let cpu = self.command_on(&Choice::Cpu, &["eval", &onnx, "--data", &eval])?;
            let at = rows.len().min(2);
            rows.splice(at..at, self::rows(&cpu).into_iter().map(|m| row("float, on the CPU", m, &cpu)));
        }
        // Eight bits may cost accuracy; nothing else may.
        let float = |r: &&Value| r["stage"].as_str().is_some_and(|s| s.starts_with("float"));
        let (floats, integers): (Vec<&Value>, Vec<&Value>) = rows.iter().partition(float);
        let alike = |all: &[&Value]| all.windows(2).all(|w| w[0]["metrics"] == w[1]["metrics"]);
        let consistent = alike(&floats) && alike(&integers) && verified["consistent"] == true;
        Ok(Stages { rows, consistent })
    }

    fn command(&mut self, words: &[&str]) -> Result<Value, Error> {
        self.command_on(&self.args.common.device, words)
    }

    /// Runs a command as the shell would; its JSON. That an answer is "not good" is in there.
    fn command_on(&mut self, device: &Choice, words: &[&str]) -> Result<Value, Error> {
        let device = device.to_string();
        let mut all = [&["samebit"], words].concat();
        if device != Choice::Auto.to_string() {
            all.extend(["--device", &device]);
        }
        let text = all.join(" ");
        if !self.args.common.quiet {
            show::line(&format!("$ {text}"));
        }
        self.commands.push(text);
        all.push("--quiet");
        let cli = Cli::try_parse_from(all).map_err(|e| Error::Usage(e.to_string()))?;
        let v = dispatch(cli.command).1?.json;
        self.dispatches += v["dispatches"].as_u64().unwrap_or(0);
        self.cpu_ops.extend(v["cpu_ops"].as_array().into_iter().flatten().cloned());
        Ok(v)
    }
}

/// The models of what `eval` found.
fn rows(evaluated: &Value) -> Vec<&Value> {
    evaluated["models"].as_array().into_iter().flatten().collect()
}

fn row(stage: &str, model: &Value, evaluated: &Value) -> Value {
    json!({
        "stage": stage,
        "metrics": model["metrics"],
        "frames": model["frames"],
        "device": evaluated["device"],
    })
}

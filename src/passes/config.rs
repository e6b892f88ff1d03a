//! The quantization configuration: a preset and rules, from TOML or built in a program.

use crate::quant::{Profile, ProfileError};
use crate::tensor::DType;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Named starting points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// i8, and outputs of the graph in high precision.
    #[default]
    Default,
    /// i8, outputs of the graph too.
    AllI8,
    /// i16 activations, i8 weights, outputs of the graph in high precision.
    AllI16,
    /// i8 into convolutions and matrix products, i16 elsewhere, outputs of the graph in high precision.
    GemmI8,
}

/// What a user asks of quantization.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantConfig {
    /// The starting point.
    pub preset: Preset,
    /// The target whose arithmetic is simulated.
    pub target: Option<String>,
    /// The profile of that target, where it comes from a file of its own.
    #[serde(skip)]
    pub profile: Option<Profile>,
    /// Consistency level 0 to 4; see [`QuantConfig::level`].
    pub consistency: Option<u8>,
    /// What finds ranges of activations, unless a rule says otherwise.
    pub observer: Option<ObserverText>,
    /// In order; of those that touch a node the first counts.
    pub rule: Vec<Rule>,
}

/// An observer as files write it: `"mse"` or `{ percentile = 99.99 }`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawObserver")]
pub struct ObserverText(pub String);

#[derive(Deserialize)]
#[serde(untagged)]
enum RawObserver {
    Name(String),
    Table(std::collections::BTreeMap<String, f64>),
}

impl TryFrom<RawObserver> for ObserverText {
    type Error = String;

    fn try_from(raw: RawObserver) -> Result<Self, String> {
        match raw {
            RawObserver::Name(name) => Ok(ObserverText(name)),
            RawObserver::Table(t) => match t.into_iter().collect::<Vec<_>>().as_slice() {
                [(name, value)] => Ok(ObserverText(format!("{name}={value}"))),
                _ => Err("an observer is a name or one `name = number`".into()),
            },
        }
    }
}

/// An element type as files write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Code(pub DType);

impl TryFrom<String> for Code {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let dtype = DType::from_name(&name).filter(|d| d.limits().is_some() && *d != DType::I32);
        dtype
            .map(Code)
            .ok_or_else(|| format!("{name:?} is no type of codes; supported: i4, i8, i16, u4, u8, u16"))
    }
}

/// Tensors or operators that play a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleName {
    /// Outputs of the graph.
    Output,
    /// Constants that are no weights.
    Constant,
    /// The grid of `GridSample`, back to the nearest product.
    Grid,
    /// Products whose result goes into a softmax.
    GemmBeforeSoftmax,
    /// Products whose result goes into a layer normalisation.
    GemmBeforeLayernorm,
}

impl RoleName {
    /// As files write it.
    pub fn name(self) -> &'static str {
        match self {
            RoleName::Output => "output",
            RoleName::Constant => "constant",
            RoleName::Grid => "grid",
            RoleName::GemmBeforeSoftmax => "gemm-before-softmax",
            RoleName::GemmBeforeLayernorm => "gemm-before-layernorm",
        }
    }
}

/// Which quantizers of a sensitivity table a rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Those of activations.
    Activation,
    /// Those of weights.
    Weight,
    /// All.
    #[default]
    Both,
}

/// A rule: what it touches, and what it sets there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Names of nodes, as a glob.
    pub name: Option<String>,
    /// An operator.
    pub op: Option<String>,
    /// A part that nodes play.
    pub role: Option<RoleName>,
    /// A table that `sensitivity` wrote, relative to the configuration.
    pub sensitivity: Option<PathBuf>,
    /// The share of its rows that counts.
    pub ratio: Option<f64>,
    /// The number of its rows that counts.
    pub top_k: Option<usize>,
    /// Which of them.
    pub kind: Kind,
    /// Type of the output's codes.
    pub activation: Option<Code>,
    /// Type of the weights' codes.
    pub weight: Option<Code>,
    /// Types of the inputs' codes, in order.
    pub input: Vec<Code>,
    /// What finds the range of the output.
    pub observer: Option<ObserverText>,
    /// The range of the output.
    pub range: Option<[f32; 2]>,
    /// The scale of the output.
    pub scale: Option<f32>,
    /// Whether the node runs in float.
    pub float: bool,
    /// Whether its quantizers keep the parameters they have.
    pub frozen: bool,
    /// Whether a concatenation, or a constant operand, is quantized in parts of their own scales.
    pub split: bool,
}

impl Rule {
    /// What it looks for, in words.
    pub fn selector(&self) -> String {
        let parts = [
            self.name.as_ref().map(|n| format!("name = {n:?}")),
            self.op.as_ref().map(|o| format!("op = {o:?}")),
            self.role.map(|r| format!("role = {:?}", r.name())),
            self.sensitivity.as_ref().map(|s| format!("sensitivity = {:?}", s.display().to_string())),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub message: String,
}

/// The simulation is the integer model, unless something else is asked.
const EXACT: u8 = 4;

impl QuantConfig {
    /// The consistency level that is asked for.
    pub fn level(&self) -> u8 {
        self.consistency.unwrap_or(EXACT)
    }

    /// A preset without rules.
    pub fn preset(preset: Preset) -> QuantConfig {
        QuantConfig { preset, ..QuantConfig::default() }
    }

    /// Adds a rule behind those there are.
    pub fn with(mut self, rule: Rule) -> QuantConfig {
        self.rule.push(rule);
        self
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What the system or the parser says, and rules that cannot be.
    pub fn load(path: &Path) -> Result<QuantConfig, ConfigError> {
        let fail = |message: String| ConfigError { path: path.to_owned(), message };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let mut config: QuantConfig = toml::from_str(&text).map_err(|e| fail(e.to_string()))?;
        config.check().map_err(fail)?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        for s in config.rule.iter_mut().filter_map(|r| r.sensitivity.as_mut()) {
            *s = folder.join(&*s);
        }
        Ok(config)
    }

    /// The profile of the target.
    ///
    /// # Errors
    /// A target that does not come with the engine, and no profile of a file.
    pub fn profile(&self) -> Result<Profile, ProfileError> {
        match (&self.profile, &self.target) {
            (Some(profile), _) => Ok(profile.clone()),
            (None, Some(name)) => Profile::builtin(name),
            (None, None) => Ok(Profile::default()),
        }
    }

    /// Every observer that it names.
    pub fn observers(&self) -> impl Iterator<Item = &str> {
        let rules = self.rule.iter().filter_map(|r| r.observer.as_ref());
        self.observer.iter().chain(rules).map(|o| o.0.as_str())
    }

    /// Rules that contradict themselves.
    ///
    /// # Errors
    /// The first of them.
    pub fn check(&self) -> Result<(), String> {
        if let Some(level) = self.consistency.filter(|l| *l > 4) {
            return Err(format!("consistency = {level}; supported: 0 to 4"));
        }
        for (i, rule) in self.rule.iter().enumerate() {
            let fail = |message: &str| Err(format!("rule {}: {message}", i + 1));
            let selectors =
                [rule.name.is_some(), rule.op.is_some(), rule.role.is_some(), rule.sensitivity.is_some()];
            if selectors.iter().filter(|s| **s).count() != 1 {
                return fail("needs one of name, op, role and sensitivity");
            }
            if rule.sensitivity.is_some() != (rule.ratio.is_some() || rule.top_k.is_some()) {
                return fail("sensitivity needs ratio or top_k, and they need it");
            }
            if rule.ratio.is_some() && rule.top_k.is_some() {
                return fail("ratio and top_k exclude each other");
            }
            if rule.ratio.is_some_and(|r| !(0.0..=1.0).contains(&r)) {
                return fail("ratio is a share from 0 to 1");
            }
            if rule.range.is_some() && rule.scale.is_some() {
                return fail("range and scale exclude each other");
            }
            if rule.range.is_some_and(|[low, high]| crate::quant::Range::new(low, high).is_err()) {
                return fail("range needs two finite numbers, the lower one first");
            }
            let sets = rule.activation.is_some()
                || rule.weight.is_some()
                || !rule.input.is_empty()
                || rule.observer.is_some()
                || rule.range.is_some()
                || rule.scale.is_some()
                || rule.float
                || rule.frozen
                || rule.split;
            if !sets {
                return fail(
                    "sets nothing: activation, weight, input, observer, range, scale, float, frozen or split",
                );
            }
        }
        Ok(())
    }
}

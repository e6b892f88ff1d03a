//! The model as each profile computes it.

use crate::error::Error;
use crate::exec::Engine;
use crate::gpu::Device;
use crate::graph::{Graph, QuantRule, Stage, Target};
use crate::passes::convert::{ConvertOptions, as_profile, convert};
use crate::quant::{Profile, Requantize};
use crate::tensor::Tensor;

/// A model as some profiles compute it, all of them in the same way.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Names of the profiles.
    pub profiles: Vec<String>,
    /// The graph on codes.
    pub graph: Graph,
}

/// A profile that cannot take the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Its name.
    pub profile: String,
    /// Why not.
    pub reason: String,
}

/// What there is to tell apart.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// No two of them compute the model by the same rules.
    pub fit: Vec<Candidate>,
    /// Profiles that cannot take the model.
    pub unfit: Vec<Unfit>,
    /// What cannot be told because of the stage of the model.
    pub note: Option<String>,
}

impl Candidates {
    /// Names of the profiles that can take the model.
    pub fn names(&self) -> Vec<&str> {
        self.fit.iter().flat_map(|c| c.profiles.iter().map(String::as_str)).collect()
    }
}

/// The model under every profile that comes with the engine, and more: converted anew where it has quantizers, and with
/// another arithmetic where it is on codes.
///
/// # Errors
/// A float graph, two profiles of one name, and a model that no profile can take.
pub fn candidates(graph: &Graph, more: &[Profile]) -> Result<Candidates, Error> {
    if graph.stage == Stage::Float {
        return Err(Error::Usage(
            "the model is in stage float and has no codes; `samebit calibrate` gives it quantizers"
                .to_owned(),
        ));
    }
    let builtin = Profile::names().into_iter().map(Profile::builtin).collect::<Result<Vec<_>, _>>();
    let builtin = builtin.map_err(|e| Error::Usage(e.to_string()))?;
    let mut profiles: Vec<&Profile> = Vec::new();
    for p in builtin.iter().chain(more) {
        if profiles.iter().any(|q| q.name == p.name) {
            return Err(Error::Usage(format!(
                "there are two profiles named {:?}; give yours another `name`",
                p.name
            )));
        }
        profiles.push(p);
    }
    let (mut fit, mut unfit): (Vec<Candidate>, Vec<Unfit>) = (Vec::new(), Vec::new());
    for profile in profiles {
        match under(graph, profile) {
            Ok(graph) => match fit.iter_mut().find(|c| c.graph == graph) {
                Some(same) => same.profiles.push(profile.name.clone()),
                None => fit.push(Candidate { profiles: vec![profile.name.clone()], graph }),
            },
            Err(reason) => unfit.push(Unfit { profile: profile.name.clone(), reason }),
        }
    }
    if fit.is_empty() {
        let all: Vec<String> = unfit.iter().map(|u| format!("{}: {}", u.profile, u.reason)).collect();
        return Err(Error::Usage(format!("no profile can take the model:\n  {}", all.join("\n  "))));
    }
    let note = graph.stage.is_on_codes().then(|| {
        let of = graph.target.as_ref().map_or("its target", |t| t.profile.name.as_str());
        format!(
            "the model is on codes already: its tables and quantizers stay those of {of}, so that profiles which differ in \
             these alone are not told apart; give the model with quantizers for that"
        )
    });
    Ok(Candidates { fit, unfit, note })
}

/// The graph on codes that a profile makes of a model, without the profile's name.
fn under(graph: &Graph, profile: &Profile) -> Result<Graph, String> {
    let mut made = if graph.stage.is_on_codes() {
        as_profile(graph.clone(), profile).map_err(|e| e.to_string())?
    } else {
        let mut graph = graph.clone();
        // Level 4 fixes the target because the simulation is exact for that one alone, which is not the question here.
        if let Some(t) = &mut graph.target {
            *t = Target { level: t.level.min(1), ..t.clone() };
        }
        let options = ConvertOptions { profile: Some(profile.clone()), ..ConvertOptions::default() };
        convert(&graph, &options).map_err(|e| e.to_string())?.graph
    };
    made.target = None;
    // It will be taken apart, which deployment files are not.
    made.stage = Stage::Quantized;
    fits(&made, profile)?;
    Ok(made)
}

/// Whether the profile has the types of the codes, and can form the factors of its shifts.
fn fits(graph: &Graph, profile: &Profile) -> Result<(), String> {
    for node in graph.nodes() {
        let Some((op, params)) = node.op.integer_of() else { continue };
        let gemm = matches!(op.quant_rule(), QuantRule::Gemm { .. });
        let weights = |i: usize| gemm && i == 1 && graph.value(node.inputs[1]).constant.is_some();
        let inputs = params.inputs.iter().enumerate().filter_map(|(i, p)| Some((weights(i), p.as_ref()?)));
        for (weights, p) in inputs.chain(params.output.params().map(|p| (false, p))) {
            let allowed = if weights { &profile.weights } else { &profile.activations };
            if !allowed.contains(&p.dtype()) {
                let names: Vec<&str> = allowed.iter().map(|d| d.name()).collect();
                let what = if weights { "weights" } else { "activations" };
                return Err(format!("{}: {} {what}; it has {}", node.name, p.dtype(), names.join(", ")));
            }
        }
    }
    let shifts = graph.nodes().iter().filter_map(|n| n.op.integer_of());
    if !shifts.into_iter().any(|(_, p)| p.arithmetic.requantize == Requantize::Shift) {
        return Ok(());
    }
    // The operators know which scales shifts take.
    let zeros = graph.inputs.iter().map(|v| {
        let ty = graph.value(*v).ty.at(1).and_then(|t| t.dims().map(|d| (t.dtype, d)));
        ty.map(|(dtype, dims)| Tensor::zeros(dtype, dims)).ok_or("one frame is too large")
    });
    let zeros = zeros.collect::<Result<Vec<_>, _>>()?;
    Engine::new(graph.clone(), &Device::Cpu).run(&zeros, &[]).map(drop).map_err(|e| e.to_string())
}

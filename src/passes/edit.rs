//! Changes of single quantizers of a prepared or calibrated graph, from TOML: removed, or with another type, range, scale or
//! state. Ids stay.

use super::PassError;
use super::config::{Code, ConfigError};
use crate::graph::{Graph, Node, NodeId, Stage};
use crate::names::near;
use crate::ops::fake_quant;
use crate::quant::{Origin, QParams, QuantError, Quantizer, Range, State, power_of_two};
use crate::tensor::DType;
use globset::Glob;
use serde::Deserialize;
use std::path::Path;

/// Edits in order.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edits {
    /// In order; a later one sees what earlier ones left.
    #[serde(default)]
    pub edit: Vec<Edit>,
}

/// The same as JSON: `{"remove_fake_quant": [[1, 100], 102, "/conv1/*"], "set": [{"id": 12, "dtype": "i16"}], "state": "validation"}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    /// Ids, pairs of a first and a last one, patterns on names.
    #[serde(default)]
    remove_fake_quant: Vec<Which>,
    #[serde(default)]
    set: Vec<Setting>,
    /// Of all quantizers.
    state: Option<StateName>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Which {
    One(u32),
    Pair([u32; 2]),
    Name(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    id: Option<u32>,
    name: Option<String>,
    dtype: Option<Code>,
    range: Option<[f32; 2]>,
    scale: Option<f32>,
    state: Option<StateName>,
}

impl From<Listed> for Edits {
    fn from(listed: Listed) -> Edits {
        let removed = listed.remove_fake_quant.into_iter().map(|which| {
            let (ids, name) = match which {
                Which::One(id) => (Some(Ids::One(id)), None),
                Which::Pair([from, to]) => (Some(Ids::Text(format!("{from}..{to}"))), None),
                Which::Name(name) => (None, Some(name)),
            };
            Edit { ids, name, remove: true, ..Edit::default() }
        });
        let set = listed.set.into_iter().map(|s| Edit {
            ids: s.id.map(Ids::One),
            name: s.name,
            dtype: s.dtype,
            range: s.range,
            scale: s.scale,
            state: s.state,
            ..Edit::default()
        });
        let all =
            listed.state.map(|s| Edit { name: Some("*".to_owned()), state: Some(s), ..Edit::default() });
        Edits { edit: removed.chain(set).chain(all).collect() }
    }
}

/// What becomes of some quantizers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Edit {
    /// Ids of quantizers as `samebit print` shows them: `12`, `"12..20"` with both ends, or a list of these.
    pub ids: Option<Ids>,
    /// A pattern on names of quantizers, and of the tensors that they quantize.
    pub name: Option<String>,
    /// Whether they are taken out.
    pub remove: bool,
    /// Their type; the range stays about the same.
    pub dtype: Option<Code>,
    /// Their range, by each quantizer's own scheme.
    pub range: Option<[f32; 2]>,
    /// Their scale.
    pub scale: Option<f32>,
    /// What they do when the graph runs.
    pub state: Option<StateName>,
}

/// Ids as files write them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Ids {
    /// One.
    One(u32),
    /// One, or the first and the last: `12..20`.
    Text(String),
    /// Several.
    Several(Vec<Ids>),
}

/// A state as files write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct StateName(pub State);

impl TryFrom<String> for StateName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let known = || State::ALL.iter().map(|s| s.name()).collect::<Vec<_>>().join(", ");
        let state = State::ALL.iter().find(|s| s.name() == name);
        state.map(|s| StateName(*s)).ok_or_else(|| format!("{name:?} is no state; supported: {}", known()))
    }
}

impl Ids {
    /// First and last, in pairs.
    fn ranges(&self) -> Result<Vec<(u32, u32)>, String> {
        match self {
            Ids::One(id) => Ok(vec![(*id, *id)]),
            Ids::Several(all) => Ok(all.iter().map(Ids::ranges).collect::<Result<Vec<_>, _>>()?.concat()),
            Ids::Text(text) => {
                let (from, to) = text.split_once("..").unwrap_or((text, text));
                let id = |t: &str| t.trim().trim_start_matches('%').parse::<u32>().ok();
                match (id(from), id(to)) {
                    (Some(from), Some(to)) if from <= to => Ok(vec![(from, to)]),
                    _ => Err(format!("ids {text:?}: give one id, or the first and the last as \"12..20\"")),
                }
            }
        }
    }
}

impl Edits {
    /// Reads a file.
    ///
    /// # Errors
    /// What the system or the parser says, and edits that ask for nothing or for too much.
    pub fn load(path: &Path) -> Result<Edits, ConfigError> {
        let fail = |message: String| ConfigError { path: path.to_owned(), message };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let edits: Edits = if text.trim_start().starts_with('{') {
            serde_json::from_str::<Listed>(&text).map_err(|e| fail(e.to_string()))?.into()
        } else {
            toml::from_str(&text).map_err(|e| fail(e.to_string()))?
        };
        for (i, edit) in edits.edit.iter().enumerate() {
            edit.check().map_err(|e| fail(format!("edit {}: {e}", i + 1)))?;
        }
        if edits.edit.is_empty() {
            return Err(fail("has no [[edit]]".to_owned()));
        }
        Ok(edits)
    }
}

impl Edit {
    fn check(&self) -> Result<(), String> {
        let says = |text: &str| Err(text.to_owned());
        let sets =
            self.dtype.is_some() || self.range.is_some() || self.scale.is_some() || self.state.is_some();
        match (&self.ids, &self.name) {
            (Some(_), Some(_)) | (None, None) => return says("needs one of ids and name"),
            (Some(ids), None) => drop(ids.ranges()?),
            (None, Some(name)) => drop(Glob::new(name).map_err(|e| e.to_string())?),
        }
        if self.remove == sets {
            return says("needs remove = true, or one or more of dtype, range, scale and state");
        }
        if self.range.is_some() && self.scale.is_some() {
            return says("range and scale exclude each other");
        }
        if let Some([low, high]) = self.range {
            Range::new(low, high).map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

/// A quantizer that an edit touched.
#[derive(Clone, Debug)]
pub struct Edited {
    /// Its node's id.
    pub id: NodeId,
    /// Its node's name.
    pub node: String,
    /// The tensor that it quantizes.
    pub tensor: String,
    /// What it was.
    pub before: Quantizer,
    /// What it is; `None` where it was removed.
    pub after: Option<Quantizer>,
}

/// Applies edits.
///
/// # Errors
/// A graph without quantizers, edits that touch nothing, and parameters that cannot be.
pub fn edit(mut graph: Graph, edits: &Edits) -> Result<(Graph, Vec<Edited>), PassError> {
    if graph.stage != Stage::FakeQuant {
        return Err(PassError::Stage { got: graph.stage.name(), wanted: Stage::FakeQuant.name() });
    }
    let mut out = Vec::new();
    for (i, edit) in edits.edit.iter().enumerate() {
        let wrong = |message: String| PassError::Edit { index: i + 1, message };
        for id in touched(&graph, edit).map_err(wrong)? {
            let at = graph.nodes().iter().position(|n| n.id == id).expect("it was just found");
            let node = graph.nodes()[at].clone();
            let before = node.quantizer().expect("it was just found").clone();
            let tensor = graph.value(node.inputs[0]).name.clone();
            let after = if edit.remove {
                take_out(&mut graph, at, &node);
                None
            } else {
                let q = changed(edit, &before).map_err(|e| wrong(format!("{}: {e}", node.name)))?;
                graph.set_op(at, fake_quant(q.clone()));
                Some(q)
            };
            out.push(Edited { id, node: node.name, tensor, before, after });
        }
    }
    Ok((graph.tidied()?, out))
}

/// The quantizers that an edit is about.
fn touched(graph: &Graph, edit: &Edit) -> Result<Vec<NodeId>, String> {
    let quantizers: Vec<&Node> = graph.nodes().iter().filter(|n| n.quantizer().is_some()).collect();
    if let Some(ids) = &edit.ids {
        let mut out = Vec::new();
        for (from, to) in ids.ranges()? {
            let before = out.len();
            out.extend(quantizers.iter().filter(|n| (from..=to).contains(&n.id.0)).map(|n| n.id));
            if out.len() == before {
                let there = graph.nodes().iter().find(|n| (from..=to).contains(&n.id.0));
                let there = there.map_or_else(String::new, |n| format!(" (%{} is {})", n.id.0, n.label()));
                return Err(format!(
                    "no quantizer has an id in {from}..{to}{there}; `samebit print` lists them"
                ));
            }
        }
        out.sort();
        out.dedup();
        return Ok(out);
    }
    let pattern = edit.name.as_deref().unwrap_or_default();
    let glob = Glob::new(pattern).map_err(|e| e.to_string())?.compile_matcher();
    let names = |n: &Node| [n.name.clone(), graph.value(n.inputs[0]).name.clone()];
    let out: Vec<NodeId> =
        quantizers.iter().filter(|n| names(n).iter().any(|name| glob.is_match(name))).map(|n| n.id).collect();
    if out.is_empty() {
        let all: Vec<String> = quantizers.iter().flat_map(|n| names(n)).collect();
        let near = near(pattern, all.iter().map(String::as_str));
        let near = if near.is_empty() { String::new() } else { format!("; near: {}", near.join(", ")) };
        return Err(format!("{pattern:?} matches no quantizer and no tensor that has one{near}"));
    }
    Ok(out)
}

/// Takes a quantizer out: who took its codes takes its tensor.
fn take_out(graph: &mut Graph, at: usize, node: &Node) {
    let (x, y) = (node.inputs[0], node.outputs[0]);
    for i in 0..graph.nodes().len() {
        graph.replace_input(i, y, x);
    }
    if let Some(slot) = graph.outputs.iter().position(|v| *v == y) {
        // The output keeps its name, unless its tensor is an input or an output of its own.
        let name = graph.value(y).name.clone();
        let outside = graph.inputs.contains(&x) || graph.outputs.contains(&x);
        graph.outputs[slot] = x;
        if !outside && graph.value(x).constant.is_none() {
            let spare = graph.fresh_value(&format!("{name}/quantized"));
            graph.rename_value(y, spare);
            graph.rename_value(x, name);
        }
    }
    graph.remove_node(at);
}

/// A quantizer with what an edit says.
fn changed(edit: &Edit, before: &Quantizer) -> Result<Quantizer, String> {
    let mut q = before.clone();
    let text = |e: QuantError| e.to_string();
    if let Some(Code(dtype)) = edit.dtype {
        q.params = q.params.map(|p| retyped(&p, dtype, q.spec.power_of_two)).transpose().map_err(text)?;
        q.spec.dtype = dtype;
    }
    let several = q.params.as_ref().is_some_and(|p| p.scales().len() > 1) || q.spec.axis.is_some();
    if (edit.range.is_some() || edit.scale.is_some()) && several {
        return Err("has a scale for each channel, so that one range or scale cannot take their place".into());
    }
    let fixed = match (edit.range, edit.scale) {
        (Some([low, high]), _) => {
            let range = Range::new(low, high).map_err(text)?;
            Some(q.spec.scheme.per_tensor(range, q.spec.dtype).map_err(text)?)
        }
        (None, Some(scale)) => {
            let zero = q.params.as_ref().map_or(0, |p| p.zero_points()[0]);
            Some(QParams::per_tensor(q.spec.dtype, scale, zero).map_err(text)?)
        }
        (None, None) => None,
    };
    if let Some(mut params) = fixed {
        if q.spec.power_of_two {
            let (scale, zero) = (power_of_two(params.scales()[0]), params.zero_points()[0]);
            params = QParams::per_tensor(params.dtype(), scale, zero).map_err(text)?;
        }
        q.params = Some(params);
    }
    if q.params != before.params {
        let state = q.state;
        "fixed".clone_into(&mut q.spec.observer);
        q = Quantizer::with_params(
            q.spec,
            q.params.expect("they differ from those there were"),
            Origin::Fixed,
        );
        // One that observed because it knew nothing knows now.
        q.state = if before.params.is_some() { state } else { State::Validation };
    }
    if let Some(StateName(state)) = edit.state {
        q.state = state;
        if q.quantizes() && q.params.is_none() {
            return Err(format!("has no parameters, so that it cannot be in state {state}; give it a range"));
        }
    }
    Ok(q)
}

/// Parameters of another type for about the same range.
#[allow(clippy::cast_possible_truncation, reason = "scales are rounded to f32, zero points clamped before")]
fn retyped(p: &QParams, dtype: DType, round_up: bool) -> Result<QParams, QuantError> {
    let (low, high) = p.codes();
    let (new_low, new_high) = dtype.limits().ok_or(QuantError::DType(dtype))?;
    let new_low = if p.narrow() { new_low + 1 } else { new_low };
    let middle = |low: i32, high: i32| (i64::from(low) + i64::from(high) + 1).div_euclid(2);
    let (mid, new_mid) = (middle(low, high), middle(new_low, new_high));
    let each = p.scales().iter().zip(p.zero_points()).map(|(s, z)| {
        if i64::from(*z) == mid {
            // Zero stays in the middle, and the largest number on the largest code.
            let ratio = (i64::from(high) - mid) as f64 / (i64::from(new_high) - new_mid) as f64;
            return ((f64::from(*s) * ratio) as f32, new_mid as i32);
        }
        let ratio = f64::from(high - low) / f64::from(new_high - new_low);
        let zero = f64::from(new_low) + f64::from(z - low) / ratio;
        let zero = zero.round_ties_even().clamp(new_low.into(), new_high.into());
        ((f64::from(*s) * ratio) as f32, zero as i32)
    });
    let each = each.map(|(s, z)| (if round_up { power_of_two(s) } else { s }, z));
    let (scales, zeros) = each.unzip();
    QParams::new(dtype, p.narrow(), scales, zeros, p.axis())
}

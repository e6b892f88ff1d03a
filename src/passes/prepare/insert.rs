//! Quantizers into a graph.

use super::{Bound, Key, Wanted, observer};
use crate::graph::{Graph, NodeId, ValueId};
use crate::ops::fake_quant;
use crate::passes::PassError;
use crate::passes::config::{QuantConfig, Rule};
use crate::passes::internals;
use crate::passes::rules::{Rules, Target};
use crate::quant::{
    Origin, Profile, QParams, QuantError, Quantizer, Range, Role, Scheme, Spec, State, power_of_two,
};
use crate::tensor::DType;
use std::collections::{BTreeMap, HashMap};

/// The quantizer that a rule and the configuration make of what is wanted.
fn quantizer(
    key: Key,
    wanted: &Wanted,
    rules: &Rules,
    config: &QuantConfig,
    profile: &Profile,
    label: &str,
) -> Result<Quantizer, PassError> {
    let rule: Option<&Rule> = wanted.target.and_then(|t| match (t, wanted.weight) {
        (Target::Node(i), true) => rules.weight(i),
        (t, _) => rules.activation(t),
    });
    let from_values = matches!(wanted.role, Role::Weight | Role::Constant);
    let default = if from_values || wanted.role == Role::Grid { "minmax" } else { observer(config) };
    let observer = rule.filter(|_| !from_values).and_then(|r| r.observer.as_ref()).map_or(default, |o| &o.0);
    let mut spec = Spec::new(key.1, wanted.role, observer);
    spec.axis = wanted.axis;
    (spec.rounding, spec.division) = (profile.rounding, profile.division);
    // The largest number of a constant is a code of the narrow scheme; where half a step is cut off each channel of the
    // weights, a network loses more than by any observer.
    spec.scheme = match wanted.role {
        Role::Constant | Role::Weight => Scheme::SymmetricNarrow,
        _ => Scheme::Symmetric,
    };
    let level = config.level();
    spec.power_of_two = (level == 2 && wanted.role != Role::Weight) || level == 3 || profile.shifts();
    let fixed = rule.filter(|_| !from_values);
    let bad = |error| PassError::Quant { node: label.to_owned(), error };
    let params = match fixed.map(|r| (r.range, r.scale)) {
        Some((Some([low, high]), _)) => {
            let range = Range::new(low, high).map_err(bad)?;
            Some(Scheme::Physical.per_tensor(range, spec.dtype).map_err(bad)?)
        }
        Some((_, Some(scale))) => Some(QParams::per_tensor(spec.dtype, scale, 0).map_err(bad)?),
        _ if rule.is_some_and(|r| r.observer.is_some()) => None,
        _ => wanted.bound.map(|b| within(b, &spec)).transpose().map_err(bad)?,
    };
    Ok(match params {
        Some(params) => {
            spec.observer = "fixed".to_owned();
            let mut q = Quantizer::with_params(spec, params, Origin::Fixed);
            q.state = State::Calibration;
            q
        }
        None => Quantizer::new(spec),
    })
}

/// Parameters by what is known of numbers.
fn within(bound: Bound, spec: &Spec) -> Result<QParams, QuantError> {
    match bound {
        Bound::Positive(most) => internals::bounded(spec.dtype, most),
        Bound::Symmetric(most) => {
            let p = Scheme::SymmetricNarrow.per_tensor(Range::new(-most, most)?, spec.dtype)?;
            if !spec.power_of_two {
                return Ok(p);
            }
            let scales = p.scales().iter().map(|s| power_of_two(*s)).collect();
            QParams::new(p.dtype(), p.narrow(), scales, p.zero_points().to_vec(), None)
        }
    }
}

/// Puts the quantizers in. Gives the tensor that each quantizer of a runtime tensor observes, by name.
pub(super) fn insert(
    mut graph: Graph,
    wanted: &BTreeMap<Key, Wanted>,
    uses: &[(usize, usize, Key)],
    rules: &Rules,
    config: &QuantConfig,
    profile: &Profile,
) -> Result<(Graph, HashMap<NodeId, String>), PassError> {
    let producers = graph.producers();
    let mut observed = HashMap::new();
    let mut made: HashMap<Key, ValueId> = HashMap::new();
    // From the back, so that indices before it hold.
    let mut order: Vec<(&Key, &Wanted)> = wanted.iter().collect();
    order.sort_by_key(|(key, _)| producers.get(&key.0).map_or(0, |i| i + 1));
    let base = graph.nodes().len();
    for (n, (key, w)) in order.iter().enumerate() {
        let name = graph.value(key.0).name.clone();
        let node = graph.fresh_node(&format!("{name}/quantizer"));
        let q = quantizer(**key, w, rules, config, profile, &node)?;
        let out = graph.fresh_value(&format!("{name}/quantized"));
        let outs = graph.insert_node(base + n, &node, fake_quant(q), &[key.0], &[out]);
        let outs = outs.map_err(|error| PassError::Op { node, error })?;
        made.insert(**key, outs[0]);
        if graph.value(key.0).constant.is_none() {
            observed.insert(graph.nodes()[base + n].id, name);
        }
    }
    for (i, input, key) in uses {
        let mut inputs = graph.nodes()[*i].inputs.clone();
        inputs[*input] = made[key];
        graph.set_inputs(*i, inputs);
    }
    // Whoever else takes the tensor sees what its codes stand for; of several types the widest.
    let bits = |d: DType| d.limits().map_or(0, |(low, high)| i64::from(high) - i64::from(low));
    let mut widest: BTreeMap<ValueId, Key> = BTreeMap::new();
    for key in wanted.keys() {
        let best = widest.entry(key.0).or_insert(*key);
        if bits(key.1) > bits(best.1) {
            *best = *key;
        }
    }
    for (v, key) in &widest {
        let q = made[key];
        for i in 0..base {
            graph.replace_input(i, *v, q);
        }
        if graph.value(*v).constant.is_none()
            && producers.contains_key(v)
            && let Some(slot) = graph.outputs.iter().position(|o| o == v)
        {
            // The output keeps its name.
            graph.outputs[slot] = q;
            let name = graph.value(*v).name.clone();
            let raw = graph.fresh_value(&format!("{name}/raw"));
            graph.rename_value(*v, raw);
            graph.rename_value(q, name);
        }
    }
    // Each quantizer behind what produces its tensor.
    graph.reorder();
    Ok((graph, observed))
}

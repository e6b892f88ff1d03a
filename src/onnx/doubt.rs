//! What can be said of a node although something of it is wrong or not known: inputs behind another problem, attributes
//! and constants that were put aside. Stand-ins are tried for all of that; what holds with each of them holds anyway.

use super::importer::{Importer, State, fits};
use super::node::{Aside, Site};
use super::problem::ProblemKind;
use super::standin;
use crate::graph::attrs::{AttrValue, Input, SymInt};
use crate::graph::{Attrs, OpDef, OpError, Reader};
use crate::tensor::TensorType;
use std::collections::{BTreeMap, BTreeSet};

/// Constants with more elements are shown to the operator by their type only.
const MOST_ELEMENTS: usize = 1 << 12;
/// Nodes with more inputs are not tried.
const MOST_INPUTS: usize = 16;
/// Problems of one node that are looked for one behind the other.
const MOST_ROUNDS: usize = 8;

/// What is not known of a node.
#[derive(Debug)]
struct Doubt {
    attrs: Attrs,
    aside: Vec<Aside>,
    /// Inputs whose types are not known.
    types: BTreeSet<usize>,
    /// Constants that say something wrong.
    values: BTreeSet<usize>,
}

/// A node with stand-ins.
#[derive(Clone, Debug)]
struct World {
    attrs: Attrs,
    /// An attribute that is a stand-in.
    tried: Option<String>,
    inputs: Vec<Option<Input>>,
}

/// What the operator said of one.
#[derive(Debug)]
struct Trial {
    reader: Reader,
    /// Inputs that are left to the operator; `None` where it could not be read.
    taken: Option<Vec<usize>>,
    result: Result<Vec<TensorType>, ProblemKind>,
}

/// What a fault is in, as far as that is known for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blame {
    Attribute,
    Input(usize),
    Form,
}

/// What all trials say together.
#[derive(Debug, Default)]
struct Verdict {
    fault: Option<(Blame, ProblemKind)>,
    types: Option<Vec<TensorType>>,
    /// Constants that the operator takes in every one.
    taken: BTreeSet<usize>,
}

impl Importer<'_> {
    /// Problems of a node beyond those that are known. Where what is wrong does not matter to its outputs, these get
    /// their types, so that what follows is judged.
    pub(super) fn doubted(
        &mut self,
        site: &Site,
        def: &'static OpDef,
        attrs: Attrs,
        aside: Vec<Aside>,
        mut problems: Vec<ProblemKind>,
    ) -> Vec<ProblemKind> {
        if site.inputs.len() > MOST_INPUTS {
            return problems;
        }
        let types = site.unknown().into_iter().collect();
        let mut doubt = Doubt { attrs, aside, types, values: BTreeSet::new() };
        for _ in 0..MOST_ROUNDS {
            let verdict = self.verdict(site, def, &doubt);
            for i in verdict.taken {
                if let Some((name, Some(known))) = &site.inputs[i]
                    && let Some(c) = known.constant.clone()
                {
                    problems.extend(self.runtime_tensor(name, &c, i).err());
                }
            }
            if let Some(types) = verdict.types {
                for (o, ty) in site.outputs.iter().zip(types) {
                    self.put_type(o, ty);
                }
            }
            let Some((blame, kind)) = verdict.fault else { break };
            let goes_on = doubt.widen(site, def, self, blame, &kind);
            problems.push(kind);
            if !goes_on {
                break;
            }
        }
        let mut once: Vec<ProblemKind> = Vec::new();
        for p in problems {
            if !once.contains(&p) {
                once.push(p);
            }
        }
        once
    }

    fn trial(&self, site: &Site, def: &'static OpDef, world: &World) -> Trial {
        let mut reader = self.reader(site, &world.attrs, world.inputs.clone(), site.named());
        let op = match (def.read)(&mut reader) {
            Ok(op) => op,
            Err(e) => return Trial { reader, taken: None, result: Err(e.into()) },
        };
        let left: Vec<usize> = (0..world.inputs.len()).filter(|i| !reader.is_consumed(*i)).collect();
        let given = left.iter().rposition(|i| reader.has_input(*i)).map_or(0, |at| at + 1);
        let taken = left[..given].to_vec();
        let mut types = Vec::new();
        for i in &taken {
            match reader.input(*i) {
                Ok(ty) => types.push(ty.clone()),
                Err(_) => return Trial { reader, taken: None, result: Err(ProblemKind::Hole(*i)) },
            }
        }
        let result = op.infer(&types).map_err(ProblemKind::from).and_then(|outputs| {
            let (expected, got) = (outputs.len(), site.named());
            match outputs.iter().find(|t| !fits(t)) {
                _ if got > expected => Err(ProblemKind::Outputs { expected, got }),
                Some(t) => Err(OpError::TooLarge { shape: t.to_string() }.into()),
                None => Ok(outputs),
            }
        });
        Trial { reader, taken: Some(taken), result }
    }

    fn verdict(&self, site: &Site, def: &'static OpDef, doubt: &Doubt) -> Verdict {
        let names: BTreeSet<&str> = doubt.types.iter().filter_map(|i| site.name(*i)).collect();
        let base = World { attrs: doubt.attrs.clone(), tried: None, inputs: doubt.known(site) };
        let asked = self.trial(site, def, &base).reader.asked().clone();
        // Stand-ins for attributes and for types at once would be too many.
        let (attributes, all) = if names.is_empty() { doubt.attributes(&asked) } else { (Vec::new(), false) };
        let listed = doubt.aside.is_empty() || all;
        let with = |(name, v): (String, AttrValue)| {
            let mut world = base.clone();
            world.attrs.0.push((name.clone(), v));
            World { tried: Some(name), ..world }
        };
        let mut worlds: Vec<World> = attributes.into_iter().map(with).collect();
        worlds.push(base);
        let worlds = doubt.with_values(site, &worlds);
        let worlds = doubt.with_types(site, names.len(), worlds);

        let (mut fine, mut faults) = (Vec::new(), BTreeMap::<Blame, Vec<ProblemKind>>::new());
        let mut taken: Option<BTreeSet<usize>> = None;
        for world in &worlds {
            let trial = self.trial(site, def, world);
            if let Some(t) = &trial.taken {
                let t = t.iter().copied().filter(|i| !doubt.types.contains(i) && !doubt.values.contains(i));
                let t: BTreeSet<usize> = t.collect();
                taken = Some(taken.map_or_else(|| t.clone(), |before| &before & &t));
            }
            match trial.result {
                Ok(types) => fine.push(types),
                Err(_) => {
                    if let Some((blame, kind)) = doubt.blame(world, &trial) {
                        let kinds = faults.entry(blame).or_default();
                        if !kinds.contains(&kind) {
                            kinds.push(kind);
                        }
                    }
                }
            }
        }
        let taken = taken.unwrap_or_default();
        fine.dedup();
        if !fine.is_empty() {
            let sure = faults.is_empty() && listed && doubt.values.is_empty() && names.is_empty();
            let types = if sure && fine.len() == 1 { fine.pop() } else { None };
            return Verdict { fault: None, types, taken };
        }
        // The last input that is blamed was looked at where those before it fitted. Said in one way only, it does not
        // depend on the stand-ins.
        let alone = faults.len() == 1 || doubt.aside.is_empty();
        let fault = faults.pop_last().and_then(|(blame, kinds)| {
            let [kind] = kinds.as_slice() else { return None };
            let sure = match blame {
                Blame::Form => true,
                Blame::Input(_) if is_type(kind) && names.is_empty() => alone,
                Blame::Input(_) | Blame::Attribute => alone && listed && names.len() < 2,
            };
            sure.then(|| (blame, kind.clone()))
        });
        Verdict { fault, types: None, taken }
    }

    fn put_type(&mut self, name: &str, ty: TensorType) {
        self.put(name, State::Is(super::fold::Known { ty, constant: None }));
    }
}

fn is_type(kind: &ProblemKind) -> bool {
    matches!(kind, ProblemKind::Op(OpError::DType { .. } | OpError::DTypes { .. }))
}

impl Doubt {
    /// Inputs of which all is known.
    fn known(&self, site: &Site) -> Vec<Option<Input>> {
        let seen = |i: usize| {
            let k = site.known(i).filter(|_| !self.types.contains(&i) && !self.values.contains(&i))?;
            let constant = k.constant.as_ref().filter(|c| c.len() <= MOST_ELEMENTS);
            Some(Input { ty: k.ty.clone(), known: constant.map(super::constant::Constant::known) })
        };
        (0..site.inputs.len()).map(seen).collect()
    }

    /// Attributes that may have been meant, and whether these are all.
    fn attributes(&self, asked: &BTreeSet<String>) -> (Vec<(String, AttrValue)>, bool) {
        let (mut out, mut all) = (Vec::new(), true);
        for a in &self.aside {
            let Some(value) = &a.value else {
                all = false;
                continue;
            };
            if let Some(text) = &a.supported {
                let supported = standin::supported(text);
                all &= supported.is_some();
                let values = standin::conversions(value).into_iter().chain(supported.unwrap_or_default());
                out.extend(values.map(|v| (a.name.clone(), v)));
                continue;
            }
            // A name that the operator does not have may be meant for one that it looked for.
            let free = |n: &&String| self.attrs.0.iter().all(|(there, _)| there != *n);
            for name in asked.iter().filter(free) {
                out.extend(standin::conversions(value).into_iter().map(|v| (name.clone(), v)));
            }
        }
        (out, all)
    }

    fn with_values(&self, site: &Site, worlds: &[World]) -> Vec<World> {
        let wrong: Vec<(usize, Vec<Option<Input>>)> =
            self.values.iter().filter_map(|i| Some((*i, standin::constants(&site.known(*i)?.ty)))).collect();
        let most = wrong.iter().map(|(_, s)| s.len()).max().unwrap_or(1);
        let with = |world: &World, which: usize| {
            let mut world = world.clone();
            for (i, standins) in &wrong {
                world.inputs[*i] = standins.get(which).cloned().flatten();
            }
            world
        };
        worlds.iter().flat_map(|w| (0..most).map(move |which| (w, which))).map(|(w, k)| with(w, k)).collect()
    }

    /// One name may be of any type; several get the same, which tells of their number only.
    fn with_types(&self, site: &Site, names: usize, worlds: Vec<World>) -> Vec<World> {
        if names == 0 {
            return worlds;
        }
        let sure = |i: &usize| !self.types.contains(i) && !self.values.contains(i);
        let known = (0..site.inputs.len()).filter(sure).filter_map(|i| Some(&site.known(i)?.ty));
        let known: Vec<&TensorType> = if names == 1 { known.collect() } else { Vec::new() };
        let ints = |(_, v): &(String, AttrValue)| match v {
            AttrValue::Int(v) => usize::try_from(*v).ok(),
            AttrValue::Ints(v) => v.first().and_then(|v: &SymInt| usize::try_from(v.int()?).ok()),
            _ => None,
        };
        let factors: Vec<usize> = self.attrs.0.iter().filter_map(ints).filter(|f| *f > 1).collect();
        let mut out = Vec::new();
        for ty in standin::types(&known, &factors) {
            for world in &worlds {
                let mut world = world.clone();
                for i in &self.types {
                    world.inputs[*i] = Some(Input { ty: ty.clone(), known: None });
                }
                out.push(world);
            }
        }
        out
    }

    /// What is to blame in a trial that failed; `None` where it may be a stand-in.
    fn blame(&self, world: &World, trial: &Trial) -> Option<(Blame, ProblemKind)> {
        let Err(kind) = &trial.result else { return None };
        let op = match kind {
            ProblemKind::Outputs { .. } => return Some((Blame::Form, kind.clone())),
            ProblemKind::Op(e) => e,
            _ => return None,
        };
        let sure = |input: &usize| {
            let i = match &trial.taken {
                Some(taken) => *taken.get(*input)?,
                None => *input,
            };
            (!self.types.contains(&i) && !self.values.contains(&i)).then_some(i)
        };
        match op {
            OpError::Arity { .. } => Some((Blame::Form, kind.clone())),
            OpError::DTypes { input, got, supported, .. } => {
                let blame = Blame::Input(sure(input)?);
                if sure(&0).is_some() {
                    return Some((blame, kind.clone()));
                }
                let e = OpError::DType { input: *input, expected: supported, got: *got };
                Some((blame, e.into()))
            }
            OpError::DType { input, .. }
            | OpError::Rank { input, .. }
            | OpError::Shape { input, .. }
            | OpError::SymbolicDim { input, .. } => Some((Blame::Input(sure(input)?), kind.clone())),
            OpError::Attribute { name, .. } => {
                let stand_in = world.tried.as_ref() == Some(name)
                    || self.aside.iter().any(|a| a.name == *name)
                    || trial.reader.input_of(name).is_some_and(|i| self.values.contains(&i));
                (!stand_in).then(|| (Blame::Attribute, kind.clone()))
            }
            OpError::Axis { .. } => {
                let axes = ["axis", "axes"].iter().any(|n| {
                    world.tried.as_deref() == Some(n)
                        || self.aside.iter().any(|a| a.name == *n)
                        || trial.reader.input_of(n).is_some_and(|i| self.values.contains(&i))
                });
                (!axes).then(|| (Blame::Attribute, kind.clone()))
            }
            _ => None,
        }
    }

    /// Takes what is to blame for what is not known, so that the rest can be judged; whether there is such a thing.
    fn widen(
        &mut self,
        site: &Site,
        def: &'static OpDef,
        importer: &Importer,
        blame: Blame,
        kind: &ProblemKind,
    ) -> bool {
        let base = World { attrs: self.attrs.clone(), tried: None, inputs: self.known(site) };
        let reader = importer.trial(site, def, &base).reader;
        match (blame, kind) {
            (Blame::Form, _) => false,
            (Blame::Input(i), _) => {
                // What is read from a constant is not a question of its type alone.
                let read = site.known(i).is_some_and(|k| k.constant.is_some()) && reader.reads_input(i);
                if read { self.values.insert(i) } else { self.types.insert(i) }
            }
            (Blame::Attribute, ProblemKind::Op(OpError::Attribute { name, supported, .. })) => {
                self.put_aside(name, Some(supported.clone())) || self.doubt_value(&reader, name)
            }
            (Blame::Attribute, _) => ["axis", "axes"].into_iter().any(|name| {
                self.put_aside(name, Some("an integer".to_owned())) || self.doubt_value(&reader, name)
            }),
        }
    }

    fn put_aside(&mut self, name: &str, supported: Option<String>) -> bool {
        let Some(at) = self.attrs.0.iter().position(|(n, _)| n == name) else { return false };
        let (name, value) = self.attrs.0.remove(at);
        self.aside.push(Aside { name, value: Some(value), supported });
        true
    }

    fn doubt_value(&mut self, reader: &Reader, name: &str) -> bool {
        reader.input_of(name).is_some_and(|i| self.values.insert(i))
    }
}

//! Statistics of values over any number of runs.

use super::joins::{joins, once};
use super::{Backend, Engine, is_too_large, specialise};
use crate::exec::observe::{Observed, Watch};
use crate::exec::{ExecError, Purpose, batch_of};
use crate::graph::{Graph, ValueId};
use crate::observers::{Shown, Summary};
use crate::tensor::{DType, Tensor};

/// What is being observed.
#[derive(Debug)]
pub(super) struct Watching {
    values: Vec<ValueId>,
    /// For each value those whose statistics its own follow from (see [`joins`]).
    joins: Vec<Vec<usize>>,
    summaries: Vec<Summary>,
}

impl Engine {
    /// Collects statistics of these values from now on, which must be f32 and no constants; what was collected before is
    /// dropped. An empty list frees the memory that collecting takes.
    ///
    /// # Errors
    /// A value that cannot be observed, and memory that the device does not have.
    pub fn watch(&mut self, values: &[ValueId]) -> Result<(), ExecError> {
        for v in values.iter().map(|v| self.graph.value(*v)) {
            let what = match &v.constant {
                Some(_) => "a constant".to_owned(),
                None if v.ty.dtype != DType::F32 => v.ty.to_string(),
                None => continue,
            };
            return Err(ExecError::Unwatchable { name: v.name.clone(), what });
        }
        let mut values = values.to_vec();
        let mut known = std::collections::HashSet::new();
        if let Some(i) = values.iter().position(|v| !known.insert(*v)) {
            let name = self.graph.value(values.swap_remove(i)).name.clone();
            return Err(ExecError::Unwatchable { name, what: "listed twice".to_owned() });
        }
        self.chosen.remove(&Purpose::Watch);
        let mut joins = joins(&self.graph, &values, self.separable);
        if let Backend::Gpu(gpu) = &self.backend {
            once(&mut joins);
            gpu.watch(&values, &joins, self.separable)?;
        }
        let summaries = vec![Summary::new(); values.len()];
        self.watching = (!values.is_empty()).then_some(Watching { values, joins, summaries });
        Ok(())
    }

    /// Runs any number of frames for their statistics only, in parts where they do not fit at once; neither that nor the
    /// device changes a bit of them. Outputs are not computed unless a watched value needs them.
    ///
    /// # Errors
    /// As [`Engine::run`]; nothing is watched any more then, because a part of the frames may have been counted.
    pub fn observe(&mut self, inputs: &[Tensor]) -> Result<Observed, ExecError> {
        let mut watching = self.watching.take().ok_or(ExecError::NotWatching)?;
        let observed = self.observe_parts(inputs, &mut watching)?;
        self.watching = Some(watching);
        Ok(observed)
    }

    /// The statistics so far, one summary for each watched value in their order. Collecting goes on.
    ///
    /// # Errors
    /// Nothing is watched, or the device fails.
    pub fn summaries(&mut self) -> Result<&[Summary], ExecError> {
        let watching = self.watching.as_mut().ok_or(ExecError::NotWatching)?;
        if let Backend::Gpu(gpu) = &self.backend {
            gpu.drain(&mut watching.summaries)?;
        }
        for (i, parts) in watching.joins.iter().enumerate() {
            if parts.is_empty() {
                continue;
            }
            let mut joined = std::mem::take(&mut watching.summaries[i]);
            joined.join_histograms(parts.iter().map(|p| &watching.summaries[*p]));
            watching.summaries[i] = joined;
        }
        Ok(&watching.summaries)
    }

    fn observe_parts(&mut self, inputs: &[Tensor], watching: &mut Watching) -> Result<Observed, ExecError> {
        let frames = batch_of(&self.graph, inputs)?;
        if !self.separable || !self.graph.is_batched() || frames <= 1 {
            return self.observe_at_once(frames, inputs, watching);
        }
        let mut out = Observed { frames: vec![Vec::new(); watching.values.len()], ..Observed::default() };
        let mut done = 0;
        while done < frames {
            let count = self.batch_for(&Purpose::Watch)?.min(frames - done);
            // Memory that is not there must be found out before anything is counted.
            if let Backend::Gpu(gpu) = &self.backend {
                match gpu.prepare_to_observe(count) {
                    Err(e) if count > 1 && is_too_large(&e) => {
                        self.shrink(count, Purpose::Watch, &e);
                        continue;
                    }
                    other => other?,
                }
            }
            let part = self.slice(inputs, done, count);
            let part = self.observe_at_once(count, &part, watching)?;
            out.frames.iter_mut().zip(part.frames).for_each(|(all, new)| all.extend(new));
            out.dispatches += part.dispatches;
            out.arena_bytes = out.arena_bytes.max(part.arena_bytes);
            out.cpu_ops = part.cpu_ops;
            done += count;
        }
        Ok(out)
    }

    fn observe_at_once(
        &mut self,
        batch: usize,
        inputs: &[Tensor],
        watching: &mut Watching,
    ) -> Result<Observed, ExecError> {
        let known = match &mut self.backend {
            Backend::Gpu(gpu) => return gpu.observe(inputs, &mut watching.summaries),
            Backend::Cpu(known) => known,
        };
        let watches = Watch::all(&self.graph, &watching.values, &watching.joins, batch, self.separable)?;
        let mut frames = vec![Vec::new(); watches.len()];
        let mut shown: Vec<Shown> = watches.iter().map(|_| Shown::default()).collect();
        let arena_bytes = specialise(&self.graph, known, batch)?.watch(inputs, &mut |v, x| {
            let Some(i) = watches.iter().position(|w| w.value == v) else { return };
            let Watch { frames: lie, parts, .. } = &watches[i];
            frames[i] = if parts.is_empty() {
                shown[i] = lie.count(x, &mut watching.summaries[i]);
                shown[i].stats()
            } else {
                Shown::joined(&parts.iter().map(|p| &shown[*p]).collect::<Vec<_>>())
            };
            frames[i].iter().for_each(|s| watching.summaries[i].add_frame(s));
        })?;
        Ok(Observed { frames, arena_bytes, ..Observed::default() })
    }
}

impl Watch {
    /// These values at a batch.
    pub(in crate::exec) fn all(
        graph: &Graph,
        values: &[ValueId],
        joins: &[Vec<usize>],
        batch: usize,
        separable: bool,
    ) -> Result<Vec<Watch>, ExecError> {
        let of = |(v, parts): (&ValueId, &Vec<usize>)| {
            let value = graph.value(*v);
            let frames = super::super::Frames::of(&value.ty, batch, separable);
            let frames = frames.ok_or_else(|| crate::graph::GraphError::TooLarge {
                value: value.name.clone(),
                ty: value.ty.to_string(),
            })?;
            Ok(Watch { value: *v, frames, parts: parts.clone() })
        };
        values.iter().zip(joins).map(of).collect()
    }
}

//! Values that are observed as soon as they are there.

use super::super::super::observe::{HISTOGRAM_BYTES, Slot};
use super::super::super::{ExecError, Watch};
use super::super::{Memory, Span};
use super::{Builder, Home, padded};
use crate::gpu::Limits;
use crate::graph::ValueId;
use crate::graph::lower::{Dispatch, Layout, Operand, View};

/// Where the histogram of watched value `i` lies.
pub(in super::super) fn histogram(i: usize, limits: &Limits) -> Span {
    let bytes = padded(HISTOGRAM_BYTES);
    Span { memory: Memory::Histograms, offset: i as u64 * limits.align_storage(bytes), bytes }
}

impl Builder<'_> {
    /// Declares what is to be observed.
    pub(in super::super) fn expect(&mut self, watched: &[Watch]) -> Result<(), ExecError> {
        let mut end = 0;
        for w in watched {
            let bytes = padded(w.frames.result_bytes());
            self.fits(&format!("statistics of {}", self.graph.value(w.value).name), bytes)?;
            let at = Span { memory: Memory::Results, offset: end, bytes };
            self.plan.watched.push((w.clone(), at));
            end = self.limits.align_storage(end + bytes);
        }
        self.plan.result_bytes = end;
        self.slots = (0..watched.len()).map(|i| (i, 0)).collect();
        for (whole, w) in watched.iter().enumerate() {
            let mut first = 0;
            for part in &w.parts {
                self.slots[*part] = (whole, first);
                first += watched[*part].frames.runs();
            }
        }
        Ok(())
    }

    /// Where the statistics of the runs of watched value `i` lie, and in which object.
    fn slot(&mut self, i: usize) -> Result<(Slot, usize), ExecError> {
        let (whole, first) = self.slots[i];
        let w = self.plan.watched[whole].0.clone();
        let object = match self.runs.get(&whole) {
            Some(object) => *object,
            None => {
                let name = format!("runs of {}", self.graph.value(w.value).name);
                let object = self.object(&name, w.frames.scratch_bytes(), self.now)?;
                self.runs.insert(whole, object);
                object
            }
        };
        Ok((Slot { first, runs: w.frames.runs() }, object))
    }

    /// Observes those of these values that are to be observed.
    pub(in super::super) fn watch(&mut self, values: &[ValueId]) -> Result<(), ExecError> {
        for i in 0..self.plan.watched.len() {
            let v = self.plan.watched[i].0.value;
            if values.contains(&v) {
                self.watch_one(i, v)?;
            }
        }
        Ok(())
    }

    fn watch_one(&mut self, i: usize, v: ValueId) -> Result<(), ExecError> {
        let Watch { frames, parts, .. } = self.plan.watched[i].0.clone();
        if frames.runs() == 0 {
            return Ok(());
        }
        let (slot, scratch) = self.slot(i)?;
        let name = self.graph.value(v).name.clone();
        if !parts.is_empty() {
            return self.show(i, Home::Object(scratch), scratch, frames.sum_up(slot));
        }
        let linear = self.view(v);
        let (mut view, mut home) = match self.on_device.get(&v).and_then(|l| l.first()) {
            Some(first) => first.clone(),
            None => (linear.clone(), self.place(v, &linear)?),
        };
        if view.layout == Layout::Linear {
            view.shape.clone_from(&linear.shape);
        }
        if !frames.fits(&view) {
            (view, home) = (linear.clone(), self.place(v, &linear)?);
        }
        if !frames.fits(&view)
            && let Some(gather) = frames.gather(&view)
        {
            let o = self.object(&format!("frames of {name}"), view.size_bytes(), self.now)?;
            self.dispatch(format!("frames of {name:?}"), gather, |operand| match operand {
                Operand::Input(_) => Some(home),
                _ => Some(Home::Object(o)),
            })?;
            let shape = vec![frames.count, frames.elements];
            (view, home) = (View { shape, ..view }, Home::Object(o));
        }
        self.show(i, home, scratch, frames.look(&view, slot))?;
        self.show(i, home, scratch, frames.sum_up(slot))
    }

    fn show(&mut self, i: usize, x: Home, scratch: usize, d: Option<Dispatch>) -> Result<(), ExecError> {
        let name = &self.graph.value(self.plan.watched[i].0.value).name;
        let label = format!("statistics of {name:?}");
        d.map_or(Ok(()), |d| {
            self.dispatch(label, d, |operand| match operand {
                Operand::Input(_) => Some(x),
                Operand::Output(0) => Some(Home::Histogram(i)),
                Operand::Output(_) => Some(Home::Results(i)),
                _ => Some(Home::Object(scratch)),
            })
        })
    }
}

//! Values that are observed as soon as they are there.

use super::super::super::observe::HISTOGRAM_BYTES;
use super::super::super::{ExecError, Watch};
use super::super::{Memory, Span};
use super::{Builder, Home, padded};
use crate::gpu::Limits;
use crate::graph::ValueId;
use crate::graph::lower::{Layout, Operand, View};

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
        Ok(())
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
        let frames = self.plan.watched[i].0.frames.clone();
        let name = self.graph.value(v).name.clone();
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
        let dispatches = frames.dispatches(&view);
        if dispatches.is_empty() {
            return Ok(());
        }
        let scratch = self.object(&format!("runs of {name}"), frames.scratch_bytes(), self.now)?;
        for d in dispatches {
            self.dispatch(format!("statistics of {name:?}"), d, |operand| match operand {
                Operand::Input(_) => Some(home),
                Operand::Output(0) => Some(Home::Histogram(i)),
                Operand::Output(_) => Some(Home::Results(i)),
                _ => Some(Home::Object(scratch)),
            })?;
        }
        Ok(())
    }
}

//! Statistics of values while a graph runs: how their frames lie, and what a device runs to observe them.

use crate::graph::ValueId;
use crate::graph::lower::{Dispatch, Kernel, Layout, Operand, View, flat_grid, u32};
use crate::observers::{self, FRAME_WORDS, FrameStats, HISTOGRAM, LANES, RUN, Shown, Summary};
use crate::tensor::{Dim, Tensor, TensorType};

use super::relayout;

crate::params! {
    /// `Params` of `observe.wgsl`.
    struct Params {
        total: u32, runs: u32, per_plane: u32, plane: u32, channels: u32,
        step: u32, channel_step: u32, row_step: u32, frame_step: u32, zero: u32,
        first: u32, part_runs: u32, row: u32
    }
}

crate::params! {
    /// `Params` of `observe_frame.wgsl`.
    struct FrameParams { frames: u32, runs: u32, first: u32, part_runs: u32, row: u32 }
}

/// Statistics of runs, and the histogram.
pub(super) static RUNS: Kernel = crate::kernel!("observe", Params, ["shared/grid.wgsl", "observe.wgsl"]);
/// Statistics of frames from those of their runs.
pub(super) static FRAMES: Kernel = crate::kernel!("observe_frame", FrameParams, ["observe_frame.wgsl"]);

/// Words that the statistics of a run take.
const RUN_WORDS: u64 = 5;
/// Bytes of a histogram on the device.
pub(super) const HISTOGRAM_BYTES: u64 = HISTOGRAM as u64 * 4;

/// What a run showed.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// For each watched value the statistics of its frames, in order. A value that is the same for all frames has one
    /// entry a frame, too; one that mixes frames has one entry a run.
    pub frames: Vec<Vec<FrameStats>>,
    /// Device dispatches made; 0 on the CPU.
    pub dispatches: u64,
    /// Bytes that tensors took at once: the plan's memory on a device, what is alive together on the CPU.
    pub arena_bytes: u64,
    /// Labels of the nodes that ran on the CPU although a GPU was asked for, with the reason.
    pub cpu_ops: Vec<(String, &'static str)>,
}

/// How the frames of a value lie in its tensor at some batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    /// How many there are.
    pub count: usize,
    /// The axis along which they lie; `None` where each is the whole tensor.
    pub axis: Option<usize>,
    /// Elements of one.
    pub elements: usize,
    /// Elements of a plane of one (see [`observers::plane`]).
    pub plane: usize,
}

/// Where the statistics of a value's runs lie on the device: among those of a value that it is a part of, or alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Runs of the whole before it, in each frame.
    pub first: usize,
    /// Runs of a frame of the whole.
    pub runs: usize,
}

/// A value to observe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Its identity.
    pub value: ValueId,
    /// How its frames lie.
    pub frames: Frames,
    /// Other watched values, by their place in the list, whose frames one behind the other are its own, so that nobody
    /// needs to look at it; none where it has to be looked at.
    pub parts: Vec<usize>,
}

impl Frames {
    /// Frames of a value of this type, at most one axis of which counts frames. Where frames are `separable`, a value
    /// without such an axis is the same for all of them and counts once for each, so that the batch cannot matter.
    ///
    /// `None` if the batch is too large.
    pub fn of(ty: &TensorType, batch: usize, separable: bool) -> Option<Frames> {
        let batched: Vec<usize> =
            ty.shape.iter().enumerate().filter(|(_, d)| matches!(d, Dim::Batch(_))).map(|(a, _)| a).collect();
        let (count, axis, n) = match batched[..] {
            [axis] => (batch, Some(axis), 1),
            [] if separable => (batch, None, 1),
            _ => (1, None, batch),
        };
        let shape: Vec<usize> = ty.shape.iter().map(|d| d.at(n)).collect::<Option<_>>()?;
        let plane = observers::plane(&shape);
        Some(Frames { count, axis, elements: shape.iter().product(), plane })
    }

    /// Runs of one frame.
    pub(super) fn runs(&self) -> usize {
        if self.elements == 0 { 0 } else { self.elements / self.plane * self.plane.div_ceil(RUN) }
    }

    /// Bytes of the results on the device.
    pub(super) fn result_bytes(&self) -> u64 {
        (self.count * FRAME_WORDS * 4) as u64
    }

    /// Bytes of the runs' statistics on the device.
    pub(super) fn scratch_bytes(&self) -> u64 {
        (self.count * self.runs()) as u64 * RUN_WORDS * 4
    }

    /// Statistics of the frames from the results of a device.
    pub(super) fn read(&self, words: &[u32]) -> Vec<FrameStats> {
        if self.elements == 0 {
            // No kernel ran.
            return vec![FrameStats::from_words(0, &[0; FRAME_WORDS]); self.count];
        }
        let frames = words.chunks_exact(FRAME_WORDS).take(self.count);
        frames.map(|w| FrameStats::from_words(self.elements as u64, w)).collect()
    }

    /// Counts a tensor on the CPU; its frames are to be added to the summary.
    pub(super) fn count(&self, x: &Tensor, summary: &mut Summary) -> Shown {
        let Some(axis) = self.axis else {
            let mut shown = Shown::default();
            (0..self.count).for_each(|_| shown.extend(summary.count(x.f32s(), 1, self.plane)));
            return shown;
        };
        let outer: usize = x.shape()[..axis].iter().product();
        if outer == 1 {
            return summary.count(x.f32s(), self.count, self.plane);
        }
        let part = self.elements / outer.max(1);
        let mut sorted = Vec::with_capacity(x.len());
        for frame in 0..self.count {
            for o in 0..outer {
                let from = (o * self.count + frame) * part;
                sorted.extend_from_slice(&x.f32s()[from..from + part]);
            }
        }
        summary.count(&sorted, self.count, self.plane)
    }

    /// Whether the kernels find the frames in a tensor that lies so.
    pub(super) fn fits(&self, view: &View) -> bool {
        let in_order = self.axis.is_none_or(|a| view.shape[..a].iter().all(|d| *d == 1));
        match view.layout {
            Layout::Linear => in_order,
            Layout::ChannelsLast => self.axis.is_none_or(|a| a == 0),
            _ => false,
        }
    }

    /// The dispatch that brings frames together: linear input 0 to output 0, the axis of frames first.
    pub(super) fn gather(&self, view: &View) -> Option<Dispatch> {
        let axis = self.axis?;
        let outer: usize = view.shape[..axis].iter().product();
        let part = self.elements / outer.max(1);
        let dims = [self.count, outer, part];
        let steps = [part, self.count * part, 1];
        relayout::strided(&dims, &steps)
    }

    /// The dispatch that looks at input 0, which lies so: output 0 is the histogram, temp 0 the statistics of runs. None
    /// where there are no elements.
    pub(super) fn look(&self, view: &View, slot: Slot) -> Option<Dispatch> {
        let (runs, plane) = (self.runs(), self.plane);
        let total = self.count * runs;
        if total == 0 {
            return None;
        }
        let mut params = Params {
            total: u32(total),
            runs: u32(runs),
            per_plane: u32(plane.div_ceil(RUN)),
            plane: u32(plane),
            channels: u32(self.elements / plane),
            step: 1,
            channel_step: u32(plane),
            row_step: 0,
            frame_step: if self.axis.is_some() { u32(self.elements) } else { 0 },
            zero: 0,
            first: u32(slot.first),
            part_runs: u32(slot.runs),
            row: u32(self.count * slot.runs),
        };
        if view.layout == Layout::ChannelsLast {
            let strides = view.place().strides;
            let rows = self.elements / (view.shape[1] * plane);
            params.channels = u32(view.shape[1]);
            params.step = u32(view.shape[1].next_multiple_of(4));
            params.channel_step = 1;
            params.row_step = u32(strides[0]);
            params.frame_step = if self.axis.is_some() { u32(rows * strides[0]) } else { 0 };
        }
        let bind = [Operand::Input(0), Operand::Output(0), Operand::Temp(0)];
        Some(Dispatch::new(&RUNS, &params, bind, flat_grid(total)))
    }

    /// The dispatch that makes output 1, the results, of temp 0, the statistics of runs. None where there are none.
    pub(super) fn sum_up(&self, slot: Slot) -> Option<Dispatch> {
        let params = FrameParams {
            frames: u32(self.count),
            runs: u32(self.runs()),
            first: u32(slot.first),
            part_runs: u32(slot.runs),
            row: u32(self.count * slot.runs),
        };
        let bind = [Operand::Temp(0), Operand::Output(1)];
        let grid = flat_grid(self.count * LANES);
        (self.count * self.runs() > 0).then(|| Dispatch::new(&FRAMES, &params, bind, grid))
    }
}

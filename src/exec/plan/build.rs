//! Makes a plan: where each tensor lies in which layout, what is copied, which steps run.

mod steps;
mod watch;

pub(super) use watch::histogram;

use super::super::ExecError;
use super::super::fuse::Tail;
use super::super::memory::{self, Object, Placement};
use super::super::relayout::relayout;
use super::{Constant, Memory, Plan, Segment, Span, Step, Transfer};
use crate::gpu::Limits;
use crate::gpu::kernels::Access;
use crate::graph::lower::{Dispatch, Io, Layout, Layouts, Lowering, Operand, View};
use crate::graph::{Graph, Node, OpError, ValueId};
use crate::tensor::TensorType;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Where a tensor lies while the plan is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Home {
    Object(usize),
    Constant(usize),
    Table(usize),
    Histogram(usize),
    Results(usize),
}

struct Draft {
    label: String,
    dispatch: Dispatch,
    bind: Vec<(Home, Access)>,
    params_offset: u64,
}

#[derive(Default)]
struct DraftSegment {
    host: Vec<usize>,
    uploads: Vec<(ValueId, View, usize)>,
    steps: Vec<Draft>,
    reads: Vec<(ValueId, View, Home)>,
    /// Time of its first step.
    start: usize,
}

pub(super) struct Builder<'a> {
    graph: &'a Graph,
    limits: &'a Limits,
    plan: Plan,
    segments: Vec<DraftSegment>,
    objects: Vec<Object>,
    constants: HashMap<Constant, usize>,
    /// Values that the host holds before the dispatches of the present segment.
    on_host: HashSet<ValueId>,
    /// Where values lie: shape with 1s in front as views of other ranks have them, and layout.
    on_device: BTreeMap<ValueId, Vec<(View, Home)>>,
    /// For each node, those that may be its epilogue.
    tails: Vec<Vec<Tail>>,
    /// Nodes that are the epilogue of another.
    absorbed: HashSet<usize>,
    /// Steps so far; the time of an upload or dispatch.
    now: usize,
    /// For each watched value the one among whose runs its own lie, and how many of a frame come before them.
    slots: Vec<(usize, usize)>,
    /// Objects of these runs.
    runs: HashMap<usize, usize>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(graph: &'a Graph, limits: &'a Limits, tails: Vec<Vec<Tail>>) -> Self {
        Builder {
            graph,
            limits,
            plan: Plan::default(),
            segments: vec![DraftSegment::default()],
            objects: Vec::new(),
            constants: HashMap::new(),
            on_host: graph.inputs.iter().copied().collect(),
            on_device: BTreeMap::new(),
            tails,
            absorbed: HashSet::new(),
            now: 0,
            slots: Vec::new(),
            runs: HashMap::new(),
        }
    }

    fn segment(&mut self) -> &mut DraftSegment {
        self.segments.last_mut().expect("there is always one")
    }

    fn view(&self, v: ValueId) -> View {
        let ty = &self.graph.value(v).ty;
        let shape = ty.dims().expect("the graph is concrete");
        View { dtype: ty.dtype, shape, layout: Layout::Linear }
    }

    /// Memory for a tensor or scratch.
    fn object(&mut self, name: &str, bytes: u64, first: usize) -> Result<usize, ExecError> {
        self.fits(name, bytes)?;
        self.objects.push(Object { bytes, first, last: self.now.max(first), conflicts: Vec::new() });
        Ok(self.objects.len() - 1)
    }

    fn fits(&self, name: &str, bytes: u64) -> Result<(), ExecError> {
        let limit = self.limits.binding_bytes.min(self.limits.buffer_bytes);
        if bytes.next_multiple_of(16) <= limit {
            return Ok(());
        }
        Err(ExecError::TooLarge { what: format!("tensor {name:?}"), amount: bytes, unit: "bytes", limit })
    }

    pub(super) fn node(&mut self, index: usize, node: &Node) -> Result<(), ExecError> {
        if self.absorbed.contains(&index) {
            return Ok(());
        }
        let in_types: Vec<TensorType> = node.inputs.iter().map(|v| self.graph.value(*v).ty.clone()).collect();
        let fail = |error: OpError| {
            let inputs: Vec<String> = in_types.iter().map(ToString::to_string).collect();
            ExecError::Op { node: node.label(), inputs: inputs.join(", "), error }
        };
        let out_types = node.op.infer(&in_types).map_err(fail)?;
        let io = self.io(node, &in_types, &out_types);
        match node.op.lower(&io) {
            Ok(Lowering::Alias) => self.alias(node, &io),
            Ok(Lowering::Run { mut dispatches, temps, tables }) => {
                let last = self.absorb(index, &mut dispatches);
                self.run([node, last], &io, dispatches, &temps, tables)
            }
            Err(OpError::NoKernel { reason }) => self.on_the_host(index, node, reason),
            Err(error) => Err(fail(error)),
        }
    }

    /// Views of a node's inputs and outputs in the layouts that suit it.
    fn io(&self, node: &Node, in_types: &[TensorType], out_types: &[TensorType]) -> Io {
        let view = |ty: &TensorType, layout: Layout| View {
            dtype: ty.dtype,
            shape: ty.dims().expect("the graph is concrete"),
            layout,
        };
        let (ins, outs, rank) = match node.op.layouts(in_types) {
            Layouts::Linear => (vec![], vec![], 0),
            Layouts::Exact { inputs, outputs } => (inputs, outputs, 0),
            layouts @ (Layouts::Any | Layouts::AnyPacked) => {
                let rank = out_types.iter().map(TensorType::rank).max().unwrap_or(0);
                let layout = self.prevailing(node, in_types, out_types);
                let packs = layouts == Layouts::AnyPacked && layout == Layout::ChannelsLast;
                let of = |ty: &TensorType| if packs { Layout::channels_last(ty.dtype) } else { layout };
                (in_types.iter().map(of).collect(), out_types.iter().map(of).collect(), rank)
            }
        };
        let get = |list: &[Layout], i: usize| list.get(i).copied().unwrap_or(Layout::Linear);
        let inputs = in_types.iter().enumerate().map(|(i, ty)| {
            let mut v = view(ty, get(&ins, i));
            while v.shape.len() < rank {
                v.shape.insert(0, 1);
            }
            v
        });
        let outputs = out_types.iter().enumerate().map(|(i, ty)| view(ty, get(&outs, i)));
        Io { inputs: inputs.collect(), outputs: outputs.collect() }
    }

    /// For kernels that take either: channels-last where most runtime inputs lie so and everything can.
    /// Numbers of tensors count, not of bytes, so that the batch cannot change the choice.
    fn prevailing(&self, node: &Node, in_types: &[TensorType], out_types: &[TensorType]) -> Layout {
        let rank = out_types.iter().map(TensorType::rank).max().unwrap_or(0);
        let possible = rank >= 3
            && out_types.iter().all(|t| t.rank() == rank)
            && in_types.iter().all(|t| t.rank() <= rank);
        if !possible {
            return Layout::Linear;
        }
        let (mut last, mut linear) = (0, 0);
        for (v, ty) in node.inputs.iter().zip(in_types) {
            if self.graph.value(*v).constant.is_some() {
                continue;
            }
            let lies = |layout: Layout| {
                let of_rank = |w: &View| w.layout.loose() == layout && w.shape.len() == ty.rank();
                self.on_device.get(v).is_some_and(|l| l.iter().any(|(w, _)| of_rank(w)))
            };
            // A tensor of full rank is what a copy costs most for.
            let weight = if ty.rank() == rank { 2 } else { 1 };
            match (lies(Layout::ChannelsLast), lies(Layout::Linear)) {
                (true, false) => last += weight,
                (false, _) => linear += weight,
                (true, true) => {}
            }
        }
        if last > linear { Layout::ChannelsLast } else { Layout::Linear }
    }

    fn remember(&mut self, v: ValueId, view: &View, home: Home) {
        self.on_device.entry(v).or_default().push((view.clone(), home));
    }

    /// The tensor on the device as `want` says; brings it there and copies where it must.
    fn place(&mut self, v: ValueId, want: &View) -> Result<Home, ExecError> {
        if self.graph.value(v).constant.is_some() {
            return self.constant(v, want);
        }
        if let Some(home) = self.find(v, want) {
            return Ok(home);
        }
        let native = self.view(v);
        if !self.on_device.contains_key(&v) {
            self.upload(v, &native)?;
            return self.place(v, want);
        }
        if let Some((_, home)) = self.on_device[&v].iter().find(|(w, _)| w.layout == Layout::Linear).cloned()
        {
            let from = View { layout: Layout::Linear, ..want.clone() };
            return self.copy(v, &from, home, want);
        }
        let (from, home) = self.on_device[&v][0].clone();
        if from.shape == want.shape && from.layout.loose() == want.layout.loose() {
            return self.copy(v, &from, home, want);
        }
        let linear = View { layout: Layout::Linear, ..from.clone() };
        self.copy(v, &from, home, &linear)?;
        self.place(v, want)
    }

    /// A place where the tensor lies exactly as wanted; another layout may be the same order of the same elements.
    fn find(&self, v: ValueId, want: &View) -> Option<Home> {
        let same = |w: &View| {
            let linear = w.layout == Layout::Linear && want.layout == Layout::Linear;
            linear || (w.shape == want.shape && same_order(w, want))
        };
        self.on_device.get(&v)?.iter().find(|(w, _)| same(w)).map(|(_, home)| *home)
    }

    fn upload(&mut self, v: ValueId, view: &View) -> Result<(), ExecError> {
        debug_assert!(self.on_host.contains(&v), "a value is on the host or on the device");
        let name = self.graph.value(v).name.clone();
        let start = self.segment().start;
        let o = self.object(&name, view.size_bytes(), start)?;
        self.segment().uploads.push((v, view.clone(), o));
        self.remember(v, view, Home::Object(o));
        Ok(())
    }

    fn constant(&mut self, v: ValueId, want: &View) -> Result<Home, ExecError> {
        let key = Constant { value: v, shape: want.shape.clone(), layout: want.layout };
        if let Some(i) = self.constants.get(&key) {
            return Ok(Home::Constant(*i));
        }
        let bytes = want.size_bytes();
        self.fits(&self.graph.value(v).name, bytes)?;
        let i = self.plan.constants.len();
        self.plan.constants.push((key.clone(), bytes));
        self.constants.insert(key, i);
        Ok(Home::Constant(i))
    }

    /// A dispatch that brings a tensor from one layout to another.
    fn copy(&mut self, v: ValueId, from: &View, home: Home, want: &View) -> Result<Home, ExecError> {
        let name = self.graph.value(v).name.clone();
        let o = self.object(&name, want.size_bytes(), self.now)?;
        if let Some(dispatch) = relayout(from, want.layout) {
            let label = format!("copy of {name:?} to {:?}", want.layout);
            self.dispatch(label, dispatch, |operand| match operand {
                Operand::Input(_) => Some(home),
                _ => Some(Home::Object(o)),
            })?;
        }
        self.remember(v, want, Home::Object(o));
        Ok(Home::Object(o))
    }

    fn alias(&mut self, node: &Node, io: &Io) -> Result<(), ExecError> {
        let bad = |message: String| ExecError::Lowering { node: node.label(), message };
        let (Some(v), Some(x), Some(y)) = (node.inputs.first(), io.inputs.first(), io.outputs.first()) else {
            return Err(bad("an alias needs an input and an output".into()));
        };
        let linear = x.layout == Layout::Linear && y.layout == Layout::Linear && x.len() == y.len();
        if x.dtype != y.dtype || !(linear || x == y) {
            return Err(bad(format!("{y:?} cannot be an alias of {x:?}")));
        }
        let home = self.place(*v, x)?;
        if let Some(out) = node.outputs.first() {
            self.remember(*out, y, home);
        }
        Ok(())
    }

    /// Brings a value to the host at the end of the present segment.
    pub(super) fn fetch(&mut self, v: ValueId) -> Result<(), ExecError> {
        let here = self.on_host.contains(&v) || self.graph.value(v).constant.is_some();
        if here || self.segment().reads.iter().any(|(r, ..)| *r == v) {
            return Ok(());
        }
        let lies = self.on_device.get(&v).and_then(|l| l.first()).cloned();
        let (mut view, home) = lies.expect("a value is on the host or on the device");
        if view.layout == Layout::Linear {
            view.shape = self.view(v).shape;
        }
        if let Home::Object(o) = home {
            self.objects[o].last = self.now;
        }
        self.segment().reads.push((v, view, home));
        Ok(())
    }

    fn on_the_host(&mut self, index: usize, node: &Node, reason: &'static str) -> Result<(), ExecError> {
        for v in &node.inputs {
            self.fetch(*v)?;
        }
        if !self.segment().reads.is_empty() {
            let read: Vec<ValueId> = self.segment().reads.iter().map(|(v, ..)| *v).collect();
            self.on_host.extend(read);
            self.now += 1;
            let start = self.now;
            self.segments.push(DraftSegment { start, ..DraftSegment::default() });
        }
        self.segment().host.push(index);
        self.on_host.extend(&node.outputs);
        self.plan.cpu_ops.push((node.label(), reason));
        Ok(())
    }

    /// Kernels in the order in which they run.
    fn kernels(&self) -> impl Iterator<Item = &'static str> {
        self.segments.iter().flat_map(|s| &s.steps).map(|d| d.dispatch.kernel.name)
    }

    /// Places the objects and turns drafts into steps.
    pub(super) fn finish(mut self) -> Result<Plan, ExecError> {
        let limits = self.limits;
        let (align, most) = (limits.storage_alignment, limits.buffer_bytes);
        let stored =
            self.graph.placed.as_ref().filter(|p| self.kernels().eq(p.kernels.iter().map(String::as_str)));
        let stored = stored.and_then(|p| Placement::stored(p, &self.objects, align, most));
        let placed = stored.unwrap_or_else(|| memory::place(&self.objects, align, most));
        (self.plan.arenas, self.plan.tensors) = placed.keep(&self.objects);
        let span = |home: Home| match home {
            Home::Object(o) => {
                let (at, bytes) = (placed.places[o], self.objects[o].bytes);
                Span { memory: Memory::Arena(at.arena), offset: at.offset, bytes: padded(bytes) }
            }
            Home::Constant(c) => {
                Span { memory: Memory::Constant(c), offset: 0, bytes: padded(self.plan.constants[c].1) }
            }
            Home::Table(t) => {
                let bytes = padded(self.plan.tables[t].len() as u64 * 4);
                Span { memory: Memory::Table(t), offset: 0, bytes }
            }
            Home::Histogram(i) => histogram(i, limits),
            Home::Results(i) => self.plan.watched[i].1,
        };
        let mut segments = Vec::new();
        let (mut upload_bytes, mut readback_bytes) = (0, 0);
        let counts_nan = !self.plan.quantizers.is_empty();
        for s in &self.segments {
            let mut upload = 0;
            let mut readback = 0;
            let transfer = |end: &mut u64, value: ValueId, view: &View, home: Home| {
                let mut at = span(home);
                at.bytes = view.size_bytes();
                let offset = *end;
                *end += padded(at.bytes);
                Transfer { value, view: view.clone(), at, offset }
            };
            let uploads = s.uploads.iter().map(|(v, w, o)| transfer(&mut upload, *v, w, Home::Object(*o)));
            let uploads = uploads.collect();
            let reads = s.reads.iter().map(|(v, w, home)| transfer(&mut readback, *v, w, *home)).collect();
            let steps = s.steps.iter().map(|d| Step {
                label: d.label.clone(),
                kernel: d.dispatch.kernel,
                overrides: d.dispatch.overrides.clone(),
                params_offset: d.params_offset,
                bind: d.bind.iter().map(|(home, _)| span(*home)).collect(),
                access: d.bind.iter().map(|(_, access)| *access).collect(),
                grid: d.dispatch.grid,
            });
            segments.push(Segment { host: s.host.clone(), uploads, steps: steps.collect(), reads });
            if counts_nan && segments.len() == self.segments.len() {
                self.plan.counters_at = Some(readback);
                readback += padded(self.plan.quantizers.len() as u64 * 4);
            }
            upload_bytes = upload_bytes.max(upload);
            readback_bytes = readback_bytes.max(readback);
        }
        for (what, bytes) in
            [("upload of all inputs", upload_bytes), ("readback of all results", readback_bytes)]
        {
            if bytes > limits.buffer_bytes {
                let limit = limits.buffer_bytes;
                return Err(ExecError::TooLarge { what: what.into(), amount: bytes, unit: "bytes", limit });
            }
        }
        self.plan.segments = segments;
        self.plan.upload_bytes = upload_bytes;
        self.plan.readback_bytes = readback_bytes;
        Ok(self.plan)
    }
}

/// Bytes of a binding.
pub(super) fn padded(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(16)
}

/// Whether two layouts of one shape put the same elements at the same places.
fn same_order(a: &View, b: &View) -> bool {
    if a.layout == b.layout {
        return true;
    }
    if a.layout.packed().is_some() || b.layout.packed().is_some() {
        return false;
    }
    let (x, y) = (a.place(), b.place());
    let steps = x.strides.iter().zip(&y.strides).zip(&a.shape);
    x.len() == y.len() && steps.into_iter().all(|((s, t), len)| s == t || *len == 1)
}

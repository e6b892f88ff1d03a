//! The dispatches of a node, checked against their kernels, with the nodes that they can take as their epilogue.

use super::super::super::ExecError;
use super::{Builder, Draft, Home};
use crate::gpu::GpuError;
use crate::gpu::kernels::{Access, Linked};
use crate::graph::Node;
use crate::graph::lower::{Dispatch, Io, Operand, u32};
use std::collections::{HashMap, HashSet};

impl<'a> Builder<'a> {
    /// Makes nodes that follow the epilogue of the dispatch that stores this node's result, as many as its kernel takes.
    /// The node whose outputs that dispatch then stores.
    pub(super) fn absorb(&mut self, index: usize, dispatches: &mut [Dispatch]) -> &'a Node {
        let mut last = &self.graph.nodes()[index];
        let mut stores = dispatches.iter_mut().filter(|d| d.bind.contains(&Operand::Output(0)));
        let (Some(store), None) = (stores.next(), stores.next()) else { return last };
        self.count_nan(index, store);
        if store.kernel.epilogue_offset().is_none() {
            return last;
        }
        for (tail, epilogue) in self.tails[index].clone() {
            let Some(both) = store.epilogue.then(epilogue) else { break };
            store.epilogue = both;
            self.absorbed.insert(tail);
            self.count_nan(tail, store);
            last = &self.graph.nodes()[tail];
        }
        last
    }

    /// Gives a quantizer a counter; a dispatch applies one at most.
    fn count_nan(&mut self, index: usize, store: &mut Dispatch) {
        if self.graph.nodes()[index].quantizes() {
            store.slot = Some(u32(self.plan.quantizers.len()));
            self.plan.quantizers.push(index);
        }
    }

    /// Dispatches of `node`, which store the outputs of `last`.
    pub(super) fn run(
        &mut self,
        [node, last]: [&Node; 2],
        io: &Io,
        dispatches: Vec<Dispatch>,
        temps: &[u64],
        tables: Vec<Vec<u32>>,
    ) -> Result<(), ExecError> {
        let used: HashSet<Operand> = dispatches.iter().flat_map(|d| d.bind.iter().copied()).collect();
        let unwritten = (0..node.outputs.len())
            .find(|i| !io.outputs[*i].is_empty() && !used.contains(&Operand::Output(*i)));
        if let Some(i) = unwritten {
            let message = format!("no dispatch writes output {i}");
            return Err(ExecError::Lowering { node: node.label(), message });
        }
        let mut homes: HashMap<Operand, Home> = HashMap::new();
        for (i, (v, view)) in node.inputs.iter().zip(&io.inputs).enumerate() {
            if used.contains(&Operand::Input(i)) {
                homes.insert(Operand::Input(i), self.place(*v, view)?);
            }
        }
        for (i, table) in tables.into_iter().enumerate() {
            self.fits(&format!("table {i} of {}", node.name), table.len() as u64 * 4)?;
            homes.insert(Operand::Table(i), Home::Table(self.plan.tables.len()));
            self.plan.tables.push(table);
        }
        for (i, bytes) in temps.iter().enumerate() {
            let o = self.object(&format!("scratch {i} of {}", node.name), *bytes, self.now)?;
            homes.insert(Operand::Temp(i), Home::Object(o));
        }
        for (i, view) in io.outputs.iter().enumerate() {
            let name = last.outputs.get(i).map_or(&last.name, |v| &self.graph.value(*v).name).clone();
            let o = self.object(&name, view.size_bytes(), self.now)?;
            homes.insert(Operand::Output(i), Home::Object(o));
            if let Some(v) = last.outputs.get(i) {
                self.remember(*v, view, Home::Object(o));
            }
        }
        let label = if std::ptr::eq(node, last) {
            node.label()
        } else {
            format!("{} to {}", node.label(), last.label())
        };
        for d in dispatches {
            self.dispatch(label.clone(), d, |operand| homes.get(&operand).copied())?;
        }
        Ok(())
    }

    pub(super) fn dispatch(
        &mut self,
        label: String,
        mut dispatch: Dispatch,
        home: impl Fn(Operand) -> Option<Home>,
    ) -> Result<(), ExecError> {
        let kernel = dispatch.kernel;
        let bad = |message: String| {
            let message = format!("kernel {}: {message}", kernel.name);
            ExecError::Lowering { node: label.clone(), message }
        };
        if !dispatch.epilogue.is_none() {
            let params = dispatch.epilogue.params();
            let bytes = bytemuck::bytes_of(&params);
            let at = dispatch.kernel.epilogue_offset().ok_or_else(|| bad("takes no epilogue".into()))?;
            dispatch.params[at..at + bytes.len()].copy_from_slice(bytes);
            dispatch.overrides.extend(dispatch.epilogue.overrides());
        }
        if let Some(slot) = dispatch.slot {
            let at = dispatch.kernel.slot_offset().ok_or_else(|| bad("counts no NaN".into()))?;
            dispatch.params[at..at + 4].copy_from_slice(&slot.to_ne_bytes());
        }
        let linked = Linked::of(dispatch.kernel).map_err(GpuError::from)?;
        if linked.bindings.len() != dispatch.bind.len() + 1 {
            let (want, got) = (linked.bindings.len() - 1, dispatch.bind.len());
            return Err(bad(format!("has {want} storage bindings, the dispatch {got}")));
        }
        if dispatch.params.len() > linked.params_bytes {
            let (want, got) = (linked.params_bytes, dispatch.params.len());
            return Err(bad(format!("has {want} bytes of Params, the dispatch {got}")));
        }
        if dispatch.grid.contains(&0) {
            return Err(bad(format!("grid {:?} is empty", dispatch.grid)));
        }
        if dispatch.grid.iter().any(|g| *g > self.limits.workgroups) {
            let what = format!("grid {:?} of {label}", dispatch.grid);
            let amount = u64::from(*dispatch.grid.iter().max().unwrap_or(&0));
            let limit = u64::from(self.limits.workgroups);
            return Err(ExecError::TooLarge { what, amount, unit: "workgroups", limit });
        }
        let mut bind = Vec::new();
        for (operand, access) in dispatch.bind.iter().zip(&linked.bindings[1..]) {
            let home = home(*operand).ok_or_else(|| bad(format!("{operand:?} does not exist")))?;
            let read_only = matches!(operand, Operand::Input(_) | Operand::Table(_));
            if *access == Access::ReadWrite && read_only {
                return Err(bad(format!("would write {operand:?}")));
            }
            bind.push((home, *access));
        }
        for (i, (a, access_a)) in bind.iter().enumerate() {
            let Home::Object(a) = *a else { continue };
            self.objects[a].last = self.now;
            for (b, access_b) in &bind[..i] {
                let Home::Object(b) = *b else { continue };
                if access_a == access_b {
                    if a == b && *access_a == Access::ReadWrite {
                        return Err(bad("would bind a buffer twice to write".into()));
                    }
                    continue;
                }
                if a == b {
                    return Err(bad("would read and write a buffer".into()));
                }
                self.objects[a].conflicts.push(b);
                self.objects[b].conflicts.push(a);
            }
        }
        let at = (self.plan.params.len() as u64).next_multiple_of(self.limits.uniform_alignment);
        self.plan.params.resize(at as usize, 0);
        self.plan.params.extend(&dispatch.params);
        self.plan.params.resize(at as usize + linked.params_bytes, 0);
        self.now += 1;
        self.segment().steps.push(Draft { label, dispatch, bind, params_offset: at });
        Ok(())
    }
}

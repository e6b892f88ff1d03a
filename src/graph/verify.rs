//! Checks the rules that `graph/mod.rs` states.

use super::{Graph, Node, OpError, Stage};
use crate::tensor::{Dim, MAX_RANK, TensorType, element_count};
use std::collections::HashSet;

/// A rule of the graph is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Two values, or two nodes, share a name or an id; or a name is empty.
    #[error("{what} {name:?} is not unique or empty")]
    Duplicate {
        /// Value, node or output.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A value that neither an input, a constant nor an earlier node produces, or that two produce.
    #[error("value {value:?} used by {by} is produced {times} times before it (must be once)")]
    Produced {
        /// Its name.
        value: String,
        /// Who uses it.
        by: String,
        /// How often it is produced.
        times: usize,
    },
    /// An id that the graph does not have.
    #[error("{by} refers to value {id}, which does not exist")]
    UnknownValue {
        /// Who refers to it.
        by: String,
        /// The id.
        id: u32,
    },
    /// A constant whose type is not its tensor's.
    #[error("constant {value:?} is declared {declared}, holds {holds}")]
    ConstantType {
        /// Its name.
        value: String,
        /// Declared type.
        declared: String,
        /// Type of the elements.
        holds: String,
    },
    /// An output's type is not what the operator infers.
    #[error("{node}: output {value:?} is declared {declared}, the operator gives {inferred}")]
    Type {
        /// The node.
        node: String,
        /// The output.
        value: String,
        /// Declared type.
        declared: String,
        /// Inferred type.
        inferred: String,
    },
    /// A node with more outputs than its operator has.
    #[error("{node}: has {got} outputs, the operator has {expected}")]
    Outputs {
        /// The node.
        node: String,
        /// How many the operator has.
        expected: usize,
        /// How many are named.
        got: usize,
    },
    /// A tensor of more than 6 axes or 2^31 elements.
    #[error("tensor {value:?} of type {ty} is too large (at most 6 axes and 2^31 elements)")]
    TooLarge {
        /// Its name.
        value: String,
        /// Its type.
        ty: String,
    },
    /// A quantizer where the stage has none.
    #[error("{node}: a quantizer in stage {stage}")]
    Stage {
        /// The node.
        node: String,
        /// The graph's stage.
        stage: &'static str,
    },
    /// An operator refuses its inputs.
    #[error("{node}: {error}")]
    Op {
        /// The node.
        node: String,
        /// What it says.
        error: OpError,
    },
}

impl Graph {
    /// Checks every rule of [`crate::graph`].
    pub fn verify(&self) -> Result<(), GraphError> {
        self.verify_names()?;
        let mut produced = vec![0usize; self.values().len()];
        for id in &self.inputs {
            self.known(id.0, "the list of inputs")?;
            produced[id.0 as usize] += 1;
        }
        for (i, v) in self.values().iter().enumerate() {
            check_size(&v.name, &v.ty)?;
            if let Some(t) = &v.constant {
                produced[i] += 1;
                if t.ty() != v.ty {
                    let (declared, holds) = (v.ty.to_string(), t.ty().to_string());
                    return Err(GraphError::ConstantType { value: v.name.clone(), declared, holds });
                }
            }
        }
        for node in self.nodes() {
            if self.stage == Stage::Float && node.quantizer().is_some() {
                return Err(GraphError::Stage { node: node.label(), stage: self.stage.name() });
            }
            for id in &node.inputs {
                self.once(&produced, id.0, &node.label())?;
            }
            self.verify_node(node)?;
            for id in &node.outputs {
                produced[id.0 as usize] += 1;
                self.once(&produced, id.0, &node.label())?;
            }
        }
        for i in 0..self.values().len() {
            self.once(&produced, u32::try_from(i).unwrap_or(u32::MAX), "the list of values")?;
        }
        let mut seen = HashSet::new();
        for id in &self.outputs {
            self.known(id.0, "the list of outputs")?;
            self.once(&produced, id.0, "the list of outputs")?;
            if !seen.insert(id) {
                let name = self.value(*id).name.clone();
                return Err(GraphError::Duplicate { what: "output", name });
            }
        }
        Ok(())
    }

    fn known(&self, id: u32, by: &str) -> Result<(), GraphError> {
        if (id as usize) < self.values().len() {
            return Ok(());
        }
        Err(GraphError::UnknownValue { by: by.to_owned(), id })
    }

    fn once(&self, produced: &[usize], id: u32, by: &str) -> Result<(), GraphError> {
        self.known(id, by)?;
        match produced[id as usize] {
            1 => Ok(()),
            times => Err(GraphError::Produced {
                value: self.values()[id as usize].name.clone(),
                by: by.to_owned(),
                times,
            }),
        }
    }

    fn verify_names(&self) -> Result<(), GraphError> {
        let mut names = HashSet::new();
        for v in self.values() {
            if v.name.is_empty() || !names.insert(&v.name) {
                return Err(GraphError::Duplicate { what: "value", name: v.name.clone() });
            }
        }
        let (mut names, mut ids) = (HashSet::new(), HashSet::new());
        for n in self.nodes() {
            if n.name.is_empty() || !names.insert(&n.name) || !ids.insert(n.id) {
                return Err(GraphError::Duplicate { what: "node", name: n.name.clone() });
            }
        }
        Ok(())
    }

    fn verify_node(&self, node: &Node) -> Result<(), GraphError> {
        let types: Vec<TensorType> = node.inputs.iter().map(|v| self.value(*v).ty.clone()).collect();
        let inferred = node.op.infer(&types).map_err(|error| GraphError::Op { node: node.label(), error })?;
        if node.outputs.len() > inferred.len() {
            let (expected, got) = (inferred.len(), node.outputs.len());
            return Err(GraphError::Outputs { node: node.label(), expected, got });
        }
        for (id, ty) in node.outputs.iter().zip(&inferred) {
            self.known(id.0, &node.label())?;
            let v = self.value(*id);
            if v.ty != *ty {
                let (declared, inferred) = (v.ty.to_string(), ty.to_string());
                return Err(GraphError::Type {
                    node: node.label(),
                    value: v.name.clone(),
                    declared,
                    inferred,
                });
            }
        }
        Ok(())
    }
}

/// Rank and element count of a type; N counts as 1.
fn check_size(value: &str, ty: &TensorType) -> Result<(), GraphError> {
    let dims: Option<Vec<usize>> = ty.shape.iter().map(|d: &Dim| d.at(1)).collect();
    if ty.rank() <= MAX_RANK && dims.is_some_and(|d| element_count(&d).is_some()) {
        return Ok(());
    }
    Err(GraphError::TooLarge { value: value.to_owned(), ty: ty.to_string() })
}

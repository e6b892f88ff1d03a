//! Kernels from text to checked WGSL: linking, validation and reflection, without a device.

use crate::graph::lower::Kernel;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, BinaryOperator, Expression, Handle, Literal, Module, StorageAccess, TypeInner};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// A kernel does not link or does not fit what the project's rules say of kernels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel {kernel}: {}{message}", self.place())]
pub struct KernelError {
    /// Name of the kernel.
    pub kernel: String,
    /// File under `shaders/` that is at fault, or empty.
    pub file: String,
    /// Line in that file, from 1 on; 0 where unknown.
    pub line: usize,
    /// Column in bytes, from 1 on; 0 where unknown.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl KernelError {
    fn place(&self) -> String {
        if self.file.is_empty() {
            return String::new();
        }
        format!("{}:{}:{}: ", self.file, self.line, self.column)
    }

    /// An error of the kernel as a whole.
    pub(super) fn of(kernel: &Kernel, message: String) -> KernelError {
        locate(kernel, None, message)
    }
}

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Uniform `Params`.
    Uniform,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// A linked and validated kernel with what its text says of its interface.
#[derive(Clone, Debug)]
pub struct Linked {
    /// All files, in order.
    pub source: String,
    /// Bindings of group 0 from 0 on.
    pub bindings: Vec<Access>,
    /// Whether it counts NaN: binds group 1, which `shared/nan_count.wgsl` declares.
    pub counts_nan: bool,
    /// Fields of the uniform at binding 0 with byte offsets, in order.
    pub params: Vec<(String, usize)>,
    /// Bytes of that uniform.
    pub params_bytes: usize,
    /// Names of `override` constants.
    pub overrides: Vec<String>,
    /// Bytes of workgroup memory with the default values of overrides; 0 where an array's length is an override.
    pub workgroup_bytes: usize,
    module: Module,
}

/// What validation accepts: what a device may be asked for. Kernels that need a feature are chosen by the operator.
fn capabilities() -> Capabilities {
    Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16_IN_FLOAT32
}

impl Linked {
    /// The kernel linked, parsed and validated; remembered.
    pub fn of(kernel: &'static Kernel) -> Result<Arc<Linked>, KernelError> {
        static KNOWN: Mutex<BTreeMap<usize, Arc<Linked>>> = Mutex::new(BTreeMap::new());
        let key = std::ptr::from_ref(kernel).addr();
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(linked) = known {
            return Ok(linked);
        }
        let linked = Arc::new(Linked::new(kernel)?);
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&linked));
        Ok(linked)
    }

    /// Links, parses and validates.
    pub fn new(kernel: &Kernel) -> Result<Linked, KernelError> {
        let source = concatenate(kernel);
        let fail = |span: Option<naga::Span>, message: String| {
            let at = span.and_then(naga::Span::to_range).map(|r| r.start);
            locate(kernel, at, message)
        };
        let module = naga::front::wgsl::parse_str(&source).map_err(|e| {
            let mut message = e.message().to_owned();
            for (_, label) in e.labels().filter(|(_, l)| !l.is_empty()) {
                let _ = write!(message, "; {label}");
            }
            for note in e.notes() {
                let _ = write!(message, "; {note}");
            }
            fail(e.labels().next().map(|(s, _)| s), message)
        })?;
        let mut validator = Validator::new(ValidationFlags::all(), capabilities());
        validator.validate(&module).map_err(|e| {
            let span = e.spans().next().map(|(s, _)| *s);
            let mut message = e.as_inner().to_string();
            let mut source: Option<&dyn std::error::Error> = std::error::Error::source(e.as_inner());
            while let Some(s) = source {
                let _ = write!(message, ": {s}");
                source = s.source();
            }
            fail(span, message)
        })?;
        let (bindings, counts_nan) = bindings(&module).map_err(|message| fail(None, message))?;
        let (params, params_bytes) = params(&module).map_err(|message| fail(None, message))?;
        let overrides = module.overrides.iter().filter_map(|(_, o)| o.name.clone()).collect();
        let workgroup_bytes = workgroup_bytes(&module);
        let linked =
            Linked { source, bindings, counts_nan, params, params_bytes, overrides, workgroup_bytes, module };
        linked.workgroup_size(&[]).map_err(|message| fail(None, message))?;
        Ok(linked)
    }

    /// Storage buffers that it binds.
    pub fn storage_buffers(&self) -> usize {
        self.bindings.len() - 1 + usize::from(self.counts_nan)
    }

    /// Size of a workgroup when these overrides are set.
    pub fn workgroup_size(&self, overrides: &[(&str, u32)]) -> Result<[u32; 3], String> {
        let entry = match self.module.entry_points.as_slice() {
            [e] if e.name == "main" && e.stage == naga::ShaderStage::Compute => e,
            _ => return Err("must have one entry point, the compute function `main`".into()),
        };
        let mut size = entry.workgroup_size;
        if let Some(by_axis) = entry.workgroup_size_overrides {
            for (s, e) in size.iter_mut().zip(by_axis) {
                if let Some(e) = e {
                    *s = self
                        .evaluate(e, overrides)
                        .ok_or("workgroup size is not a number that can be known")?;
                }
            }
        }
        if size.contains(&0) {
            return Err(format!("workgroup size {size:?} has a zero"));
        }
        Ok(size)
    }

    /// A constant or override expression as a number.
    fn evaluate(&self, e: Handle<Expression>, overrides: &[(&str, u32)]) -> Option<u32> {
        match self.module.global_expressions[e] {
            Expression::Literal(Literal::U32(v)) => Some(v),
            Expression::Literal(Literal::I32(v)) => u32::try_from(v).ok(),
            Expression::Literal(Literal::AbstractInt(v)) => u32::try_from(v).ok(),
            Expression::Constant(c) => self.evaluate(self.module.constants[c].init, overrides),
            Expression::Override(o) => {
                let o = &self.module.overrides[o];
                let set = overrides.iter().find(|(n, _)| Some(*n) == o.name.as_deref());
                set.map(|(_, v)| *v).or_else(|| self.evaluate(o.init?, overrides))
            }
            Expression::Binary { op, left, right } => {
                let (a, b) = (self.evaluate(left, overrides)?, self.evaluate(right, overrides)?);
                match op {
                    BinaryOperator::Add => a.checked_add(b),
                    BinaryOperator::Subtract => a.checked_sub(b),
                    BinaryOperator::Multiply => a.checked_mul(b),
                    BinaryOperator::Divide => a.checked_div(b),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// The files of a kernel as one text.
fn concatenate(kernel: &Kernel) -> String {
    let mut source = String::new();
    for (_, text) in kernel.sources {
        source.push_str(text);
        if !source.ends_with('\n') {
            source.push('\n');
        }
    }
    source
}

/// An error at byte `at` of the linked text, in terms of the file.
fn locate(kernel: &Kernel, at: Option<usize>, message: String) -> KernelError {
    let mut error =
        KernelError { kernel: kernel.name.to_owned(), file: String::new(), line: 0, column: 0, message };
    let Some(mut at) = at else { return error };
    for (file, text) in kernel.sources {
        let len = text.len() + usize::from(!text.ends_with('\n'));
        if at < len || text.is_empty() {
            let before = text.get(..at).unwrap_or(text);
            error.file = (*file).to_owned();
            error.line = before.matches('\n').count() + 1;
            error.column = before.len() - before.rfind('\n').map_or(0, |p| p + 1) + 1;
            break;
        }
        at -= len;
    }
    error
}

/// Accesses by binding, which must be group 0, from 0 on, without gaps; and whether group 1 is that of
/// `shared/nan_count.wgsl`.
fn bindings(module: &Module) -> Result<(Vec<Access>, bool), String> {
    let mut found = Vec::new();
    let mut counts_nan = false;
    for (_, v) in module.global_variables.iter() {
        let Some(b) = &v.binding else { continue };
        let name = v.name.as_deref().unwrap_or("");
        let access = match v.space {
            AddressSpace::Uniform => Access::Uniform,
            AddressSpace::Storage { access } if access == StorageAccess::LOAD => Access::Read,
            AddressSpace::Storage { .. } => Access::ReadWrite,
            space => return Err(format!("{name} is in address space {space:?}")),
        };
        if name == "nan_counts" && (b.group, b.binding, access) == (1, 0, Access::ReadWrite) {
            counts_nan = true;
            continue;
        }
        if b.group != 0 {
            return Err(format!("{name} is in group {}, must be 0", b.group));
        }
        found.push((b.binding, access));
    }
    found.sort_by_key(|(b, _)| *b);
    for (i, (b, access)) in found.iter().enumerate() {
        if usize::try_from(*b) != Ok(i) {
            return Err(format!("bindings must be 0, 1, 2, ..: number {i} is {b}"));
        }
        if (*access == Access::Uniform) != (i == 0) {
            return Err("binding 0 must be the uniform `params` and the only uniform".into());
        }
    }
    if found.len() < 2 {
        return Err("must bind `params` and at least one buffer".into());
    }
    Ok((found.into_iter().map(|(_, a)| a).collect(), counts_nan))
}

/// Fields and size of the uniform.
fn params(module: &Module) -> Result<(Vec<(String, usize)>, usize), String> {
    let uniform = module.global_variables.iter().find(|(_, v)| v.space == AddressSpace::Uniform);
    let ty = uniform.map(|(_, v)| &module.types[v.ty].inner);
    let Some(TypeInner::Struct { members, span }) = ty else {
        return Err("`params` must be a struct".into());
    };
    let fields = members.iter().map(|m| (m.name.clone().unwrap_or_default(), m.offset as usize));
    Ok((fields.collect(), *span as usize))
}

/// Workgroup memory whose size does not depend on an override.
fn workgroup_bytes(module: &Module) -> usize {
    let vars = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
    vars.map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx()) as usize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "struct Params { n: u32, k: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
override WG: u32 = 64u;
override HALF: u32 = WG / 2u;
";
    const MAIN: &str = "@compute @workgroup_size(WG, HALF)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) { y[gid.x] = x[gid.x] * params.k; }
";

    fn kernel(sources: &'static [(&'static str, &'static str)]) -> Kernel {
        Kernel { name: "k", sources, params: &[] }
    }

    #[test]
    fn reflects_bindings_params_and_workgroup_size() {
        let linked = Linked::new(&kernel(&[("head.wgsl", HEAD), ("main.wgsl", MAIN)])).unwrap();
        assert_eq!(linked.bindings, [Access::Uniform, Access::Read, Access::ReadWrite]);
        assert_eq!(linked.params, [("n".to_owned(), 0), ("k".to_owned(), 4)]);
        assert_eq!(linked.params_bytes, 8);
        assert_eq!(linked.overrides, ["WG", "HALF"]);
        assert_eq!(linked.workgroup_size(&[]), Ok([64, 32, 1]));
        assert_eq!(linked.workgroup_size(&[("WG", 8)]), Ok([8, 4, 1]));
    }

    #[test]
    fn an_error_names_the_file_and_its_own_line() {
        let wrong = "@compute @workgroup_size(WG)\nfn main() {\n    y[0] = missing(1.0);\n}\n";
        let wrong: &'static [(&str, &str)] = Box::leak(Box::new([("head.wgsl", HEAD), ("main.wgsl", wrong)]));
        let e = Linked::new(&kernel(wrong)).unwrap_err();
        assert_eq!((e.file.as_str(), e.line), ("main.wgsl", 3), "{e}");
        assert!(e.to_string().contains("missing"), "{e}");
    }

    #[test]
    fn a_type_error_found_by_the_validator_names_its_place() {
        let wrong = "@compute @workgroup_size(WG)\nfn main() {\n    y[0] = 1u;\n}\n";
        let wrong: &'static [(&str, &str)] = Box::leak(Box::new([("head.wgsl", HEAD), ("main.wgsl", wrong)]));
        let e = Linked::new(&kernel(wrong)).unwrap_err();
        assert_eq!((e.file.as_str(), e.line), ("main.wgsl", 3), "{e}");
    }

    #[test]
    fn gaps_in_the_bindings_are_refused() {
        let text = "struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(1) fn main() { y[0] = params.n; }";
        let e = Linked::new(&kernel(Box::leak(Box::new([("a.wgsl", text)])))).unwrap_err();
        assert!(e.message.contains("number 1 is 2"), "{e}");
    }
}

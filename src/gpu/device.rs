//! Adapters, the choice among them, and an opened device whose errors end in values.

use super::kernels::KernelError;
use super::pipeline::Pipelines;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A GPU of its own, in the processor, or handed to a virtual machine.
    Hardware,
    /// The driver does not say.
    Other,
    /// A driver that computes on the CPU.
    Software,
}

impl Kind {
    /// Its name in text and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Hardware => "hardware",
            Kind::Other => "other",
            Kind::Software => "software",
        }
    }
}

/// What a device can hold and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one storage binding: no tensor is larger.
    pub binding_bytes: u64,
    /// Bytes of one buffer.
    pub buffer_bytes: u64,
    /// Storage buffers that a kernel binds.
    pub storage_buffers: u32,
    /// Offsets of storage bindings are multiples of it.
    pub storage_alignment: u64,
    /// Offsets of uniform bindings are multiples of it.
    pub uniform_alignment: u64,
    /// Invocations of one workgroup.
    pub invocations: u32,
    /// Invocations of one workgroup along each axis.
    pub workgroup_size: [u32; 3],
    /// Workgroups of one dispatch along each axis.
    pub workgroups: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
}

impl Limits {
    /// What every device has that WebGPU knows of.
    pub fn least() -> Limits {
        Limits::new(&wgpu::Limits::default())
    }

    fn new(l: &wgpu::Limits) -> Limits {
        Limits {
            // Bindings are rounded up to 16 bytes.
            binding_bytes: l.max_storage_buffer_binding_size & !15,
            buffer_bytes: l.max_buffer_size & !15,
            storage_buffers: l.max_storage_buffers_per_shader_stage,
            storage_alignment: u64::from(l.min_storage_buffer_offset_alignment.max(16)),
            uniform_alignment: u64::from(l.min_uniform_buffer_offset_alignment.max(16)),
            invocations: l.max_compute_invocations_per_workgroup,
            workgroup_size: [
                l.max_compute_workgroup_size_x,
                l.max_compute_workgroup_size_y,
                l.max_compute_workgroup_size_z,
            ],
            workgroups: l.max_compute_workgroups_per_dimension,
            workgroup_bytes: l.max_compute_workgroup_storage_size,
        }
    }

    /// Rounds an offset of a storage binding up.
    pub fn align_storage(&self, at: u64) -> u64 {
        at.next_multiple_of(self.storage_alignment)
    }
}

impl Default for Limits {
    /// What every driver grants.
    fn default() -> Self {
        Limits::new(&wgpu::Limits::defaults())
    }
}

/// A GPU, or a driver that plays one.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Its place in the list; `gpu:N` refers to it.
    pub index: usize,
    /// Name that the driver gives.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: &'static str,
    /// What it is.
    pub kind: Kind,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`, as the driver says.
    pub device_type: &'static str,
    /// Name and version of the driver.
    pub driver: String,
    /// What it can hold and run.
    pub limits: Limits,
    /// Whether kernels may use subgroup operations.
    pub subgroups: bool,
    /// Smallest and largest subgroup.
    pub subgroup_size: (u32, u32),
    /// Features of interest that it has.
    pub features: Vec<&'static str>,
    inner: wgpu::Adapter,
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gpu:{} {} ({}, {}", self.index, self.name, self.backend, self.kind.name())?;
        if !self.driver.is_empty() {
            write!(f, ", {}", self.driver)?;
        }
        f.write_str(")")
    }
}

/// Features that change what kernels may do, with the names under which they are listed.
const FEATURES: &[(wgpu::Features, &str)] = &[
    (wgpu::Features::SUBGROUP, "subgroup"),
    (wgpu::Features::SUBGROUP_BARRIER, "subgroup-barrier"),
    (wgpu::Features::SHADER_F16, "f16"),
    (wgpu::Features::SHADER_INT64, "int64"),
    (wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
    (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative-matrix"),
];

/// Every adapter of this machine. Empty where there is no driver.
pub fn adapters() -> Vec<Adapter> {
    let mut desc = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    // Creation of a buffer fails, rather than the device, when memory is nearly used up.
    desc.memory_budget_thresholds.for_resource_creation = Some(95);
    let found = catch_unwind(AssertUnwindSafe(|| {
        let instance = wgpu::Instance::new(desc);
        pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY))
    }));
    let found = found.unwrap_or_default().into_iter().filter(|a| {
        let downlevel = a.get_downlevel_capabilities();
        downlevel.flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
    });
    found.enumerate().map(|(index, a)| describe(index, a)).collect()
}

fn describe(index: usize, inner: wgpu::Adapter) -> Adapter {
    use wgpu::DeviceType as T;
    let (info, features) = (inner.get_info(), inner.features());
    let (kind, device_type) = match info.device_type {
        T::DiscreteGpu => (Kind::Hardware, "discrete"),
        T::IntegratedGpu => (Kind::Hardware, "integrated"),
        T::VirtualGpu => (Kind::Hardware, "virtual"),
        T::Cpu => (Kind::Software, "cpu"),
        T::Other => (Kind::Other, "other"),
    };
    Adapter {
        index,
        name: info.name,
        backend: info.backend.to_str(),
        kind,
        device_type,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        limits: Limits::new(&inner.limits()),
        subgroups: features.contains(wgpu::Features::SUBGROUP),
        subgroup_size: (info.subgroup_min_size, info.subgroup_max_size),
        features: FEATURES.iter().filter(|(f, _)| features.contains(*f)).map(|(_, n)| *n).collect(),
        inner,
    }
}

/// What `--device` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// A hardware GPU, else the CPU.
    #[default]
    Auto,
    /// The CPU executor.
    Cpu,
    /// Any adapter, hardware first.
    Gpu,
    /// The adapter of this index.
    Index(usize),
    /// The first adapter whose name contains this, letter case apart.
    Name(String),
}

impl FromStr for Choice {
    type Err = GpuError;

    fn from_str(s: &str) -> Result<Self, GpuError> {
        match (s, s.strip_prefix("gpu:")) {
            ("auto", _) => Ok(Choice::Auto),
            ("cpu", _) => Ok(Choice::Cpu),
            ("gpu", _) => Ok(Choice::Gpu),
            (_, Some(rest)) if !rest.trim().is_empty() => Ok(match rest.parse() {
                Ok(n) => Choice::Index(n),
                Err(_) => Choice::Name(rest.trim().to_owned()),
            }),
            _ => Err(GpuError::Choice { got: s.to_owned() }),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Auto => f.write_str("auto"),
            Choice::Cpu => f.write_str("cpu"),
            Choice::Gpu => f.write_str("gpu"),
            Choice::Index(i) => write!(f, "gpu:{i}"),
            Choice::Name(n) => write!(f, "gpu:{n}"),
        }
    }
}

impl Choice {
    /// The adapter that is meant, by its place in `found`; `None` for the CPU executor.
    fn pick(&self, found: &[(&str, Kind)]) -> Result<Option<usize>, GpuError> {
        let best = |accept: &dyn Fn(Kind) -> bool| {
            let fit = found.iter().enumerate().filter(|(_, (_, k))| accept(*k));
            fit.min_by_key(|(_, (_, k))| *k).map(|(i, _)| i)
        };
        let picked = match self {
            Choice::Cpu => return Ok(None),
            Choice::Auto => return Ok(best(&|k| k == Kind::Hardware)),
            Choice::Gpu => best(&|_| true),
            Choice::Index(i) => (*i < found.len()).then_some(*i),
            Choice::Name(name) => {
                let name = name.to_lowercase();
                found.iter().position(|(n, _)| n.to_lowercase().contains(&name))
            }
        };
        picked.map(Some).ok_or_else(|| {
            let list: Vec<String> =
                found.iter().enumerate().map(|(i, (n, k))| format!("gpu:{i} {n} ({})", k.name())).collect();
            let found = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
            GpuError::NoAdapter { asked: self.to_string(), found }
        })
    }
}

/// What a graph runs on.
#[derive(Clone, Debug)]
pub enum Device {
    /// The CPU executor.
    Cpu,
    /// A GPU.
    Gpu(Arc<Gpu>),
}

impl Device {
    /// Opens what was asked for.
    ///
    /// # Errors
    /// No such adapter, or one that cannot be opened. `Auto` falls back to the CPU where there is no hardware GPU.
    pub fn open(choice: &Choice) -> Result<Device, GpuError> {
        if *choice == Choice::Cpu {
            return Ok(Device::Cpu);
        }
        let all = adapters();
        let known: Vec<(&str, Kind)> = all.iter().map(|a| (a.name.as_str(), a.kind)).collect();
        match choice.pick(&known)? {
            None => Ok(Device::Cpu),
            Some(i) => Ok(Device::Gpu(Arc::new(Gpu::open(&all[i])?))),
        }
    }
}

impl Device {
    /// What the numbers were computed on; they do not depend on the number of threads.
    pub fn name(&self) -> String {
        match self {
            Device::Cpu => "cpu".to_owned(),
            Device::Gpu(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Device {
    /// One line for reports: what the numbers were computed on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => write!(f, "cpu ({} threads)", rayon::current_num_threads()),
            Device::Gpu(gpu) => gpu.adapter.fmt(f),
        }
    }
}

/// Something about a GPU failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// A `--device` that is none.
    #[error("device {got:?} is none of auto, cpu, gpu, gpu:N, gpu:NAME")]
    Choice {
        /// What was given.
        got: String,
    },
    /// No adapter fits.
    #[error("no adapter for device {asked:?}; found: {found}. `cpu` needs none")]
    NoAdapter {
        /// What was asked for.
        asked: String,
        /// Adapters that are there.
        found: String,
    },
    /// An adapter that cannot be opened.
    #[error("cannot open {adapter}: {message}")]
    Open {
        /// The adapter.
        adapter: String,
        /// What the driver says.
        message: String,
    },
    /// A kernel is not valid.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Device memory is used up.
    #[error("out of device memory at {what}")]
    OutOfMemory {
        /// What was being done.
        what: String,
    },
    /// The device is gone: reset, unplugged, or a driver fault.
    #[error("the device was lost at {what}: {reason}")]
    Lost {
        /// What was being done.
        what: String,
        /// What the driver says.
        reason: String,
    },
    /// The driver, or the layer above it, refuses.
    #[error("{what} failed: {message}")]
    Failed {
        /// What was being done.
        what: String,
        /// What it says.
        message: String,
    },
}

/// An opened device. Shared between executors and threads; all its errors end in [`GpuError`].
#[derive(Debug)]
pub struct Gpu {
    /// What it was opened from.
    pub adapter: Adapter,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pipelines: Pipelines,
    lost: Arc<Mutex<Option<String>>>,
    /// Errors outside any scope, to be told at the next occasion.
    stray: Arc<Mutex<Vec<wgpu::Error>>>,
}

impl Gpu {
    /// Opens an adapter with all it has.
    pub fn open(adapter: &Adapter) -> Result<Gpu, GpuError> {
        let wanted = wgpu::Features::SUBGROUP
            | wgpu::Features::SUBGROUP_BARRIER
            | wgpu::Features::SHADER_F16
            | wgpu::Features::SHADER_INT64
            | wgpu::Features::TIMESTAMP_QUERY;
        let desc = wgpu::DeviceDescriptor {
            label: Some("samebit"),
            required_features: adapter.inner.features() & wanted,
            required_limits: adapter.inner.limits(),
            ..Default::default()
        };
        let fail = |message: String| GpuError::Open { adapter: adapter.to_string(), message };
        let (device, queue) =
            pollster::block_on(adapter.inner.request_device(&desc)).map_err(|e| fail(e.to_string()))?;
        let (lost, stray) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
        let note = Arc::clone(&lost);
        device.set_device_lost_callback(move |reason, message| {
            *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{reason:?}: {message}"));
        });
        let note = Arc::clone(&stray);
        device.on_uncaptured_error(Arc::new(move |e| {
            note.lock().unwrap_or_else(PoisonError::into_inner).push(e);
        }));
        Ok(Gpu { adapter: adapter.clone(), device, queue, pipelines: Pipelines::default(), lost, stray })
    }

    /// What it can hold and run.
    pub fn limits(&self) -> &Limits {
        &self.adapter.limits
    }

    /// Runs `f` and turns whatever goes wrong on the device into an error that says it happened at `what`.
    pub(super) fn guarded<T>(&self, what: &dyn Fn() -> String, f: impl FnOnce() -> T) -> Result<T, GpuError> {
        use wgpu::ErrorFilter as F;
        let scopes = [F::Internal, F::Validation, F::OutOfMemory].map(|k| self.device.push_error_scope(k));
        // wgpu panics where a wait finds the device lost.
        let done = catch_unwind(AssertUnwindSafe(f));
        let mut errors: Vec<wgpu::Error> = Vec::new();
        for scope in scopes.into_iter().rev() {
            errors.extend(pollster::block_on(scope.pop()));
        }
        if let Some(reason) = self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(GpuError::Lost { what: what(), reason });
        }
        errors.append(&mut self.stray.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(e) = errors.first() {
            return Err(match e {
                wgpu::Error::OutOfMemory { .. } => GpuError::OutOfMemory { what: what() },
                e => GpuError::Failed { what: what(), message: e.to_string() },
            });
        }
        done.map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            GpuError::Failed { what: what(), message: text.unwrap_or("panic").to_owned() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_printed() {
        for (text, want) in [
            ("auto", Choice::Auto),
            ("cpu", Choice::Cpu),
            ("gpu", Choice::Gpu),
            ("gpu:2", Choice::Index(2)),
            ("gpu:llvmpipe", Choice::Name("llvmpipe".into())),
        ] {
            assert_eq!(text.parse::<Choice>().unwrap(), want);
            assert_eq!(want.to_string(), text);
        }
        for bad in ["", "gpu:", "gpu: ", "cuda", "GPU", "cpu:0"] {
            let e = bad.parse::<Choice>().unwrap_err().to_string();
            assert!(e.contains("gpu:NAME"), "{e}");
        }
    }

    #[test]
    fn auto_takes_hardware_only_and_gpu_takes_it_first() {
        let soft = [("llvmpipe", Kind::Software)];
        let both = [("llvmpipe", Kind::Software), ("Odd", Kind::Other), ("NVIDIA H200", Kind::Hardware)];
        assert_eq!(Choice::Auto.pick(&soft).unwrap(), None);
        assert_eq!(Choice::Auto.pick(&both).unwrap(), Some(2));
        assert_eq!(Choice::Auto.pick(&[]).unwrap(), None);
        assert_eq!(Choice::Gpu.pick(&soft).unwrap(), Some(0));
        assert_eq!(Choice::Gpu.pick(&both).unwrap(), Some(2));
        assert_eq!(Choice::Index(1).pick(&both).unwrap(), Some(1));
        assert_eq!(Choice::Name("nvidia".into()).pick(&both).unwrap(), Some(2));
        assert_eq!(Choice::Cpu.pick(&both).unwrap(), None);
    }

    #[test]
    fn a_missing_adapter_is_an_error_that_lists_the_others() {
        let soft = [("llvmpipe", Kind::Software)];
        for choice in [Choice::Index(1), Choice::Name("amd".into())] {
            let e = choice.pick(&soft).unwrap_err().to_string();
            assert!(e.contains("gpu:0 llvmpipe (software)"), "{e}");
        }
        let e = Choice::Gpu.pick(&[]).unwrap_err().to_string();
        assert!(e.contains("none"), "{e}");
    }
}

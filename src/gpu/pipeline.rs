//! Compute pipelines, built once for each kernel and values of its overrides.

use super::device::{Gpu, GpuError};
use super::kernels::{Access, KernelError, Linked};
use crate::graph::lower::Kernel;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};

/// A kernel is the same as another where it lies at the same address.
type Key = (usize, Vec<(&'static str, u32)>);

/// Pipelines of a device.
#[derive(Debug, Default)]
pub struct Pipelines(Mutex<HashMap<Key, Arc<Pipeline>>>);

/// A kernel ready to run on a device.
#[derive(Debug)]
pub struct Pipeline {
    /// Name of the kernel.
    pub name: &'static str,
    pub(super) inner: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    /// Bytes of the `Params` uniform.
    pub(super) params_bytes: NonZeroU64,
}

impl Gpu {
    /// The pipeline of a kernel, built at the first call.
    ///
    /// # Errors
    /// A kernel that is invalid or asks for more than the device has.
    pub fn pipeline(
        &self,
        kernel: &'static Kernel,
        overrides: &[(&'static str, u32)],
    ) -> Result<Arc<Pipeline>, GpuError> {
        let key = (std::ptr::from_ref(kernel).addr(), overrides.to_vec());
        let known = self.pipelines.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(p) = known {
            return Ok(p);
        }
        let built = Arc::new(self.build(kernel, overrides)?);
        let mut all = self.pipelines.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(all.entry(key).or_insert(built)))
    }

    /// What of a kernel is beyond the device.
    fn refuse(&self, linked: &Linked, overrides: &[(&'static str, u32)]) -> Result<(), String> {
        let limits = self.limits();
        if let Some((name, _)) = overrides.iter().find(|(n, _)| !linked.overrides.iter().any(|o| o == n)) {
            return Err(format!("has no override {name:?}; it has {:?}", linked.overrides));
        }
        let size = linked.workgroup_size(overrides)?;
        let most = limits.workgroup_size;
        if size.iter().zip(most).any(|(s, m)| *s > m) || size.iter().product::<u32>() > limits.invocations {
            let all = limits.invocations;
            return Err(format!("workgroup {size:?}: the device allows {most:?} and {all} in all"));
        }
        let buffers = linked.storage_buffers();
        if buffers > limits.storage_buffers as usize {
            return Err(format!("binds {buffers} buffers: the device allows {}", limits.storage_buffers));
        }
        if linked.workgroup_bytes > limits.workgroup_bytes as usize {
            let (want, have) = (linked.workgroup_bytes, limits.workgroup_bytes);
            return Err(format!("takes {want} bytes of workgroup memory: the device has {have}"));
        }
        Ok(())
    }

    fn build(
        &self,
        kernel: &'static Kernel,
        overrides: &[(&'static str, u32)],
    ) -> Result<Pipeline, GpuError> {
        let linked = Linked::of(kernel)?;
        self.refuse(&linked, overrides).map_err(|message| KernelError::of(kernel, message))?;
        let params_bytes = NonZeroU64::new(linked.params_bytes as u64)
            .ok_or_else(|| KernelError::of(kernel, "`Params` is empty".into()))?;
        let entries: Vec<wgpu::BindGroupLayoutEntry> =
            (0..).zip(&linked.bindings).map(|(i, a)| entry(i, *a, params_bytes)).collect();
        let constants: Vec<(&str, f64)> = overrides.iter().map(|(n, v)| (*n, f64::from(*v))).collect();
        let label = Some(kernel.name);
        self.guarded(&|| format!("building kernel {}", kernel.name), || {
            let desc = wgpu::ShaderModuleDescriptor {
                label,
                source: wgpu::ShaderSource::Wgsl(linked.source.as_str().into()),
            };
            let module = self.shader(desc);
            let layout = self
                .device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
            let counters = self.counters_layout();
            let groups = [Some(&layout), Some(&counters)];
            let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: if linked.counts_nan { &groups } else { &groups[..1] },
                immediate_size: 0,
            });
            let inner = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &constants,
                    zero_initialize_workgroup_memory: cfg!(debug_assertions),
                },
                cache: None,
            });
            Pipeline { name: kernel.name, inner, layout, params_bytes }
        })
    }

    /// The layout of group 1: what `shared/nan_count.wgsl` declares.
    pub(super) fn counters_layout(&self) -> wgpu::BindGroupLayout {
        let entries = [entry(0, Access::ReadWrite, NonZeroU64::MIN)];
        let desc = wgpu::BindGroupLayoutDescriptor { label: Some("counters"), entries: &entries };
        self.device.create_bind_group_layout(&desc)
    }

    #[cfg(debug_assertions)]
    fn shader(&self, desc: wgpu::ShaderModuleDescriptor<'_>) -> wgpu::ShaderModule {
        self.device.create_shader_module(desc)
    }

    #[cfg(not(debug_assertions))]
    #[allow(unsafe_code, reason = "the only way to leave out wgpu's bounds and loop checks")]
    fn shader(&self, desc: wgpu::ShaderModuleDescriptor<'_>) -> wgpu::ShaderModule {
        // SAFETY: only kernels that are part of this crate get here. They guard every access by the sizes in their
        // `Params`, and their loops are bounded by them; debug builds run the same kernels with the checks on.
        unsafe { self.device.create_shader_module_trusted(desc, wgpu::ShaderRuntimeChecks::unchecked()) }
    }
}

fn entry(binding: u32, access: Access, params_bytes: NonZeroU64) -> wgpu::BindGroupLayoutEntry {
    let (ty, min_binding_size) = match access {
        Access::Uniform => (wgpu::BufferBindingType::Uniform, Some(params_bytes)),
        Access::Read => (wgpu::BufferBindingType::Storage { read_only: true }, None),
        Access::ReadWrite => (wgpu::BufferBindingType::Storage { read_only: false }, None),
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size },
        count: None,
    }
}

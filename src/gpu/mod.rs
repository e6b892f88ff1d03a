//! GPUs through wgpu, which is named nowhere else: adapters and devices, kernels, buffers.

pub mod kernels;

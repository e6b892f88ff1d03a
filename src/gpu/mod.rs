//! GPUs through wgpu, which is named nowhere else: adapters and devices, kernels, buffers, submissions.

mod buffers;
mod device;
pub mod kernels;
mod pipeline;

pub use buffers::{BindGroup, Bound, Buffer, Copy, Counters, Region, Submission};
pub use device::{Adapter, Choice, Device, Gpu, GpuError, Kind, Limits, adapters};
pub use kernels::{KernelError, Linked};
pub use pipeline::Pipeline;

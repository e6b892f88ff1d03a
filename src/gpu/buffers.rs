//! Device memory, bind groups, and submissions over them.

use super::device::{Gpu, GpuError};
use super::pipeline::Pipeline;
use std::sync::{Arc, Mutex, PoisonError};

/// Device memory.
#[derive(Clone, Debug)]
pub struct Buffer {
    inner: wgpu::Buffer,
    name: Arc<str>,
}

impl Buffer {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.inner.size()
    }
}

/// A part of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a dispatch binds.
#[derive(Clone, Debug)]
pub struct BindGroup(wgpu::BindGroup);

/// A dispatch with all it needs.
#[derive(Clone, Debug)]
pub struct Bound {
    /// What runs.
    pub pipeline: Arc<Pipeline>,
    /// What it binds.
    pub group: BindGroup,
    /// Workgroups.
    pub grid: [u32; 3],
}

/// Counters of NaN, one a quantizer.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Where they are.
    pub buffer: Buffer,
    group: BindGroup,
}

/// A copy between buffers.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Read from.
    pub from: Buffer,
    /// Where in it.
    pub from_offset: u64,
    /// Written to.
    pub to: Buffer,
    /// Where in it.
    pub to_offset: u64,
    /// Bytes, a multiple of 4.
    pub bytes: u64,
}

/// Work that goes to the device at once: copies, dispatches, copies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Submission<'a> {
    /// First.
    pub before: &'a [Copy],
    /// Then, in order; each sees what the ones before it wrote.
    pub dispatches: &'a [Bound],
    /// Last.
    pub after: &'a [Copy],
    /// Counters of NaN for kernels that count them (see [`Gpu::counters`]).
    pub counters: Option<&'a Counters>,
    /// Whether these begin at 0; else where they are.
    pub clear: bool,
    /// An upload buffer that must be writable again at the end.
    pub upload: Option<&'a Buffer>,
    /// A readback buffer that must be readable at the end.
    pub readback: Option<&'a Buffer>,
}

impl Gpu {
    fn buffer(
        &self,
        name: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<Buffer, GpuError> {
        let what = || format!("allocation of {bytes} bytes for {name}");
        if bytes > self.limits().buffer_bytes {
            let message = format!("the device allows {} bytes a buffer", self.limits().buffer_bytes);
            return Err(GpuError::Failed { what: what(), message });
        }
        let size = bytes.next_multiple_of(16).max(16);
        let desc = wgpu::BufferDescriptor { label: Some(name), size, usage, mapped_at_creation: mapped };
        let inner = self.guarded(&what, || self.device.create_buffer(&desc))?;
        Ok(Buffer { inner, name: name.into() })
    }

    /// Memory that kernels read and write.
    pub fn storage(&self, name: &str, bytes: u64) -> Result<Buffer, GpuError> {
        use wgpu::BufferUsages as U;
        self.buffer(name, bytes, U::STORAGE | U::COPY_SRC | U::COPY_DST, false)
    }

    /// Memory for `Params`.
    pub fn uniforms(&self, name: &str, bytes: u64) -> Result<Buffer, GpuError> {
        self.buffer(name, bytes, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST, false)
    }

    /// Memory that the host writes; writable from the start.
    pub fn upload_buffer(&self, name: &str, bytes: u64) -> Result<Buffer, GpuError> {
        self.buffer(name, bytes, wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC, true)
    }

    /// Memory that the host reads.
    pub fn readback_buffer(&self, name: &str, bytes: u64) -> Result<Buffer, GpuError> {
        self.buffer(name, bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST, false)
    }

    /// Writes through the queue: for what is written once.
    pub fn write(&self, to: &Buffer, offset: u64, bytes: &[u8]) -> Result<(), GpuError> {
        self.guarded(&|| format!("writing {} bytes to {}", bytes.len(), to.name), || {
            self.queue.write_buffer(&to.inner, offset, bytes);
        })
    }

    /// Writes parts of a writable upload buffer: offsets, multiples of 8, and bytes, multiples of 4.
    pub fn fill_upload(&self, to: &Buffer, parts: &[(u64, &[u8])]) -> Result<(), GpuError> {
        let what = || format!("writing {}", to.name);
        let failed = |e: wgpu::MapRangeError| GpuError::Failed { what: what(), message: e.to_string() };
        self.guarded(&what, || {
            for (offset, bytes) in parts.iter().filter(|(_, b)| !b.is_empty()) {
                let range = *offset..*offset + bytes.len() as u64;
                to.inner.get_mapped_range_mut(range).map_err(failed)?.copy_from_slice(bytes);
            }
            Ok(())
        })?
    }

    /// Reads a readable readback buffer.
    pub fn read<T>(&self, buffer: &Buffer, f: impl FnOnce(&[u8]) -> T) -> Result<T, GpuError> {
        let what = || format!("reading {}", buffer.name);
        self.guarded(&what, || {
            let view = buffer.inner.get_mapped_range(..);
            let view = view.map_err(|e| GpuError::Failed { what: what(), message: e.to_string() })?;
            let out = f(&view);
            drop(view);
            buffer.inner.unmap();
            Ok(out)
        })?
    }

    /// What a dispatch binds: its `Params` and storage regions in order.
    pub fn bind(
        &self,
        pipeline: &Pipeline,
        params: &Buffer,
        params_offset: u64,
        regions: &[Region<'_>],
    ) -> Result<BindGroup, GpuError> {
        let binding = |buffer: &Buffer, offset: u64, bytes: u64| {
            let size = std::num::NonZeroU64::new(bytes);
            let inner = buffer.inner.clone();
            (inner, offset, size)
        };
        let mut bound = vec![binding(params, params_offset, pipeline.params_bytes.get())];
        bound.extend(regions.iter().map(|r| binding(r.buffer, r.offset, r.bytes)));
        let entries: Vec<wgpu::BindGroupEntry> = (0..)
            .zip(&bound)
            .map(|(binding, (buffer, offset, size))| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset: *offset,
                    size: *size,
                }),
            })
            .collect();
        let desc = wgpu::BindGroupDescriptor {
            label: Some(pipeline.name),
            layout: &pipeline.layout,
            entries: &entries,
        };
        self.guarded(&|| format!("binding kernel {}", pipeline.name), || {
            BindGroup(self.device.create_bind_group(&desc))
        })
    }

    /// Counters of so many quantizers.
    pub fn counters(&self, quantizers: usize) -> Result<Counters, GpuError> {
        let buffer = self.storage("counters of NaN", quantizers as u64 * 4)?;
        let layout = self.counters_layout();
        let resource = buffer.inner.as_entire_binding();
        let desc = wgpu::BindGroupDescriptor {
            label: Some("counters"),
            layout: &layout,
            entries: &[wgpu::BindGroupEntry { binding: 0, resource }],
        };
        let group = self.guarded(&|| "binding counters of NaN".to_owned(), || {
            BindGroup(self.device.create_bind_group(&desc))
        })?;
        Ok(Counters { buffer, group })
    }

    /// Submits and waits until it is done. An upload buffer is unmapped for it and mapped again.
    pub fn submit(&self, work: &Submission<'_>) -> Result<(), GpuError> {
        let mapped: Arc<Mutex<Option<String>>> = Arc::default();
        let what = || {
            let mut names: Vec<&str> = work.dispatches.iter().map(|d| d.pipeline.name).collect();
            names.dedup();
            if names.len() > 8 {
                names.truncate(8);
                names.push("..");
            }
            format!("running kernels {}", names.join(", "))
        };
        self.guarded(&what, || {
            if let Some(upload) = work.upload {
                upload.inner.unmap();
            }
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let copy = |encoder: &mut wgpu::CommandEncoder, c: &Copy| {
                let (from, to) = (&c.from.inner, &c.to.inner);
                encoder.copy_buffer_to_buffer(from, c.from_offset, to, c.to_offset, Some(c.bytes));
            };
            if let Some(counters) = work.counters.filter(|_| work.clear) {
                encoder.clear_buffer(&counters.buffer.inner, 0, None);
            }
            work.before.iter().for_each(|c| copy(&mut encoder, c));
            if !work.dispatches.is_empty() {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                if let Some(counters) = work.counters {
                    pass.set_bind_group(1, &counters.group.0, &[]);
                }
                let mut last: Option<&Arc<Pipeline>> = None;
                for d in work.dispatches {
                    if !last.is_some_and(|p| Arc::ptr_eq(p, &d.pipeline)) {
                        pass.set_pipeline(&d.pipeline.inner);
                        last = Some(&d.pipeline);
                    }
                    pass.set_bind_group(0, &d.group.0, &[]);
                    let [x, y, z] = d.grid;
                    pass.dispatch_workgroups(x, y, z);
                }
            }
            work.after.iter().for_each(|c| copy(&mut encoder, c));
            self.queue.submit([encoder.finish()]);
            for (buffer, mode) in [(work.upload, wgpu::MapMode::Write), (work.readback, wgpu::MapMode::Read)]
            {
                let note = Arc::clone(&mapped);
                if let Some(b) = buffer {
                    b.inner.map_async(mode, .., move |r| {
                        if let Err(e) = r {
                            *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.to_string());
                        }
                    });
                }
            }
            self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| e.to_string())
        })?
        .map_err(|message| GpuError::Failed { what: what(), message })?;
        let failure = mapped.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failure {
            Some(message) => Err(GpuError::Failed { what: what(), message }),
            None => Ok(()),
        }
    }
}

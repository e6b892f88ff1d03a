//! Samples read and prepared ahead of their use.

use super::{BoundDataset, DataError, Unread};
use crate::tensor::{DType, Tensor, element_count};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Samples that go through a graph together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Names of the samples.
    pub ids: Vec<String>,
    /// Their positions in the data set.
    pub positions: Vec<usize>,
    /// A tensor for each graph input, in the graph's order; axis 0 counts the samples. For a graph of fixed batch the
    /// last batch is filled up by repeating its last sample, so that axis 0 may exceed [`Batch::frames`].
    pub inputs: Vec<Tensor>,
    /// Class of each sample, where labels were given.
    pub labels: Option<Vec<i64>>,
}

impl Batch {
    /// Number of samples; rows of the inputs and outputs beyond it are padding.
    pub fn frames(&self) -> usize {
        self.ids.len()
    }

    /// An output without the rows that padding gave.
    pub fn without_padding(&self, output: &Tensor) -> Tensor {
        first_rows(output, self.frames())
    }
}

fn first_rows(t: &Tensor, rows: usize) -> Tensor {
    let Some(have) = t.shape().first().filter(|have| **have > rows) else {
        return t.clone();
    };
    let mut shape = t.shape().to_vec();
    shape[0] = rows;
    let bytes = t.len() / have * rows * t.dtype().size_bytes();
    Tensor::from_bytes(t.dtype(), &shape, &t.bytes()[..bytes]).expect("rows of a tensor are a tensor")
}

/// A sample that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skip {
    /// Its position in the data set.
    pub position: usize,
    /// Its name.
    pub sample: String,
    /// Why.
    pub reason: String,
}

/// How a [`Loader`] works; the results do not depend on it, except for the batch.
#[derive(Clone, Copy, Debug)]
pub struct LoaderOptions {
    /// Samples per batch; a graph's fixed batch goes before it.
    pub batch: usize,
    /// Threads that read; as many as the machine has by default.
    pub threads: usize,
    /// Batches that are read ahead.
    pub ahead: usize,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        LoaderOptions { batch: 16, threads, ahead: 2 }
    }
}

type Loaded = Result<Vec<Tensor>, Unread>;

struct State {
    /// Next sample that a thread will take.
    next: usize,
    /// Samples that were handed on.
    taken: usize,
    ready: BTreeMap<usize, Loaded>,
    stop: bool,
}

struct Shared {
    data: BoundDataset,
    window: usize,
    state: Mutex<State>,
    room: Condvar,
    news: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No user code runs under the lock, so that a poisoned one still holds a consistent state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sample to read next, once there is room for it; `None` at the end.
    fn claim(&self) -> Option<usize> {
        let mut state = self.state();
        loop {
            if state.stop || state.next >= self.data.dataset().len() {
                return None;
            }
            if state.next < state.taken + self.window {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        while let Some(position) = self.claim() {
            // A decoder's panic on a damaged file costs that file.
            let loaded = catch_unwind(AssertUnwindSafe(|| self.data.load(position)))
                .unwrap_or_else(|_| Err(Unread::Sample("the decoder panicked".into())));
            let mut state = self.state();
            state.ready.insert(position, loaded);
            self.news.notify_all();
        }
    }

    /// The next sample in order; `None` at the end.
    fn take(&self) -> Option<(usize, Loaded)> {
        let mut state = self.state();
        let position = state.taken;
        if position >= self.data.dataset().len() {
            return None;
        }
        loop {
            if let Some(loaded) = state.ready.remove(&position) {
                state.taken += 1;
                self.room.notify_all();
                return Some((position, loaded));
            }
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Iterates over the batches of a data set, in its order, reading on threads of its own. A sample that cannot be read
/// is skipped, and the batch is filled with those that follow.
///
/// # Errors
/// A source that is damaged or cannot be read as a whole, such as an archive, is an error, and the last item.
/// The one item of a data set of which no sample can be read is an error with the first reason.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    batch: usize,
    frames: usize,
    /// Whether a data set of which nothing can be read was reported, or need not be.
    failed: bool,
    /// Whether a source could not be read.
    ended: bool,
    skipped: Vec<Skip>,
}

impl Loader {
    /// Starts to read.
    ///
    /// # Errors
    /// A batch that is larger than a tensor may be, or no thread to be had.
    pub fn new(data: BoundDataset, options: LoaderOptions) -> Result<Loader, DataError> {
        let path = data.dataset().path().to_path_buf();
        let batch = data.fixed_batch().unwrap_or(options.batch).max(1);
        for input in data.inputs() {
            let mut shape = vec![batch];
            shape.extend(input.sample_type().dims().unwrap_or_default());
            if element_count(&shape).is_none() {
                let what =
                    format!("input {}: a batch of shape {shape:?} has too many elements", input.name());
                return Err(DataError::new(&path, what).help("use a smaller batch"));
            }
        }
        let threads = options.threads.clamp(1, 256);
        let shared = Arc::new(Shared {
            window: batch.saturating_mul(options.ahead.max(1)).max(threads),
            data,
            state: Mutex::new(State { next: 0, taken: 0, ready: BTreeMap::new(), stop: false }),
            room: Condvar::new(),
            news: Condvar::new(),
        });
        let mut loader = Loader {
            shared,
            threads: Vec::new(),
            batch,
            frames: 0,
            failed: false,
            ended: false,
            skipped: Vec::new(),
        };
        for _ in 0..threads.min(loader.shared.data.dataset().len()) {
            let shared = Arc::clone(&loader.shared);
            let thread =
                std::thread::Builder::new().name("samebit-loader".into()).spawn(move || shared.work());
            match thread {
                Ok(thread) => loader.threads.push(thread),
                Err(_) if !loader.threads.is_empty() => break,
                Err(e) => return Err(DataError::io(&path, "cannot start a thread to read it", &e)),
            }
        }
        Ok(loader)
    }

    /// Takes a data set of which no sample can be read for one without samples, rather than for an error.
    pub fn or_nothing(mut self) -> Self {
        self.failed = true;
        self
    }

    /// Samples per batch.
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// Samples that were read so far.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Samples that could not be read so far.
    pub fn skipped(&self) -> &[Skip] {
        &self.skipped
    }

    fn assemble(&self, positions: Vec<usize>, samples: &[Vec<Tensor>]) -> Result<Batch, DataError> {
        let set = self.shared.data.dataset();
        let rows = self.shared.data.fixed_batch().unwrap_or(samples.len());
        let inputs = (0..self.shared.data.inputs().len())
            .map(|i| stack((0..rows).map(|r| &samples[r.min(samples.len() - 1)][i])))
            .collect();
        Ok(Batch {
            ids: positions.iter().map(|p| set.id(*p).into_owned()).collect(),
            labels: positions.iter().map(|p| set.label(*p)).collect::<Result<_, _>>()?,
            positions,
            inputs,
        })
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let (mut positions, mut samples) = (Vec::new(), Vec::new());
        while samples.len() < self.batch {
            let Some((position, loaded)) = self.shared.take() else { break };
            match loaded {
                Ok(tensors) => {
                    positions.push(position);
                    samples.push(tensors);
                }
                Err(Unread::Source(e)) => {
                    self.shared.state().stop = true;
                    self.shared.room.notify_all();
                    self.ended = true;
                    return Some(Err(e));
                }
                Err(Unread::Sample(reason)) => {
                    let sample = self.shared.data.dataset().id(position).into_owned();
                    self.skipped.push(Skip { position, sample, reason });
                }
            }
        }
        self.frames += samples.len();
        if !samples.is_empty() {
            return Some(self.assemble(positions, &samples));
        }
        if self.frames > 0 || std::mem::replace(&mut self.failed, true) {
            return None;
        }
        let Skip { sample, reason, .. } = self.skipped.first()?;
        let what = match self.skipped.len() {
            1 => format!("its only sample cannot be used: {sample}: {reason}"),
            n => format!("none of its {n} samples can be used; the first, {sample}: {reason}"),
        };
        Some(Err(DataError::new(self.shared.data.dataset().path(), what)))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // Its panics were caught; there is nothing to learn from joining.
            let _ = thread.join();
        }
    }
}

/// One tensor from equal ones, along a new axis 0. There is at least one.
fn stack<'a>(parts: impl Iterator<Item = &'a Tensor> + Clone) -> Tensor {
    let mut shape = vec![parts.clone().count()];
    let first = parts.clone().next();
    shape.extend(first.map(Tensor::shape).unwrap_or_default());
    let bytes: Vec<&[u8]> = parts.map(Tensor::bytes).collect();
    let dtype = first.map_or(DType::F32, Tensor::dtype);
    Tensor::from_bytes(dtype, &shape, &bytes.concat()).expect("samples of one type and shape join")
}

//! What the CPU executor keeps between operators and runs: buffers, and what operators make of their constants.

use crate::tensor::{Data, Tensor};
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Kept between operators and runs.
#[derive(Debug, Default)]
pub struct Scratch {
    floats: Pool<f32>,
    bytes: Pool<u8>,
    prepared: Mutex<HashMap<Key, Prepared>>,
}

/// Where a tensor's elements are, what was made of them, and by what parameters.
type Key = (usize, TypeId, Vec<usize>);

#[derive(Debug)]
struct Prepared {
    /// As long as this is kept, nothing else gets the address.
    of: Weak<dyn Any + Send + Sync>,
    made: Arc<dyn Any + Send + Sync>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Buffers that are free.
#[derive(Debug, Default)]
struct Pool<T>(Mutex<Vec<Vec<T>>>);

impl<T: Copy + Default> Pool<T> {
    fn take(&self, n: usize) -> Vec<T> {
        let mut free = lock(&self.0);
        let best = free
            .iter()
            .enumerate()
            .filter(|(_, v)| v.capacity() >= n && v.capacity() / 2 <= n.max(1024))
            .min_by_key(|(_, v)| v.capacity())
            .map(|(i, _)| i);
        let mut v = best.map_or_else(Vec::new, |i| free.swap_remove(i));
        drop(free);
        v.resize(n, T::default());
        v
    }

    fn give(&self, v: Vec<T>) {
        const KEPT: usize = 64;
        let mut free = lock(&self.0);
        if v.capacity() > 0 && free.len() < KEPT {
            free.push(v);
        }
    }
}

impl Scratch {
    /// Nothing kept yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A vector of `n` elements with unspecified values.
    pub fn take(&self, n: usize) -> Vec<f32> {
        self.floats.take(n)
    }

    /// A vector of `n` bytes with unspecified values.
    pub fn take_bytes(&self, n: usize) -> Vec<u8> {
        self.bytes.take(n)
    }

    /// A vector of `n` zeros.
    pub fn zeros(&self, n: usize) -> Vec<f32> {
        let mut v = self.take(n);
        v.fill(0.0);
        v
    }

    /// Gives a vector back.
    pub fn give(&self, v: Vec<f32>) {
        self.floats.give(v);
    }

    /// Gives bytes back.
    pub fn give_bytes(&self, v: Vec<u8>) {
        self.bytes.give(v);
    }

    /// Gives a tensor's elements back when nobody else holds them.
    pub fn give_tensor(&self, t: Tensor) {
        match t.into_data() {
            Data::F32(v) => Arc::try_unwrap(v).into_iter().for_each(|v| self.give(v)),
            Data::I8(v) | Data::I4(v) => {
                Arc::try_unwrap(v).into_iter().for_each(|v| self.give_bytes(bytemuck::cast_vec(v)));
            }
            Data::U8(v) | Data::U4(v) | Data::Bool(v) => {
                Arc::try_unwrap(v).into_iter().for_each(|v| self.give_bytes(v));
            }
            Data::I32(_) | Data::I16(_) | Data::U16(_) => {}
        }
    }

    /// What `make` makes of a tensor with these parameters, kept for as long as the tensor's elements are there.
    pub fn prepared<P: Any + Send + Sync>(
        &self,
        tensor: &Tensor,
        parameters: Vec<usize>,
        make: impl FnOnce() -> P,
    ) -> Arc<P> {
        let of = tensor.storage();
        let key = (Arc::as_ptr(&of).cast::<()>().addr(), TypeId::of::<P>(), parameters);
        let known =
            lock(&self.prepared).get(&key).filter(|p| p.of.strong_count() > 0).map(|p| p.made.clone());
        if let Some(Ok(known)) = known.map(Arc::downcast) {
            return known;
        }
        let made = Arc::new(make());
        let mut prepared = lock(&self.prepared);
        prepared.retain(|_, p| p.of.strong_count() > 0);
        prepared.insert(key, Prepared { of: Arc::downgrade(&of), made: made.clone() });
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_kept_as_long_as_the_tensor() {
        let cx = Scratch::new();
        let a = Tensor::from_i8([2], vec![1, 2]);
        let made = cx.prepared(&a, vec![1], || 10);
        assert!(Arc::ptr_eq(&made, &cx.prepared(&a.reshaped([1, 2]), vec![1], || 11)), "made once");
        // Other parameters, another type, another tensor of the same contents.
        assert_eq!(*cx.prepared(&a, vec![2], || 12), 12);
        assert_eq!(*cx.prepared(&a, vec![1], || "other"), "other");
        assert_eq!(*cx.prepared(&Tensor::from_i8([2], vec![1, 2]), vec![1], || 13), 13);
        let kept = Arc::downgrade(&made);
        drop((a, made));
        cx.prepared(&Tensor::from_i8([1], vec![3]), vec![], || 14);
        assert!(kept.upgrade().is_none(), "dropped after its tensor");
    }

    #[test]
    fn bytes_of_tensors_are_used_again() {
        let cx = Scratch::new();
        let (x, shared) = (Tensor::from_i8([4000], vec![7; 4000]), Tensor::from_u8([4000], vec![8; 4000]));
        cx.give_tensor(shared.clone());
        assert!(cx.bytes.0.lock().unwrap().is_empty(), "{shared:?} is still held");
        cx.give_tensor(x);
        assert_eq!(cx.take_bytes(4000), vec![7; 4000]);
    }
}

//! The text form of a graph: one line a value or node, which [`parse`] reads back to an equal graph.
//!
//! ```text
//! graph "digits" float
//! input v0 "image" f32[N,1,8,8]
//! const v1 "w" f32[2] [0.5, nan]
//! const v2 "table" f32[64] hash 0f3c..
//! %0 "relu" from "relu (Relu)" LeakyRelu(v0) {alpha = 0.01} -> v3 "y" f32[N,1,8,8]
//! output v3
//! ```
//!
//! Behind the first line there may be `target 4 "name = .."`: consistency level and profile. `v3` is a value's id, `%0` a node's. Names are JSON strings, numbers the shortest text that reads back to the same
//! bits, `nan:7fc00001` a NaN other than the usual one. Lines that start with `#` are comments.

mod lex;
pub(super) mod number;
mod parse;
mod print;

pub use parse::{ParseError, parse};
pub use print::{around, print};

use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::fmt;

/// Constants with more elements are printed by their hash.
pub const INLINE_ELEMENTS: usize = 16;

/// Hash of a tensor's type, shape and elements: 128-bit FNV-1a.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub u128);

impl ContentHash {
    /// The hash of a tensor.
    pub fn of(t: &Tensor) -> ContentHash {
        const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let head = t.ty().to_string();
        let bytes = head.bytes().chain(t.bytes().iter().copied());
        ContentHash(bytes.fold(OFFSET, |h, b| (h ^ u128::from(b)).wrapping_mul(PRIME)))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl super::Graph {
    /// The constants that the text form names by hash.
    pub fn constants_by_hash(&self) -> BTreeMap<ContentHash, Tensor> {
        let constants = self.values().iter().filter_map(|v| v.constant.as_ref());
        let large = constants.filter(|t| t.len() > INLINE_ELEMENTS);
        large.map(|t| (ContentHash::of(t), t.clone())).collect()
    }
}

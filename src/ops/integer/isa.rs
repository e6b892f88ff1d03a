//! Which vector instructions the processor has, and loops compiled for them.
#![allow(
    unsafe_code,
    reason = "calls of functions compiled for instructions, behind a test that the processor has them"
)]

use std::sync::OnceLock;

/// Vector instructions that the processor has. Only this module makes one, so that holding it proves that they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) struct Isa(Kind);

/// By what sums of products of bytes are formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Kind {
    /// What every processor of its kind has.
    Scalar,
    /// `vpmaddwd` of 256 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// `vpdpbusd` of 512 bits.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// Products of 16 bits in vectors of 128.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// Loops that are worth compiling for the processor. `run` should be `#[inline(always)]`, and so what it calls.
pub(in crate::ops) trait Work {
    /// Does it.
    fn run(self);
}

impl Isa {
    /// Everything that the processor has, the fastest last.
    pub fn all() -> Vec<Isa> {
        let mut out = vec![Isa(Kind::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") {
                out.push(Isa(Kind::Avx2));
            }
            if has!("avx512f")
                && has!("avx512bw")
                && has!("avx512dq")
                && has!("avx512vl")
                && has!("avx512vnni")
            {
                out.push(Isa(Kind::Vnni));
            }
        }
        #[cfg(target_arch = "aarch64")]
        out.push(Isa(Kind::Neon));
        out
    }

    /// The fastest.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::all().pop().unwrap_or(Isa(Kind::Scalar)))
    }

    /// By what it forms sums of products.
    pub fn kind(self) -> Kind {
        self.0
    }

    /// Does work with its instructions.
    pub fn run(self, work: impl Work) {
        match self.0 {
            // SAFETY: the processor has the instructions, or there would be no such value.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => unsafe { vnni(work) },
            // All processors for which this is compiled have NEON, and it is compiled for that.
            _ => work.run(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(work: impl Work) {
    work.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn vnni(work: impl Work) {
    work.run();
}

//! Target profiles: the arithmetic of what a model is deployed to, as data.

use super::{Division, Requantize, Rounding};
use crate::tensor::DType;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// How sums of products are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accumulator {
    /// Exactly, in as many bits as they need.
    #[default]
    Exact,
    /// In 32 bits, saturated when all is summed.
    Saturating32,
    /// Pairs of products of codes of u8 and i8 saturate in 16 bits, as `vpmaddubsw` forms them; all else is exact: x86
    /// before VNNI. Codes of i8 activations are taken with 128 added. Elements 2j and 2j + 1 are a pair: of a convolution
    /// in the order of its taps, the channels of a group within them; padding is the zero point's code. Then zero points
    /// are taken off: sum of sat(a * w + a' * w') - z_a * sum of w - z_w * sum of a + k * z_a * z_w.
    SaturatingPairs,
}

impl Accumulator {
    /// All of them, in the order of their numbers in shaders.
    pub const ALL: [Accumulator; 3] =
        [Accumulator::Exact, Accumulator::Saturating32, Accumulator::SaturatingPairs];

    /// Its name in profiles, files and text.
    pub fn name(self) -> &'static str {
        match self {
            Accumulator::Exact => "exact",
            Accumulator::Saturating32 => "saturating_i32",
            Accumulator::SaturatingPairs => "saturating_i16_pairs",
        }
    }

    /// Whether it sums products of activations and weights of these types.
    pub fn takes(self, activations: DType, weights: DType) -> bool {
        self != Accumulator::SaturatingPairs
            || ([DType::U8, DType::I8].contains(&activations) && weights == DType::I8)
    }

    /// How far it may take a sum of products from the exact one, as a sum of one such number for each weight's code,
    /// whatever they are multiplied with and wherever they stand.
    pub fn takes_away(self, weight: i32) -> u64 {
        // Two products of at most 255 * |w| lose what they have beyond 2^15 - 1 together: no more than both have beyond
        // half of it.
        const HALF: u64 = 0x7fff / 2;
        match self {
            Accumulator::SaturatingPairs => (255 * u64::from(weight.unsigned_abs())).saturating_sub(HALF),
            Accumulator::Exact | Accumulator::Saturating32 => 0,
        }
    }
}

impl fmt::Display for Accumulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a target computes one operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Arithmetic {
    /// How sums become codes.
    pub requantize: Requantize,
    /// How that rounds, where the mode leaves it open.
    pub rounding: Rounding,
    /// How sums are kept.
    pub accumulator: Accumulator,
}

/// What a profile says of an operator; what is absent is as in the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default, deserialize_with = "named_requantize")]
    requantize: Option<Requantize>,
    #[serde(default, deserialize_with = "named_rounding")]
    rounding: Option<Rounding>,
    #[serde(default, deserialize_with = "named_accumulator")]
    accumulator: Option<Accumulator>,
}

/// The TOML form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    about: String,
    #[serde(default)]
    quantizer: QuantizerEntry,
    #[serde(default)]
    weights: WeightsEntry,
    /// Types that tensors between operators may have.
    activations: Vec<String>,
    #[serde(default)]
    default: Entry,
    #[serde(default)]
    op: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuantizerEntry {
    #[serde(default, deserialize_with = "named_rounding")]
    rounding: Option<Rounding>,
    #[serde(default, deserialize_with = "named_division")]
    division: Option<Division>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightsEntry {
    #[serde(default)]
    narrow: bool,
    #[serde(default)]
    types: Vec<String>,
}

fn named<'de, D: Deserializer<'de>, T: Copy>(
    d: D,
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> Result<Option<T>, D::Error> {
    struct Name<T: 'static>(&'static [T], fn(T) -> &'static str, PhantomData<T>);
    impl<T: Copy> Visitor<'_> for Name<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            let names: Vec<&str> = self.0.iter().map(|v| self.1(*v)).collect();
            write!(f, "one of {}", names.join(", "))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Option<T>, E> {
            let found = self.0.iter().find(|v| self.1(**v) == text).copied();
            found.map(Some).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }
    d.deserialize_str(Name(all, name, PhantomData))
}

fn named_requantize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Requantize>, D::Error> {
    named(d, &Requantize::ALL, Requantize::name)
}

fn named_rounding<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Rounding>, D::Error> {
    named(d, &Rounding::ALL, Rounding::name)
}

fn named_division<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Division>, D::Error> {
    named(d, &Division::ALL, Division::name)
}

fn named_accumulator<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Accumulator>, D::Error> {
    named(d, &Accumulator::ALL, Accumulator::name)
}

/// A profile that is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Not the TOML of a profile.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// A type that is no type of codes.
    #[error("{0:?} is no type of codes; supported: i4, i8, i16, u4, u8, u16")]
    Type(String),
    /// No profile of this name, and no file.
    #[error("there is no profile {name:?}; there are {}; or name a TOML file", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
}

/// The arithmetic of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub about: String,
    /// How quantizers round.
    pub rounding: Rounding,
    /// How quantizers divide.
    pub division: Division,
    /// Whether the lowest code of weights is not used.
    pub narrow_weights: bool,
    /// Types of weights.
    pub weights: Vec<DType>,
    /// Types of tensors between operators.
    pub activations: Vec<DType>,
    /// The text that it was read from.
    pub source: String,
    default: Arithmetic,
    ops: BTreeMap<String, Entry>,
}

macro_rules! builtin {
    ($($name:literal),+ $(,)?) => {
        /// Names and texts of the profiles that come with the engine.
        const BUILTIN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/", $name, ".toml")))),+];
    };
}

builtin!(
    "samebit",
    "onnxruntime",
    "tflite-reference",
    "tflite-optimised",
    "tflite-single",
    "x86-avx2-saturating",
    "power-of-two",
);

impl Default for Profile {
    fn default() -> Profile {
        Profile::builtin("samebit").expect("it comes with the engine")
    }
}

impl Profile {
    /// Names of the profiles that come with the engine.
    pub fn names() -> Vec<&'static str> {
        BUILTIN.iter().map(|(name, _)| *name).collect()
    }

    /// One that comes with the engine.
    ///
    /// # Errors
    /// Another name.
    pub fn builtin(name: &str) -> Result<Profile, ProfileError> {
        match BUILTIN.iter().find(|(n, _)| *n == name) {
            Some((_, text)) => Profile::parse(text),
            None => Err(ProfileError::Unknown { name: name.to_owned(), known: Profile::names() }),
        }
    }

    /// From TOML.
    ///
    /// # Errors
    /// What is no profile.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        let file: File = toml::from_str(text)?;
        let types = |names: Vec<String>| -> Result<Vec<DType>, ProfileError> {
            let of = |name: String| {
                let dtype = DType::from_name(&name).filter(|d| d.limits().is_some() && *d != DType::I32);
                dtype.ok_or(ProfileError::Type(name))
            };
            names.into_iter().map(of).collect()
        };
        let plain = Arithmetic::default();
        Ok(Profile {
            name: file.name,
            about: file.about,
            rounding: file.quantizer.rounding.unwrap_or_default(),
            division: file.quantizer.division.unwrap_or_default(),
            narrow_weights: file.weights.narrow,
            weights: types(file.weights.types)?,
            activations: types(file.activations)?,
            source: text.to_owned(),
            default: file.default.over(plain),
            ops: file.op,
        })
    }

    /// How it computes an operator, by our name of it.
    pub fn arithmetic(&self, op: &str) -> Arithmetic {
        self.ops.get(op).map_or(self.default, |e| e.over(self.default))
    }

    /// Whether both compute alike and take the same types, whatever they are called and however they are written.
    pub fn same_arithmetic(&self, other: &Profile) -> bool {
        let plain = |p: &Profile| {
            let ops: BTreeMap<String, Arithmetic> = p
                .ops
                .keys()
                .map(|op| (op.clone(), p.arithmetic(op)))
                .filter(|(_, a)| *a != p.default)
                .collect();
            let types = (p.weights.clone(), p.activations.clone());
            (p.rounding, p.division, p.narrow_weights, types, p.default, ops)
        };
        plain(self) == plain(other)
    }

    /// Whether scales must be powers of two, as some operator is requantized by shifts.
    pub fn shifts(&self) -> bool {
        let each = self.ops.values().map(|e| e.over(self.default)).chain([self.default]);
        each.into_iter().any(|a| a.requantize == Requantize::Shift)
    }

    /// Operators that it says something of.
    pub fn named_ops(&self) -> impl Iterator<Item = &str> {
        self.ops.keys().map(String::as_str)
    }
}

impl Entry {
    fn over(&self, base: Arithmetic) -> Arithmetic {
        Arithmetic {
            requantize: self.requantize.unwrap_or(base.requantize),
            rounding: self.rounding.unwrap_or(base.rounding),
            accumulator: self.accumulator.unwrap_or(base.accumulator),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_reads_and_has_its_name() {
        for name in Profile::names() {
            let p = Profile::builtin(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(p.name, name);
            assert!(!p.activations.is_empty() && !p.weights.is_empty(), "{name}");
            for op in p.named_ops() {
                assert!(crate::ops::by_name(op).is_some(), "{name}: op.{op}");
            }
        }
        assert_eq!(Profile::default().arithmetic("Conv"), Arithmetic::default());
        assert_eq!(
            Profile::builtin("tflite-optimised").unwrap().arithmetic("Conv").requantize,
            Requantize::DoublingUp
        );
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let head = "name = \"a\"\nabout = \"b\"\nactivations = [\"i8\"]\n";
        assert!(Profile::parse(head).is_ok());
        for (text, word) in [
            ("name = 1".to_owned(), "name"),
            (format!("{head}[default]\nrounding = \"up\""), "half_even"),
            (format!("{head}[default]\nround = \"half_up\""), "round"),
            (head.replace("i8", "f32"), "f32"),
            (head.replace("i8", "i32"), "i32"),
        ] {
            let e = Profile::parse(&text).unwrap_err().to_string();
            assert!(e.contains(word), "{e}");
        }
        let e = Profile::builtin("tflite").unwrap_err().to_string();
        assert!(e.contains("tflite-reference"), "{e}");
    }
}

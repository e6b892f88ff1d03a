//! A quantizer of a graph: what it is to be, its state, and its parameters once they are known.

use super::{Division, QParams, Rounding, Scheme};
use crate::tensor::DType;
use std::fmt;

/// What a quantizer does when the graph runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Observes, does not quantize.
    #[default]
    Calibration,
    /// Observes and quantizes.
    Qat,
    /// Quantizes with frozen parameters.
    Validation,
    /// Neither: the numbers pass.
    Float,
}

/// What a quantizer's tensor is to the graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// An input of the graph.
    Input,
    /// A tensor between operators.
    #[default]
    Activation,
    /// An output of the graph.
    Output,
    /// Weights of a convolution or matrix product.
    Weight,
    /// Another constant.
    Constant,
    /// The sampling grid of a `GridSample`.
    Grid,
    /// A tensor inside a composite operator.
    Tap,
}

/// Where a quantizer's parameters come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// There are none yet.
    #[default]
    None,
    /// From statistics of its tensor.
    Observed,
    /// From the model that was imported.
    Imported,
    /// From the configuration.
    Fixed,
}

macro_rules! named {
    ($ty:ident, $($variant:ident = $name:literal),+) => {
        impl $ty {
            /// All of them.
            pub const ALL: &'static [$ty] = &[$($ty::$variant),+];

            /// Its name in files, text and JSON.
            pub fn name(self) -> &'static str {
                match self { $($ty::$variant => $name),+ }
            }
        }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named!(State, Calibration = "calibration", Qat = "qat", Validation = "validation", Float = "float");
named!(
    Role,
    Input = "input",
    Activation = "activation",
    Output = "output",
    Weight = "weight",
    Constant = "constant",
    Grid = "grid",
    Tap = "tap"
);
named!(Origin, None = "none", Observed = "observed", Imported = "imported", Fixed = "fixed");

/// What a quantizer is to be before its parameters are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Type of the codes.
    pub dtype: DType,
    /// The axis along which parameters differ.
    pub axis: Option<usize>,
    /// How a range becomes a scale.
    pub scheme: Scheme,
    /// Whether scales are rounded up to powers of two.
    pub power_of_two: bool,
    /// How quotients are rounded.
    pub rounding: Rounding,
    /// How quotients are formed.
    pub division: Division,
    /// What its tensor is.
    pub role: Role,
    /// What finds the range, as configurations write it: `mse`, `percentile=99.99`.
    pub observer: String,
    /// The id of the node in whose integer form its tensor lies, where it lies in one.
    pub owner: Option<u32>,
}

impl Spec {
    /// A quantizer of one symmetric scale.
    pub fn new(dtype: DType, role: Role, observer: &str) -> Spec {
        Spec {
            dtype,
            axis: None,
            scheme: Scheme::Symmetric,
            power_of_two: false,
            rounding: Rounding::HalfEven,
            division: Division::Multiply,
            role,
            observer: observer.to_owned(),
            owner: None,
        }
    }
}

/// A quantizer.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantizer {
    /// What it is to be.
    pub spec: Spec,
    /// What it does.
    pub state: State,
    /// Where its parameters come from.
    pub origin: Origin,
    /// Its parameters, once known; of the type, axis, rounding and division of the specification.
    pub params: Option<QParams>,
}

impl Quantizer {
    /// A quantizer without parameters, which observes.
    pub fn new(spec: Spec) -> Quantizer {
        Quantizer { spec, state: State::Calibration, origin: Origin::None, params: None }
    }

    /// One with frozen parameters.
    pub fn with_params(mut spec: Spec, params: QParams, origin: Origin) -> Quantizer {
        spec.dtype = params.dtype();
        spec.axis = params.axis();
        let params = params.rounded(spec.rounding).divided(spec.division);
        Quantizer { spec, state: State::Validation, origin, params: Some(params) }
    }

    /// The parameters with which numbers are changed when the graph runs; `None` where they pass.
    pub fn active(&self) -> Option<&QParams> {
        self.params.as_ref().filter(|_| self.quantizes())
    }

    /// Whether numbers are changed when the graph runs.
    pub fn quantizes(&self) -> bool {
        matches!(self.state, State::Qat | State::Validation)
    }
}

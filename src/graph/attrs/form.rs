//! How ONNX writes an operator where that differs from our attributes.

/// Where the newest operator set of ONNX has what an attribute of ours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In an attribute of its name.
    Attribute,
    /// In input `index`: integers as int64, numbers as float, one alone as a scalar.
    Input(usize),
    /// In input `index`, one alone as a list of one.
    List(usize),
    /// In input `index`, a scalar of the element type of output 0.
    Element(usize),
    /// In an attribute that is a tensor of one element of the type of output 0.
    Tensor,
    /// In an attribute that is the number of an element type.
    Type,
    /// Nowhere, because it follows from the rest of the node.
    Implied,
    /// Nowhere: what it says cannot be said.
    Unsaid,
}

/// How ONNX writes an operator, as far as it differs from attributes of the same names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxForm {
    /// Attributes that ONNX has elsewhere.
    pub places: Vec<(String, Place)>,
    /// Inputs that must be of int64.
    pub wide_inputs: Vec<usize>,
    /// Outputs that are of int64.
    pub wide_outputs: Vec<usize>,
}

//! ONNX models for tests, written as protobuf bytes by field number: independent of the decoder under test.

/// A protobuf message under construction.
#[derive(Clone, Debug, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v.to_le_bytes()[0] & 0x7f | 0x80);
            v >>= 7;
        }
        self.0.push(v.to_le_bytes()[0]);
    }

    pub fn int(mut self, field: u64, v: i64) -> Self {
        self.varint(field << 3);
        self.varint(v.cast_unsigned());
        self
    }

    pub fn float(mut self, field: u64, v: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(v.to_le_bytes());
        self
    }

    pub fn bytes(mut self, field: u64, v: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(v.len() as u64);
        self.0.extend(v);
        self
    }

    pub fn text(self, field: u64, v: &str) -> Self {
        self.bytes(field, v.as_bytes())
    }

    pub fn message(self, field: u64, v: &Message) -> Self {
        self.bytes(field, &v.0)
    }

    pub fn all<T>(self, items: impl IntoIterator<Item = T>, f: impl Fn(Self, T) -> Self) -> Self {
        items.into_iter().fold(self, f)
    }
}

/// ONNX type numbers.
pub const F32: i64 = 1;
pub const U8: i64 = 2;
pub const I8: i64 = 3;
pub const I32: i64 = 6;
pub const I64: i64 = 7;
pub const STRING: i64 = 8;
pub const BOOL: i64 = 9;
pub const F16: i64 = 10;

/// One dimension of a declared type.
#[derive(Clone, Copy, Debug)]
pub enum D {
    Size(i64),
    Name(&'static str),
    Open,
}

/// A declared type: element type, dimensions; `None` for a type without shape.
pub fn value_info(name: &str, elem: i64, dims: Option<&[D]>) -> Message {
    let mut tensor = Message::new().int(1, elem);
    if let Some(dims) = dims {
        let shape = Message::new().all(dims, |m, d| {
            let dim = match d {
                D::Size(v) => Message::new().int(1, *v),
                D::Name(n) => Message::new().text(2, n),
                D::Open => Message::new(),
            };
            m.message(1, &dim)
        });
        tensor = tensor.message(2, &shape);
    }
    Message::new().text(1, name).message(2, &Message::new().message(1, &tensor))
}

/// A tensor with its elements as raw bytes.
pub fn tensor(name: &str, elem: i64, dims: &[i64], raw: &[u8]) -> Message {
    Message::new().all(dims, |m, d| m.int(1, *d)).int(2, elem).text(8, name).bytes(9, raw)
}

pub fn f32s(name: &str, dims: &[i64], v: &[f32]) -> Message {
    tensor(name, F32, dims, &v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
}

pub fn i64s(name: &str, dims: &[i64], v: &[i64]) -> Message {
    tensor(name, I64, dims, &v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
}

/// A tensor whose elements lie in a file beside the model.
pub fn external(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> Message {
    Message::new()
        .all(dims, |m, d| m.int(1, *d))
        .int(2, F32)
        .text(8, name)
        .all(entries, |m, (k, v)| m.message(13, &Message::new().text(1, k).text(2, v)))
        .int(14, 1)
}

/// An attribute.
#[derive(Clone, Debug)]
pub enum A {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Floats(Vec<f32>),
    Str(&'static str),
    Tensor(Message),
    Graph(Graph),
}

fn attribute(name: &str, a: &A) -> Message {
    let m = Message::new().text(1, name);
    match a {
        A::Float(v) => m.float(2, *v).int(20, 1),
        A::Int(v) => m.int(3, *v).int(20, 2),
        A::Str(v) => m.text(4, v).int(20, 3),
        A::Tensor(t) => m.message(5, t).int(20, 4),
        A::Graph(g) => m.message(6, &g.message()).int(20, 5),
        A::Floats(v) => m.all(v, |m, x| m.float(7, *x)).int(20, 6),
        A::Ints(v) => m.all(v, |m, x| m.int(8, *x)).int(20, 7),
    }
}

/// A graph under construction.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Message>,
    initializers: Vec<Message>,
    sparse: Vec<Message>,
    inputs: Vec<Message>,
    outputs: Vec<Message>,
    infos: Vec<Message>,
}

impl Graph {
    pub fn new() -> Self {
        Self::default()
    }

    /// A node called `name`, of `op` or `domain:op`.
    pub fn node(
        mut self,
        name: &str,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attrs: &[(&str, A)],
    ) -> Self {
        let (domain, op) = op.split_once(':').unwrap_or(("", op));
        let m = Message::new()
            .all(inputs, |m, i| m.text(1, i))
            .all(outputs, |m, o| m.text(2, o))
            .text(3, name)
            .text(4, op)
            .all(attrs, |m, (k, v)| m.message(5, &attribute(k, v)));
        self.nodes.push(if domain.is_empty() { m } else { m.text(7, domain) });
        self
    }

    pub fn init(mut self, t: Message) -> Self {
        self.initializers.push(t);
        self
    }

    /// A sparse initializer.
    pub fn sparse(mut self, t: &Message) -> Self {
        self.sparse.push(t.clone());
        self
    }

    pub fn input(self, name: &str, elem: i64, dims: &[D]) -> Self {
        self.input_of(value_info(name, elem, Some(dims)))
    }

    pub fn input_of(mut self, v: Message) -> Self {
        self.inputs.push(v);
        self
    }

    pub fn output(mut self, name: &str) -> Self {
        self.outputs.push(value_info(name, F32, None));
        self
    }

    pub fn info(mut self, name: &str, elem: i64, dims: &[D]) -> Self {
        self.infos.push(value_info(name, elem, Some(dims)));
        self
    }

    pub fn message(&self) -> Message {
        Message::new()
            .all(&self.nodes, |m, n| m.message(1, n))
            .text(2, "test")
            .all(&self.initializers, |m, t| m.message(5, t))
            .all(&self.inputs, |m, v| m.message(11, v))
            .all(&self.outputs, |m, v| m.message(12, v))
            .all(&self.infos, |m, v| m.message(13, v))
            .all(&self.sparse, |m, v| m.message(15, v))
    }

    /// The model's bytes.
    pub fn model(&self, opset: i64) -> Vec<u8> {
        Message::new().int(1, 8).message(7, &self.message()).message(8, &opset_id("", opset)).0
    }
}

pub fn opset_id(domain: &str, version: i64) -> Message {
    Message::new().text(1, domain).int(2, version)
}

/// The place and length of every field `number` of the message in `range`.
fn fields(bytes: &[u8], range: std::ops::Range<usize>, number: u64) -> Vec<std::ops::Range<usize>> {
    let mut at = range.start;
    let varint = |at: &mut usize| {
        let mut v = 0;
        for shift in (0..).step_by(7) {
            let b = bytes[*at];
            *at += 1;
            v |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return v;
            }
        }
        unreachable!("a varint ends")
    };
    let mut out = Vec::new();
    while at < range.end {
        let key = varint(&mut at);
        let start = at;
        let (start, end) = match key & 7 {
            0 => {
                varint(&mut at);
                (start, at)
            }
            1 => (start, start + 8),
            2 => {
                let len = usize::try_from(varint(&mut at)).expect("a length");
                (at, at + len)
            }
            5 => (start, start + 4),
            wire => panic!("wire type {wire}"),
        };
        at = end;
        if key >> 3 == number {
            out.push(start..end);
        }
    }
    out
}

/// Makes inputs and initializers of a model ones of texts, those whose index, inputs first, `which` takes. Returns how
/// many there are in all.
pub fn with_texts(model: &mut [u8], which: impl Fn(usize) -> bool) -> usize {
    // Model.graph, Graph.input, ValueInfo.type, Type.tensor_type, Tensor.elem_type.
    const INPUTS: &[u64] = &[7, 11, 2, 1, 1];
    // Model.graph, Graph.initializer, Tensor.data_type.
    const INITIALIZERS: &[u64] = &[7, 5, 2];
    let mut all = 0;
    for path in [INPUTS, INITIALIZERS] {
        let mut found: Vec<std::ops::Range<usize>> = std::iter::once(0..model.len()).collect();
        for number in path {
            found = found.into_iter().flat_map(|range| fields(model, range, *number)).collect();
        }
        for at in found {
            assert_eq!(at.len(), 1, "type numbers are small");
            if which(all) {
                model[at.start] = u8::try_from(STRING).expect("small");
            }
            all += 1;
        }
    }
    all
}

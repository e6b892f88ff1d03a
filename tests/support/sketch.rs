//! Random fake-quant graphs of one operator each.

use samebit::graph::sample::Rng;
use samebit::graph::{Attrs, Graph, NodeId, ValueId};
use samebit::ops::{build, fake_quant};
use samebit::quant::{Origin, QParams, Quantizer, Role, Spec};
use samebit::tensor::{DType, Tensor, TensorType};

/// A fake-quant graph that grows.
pub struct Sketch {
    pub graph: Graph,
    pub inputs: Vec<Tensor>,
    pub rng: Rng,
    /// Types that sums of pairs take.
    pub pairs: bool,
}

const ACTIVATIONS: [DType; 6] = [DType::I8, DType::U8, DType::I8, DType::I16, DType::U16, DType::I4];
const WEIGHTS: [DType; 4] = [DType::I8, DType::I8, DType::I16, DType::I4];

impl Sketch {
    fn params(&mut self, range: f32) -> QParams {
        let dtype = self.rng.pick(if self.pairs { &ACTIVATIONS[..2] } else { &ACTIVATIONS });
        self.params_of(dtype, range)
    }

    fn params_of(&mut self, dtype: DType, range: f32) -> QParams {
        let (low, high) = dtype.limits().expect("codes");
        let zero = if self.rng.int(0, 3) == 0 { 0 } else { self.rng.code(low, high) };
        let scale = range / (high - low) as f32 * self.rng.float(-1.5, 1.5).exp2();
        QParams::per_tensor(dtype, scale, zero.clamp(low, high)).expect("legal")
    }

    fn fresh(&self, what: &str) -> String {
        format!("{what}{}", self.graph.nodes().len())
    }

    fn op(&mut self, name: &'static str, attrs: Attrs, inputs: &[ValueId]) -> ValueId {
        let types: Vec<TensorType> = inputs.iter().map(|v| self.graph.value(*v).ty.clone()).collect();
        let op = build(name, attrs, &types).unwrap_or_else(|e| panic!("{name}: {e}"));
        let label = self.fresh(name);
        let out = format!("{label}/out");
        self.graph.add_node(label, None, op, inputs, &[out]).unwrap_or_else(|e| panic!("{name}: {e}"))[0]
    }

    fn quantized(&mut self, v: ValueId, params: QParams, role: Role) -> ValueId {
        let q = Quantizer::with_params(Spec::new(params.dtype(), role, "fixed"), params, Origin::Imported);
        let name = self.fresh("quantizer");
        let out = format!("{name}/out");
        self.graph.add_node(name, None, fake_quant(q), &[v], &[out]).expect("legal")[0]
    }

    /// An input with a quantizer, a little beyond whose range its numbers go.
    fn input(&mut self, shape: &[usize], range: f32) -> ValueId {
        let params = self.params(range);
        self.input_of(shape, params)
    }

    fn input_of(&mut self, shape: &[usize], params: QParams) -> ValueId {
        let (step, (low, high)) = (params.step(0), params.codes());
        let (low, high) = (1.1 * step.dequantize(low), 1.1 * step.dequantize(high));
        let n = shape.iter().product();
        let numbers =
            (0..n).map(|_| self.rng.float(low.min(-step.scale()), high.max(step.scale()))).collect();
        self.inputs.push(Tensor::from_f32(shape, numbers));
        let name = format!("x{}", self.inputs.len());
        let v = self.graph.add_input(name, TensorType::new(DType::F32, shape.to_vec()));
        self.quantized(v, params, Role::Activation)
    }

    fn constant(&mut self, shape: &[usize], range: f32) -> ValueId {
        let n = shape.iter().product();
        let numbers = (0..n).map(|_| self.rng.float(-range, range)).collect();
        self.graph.new_constant("constant", Tensor::from_f32(shape, numbers))
    }

    /// Weights with one scale, or with one for each index of an axis.
    fn weights(&mut self, shape: &[usize], axis: usize) -> ValueId {
        let v = self.constant(shape, 1.0);
        let dtype = if self.pairs { DType::I8 } else { self.rng.pick(&WEIGHTS) };
        let (low, high) = dtype.limits().expect("codes");
        let n = if self.rng.int(0, 3) == 0 { 1 } else { shape[axis] };
        let scales: Vec<f32> = (0..n).map(|_| self.rng.float(-4.0, 0.3).exp2() / high as f32).collect();
        let axis = (n > 1 || shape[axis] == 1).then_some(axis);
        let some = self.pairs && self.rng.int(0, 2) == 0;
        let zeros = (0..n).map(|_| if some { self.rng.code(low, high) } else { 0 }).collect();
        let params = QParams::new(dtype, false, scales, zeros, axis).expect("legal");
        self.quantized(v, params, Role::Weight)
    }

    /// Perhaps a clamp, then a quantizer.
    fn end(&mut self, v: ValueId, range: f32) {
        let v = match self.rng.int(0, 3) {
            0 => self.op("Relu", Attrs::new(), &[v]),
            1 => self.op("Clip", Attrs::new().float("min", -0.2 * range).float("max", 0.3 * range), &[v]),
            _ => v,
        };
        let params = self.params(range);
        let v = self.quantized(v, params, Role::Activation);
        self.graph.outputs.push(v);
    }

    /// Whether an output of products shall be numbers.
    fn end_of_product(&mut self, y: ValueId, k: usize) {
        let range = (k as f32).sqrt();
        if self.rng.int(0, 5) == 0 {
            self.graph.outputs.push(y);
        } else if self.rng.int(0, 2) == 0 {
            let shape = self.graph.value(y).ty.dims().expect("fixed");
            let other = self.input(&shape, range);
            let y = self.op("Add", Attrs::new(), &[y, other]);
            self.end(y, range);
        } else {
            self.end(y, range);
        }
    }

    fn sizes(&mut self, n: usize, low: usize, high: usize) -> Vec<usize> {
        (0..n).map(|_| self.rng.int(low, high)).collect()
    }

    fn conv(&mut self) {
        let n = self.rng.int(1, 3);
        let (groups, c, o) = match self.rng.int(0, 3) {
            0 => (1, self.rng.int(1, 9), self.rng.int(1, 9)),
            1 => (2, 2 * self.rng.int(1, 4), 2 * self.rng.int(1, 4)),
            2 => (5, 5, 10),
            _ => (7, 7, 7),
        };
        let kernel = self.sizes(n, 1, 3);
        let shape = [vec![self.rng.int(1, 2), c], self.sizes(n, 7, 11)].concat();
        let x = self.input(&shape, 4.0);
        let w = self.weights(&[vec![o, c / groups], kernel.clone()].concat(), 0);
        let mut inputs = vec![x, w];
        if self.rng.int(0, 2) > 0 {
            inputs.push(self.constant(&[o], 2.0));
        }
        let attrs = Attrs::new()
            .sizes("kernel_shape", &kernel)
            .sizes("strides", &self.sizes(n, 1, 3))
            .sizes("dilations", &self.sizes(n, 1, 2))
            .sizes("pads", &self.sizes(2 * n, 0, 2))
            .int("group", groups as i64);
        let y = self.op("Conv", attrs, &inputs);
        self.end_of_product(y, 4 * c / groups * kernel.iter().product::<usize>());
    }

    fn gemm(&mut self) {
        let (m, k, n) = (self.rng.int(1, 5), self.rng.int(1, 70), self.rng.int(1, 9));
        let (ta, tb) = (self.rng.int(0, 1), self.rng.int(0, 1));
        let x = self.input(&if ta == 1 { [k, m] } else { [m, k] }, 4.0);
        let w = self.weights(&if tb == 1 { [n, k] } else { [k, n] }, 1 - tb);
        let mut inputs = vec![x, w];
        if self.rng.int(0, 2) > 0 {
            inputs.push(self.constant(&[n], 2.0));
        }
        let attrs = Attrs::new().int("transA", ta as i64).int("transB", tb as i64);
        let y = self.op("Gemm", attrs, &inputs);
        self.end_of_product(y, 4 * k);
    }

    fn matmul(&mut self) {
        let (m, k, n) = (self.rng.int(1, 5), self.rng.int(1, 40), self.rng.int(1, 9));
        let (left, right): (Vec<usize>, Vec<usize>) = self.rng.pick(&[
            (vec![m, k], vec![k, n]),
            (vec![3, m, k], vec![k, n]),
            (vec![2, 3, m, k], vec![3, k, n]),
            (vec![m, k], vec![k]),
            (vec![k], vec![k, n]),
        ]);
        let x = self.input(&left, 4.0);
        let computed = self.rng.int(0, 1) == 0;
        let axis = right.len() - 1;
        let w = if right.len() == 1 || computed {
            let params = if self.pairs { self.params_of(DType::I8, 2.0) } else { self.params(2.0) };
            self.input_of(&right, params)
        } else {
            self.weights(&right, axis)
        };
        let mut y = self.op("MatMul", Attrs::new(), &[x, w]);
        if right.len() > 1 && left.len() > 1 && self.rng.int(0, 1) == 0 {
            let bias = self.constant(&[n], 2.0);
            y = self.op("Add", Attrs::new(), &[y, bias]);
        }
        self.end_of_product(y, 8 * k);
    }

    fn pair(&mut self, name: &'static str) {
        let (c, h, w) = (self.rng.int(1, 5), self.rng.int(1, 5), self.rng.int(1, 30));
        let other = self.rng.pick(&[vec![2, c, h, w], vec![c, 1, 1], vec![1], vec![2, c, h, w]]);
        // Scales that are alike, and scales far apart.
        let ratio =
            if self.rng.int(0, 2) == 0 { self.rng.float(-70.0, 10.0) } else { self.rng.float(-3.0, 3.0) };
        let a = self.input(&[2, c, h, w], 1.0);
        let b = self.input(&other, ratio.exp2());
        let swap = self.rng.int(0, 1) == 0;
        let y = self.op(name, Attrs::new(), &if swap { [b, a] } else { [a, b] });
        self.end(y, if name == "Mul" { ratio.exp2() } else { 1.0 + ratio.exp2() });
    }

    fn window(&mut self, n: usize) -> Attrs {
        let attrs = Attrs::new()
            .sizes("kernel_shape", &self.sizes(n, 2, 4))
            .sizes("strides", &self.sizes(n, 1, 3))
            .int("ceil_mode", self.rng.int(0, 1) as i64);
        match self.rng.int(0, 2) {
            0 => attrs.str("auto_pad", "SAME_UPPER"),
            _ => attrs.sizes("pads", &self.sizes(2 * n, 0, 1)),
        }
    }

    fn average(&mut self) {
        let n = self.rng.int(1, 3);
        let shape = [vec![2, 3], self.sizes(n, 5, 9)].concat();
        let x = self.input(&shape, 1.0);
        let attrs = self.window(n).int("count_include_pad", self.rng.int(0, 1) as i64);
        let y = self.op("AveragePool", attrs, &[x]);
        self.end_of_mean(y, x);
    }

    /// Half of the means have the parameters of their input, where halves are real.
    fn end_of_mean(&mut self, y: ValueId, x: ValueId) {
        if self.rng.int(0, 1) == 0 {
            return self.end(y, 0.7);
        }
        let producer = self.graph.producers()[&x];
        let params =
            self.graph.nodes()[producer].quantizer().and_then(|q| q.params.clone()).expect("has some");
        let v = self.quantized(y, params, Role::Activation);
        self.graph.outputs.push(v);
    }

    fn mean(&mut self) {
        let shape = [2, self.rng.int(1, 5), self.rng.int(1, 8), self.rng.int(1, 8)];
        let x = self.input(&shape, 1.0);
        let y = if self.rng.int(0, 1) == 0 {
            self.op("GlobalAveragePool", Attrs::new(), &[x])
        } else {
            let axes = self.rng.pick(&[vec![1], vec![2, 3], vec![1, 3]]);
            let keep = self.rng.int(0, 1) as i64;
            self.op("ReduceMean", Attrs::new().ints("axes", axes).int("keepdims", keep), &[x])
        };
        self.end_of_mean(y, x);
    }

    /// What acts on codes: a clamp, a pool of maxima, another order.
    fn codes(&mut self) {
        let x = self.input(&[2, 4, 6, 7], 1.0);
        let mut y = self.op("Clip", Attrs::new().float("min", -0.1).float("max", 0.4), &[x]);
        let attrs = self.window(2);
        y = self.op("MaxPool", attrs, &[y]);
        y = self.op("Relu", Attrs::new(), &[y]);
        y = self.op("Transpose", Attrs::new().ints("perm", [0, 2, 3, 1]), &[y]);
        self.end(y, 0.8);
    }

    fn concat(&mut self) {
        let (a, b) = (self.input(&[2, 3, 5], 1.0), self.input(&[2, 4, 5], 2.0));
        let y = self.op("Concat", Attrs::new().int("axis", 1), &[a, b]);
        self.end(y, 1.5);
    }

    /// One tensor with two quantizers, and a quantizer behind a quantizer.
    fn several(&mut self) {
        let x = self.input(&[2, 3, 8, 8], 2.0);
        let w = self.weights(&[4, 3, 3, 3], 0);
        let attrs = Attrs::new().sizes("kernel_shape", &[3, 3]).sizes("pads", &[1, 1, 1, 1]);
        let y = self.op("Conv", attrs, &[x, w]);
        for _ in 0..2 {
            let params = self.params(4.0);
            let v = self.quantized(y, params, Role::Activation);
            self.end(v, 4.0);
        }
    }

    /// A quantizer for what lies inside a node, on any tensor beside it.
    fn inside(&mut self, owner: NodeId, v: ValueId, params: QParams) {
        let mut spec = Spec::new(params.dtype(), Role::Tap, "fixed");
        spec.owner = Some(owner.0);
        let q = Quantizer::with_params(spec, params, Origin::Fixed);
        let name = self.fresh("inside");
        let out = format!("{name}/out");
        self.graph.add_node(name, None, fake_quant(q), &[v], &[out]).expect("legal");
    }

    fn layer_norm(&mut self) {
        let (rows, n) = (self.rng.int(1, 6), self.rng.int(2, 40));
        let x = self.input(&[2, rows, n], 4.0);
        let mut inputs = vec![x];
        for _ in 0..self.rng.int(1, 2) {
            let v = self.constant(&[n], 1.5);
            let params = self.params_of(DType::I16, 3.0);
            inputs.push(self.quantized(v, params, Role::Tap));
        }
        let epsilon = self.rng.pick(&[1e-5, 1e-12, 0.5]);
        let y =
            self.op("LayerNormalization", Attrs::new().int("axis", -1).float("epsilon", epsilon), &inputs);
        let owner = self.graph.nodes().last().expect("was added").id;
        let normal = self.params_of(DType::I16, 12.0).without_zero_point();
        self.inside(owner, y, normal);
        self.inside(owner, y, QParams::per_tensor(DType::I16, 1.0 / 16384.0, 0).expect("legal"));
        self.end(y, 4.0);
    }

    fn conv_transpose(&mut self) {
        let n = self.rng.int(1, 3);
        let (groups, c, og) = match self.rng.int(0, 3) {
            0 => (1, self.rng.int(1, 9), self.rng.int(1, 20)),
            1 => (2, 2 * self.rng.int(1, 5), self.rng.int(1, 10)),
            2 => (5, 5, 2),
            _ => (1, 8, 17),
        };
        let (kernel, strides) = (self.sizes(n, 1, 4), self.sizes(n, 1, 3));
        let shape = [vec![self.rng.int(1, 2), c], self.sizes(n, 2, 6)].concat();
        let x = self.input(&shape, 4.0);
        let w = self.weights(&[vec![c, og], kernel.clone()].concat(), 1);
        let mut inputs = vec![x, w];
        if self.rng.int(0, 2) > 0 {
            inputs.push(self.constant(&[groups * og], 2.0));
        }
        let output_padding = strides.iter().map(|s| self.rng.int(0, s - 1)).collect::<Vec<_>>();
        let attrs = Attrs::new()
            .sizes("kernel_shape", &kernel)
            .sizes("strides", &strides)
            .sizes("dilations", &self.sizes(n, 1, 2))
            .sizes("pads", &vec![usize::from(kernel.iter().all(|k| *k > 2)); 2 * n])
            .sizes("output_padding", &output_padding)
            .int("group", groups as i64);
        let y = self.op("ConvTranspose", attrs, &inputs);
        self.end_of_product(y, c / groups * kernel.iter().product::<usize>());
    }

    fn resize(&mut self) {
        let n = self.rng.int(1, 3);
        let shape = [vec![2, 3], self.sizes(n, 2, 7)].concat();
        let x = self.input(&shape, 1.0);
        let modes = [
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
            "align_corners",
            "asymmetric",
            "tf_half_pixel_for_nn",
            "tf_crop_and_resize",
        ];
        let mode = self.rng.pick(&modes);
        let scales: Vec<f32> = (0..n).map(|_| self.rng.pick(&[2.0, 0.6, 1.7, 3.0, 1.0])).collect();
        let mut attrs = Attrs::new()
            .str("mode", "linear")
            .str("coordinate_transformation_mode", mode)
            .floats("scales", &[vec![1.0; 2], scales].concat());
        if mode == "tf_crop_and_resize" {
            let ends = |rng: &mut Rng, low, high| (0..n).map(|_| rng.float(low, high)).collect::<Vec<f32>>();
            let (begin, end) = (ends(&mut self.rng, -0.3, 0.5), ends(&mut self.rng, 0.5, 1.3));
            attrs = attrs.floats("roi", &[vec![0.0; 2], begin, vec![1.0; 2], end].concat());
            attrs = attrs.float("extrapolation_value", 0.3);
        }
        let y = self.op("Resize", attrs, &[x]);
        self.end_of_mean(y, x);
    }

    fn sum(&mut self) {
        let shape = [2, self.rng.int(1, 5), self.rng.int(1, 8), self.rng.int(1, 8)];
        let x = self.input(&shape, 1.0);
        let axes = self.rng.pick(&[vec![1], vec![2, 3], vec![1, 3], vec![-1]]);
        let keep = self.rng.int(0, 1) as i64;
        let y = self.op("ReduceSum", Attrs::new().ints("axes", axes).int("keepdims", keep), &[x]);
        if self.rng.int(0, 3) == 0 {
            // Numbers of the sums.
            self.graph.outputs.push(y);
        } else {
            self.end_of_mean(y, x);
        }
    }

    fn grid_sample(&mut self) {
        let (c, h, w) = (self.rng.int(1, 4), self.rng.int(1, 9), self.rng.int(1, 9));
        let (oh, ow) = (self.rng.int(1, 5), self.rng.int(1, 30));
        let x = self.input(&[2, c, h, w], 1.0);
        let params = {
            let dtype = self.rng.pick(&[DType::I16, DType::I16, DType::I8]);
            self.params_of(dtype, 3.0)
        };
        let grid = self.input_of(&[2, oh, ow, 2], params);
        let attrs = Attrs::new()
            .str("mode", self.rng.pick(&["linear", "nearest"]))
            .str("padding_mode", self.rng.pick(&["zeros", "border", "reflection"]))
            .int("align_corners", self.rng.int(0, 1) as i64);
        let y = self.op("GridSample", attrs, &[x, grid]);
        self.end_of_mean(y, x);
    }

    /// Functions that are infinite, or nothing, at some codes.
    fn undefined(&mut self) {
        let x = self.input(&[2, 300], 2.0);
        let name = self.rng.pick(&["Reciprocal", "Log", "Sqrt"]);
        let y = self.op(name, Attrs::new(), &[x]);
        let params = self.params(3.0);
        let v = self.quantized(y, params, Role::Activation);
        self.graph.outputs.push(v);
    }
}

/// Makes one operator of a form.
pub type Form = fn(&mut Sketch);

/// Every form of operators that `convert` makes.
pub const FORMS: [(&str, Form); 20] = [
    ("Conv", Sketch::conv),
    ("Conv again", Sketch::conv),
    ("Gemm", Sketch::gemm),
    ("MatMul", Sketch::matmul),
    ("Add", |s| s.pair("Add")),
    ("Sub", |s| s.pair("Sub")),
    ("Mul", |s| s.pair("Mul")),
    ("AveragePool", Sketch::average),
    ("mean", Sketch::mean),
    ("codes", Sketch::codes),
    ("Concat", Sketch::concat),
    ("several", Sketch::several),
    ("requantize", |s| {
        let x = s.input(&[2, 3, 4], 1.0);
        s.end(x, 1.0);
    }),
    ("LayerNormalization", Sketch::layer_norm),
    ("ConvTranspose", Sketch::conv_transpose),
    ("ConvTranspose again", Sketch::conv_transpose),
    ("Resize", Sketch::resize),
    ("ReduceSum", Sketch::sum),
    ("GridSample", Sketch::grid_sample),
    ("undefined", Sketch::undefined),
];

/// Those whose pairs of products may saturate.
pub const PAIRS: [(&str, Form); 4] = [
    ("Conv of pairs", Sketch::conv),
    ("Conv of pairs again", Sketch::conv),
    ("Gemm of pairs", Sketch::gemm),
    ("MatMul of pairs", Sketch::matmul),
];

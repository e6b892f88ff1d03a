#!/usr/bin/env python3
"""What ONNX Runtime gives at every tensor of a model, as a dump folder that `samebit verify` compares with.

    pip install -r tests/onnx_node/requirements.txt
    onnxruntime_codes.py MODEL.onnx INPUT=FILE.npy.. OUT [--optimizer]
    onnxruntime_codes.py operators OUT          # tests/data/onnxruntime: single operators with drawn scales

Each FILE holds the frames of an input, axis 0 = frame. Tensors whose axis 0 is not the frames are left out. With
--optimizer ONNX Runtime rearranges the graph before it runs it. Its codes are those of x86 with AVX2 or later.
"""
import argparse
import json
import sys
import urllib.parse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

NAMES = {"float32": "f32", "uint8": "u8", "int8": "i8", "int32": "i32"}
CODES = {"uint8", "int8"}


def session(model, optimizer):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimizer else level.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def codes(model, inputs, optimizer):
    """Every tensor of a model by name."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    known = {o.name for o in model.graph.output}
    outputs = [o for node in model.graph.node for o in node.output if o and o not in known]
    model.graph.output.extend(onnx.ValueInfoProto(name=o) for o in outputs)
    runs = session(model, optimizer)
    names = [o.name for o in runs.get_outputs()]
    return dict(inputs) | dict(zip(names, runs.run(names, inputs)))


def dump(tensors, frames, out):
    out.mkdir(parents=True, exist_ok=True)
    index = {}
    for name, value in tensors.items():
        dtype = value.dtype.name
        if dtype not in NAMES or value.ndim == 0 or value.shape[0] != frames:
            continue
        np.save(out / (urllib.parse.quote(name, safe="-._~") + ".npy"), np.ascontiguousarray(value))
        index[name] = {
            "shape": list(value.shape), "dtype": NAMES[dtype], "kind": "codes" if dtype in CODES else "values",
        }
    (out / "index.json").write_text(json.dumps({"tensors": index}, indent=1))


class Operators:
    """A model of single operators on codes, over inputs of u8 and i8."""

    FRAMES = 4
    WIDTH = 768  # 3 channels of 16 by 16

    def __init__(self):
        self.rng = np.random.default_rng(1)
        self.nodes, self.constants, self.count = [], [], {}

    def constant(self, name, value):
        name = f"{name}_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def params(self, dtype, scale, n=None, symmetric=False):
        """Scale and zero point; n of each, or one."""
        limits = np.iinfo(dtype)
        size = () if n is None else (n,)
        scales = (scale * 2.0 ** self.rng.uniform(-1, 1, size)).astype(np.float32)
        zeros = self.rng.integers(limits.min, limits.max + 1, size).astype(dtype)
        if symmetric:
            zeros = zeros * 0
        return [self.constant("scale", scales), self.constant("zero", zeros)]

    def add(self, name, op, inputs, domain="com.microsoft", **attributes):
        k = self.count.setdefault(name, 0)
        self.count[name] += 1
        out = f"{name}_{k}"
        self.nodes.append(onnx.helper.make_node(op, inputs, [out], name=out, domain=domain, **attributes))
        return out

    def shaped(self, x, *shape):
        return self.add("shaped", "Reshape", [x, self.constant("shape", np.array([0, *shape]))], domain="")

    def draw(self, dtype, *shape):
        limits = np.iinfo(dtype)
        return self.rng.integers(limits.min, limits.max + 1, shape).astype(dtype)

    def of(self, dtype, a, b):
        """Operators over two inputs of a type."""
        picture, rows = self.shaped(a, 3, 16, 16), self.shaped(a, 48, 16)
        for k in range(6):
            p, q = self.params(dtype, 2.0 ** self.rng.uniform(-7, 0)), self.params(dtype, 2.0 ** self.rng.uniform(-7, 0))
            y = self.params(dtype, 2.0 ** self.rng.uniform(-5, 1))
            self.add("add", "QLinearAdd", [a, *p, b, *q, *y])
            self.add("mul", "QLinearMul", [a, *p, b, *q, *y])
            column = self.constant("column", self.draw(dtype, 48, 1))
            self.add("add_still", "QLinearAdd", [column, *p, rows, *q, *y])
            self.add("add_still", "QLinearAdd", [rows, *p, column, *q, *y])
            one = self.constant("one", self.draw(dtype, 1))
            self.add("mul_still", "QLinearMul", [a, *p, one, *q, *y])
            self.add("add_still", "QLinearAdd", [one, *p, b, *q, *y])
            self.add("concat", "QLinearConcat", [*y, a, *p, b, *q], axis=1)
            self.add("sigmoid", "QLinearSigmoid", [a, *p, *self.params(dtype, 1 / 256)])
            self.add("leaky_relu", "QLinearLeakyRelu", [a, *p, *y], alpha=[0.1, 0.01, 0.3][k % 3])
            z = self.params(dtype, 1 / 256)
            self.add("softmax", "QLinearSoftmax", [rows, *p, *z], opset=13, axis=[-1, 1][k % 2])
            self.add("softmax_flat", "QLinearSoftmax", [picture, *p, *z], opset=11, axis=1)
            window = dict(kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0], count_include_pad=k % 2)
            self.add("average_pool", "QLinearAveragePool", [picture, *p, *y], **window)
            self.add("average_all", "QLinearAveragePool", [picture, *p, *y], kernel_shape=[16, 16])
            self.add("global", "QLinearGlobalAveragePool", [picture, *p, *y], channels_last=0)
            weights = np.int8 if k % 2 or dtype == np.int8 else np.uint8
            w = self.params(weights, 0.02, 6 if k % 3 else None, symmetric=k % 3 == 2)
            y = self.params(dtype, 4)
            bias = self.constant("bias", self.rng.integers(-4000, 4000, 6).astype(np.int32))
            kernel = self.constant("w", self.draw(weights, 6, 3, 3, 3))
            conv = dict(domain="", kernel_shape=[3, 3], pads=[1, 0, 1, 2], strides=[1, 2])
            self.add("conv", "QLinearConv", [picture, *p, kernel, *w, *y, bias][: 8 + k % 2], **conv)
            kernel = self.constant("w", self.draw(weights, 6, 1, 3, 3))
            self.add("conv_grouped", "QLinearConv", [picture, *p, kernel, *w, *y, bias], group=3, domain="")
            matrix = self.constant("w", self.draw(weights, self.WIDTH, 6))
            self.add("matmul", "QLinearMatMul", [a, *p, matrix, *w, *y], domain="")
            matrix = self.constant("w", self.draw(weights, 6, self.WIDTH))
            self.add("gemm", "QGemm", [a, *p, matrix, *w, bias if k % 2 else "", *y], transB=1)
            self.add("gemm_real", "QGemm", [a, *p, matrix, *w, bias], transB=1)
            kernel = self.constant("w", self.draw(weights, 6, 3, 3, 3))
            zero = self.params(weights, 1)[1]
            self.add("conv_integer", "ConvInteger", [picture, kernel, p[1], zero], domain="")
            matrix = self.constant("w", self.draw(weights, self.WIDTH, 6))
            self.add("matmul_integer", "MatMulInteger", [a, matrix, p[1], w[1]], domain="")
            self.add("quantize", "QuantizeLinear", ["x", *p], domain="")

    def write(self, out):
        for a, dtype in (("u8", np.uint8), ("i8", np.int8)):
            self.of(dtype, a, a + "b")
        kinds = onnx.TensorProto
        shape = ["N", self.WIDTH]
        inputs = [("u8", kinds.UINT8), ("i8", kinds.INT8), ("u8b", kinds.UINT8), ("i8b", kinds.INT8), ("x", kinds.FLOAT)]
        declared = [onnx.helper.make_tensor_value_info(n, t, shape) for n, t in inputs]
        outputs = [onnx.ValueInfoProto(name=n.output[0]) for n in self.nodes]
        graph = onnx.helper.make_graph(self.nodes, "operators", declared, outputs, self.constants)
        domains = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("com.microsoft", 1)]
        model = onnx.helper.make_model(graph, opset_imports=domains, ir_version=8)
        full = (self.FRAMES, self.WIDTH)
        given = {n: self.draw(np.int8 if n[0] == "i" else np.uint8, *full) for n, _ in inputs[:-1]}
        given["x"] = self.rng.uniform(-40, 40, full).astype(np.float32)
        dump(codes(model, given, False), self.FRAMES, out / "codes")
        onnx.save(model, out / "operators.onnx")


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "operators":
        return Operators().write(Path(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("inputs", nargs="+", metavar="INPUT=FILE")
    parser.add_argument("out", type=Path)
    parser.add_argument("--optimizer", action="store_true")
    args = parser.parse_args()
    inputs = {}
    for given in args.inputs:
        name, _, path = given.partition("=")
        if not path:
            sys.exit(f"{given}: write INPUT=FILE.npy")
        inputs[name] = np.load(path)
    frames = next(iter(inputs.values())).shape[0]
    dump(codes(onnx.load(args.model), inputs, args.optimizer), frames, args.out)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes a ResNet-18 for 224x224 images: random weights (fixed seed), BatchNormalization folded, opset 13, batch `N`.

For measuring speed only. 45 MB, so it belongs in target/.

    python3 -m venv venv
    venv/bin/pip install numpy==2.4.6 onnx==1.23.2
    venv/bin/python scripts/resnet18_shapes.py target/resnet18.onnx
"""
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
nodes, weights = [], []


def add(op, name, inputs, **attrs):
    nodes.append(helper.make_node(op, inputs, [name], name=name, **attrs))
    return name


def parameters(name, shape):
    """Weight and bias of a Conv or Gemm, scaled so that activations keep their size."""
    weight = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
    bias = rng.normal(0, 0.01, shape[0]).astype(np.float32)
    weights.extend(numpy_helper.from_array(v, f"{name}.{k}") for k, v in (("weight", weight), ("bias", bias)))
    return [f"{name}.weight", f"{name}.bias"]


def conv(name, x, c, o, k, stride):
    return add("Conv", name, [x, *parameters(name, (o, c, k, k))], kernel_shape=[k, k], pads=[k // 2] * 4,
               strides=[stride] * 2)


def block(name, x, c, o, stride):
    y = add("Relu", f"{name}.relu1", [conv(f"{name}.conv1", x, c, o, 3, stride)])
    y = conv(f"{name}.conv2", y, o, o, 3, 1)
    if stride != 1 or c != o:
        x = conv(f"{name}.downsample", x, c, o, 1, stride)
    return add("Relu", f"{name}.relu2", [add("Add", f"{name}.add", [y, x])])


def main():
    if len(sys.argv) != 2:
        raise SystemExit("usage: resnet18_shapes.py OUT.onnx")
    x = add("Relu", "relu", [conv("conv1", "image", 3, 64, 7, 2)])
    x = add("MaxPool", "maxpool", [x], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    c = 64
    for stage, o in enumerate((64, 128, 256, 512), 1):
        for i in range(2):
            x = block(f"layer{stage}.{i}", x, c, o, 2 if stage > 1 and i == 0 else 1)
            c = o
    x = add("Flatten", "flatten", [add("GlobalAveragePool", "pool", [x])])
    add("Gemm", "logits", [x, *parameters("fc", (1000, 512))], transB=1)
    graph = helper.make_graph(
        nodes, "resnet18",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="samebit")
    onnx.checker.check_model(model, full_check=True)
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, out)
    print(f"{out}: {len(nodes)} nodes, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()

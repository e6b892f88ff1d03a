#!/usr/bin/env python3
"""Trains the network of `samebit quickstart` and writes `assets/quickstart`.

Data: scikit-learn's `load_digits`, 1797 scans of 8x8 pixels with values 0..16. They are taken in order,
because neighbours tend to share a writer: the first 1000 train, the last 797 evaluate. Trained with numpy, under a
minute on one core; the seed is fixed, so a run differs from another at most by the summation order of the BLAS.

    python3 -m venv venv
    venv/bin/pip install numpy==2.4.6 scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.31.1
    venv/bin/python scripts/train_digits.py
"""
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from sklearn.datasets import load_digits

OUT = Path(__file__).resolve().parent.parent / "assets" / "quickstart"
TRAIN, CALIB = 1000, 200
SCALE = 0.0625  # 1/16: the only preprocessing, written in the data-set files
EPS = 1e-5
EPOCHS, BATCH, RATE, DECAY, MOMENTUM = 60, 50, 0.1, 1e-3, 0.9

# One line per node: (op, name, inputs, settings). Both the trainer and the exporter walk this list.
NODES = [
    ("conv", "stem", ["image"], {"i": 1, "o": 16, "k": 3}),
    ("bn", "stem_bn", ["stem"], {"c": 16}),
    ("relu", "stem_relu", ["stem_bn"], {}),
    ("conv", "block1", ["stem_relu"], {"i": 16, "o": 16, "k": 3}),
    ("bn", "block1_bn", ["block1"], {"c": 16}),
    ("relu", "block1_relu", ["block1_bn"], {}),
    ("conv", "block2", ["block1_relu"], {"i": 16, "o": 16, "k": 3}),
    ("bn", "block2_bn", ["block2"], {"c": 16}),
    ("add", "residual", ["block2_bn", "stem_relu"], {}),
    ("relu", "residual_relu", ["residual"], {}),
    ("maxpool", "pool", ["residual_relu"], {}),
    ("conv", "depthwise", ["pool"], {"i": 16, "o": 16, "k": 3, "g": 16}),
    ("bn", "depthwise_bn", ["depthwise"], {"c": 16}),
    ("relu", "depthwise_relu", ["depthwise_bn"], {}),
    ("conv", "pointwise", ["depthwise_relu"], {"i": 16, "o": 32, "k": 1}),
    ("bn", "pointwise_bn", ["pointwise"], {"c": 32}),
    ("relu", "pointwise_relu", ["pointwise_bn"], {}),
    ("concat", "joined", ["pool", "pointwise_relu"], {}),
    ("conv", "last", ["joined"], {"i": 48, "o": 32, "k": 3}),
    ("bn", "last_bn", ["last"], {"c": 32}),
    ("relu", "last_relu", ["last_bn"], {}),
    ("mean", "mean", ["last_relu"], {}),
    ("flatten", "flat", ["mean"], {}),
    ("gemm", "logits", ["flat"], {"i": 32, "o": 10}),
]


def init(rng):
    """Trained parameters and running BatchNormalization statistics, by name."""
    p, stats = {}, {}
    for op, name, _, s in NODES:
        if op == "conv":
            fan = s["i"] // s.get("g", 1) * s["k"] ** 2
            p[f"{name}.weight"] = rng.normal(0, np.sqrt(2 / fan), (s["o"], s["i"] // s.get("g", 1), s["k"], s["k"]))
        elif op == "bn":
            p[f"{name}.gamma"], p[f"{name}.beta"] = np.ones(s["c"]), np.zeros(s["c"])
            stats[f"{name}.mean"], stats[f"{name}.var"] = np.zeros(s["c"]), np.ones(s["c"])
        elif op == "gemm":
            p[f"{name}.weight"] = rng.normal(0, np.sqrt(1 / s["i"]), (s["o"], s["i"]))
            p[f"{name}.bias"] = np.zeros(s["o"])
    return ({k: v.astype(np.float32) for k, v in d.items()} for d in (p, stats))


def patches(x, k):
    """[n, c, h, w] -> [n, c, h, w, k, k] windows with same padding."""
    r = k // 2
    return np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (r, r), (r, r))), (k, k), (2, 3))


def conv(x, w, g):
    """Same-padded convolution; the second value maps dy to (dx, dw)."""
    n, c, h, wd = x.shape
    o, ci, k, _ = w.shape
    rows = lambda t: t.reshape(n, g, -1, h, wd, k, k).transpose(1, 0, 3, 4, 2, 5, 6).reshape(g, n * h * wd, -1)
    split = lambda t: t.reshape(n, g, -1, h, wd).transpose(1, 0, 3, 4, 2).reshape(g, n * h * wd, -1)
    join = lambda t: t.reshape(g, n, h, wd, -1).transpose(1, 0, 4, 2, 3).reshape(n, -1, h, wd)
    cols, kernel = rows(patches(x, k)), w.reshape(g, o // g, -1)

    def back(dy):
        dw = split(dy).transpose(0, 2, 1) @ cols
        flipped = w.reshape(g, o // g, ci, k, k)[..., ::-1, ::-1].transpose(0, 2, 1, 3, 4).reshape(g, ci, -1)
        return join(rows(patches(dy, k)) @ flipped.transpose(0, 2, 1)), dw.reshape(w.shape)

    return join(cols @ kernel.transpose(0, 2, 1)), back


def forward(x, p, stats, train):
    """All tensors by name, and for training the list of (node, gradient function) in order."""
    t, tape = {"image": x}, []
    for op, name, inputs, s in NODES:
        a = t[inputs[0]]
        if op == "conv":
            y, f = conv(a, p[f"{name}.weight"], s.get("g", 1))
            grad = lambda dy, f=f, name=name: (lambda dx, dw: ([dx], {f"{name}.weight": dw}))(*f(dy))
        elif op == "bn":
            m, v = (a.mean((0, 2, 3)), a.var((0, 2, 3))) if train else (stats[f"{name}.mean"], stats[f"{name}.var"])
            if train:
                for key, now in ((f"{name}.mean", m), (f"{name}.var", v)):
                    stats[key] = 0.9 * stats[key] + 0.1 * now
            ch = lambda z: z[None, :, None, None]
            inv = 1 / np.sqrt(v + EPS)
            xh = (a - ch(m)) * ch(inv)
            gamma = p[f"{name}.gamma"]
            y = xh * ch(gamma) + ch(p[f"{name}.beta"])

            def grad(dy, xh=xh, k=gamma * inv, name=name, ch=ch):
                dg, db, count = (dy * xh).sum((0, 2, 3)), dy.sum((0, 2, 3)), dy[:, 0].size
                dx = ch(k) * (dy - (ch(db) + xh * ch(dg)) / count)
                return [dx], {f"{name}.gamma": dg, f"{name}.beta": db}
        elif op == "relu":
            y, grad = np.maximum(a, 0), lambda dy, on=a > 0: ([dy * on], {})
        elif op == "add":
            y, grad = a + t[inputs[1]], lambda dy: ([dy, dy], {})
        elif op == "maxpool":
            n, c, h, w = a.shape
            blocks = a.reshape(n, c, h // 2, 2, w // 2, 2)
            y = blocks.max((3, 5))
            on = blocks == y[:, :, :, None, :, None]
            grad = lambda dy, on=on, shape=a.shape: ([(on * dy[:, :, :, None, :, None]).reshape(shape)], {})
        elif op == "concat":
            y, grad = np.concatenate([a, t[inputs[1]]], 1), lambda dy, c=a.shape[1]: ([dy[:, :c], dy[:, c:]], {})
        elif op == "mean":
            y = a.mean((2, 3), keepdims=True)
            grad = lambda dy, shape=a.shape: ([np.broadcast_to(dy / (shape[2] * shape[3]), shape)], {})
        elif op == "flatten":
            y, grad = a.reshape(len(a), -1), lambda dy, shape=a.shape: ([dy.reshape(shape)], {})
        elif op == "gemm":
            w = p[f"{name}.weight"]
            y = a @ w.T + p[f"{name}.bias"]
            grad = lambda dy, a=a, w=w, name=name: (
                [dy @ w], {f"{name}.weight": dy.T @ a, f"{name}.bias": dy.sum(0)})
        t[name] = y
        tape.append((inputs, name, grad))
    return t["logits"], tape


def gradients(logits, labels, tape):
    """Softmax cross-entropy with label smoothing 0.1, back through the tape."""
    e = np.exp(logits - logits.max(1, keepdims=True))
    d = {"logits": (e / e.sum(1, keepdims=True) - 0.9 * np.eye(10, dtype=np.float32)[labels] - 0.01) / len(labels)}
    grads = {}
    for inputs, name, grad in reversed(tape):
        dxs, dps = grad(d.pop(name))
        grads.update(dps)
        for i, dx in zip(inputs, dxs):
            d[i] = d[i] + dx if i in d else dx
    return grads


def shifted(x, rng):
    """Each image moved by -1..1 pixels in both directions."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return np.stack([z[:, a:a + 8, b:b + 8] for z, (a, b) in zip(padded, rng.integers(0, 3, (len(x), 2)))])


def train(x, labels):
    rng = np.random.default_rng(0)
    p, stats = init(rng)
    speed = {k: np.zeros_like(v) for k, v in p.items()}
    for epoch in range(EPOCHS):
        rate = RATE * 0.5 * (1 + np.cos(np.pi * epoch / EPOCHS))
        for at in rng.permutation(len(x)).reshape(-1, BATCH):
            logits, tape = forward(shifted(x[at], rng), p, stats, True)
            for k, g in gradients(logits, labels[at], tape).items():
                decay = DECAY * p[k] if p[k].ndim > 1 else 0
                speed[k] = MOMENTUM * speed[k] + g + decay
                p[k] = (p[k] - rate * speed[k]).astype(np.float32)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: training top-1 {top1(forward(x, p, stats, False)[0], labels):.4f}", flush=True)
    return p, stats


def top1(logits, labels):
    return float((logits.argmax(1) == labels).mean())


def export(p, stats):
    """The same list as ONNX, with BatchNormalization left unfused."""
    nodes = []
    for op, name, inputs, s in NODES:
        weights, attrs = [], {}
        if op == "conv":
            weights = ["weight"]
            r = s["k"] // 2
            attrs = {"kernel_shape": [s["k"]] * 2, "pads": [r] * 4, "group": s.get("g", 1)}
        elif op == "bn":
            weights, attrs = ["gamma", "beta", "mean", "var"], {"epsilon": EPS}
        elif op == "maxpool":
            attrs = {"kernel_shape": [2, 2], "strides": [2, 2]}
        elif op == "concat":
            attrs = {"axis": 1}
        elif op == "gemm":
            weights, attrs = ["weight", "bias"], {"transB": 1}
        onnx_op = {"conv": "Conv", "bn": "BatchNormalization", "relu": "Relu", "add": "Add", "maxpool": "MaxPool",
                   "concat": "Concat", "mean": "GlobalAveragePool", "flatten": "Flatten", "gemm": "Gemm"}[op]
        nodes.append(helper.make_node(onnx_op, inputs + [f"{name}.{w}" for w in weights], [name], name=name, **attrs))
    graph = helper.make_graph(
        nodes, "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in (p | stats).items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8,
                              producer_name="samebit", doc_string="Digit classifier trained by scripts/train_digits.py")
    onnx.checker.check_model(model, full_check=True)
    return model


def main():
    digits = load_digits()
    pixels, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    x = pixels[:, None].astype(np.float32) * np.float32(SCALE)
    p, stats = train(x[:TRAIN], labels[:TRAIN])
    model = export(p, stats)
    ours = forward(x[TRAIN:], p, stats, False)[0]
    onnx_logits = InferenceSession(model.SerializeToString()).run(None, {"image": x[TRAIN:]})[0]
    assert np.allclose(ours, onnx_logits, rtol=1e-4, atol=1e-4), "the exported file computes something else"
    OUT.mkdir(parents=True, exist_ok=True)
    onnx.save(model, OUT / "digits.onnx")
    for part, rows in (("calib", slice(0, CALIB)), ("eval", slice(TRAIN, None))):
        np.save(OUT / f"{part}_x.npy", pixels[rows, :, :, None])
        np.save(OUT / f"{part}_y.npy", labels[rows])
    right = int((onnx_logits.argmax(1) == labels[TRAIN:]).sum())
    n = len(labels) - TRAIN
    print(f"training top-1 {top1(forward(x[:TRAIN], p, stats, False)[0], labels[:TRAIN]):.4f}, "
          f"evaluation top-1 {right / n:.4f} ({right} of {n}), {(OUT / 'digits.onnx').stat().st_size} bytes")


if __name__ == "__main__":
    main()

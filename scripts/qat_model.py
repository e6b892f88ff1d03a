#!/usr/bin/env python3
"""Trains a small network with PyTorch's quantization-aware training and exports it with its quantizers: the model of
`tests/data/qat_digits`, and what ONNX Runtime computes from it.

Data: scikit-learn's digits, as in `train_digits.py`: the first 1000 train. A minute on one core.

    python3.11 -m venv venv
    venv/bin/pip install torch==2.4.1 onnx==1.16.2 onnxruntime==1.19.2 "numpy<2" scikit-learn==1.5.2
    venv/bin/python scripts/qat_model.py [FOLDER]
"""
import copy
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    QConfigMapping,
    disable_observer,
)
from torch.ao.nn.intrinsic import qat as fused_qat
from torch.ao.quantization.quantize_fx import prepare_qat_fx

OUT = Path(__file__).resolve().parent.parent / "tests" / "data" / "qat_digits"
TRAIN, FLOAT_EPOCHS, QAT_EPOCHS, BATCH, OPSET = 1000, 30, 6, 50, 13
FRAMES = 16  # whose outputs are kept


class Net(nn.Module):
    """Convolutions with batch normalisation, a residual sum, a depthwise convolution, a linear layer."""

    def __init__(self):
        super().__init__()
        block = lambda i, o, k, **more: nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False, **more), nn.BatchNorm2d(o))
        self.stem, self.left = block(1, 12, 3), block(12, 12, 3)
        self.depthwise, self.pointwise = block(12, 12, 3, groups=12), block(12, 24, 1)
        self.head = nn.Linear(24, 10)

    def forward(self, image):
        x = F.relu(self.stem(image))
        x = F.relu(self.left(x) + x)
        x = F.max_pool2d(x, 2)
        x = F.relu(self.depthwise(x))
        x = F.relu(self.pointwise(x))
        return self.head(x.mean((2, 3)))


def train(net, x, y, epochs, rate):
    rng = np.random.default_rng(0)
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    net.train()
    for _ in range(epochs):
        for at in rng.permutation(len(x)).reshape(-1, BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(x[at]), y[at]).backward()
            optimizer.step()
        schedule.step()
    net.eval()


def accuracy(net, x, y):
    with torch.no_grad():
        return (net(x).argmax(1) == y).float().mean().item()


def qconfig():
    # The whole range of a type: ONNX has no other. Activations u8 with a zero point, weights i8 per output channel.
    activation = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8
    )
    weight = FakeQuantize.with_args(
        observer=MovingAveragePerChannelMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric, ch_axis=0,
    )
    return QConfig(activation, weight)


def fold(net):
    """Folds batch normalisation into the weights, which training quantizes with it folded in: same scales, same numbers."""
    for parent in list(net.modules()):
        for name, m in list(parent.named_children()):
            if not isinstance(m, (fused_qat.ConvBn2d, fused_qat.ConvBnReLU2d)):
                continue
            plain = m.to_float().eval()
            plain.qconfig = m.qconfig
            conv, relu = (plain[0], True) if isinstance(plain, nn.Sequential) else (plain, False)
            conv.qconfig = m.qconfig
            quantized = fused_qat.ConvReLU2d.from_float(plain) if relu else nn.qat.Conv2d.from_float(conv)
            quantized.weight_fake_quant = m.weight_fake_quant
            setattr(parent, name, quantized)


def main(out):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images.reshape(-1, 1, 8, 8).astype(np.float32) / 16)
    y = torch.from_numpy(labels)
    net = Net()
    train(net, x[:TRAIN], y[:TRAIN], FLOAT_EPOCHS, 0.1)
    print(f"float: {accuracy(net, x[TRAIN:], y[TRAIN:]):.4f}")

    net = prepare_qat_fx(net.train(), QConfigMapping().set_global(qconfig()), (x[:1],))
    train(net, x[:TRAIN], y[:TRAIN], QAT_EPOCHS, 0.01)
    net.apply(disable_observer)
    trained = accuracy(net, x[TRAIN:], y[TRAIN:])
    before = net(x[TRAIN:]).detach()
    fold(net)
    after = net(x[TRAIN:]).detach()
    print(f"quantization-aware: {trained:.4f}; folded differs by at most {(before - after).abs().max():.3g}")

    out.mkdir(parents=True, exist_ok=True)
    path = out / "model.onnx"
    torch.onnx.export(
        copy.deepcopy(net), x[:1], path, opset_version=OPSET, input_names=["image"], output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}}, dynamo=False,
    )
    onnx.checker.check_model(onnx.load(path))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    frames = x[TRAIN:TRAIN + FRAMES].numpy()
    np.save(out / "image.npy", frames)
    np.save(out / "logits.npy", session.run(None, {"image": frames})[0])
    # What the mean is of: means of 16 codes lie half way between two codes so often that the order of a float sum shows.
    model = onnx.load(path)
    features = next(n.input[0] for n in model.graph.node if n.op_type == "ReduceMean")
    model.graph.output.append(onnx.helper.make_tensor_value_info(features, onnx.TensorProto.FLOAT, None))
    tapped = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    np.save(out / "features.npy", tapped.run([features], {"image": frames})[0])
    got = session.run(None, {"image": x[TRAIN:].numpy()})[0]
    share = (got.argmax(1) == labels[TRAIN:]).mean()
    print(f"features.npy: {features}")
    print(f"{path}: {path.stat().st_size} bytes, ONNX Runtime without optimizer {share:.4f},",
          f"from PyTorch by at most {np.abs(got - after.numpy()).max():.3g}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)

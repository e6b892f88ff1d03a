"""The integer model of profile `samebit` computed a second time, in numpy and Python's integers; also with the accumulator
`saturating_i16_pairs`.

    oracle.py JOBS.json

JOBS.json is a list of {"graph": quantized graph file, "inputs": {name: npy}, "out": folder}. What every operator on codes
gives is written to the folder as `<position of its node>.npy`, with `index.json` naming the tensors: a list of
[name, file]. Nodes behind operators that compute in floats are left out, as they have no one right answer.

It is written from the definitions and shares nothing with the engine: sums are exact (products of codes are summed as
doubles far below 2^53), factors are Python's integers, every rounding is done on integers.
"""

import itertools
import json
import math
import os
import struct
import sys

import numpy as np
from oracle_codes import (
    STORED,
    Params,
    exact_matmul,
    fixed,
    half_away,
    halves_to_even,
    multiplier,
    objects,
    over_power,
    params,
    per_channel,
    place,
)
from oracle_forms import conv_transpose_sums, grid_sample, layer_norm, resize, table

DTYPES = {"F32": np.float32, "I32": np.int32, "I16": np.int16, "U16": np.uint16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_}


def read_graph(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    graph = json.loads(header.pop("__metadata__")["graph"])
    tensors = {}
    for key, info in header.items():
        begin, end = info["data_offsets"]
        raw = np.frombuffer(data[8 + length :][begin:end], DTYPES[info["dtype"]])
        tensors[key] = raw.reshape(info["shape"])
    return graph, tensors


def windows(x, attrs, fill):
    """The taps of a window over the last axes of x, gathered in front: [taps, ..., outputs], and which lie inside."""
    kernel, strides, dilations = attrs["kernel_shape"], attrs["strides"], attrs["dilations"]
    n = len(kernel)
    pads = list(attrs["pads"])
    sizes = list(x.shape[-n:])
    auto = attrs.get("auto_pad", "NOTSET")
    out = []
    for i in range(n):
        extent = (kernel[i] - 1) * dilations[i] + 1
        if auto.startswith("SAME"):
            o = -(-sizes[i] // strides[i])
            total = max((o - 1) * strides[i] + extent - sizes[i], 0)
            small = total // 2
            pads[i] = total - small if auto == "SAME_LOWER" else small
            pads[n + i] = total - pads[i]
        elif auto == "VALID":
            pads[i] = pads[n + i] = 0
        room = sizes[i] + pads[i] + pads[n + i] - extent
        o = room // strides[i] + 1
        if attrs.get("ceil_mode", 0):
            o = -(-room // strides[i]) + 1
            # A window that begins behind the input and its first padding is none.
            if (o - 1) * strides[i] >= sizes[i] + pads[i]:
                o -= 1
        out.append(o)
    # Room for windows that reach beyond the padding.
    reach = [(out[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 for i in range(n)]
    widths = [(0, 0)] * (x.ndim - n) + [(pads[i], max(reach[i] - sizes[i] - pads[i], pads[n + i])) for i in range(n)]
    padded = np.pad(x, widths, constant_values=fill)
    inside = np.pad(np.ones(sizes, np.int64), widths[-n:])
    # With count_include_pad the padding counts, what lies beyond it does not.
    counted = np.zeros(inside.shape, np.int64)
    counted[tuple(slice(0, sizes[i] + pads[i] + pads[n + i]) for i in range(n))] = 1
    taps, ins, cnt = [], [], []
    for k in itertools.product(*(range(k) for k in kernel)):
        at = tuple(
            slice(k[i] * dilations[i], k[i] * dilations[i] + (out[i] - 1) * strides[i] + 1, strides[i]) for i in range(n)
        )
        taps.append(padded[(...,) + at])
        ins.append(inside[at])
        cnt.append(counted[at])
    return np.stack(taps), sum(ins), sum(cnt)


def conv_sums(x, w, attrs):
    groups = attrs["group"]
    taps, _, _ = windows(x, attrs, 0)  # [taps, N, C, spatial...]
    t, n, c = taps.shape[:3]
    spatial = taps.shape[3:]
    o = w.shape[0]
    cg, og = c // groups, o // groups
    out = []
    for g in range(groups):
        part = taps[:, :, g * cg : (g + 1) * cg].reshape(t, n, cg, -1)
        part = part.transpose(1, 2, 0, 3).reshape(n, cg * t, -1)
        weights = w[g * og : (g + 1) * og].reshape(og, cg * t)
        out.append(exact_matmul(weights[None], part))
    return np.concatenate(out, 1).reshape((n, o) + spatial)


def matmul_sums(op, a, b, attrs):
    if op == "Gemm":
        a = a.T if attrs.get("transA", 0) else a
        b = b.T if attrs.get("transB", 0) else b
        return exact_matmul(a, b)
    squeeze = [ax for ax, v in ((-2, a), (-1, b)) if v.ndim == 1]
    a, b = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    y = exact_matmul(a, b)
    for ax in squeeze:
        y = np.squeeze(y, ax)
    return y


def sums_of_pairs(a, w, z_a, z_w):
    """[..., m, k] codes of u8 by [..., k, n] codes of i8, as vpmaddubsw sums them: products of elements 2j and 2j + 1
    saturate in 16 bits. Zero points are taken off afterwards; z_w: [n] or [1]."""
    k = a.shape[-1]
    sums = z_w * (k * z_a - a.sum(-1)[..., None]) - z_a * w.sum(-2)[..., None, :]
    a = np.concatenate([a, np.zeros(a.shape[:-1] + (-k % 4,), np.int64)], -1)
    w = np.concatenate([w, np.zeros(w.shape[:-2] + (-k % 4,) + w.shape[-1:], np.int64)], -2)
    for j in range(0, a.shape[-1], 2):
        pair = a[..., j, None] * w[..., j, None, :] + a[..., j + 1, None] * w[..., j + 1, None, :]
        sums = sums + np.clip(pair, -32768, 32767)
    return sums


def pairs(op, ins, p, attrs):
    """Sums of products whose pairs saturate."""
    shift = 128 if p[0].dtype == "i8" else 0
    a, w, z_a = ins[0].astype(np.int64) + shift, ins[1].astype(np.int64), p[0].zeros[0] + shift
    z_w = np.array(p[1].zeros, np.int64)
    if op == "Gemm":
        a = a.T if attrs.get("transA", 0) else a
        w = w.T if attrs.get("transB", 0) else w
    if op != "Conv":
        squeeze = [ax for ax, v in ((-2, a), (-1, w)) if v.ndim == 1]
        a, w = (a[None] if a.ndim == 1 else a), (w[:, None] if w.ndim == 1 else w)
        y = sums_of_pairs(a, w, z_a, z_w)
        for ax in squeeze:
            y = np.squeeze(y, ax)
        return y
    # Padding is the code of zero; the channels of a group change fastest, then the taps in their order.
    taps, _, _ = windows(a, attrs, z_a)
    t, n, c = taps.shape[:3]
    groups, o = attrs["group"], w.shape[0]
    cg, og = c // groups, o // groups
    z_w = np.broadcast_to(z_w, o)
    out = []
    for g in range(groups):
        part = taps[:, :, g * cg : (g + 1) * cg].reshape(t, n, cg, -1)
        part = part.transpose(1, 3, 0, 2).reshape(n, -1, t * cg)
        of_group = slice(g * og, (g + 1) * og)
        weights = w[of_group].reshape(og, cg, t).transpose(2, 1, 0).reshape(t * cg, og)
        out.append(sums_of_pairs(part, weights, z_a, z_w[of_group]).transpose(0, 2, 1))
    return np.concatenate(out, 1).reshape((n, o) + taps.shape[3:])


def bound(w_axis, groups, bias, x_params, steps_w):
    """sum |w| * max |x - zp| + |bias|, the largest of all channels; groups of input channels share those of the weights."""
    most = max(abs(x_params.low - x_params.zeros[0]), abs(x_params.high - x_params.zeros[0]))
    axes = tuple(i for i in range(steps_w.ndim) if i != w_axis % steps_w.ndim)
    sums = np.concatenate([abs(part).sum(axis=axes) for part in np.split(steps_w, groups)]) * most
    return int((sums + (0 if bias is None else abs(bias.astype(np.int64)))).max())


def multiply_add(op, ins, p, attrs, op_attrs):
    """Convolutions and products of matrices, with a bias, and with a tensor that is added."""
    x, w = p[0].steps(ins[0]), p[1].steps(ins[1])
    addend = params(attrs, "addend")
    count = len(ins) - (addend is not None)
    bias = ins[2] if count > 2 else None
    saturate = attrs["accumulator"] == "saturating_i16_pairs"
    if saturate:
        sums = pairs(op, ins, p, op_attrs)
    else:
        of = {"Conv": conv_sums, "ConvTranspose": conv_transpose_sums}
        sums = of[op](x, w, op_attrs) if op in of else matmul_sums(op, x, w, op_attrs)
    channel = 1 if op.startswith("Conv") else sums.ndim - 1
    # All groups of a transposed convolution share the channels of the weights.
    groups = op_attrs["group"] if op == "ConvTranspose" else 1
    scales = p[1].scales * (groups if len(p[1].scales) > 1 else 1)
    if bias is not None:
        b = bias.reshape(-1).astype(np.int64)
        shape = [1] * sums.ndim
        shape[channel] = -1
        sums = sums + b.reshape(shape)
    s_x, result = p[0].scales[0], attrs.get("result", "codes")
    if result == "real":
        scale = lambda s: np.float32(s_x * s)  # noqa: E731  exact in double, rounded once
        return per_channel(sums, channel, scales, lambda part, s: part.astype(np.float32) * scale(s))
    out = Params(attrs, "out")
    s_y = out.scales[0]
    if addend is None:
        return place(per_channel(sums, channel, scales, lambda part, s: fixed(part, s_x * s / s_y)), out, attrs)
    added = addend.steps(ins[-1])
    w_axis = {"Conv": 0, "ConvTranspose": 1}.get(op, 0 if op_attrs.get("transB", 0) else -1)
    most = [
        bound(w_axis, groups, None if bias is None else bias.reshape(-1), p[0], w),
        max(abs(addend.low - addend.zeros[0]), abs(addend.high - addend.zeros[0])),
    ]

    if saturate:
        # No pair loses more than what both products have beyond half of 2^15 - 1.
        lost = np.maximum(255 * abs(ins[1].astype(np.int64)) - 16383, 0)
        most[0] += int(lost.sum(axis=tuple(i for i in range(w.ndim) if i != w_axis % w.ndim)).max())

    def one(parts, s):
        reals = [s_x * s / s_y, addend.scales[0] / s_y]
        r = multiplier(max(reals))[1]
        while True:
            m = [half_away(math.ldexp(real, r)) for real in reals]
            if all(m[i] * most[i] < 1 << 61 for i in (0, 1)):
                return over_power(parts[0] * np.int64(m[0]) + parts[1] * np.int64(m[1]), r)
            r -= 1

    both = np.stack([sums, added])
    if len(scales) == 1:
        return place(one(both, scales[0]), out, attrs)
    parts = [one(part, s) for part, s in zip(np.moveaxis(both, channel + 1, 0), scales)]
    return place(np.moveaxis(np.stack(parts), 0, channel), out, attrs)


def add(a, b, p, out, sign):
    """Each (q - z) << 20 times the multiplier of s_i / (2 * max s), the sum times that of 2 * max s / s_y >> 20: exact, one
    rounding at the end."""
    largest = max(p[0].scales[0], p[1].scales[0])
    (ma, ra), (mb, rb) = (multiplier(q.scales[0] / (2 * largest)) for q in p)
    my, ry = multiplier(2 * largest / out.scales[0])
    r = max(ra, rb)
    a, b = np.broadcast_arrays(objects(a), objects(b))
    total = a * (ma << (r - ra)) + sign * b * (mb << (r - rb))
    total = total * my
    if r + ry <= 0:
        return total * (1 << -(r + ry))
    return halves_to_even(total, 1 << (r + ry))


def mean(sums, counts, p, out):
    """Means of sums of steps: exact quotients where the scales are equal, else the multiplier of M / n. Without an output
    quantizer numbers: the sum in float32 times the scale of a sum of n."""
    s_x = p.scales[0]
    if out is None:
        scale = (np.float64(s_x) / np.maximum(counts, 1)).astype(np.float32)
        return sums.astype(np.float32) * scale
    sums, counts = np.broadcast_arrays(objects(sums), objects(counts))
    s_y = out.scales[0]
    y = np.empty(sums.shape, object)
    flat = y.reshape(-1)
    for i, (s, n) in enumerate(zip(sums.reshape(-1), counts.reshape(-1))):
        if s_x == s_y:
            flat[i] = halves_to_even(int(s), int(n))
        else:
            m, r = multiplier(s_x / s_y / int(n))
            flat[i] = halves_to_even(int(s) * m, 1 << r) if r > 0 else int(s) * m << -r
    return y


def integer(attrs, ins):
    op = attrs["op"]
    op_attrs = {k[3:]: v for k, v in attrs.items() if k.startswith("op.")}
    p = [params(attrs, f"in{i}") for i in range(len(ins))]
    assert attrs["requantize"] == "fixed" and attrs["rounding"] == "half_even"
    assert attrs["accumulator"] in ("exact", "saturating_i16_pairs")
    if op in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return multiply_add(op, ins, p, attrs, op_attrs)
    out = params(attrs, "out")
    if op in ("Add", "Sub"):
        v = add(p[0].steps(ins[0]), p[1].steps(ins[1]), p, out, 1 if op == "Add" else -1)
    elif op == "Mul":
        v = fixed(p[0].steps(ins[0]) * p[1].steps(ins[1]), p[0].scales[0] * p[1].scales[0] / out.scales[0])
    elif op == "Identity":
        v = fixed(p[0].steps(ins[0]), p[0].scales[0] / out.scales[0])
    elif op == "AveragePool":
        taps, inside, counted = windows(p[0].steps(ins[0]), op_attrs, 0)
        v = mean(taps.sum(0), counted if op_attrs["count_include_pad"] else inside, p[0], out)
    elif op in ("GlobalAveragePool", "ReduceMean", "ReduceSum"):
        x = p[0].steps(ins[0])
        axes = tuple(range(2, x.ndim)) if op == "GlobalAveragePool" else tuple(op_attrs["axes"]) or tuple(range(x.ndim))
        keep = bool(op_attrs.get("keepdims", 1))
        sums = x.sum(axes, keepdims=keep)
        v = mean(sums, 1 if op == "ReduceSum" else x.size // max(sums.size, 1), p[0], out)
    elif op == "LayerNormalization":
        v = layer_norm(ins, p, [params(attrs, f"tap{i}") for i in range(2)], out, op_attrs)
    elif op == "Resize" and op_attrs["mode"] == "linear":
        return resize(p[0].steps(ins[0]), p[0], out, attrs, op_attrs)
    elif op == "GridSample":
        v = grid_sample(ins, p, out, op_attrs)
    else:
        return None
    return v if out is None else place(np.asarray(v), out, attrs)


def quantize(attrs, x):
    p = Params(attrs, "codes")
    inverse = np.float32(1) / np.float32(p.scales[0])
    v = np.rint(x.astype(np.float32) * inverse).astype(np.float64) + p.zeros[0]
    return np.clip(v, p.low, p.high).astype(STORED[p.dtype])


def moved(op, attrs, ins):
    """Operators that pass codes through."""
    x = ins[0]
    if op == "MaxPool":
        taps, _, _ = windows(x.astype(np.int64), attrs, -(1 << 40))
        return taps.max(0).astype(x.dtype)
    if op == "Concat":
        return np.concatenate(ins, attrs["axis"])
    if op == "Reshape":
        return x.reshape([x.shape[i] if s == 0 else s for i, s in enumerate(attrs["shape"])])
    if op == "Flatten":
        axis = attrs.get("axis", 1)
        return x.reshape(math.prod(x.shape[:axis]), -1)
    if op == "Transpose":
        return x.transpose(attrs["perm"])
    return None


def run(graph, tensors, inputs):
    values = graph["values"]
    have = {v: inputs[values[v]["name"]] for v in graph["inputs"]}
    for i, v in enumerate(values):
        if "constant" in v:
            have[i] = tensors[v["constant"]]
    known = {}
    batch = next(iter(inputs.values())).shape[0]
    for at, node in enumerate(graph["nodes"]):
        if any(i not in have for i in node["inputs"]):
            continue
        attrs = {k: next(iter(v.values())) for k, v in node.get("attrs", {}).items()}
        for k, v in attrs.items():
            if isinstance(v, list):
                # "2N" of a shape.
                attrs[k] = [int(e[:-1] or 1) * batch if isinstance(e, str) and e.endswith("N") else e for e in v]
        ins = [have[i] for i in node["inputs"]]
        op = node["op"]
        if op == "Integer":
            y = integer(attrs, ins)
        elif op == "Quantize":
            y = quantize(attrs, ins[0])
        elif op == "Table":
            y = table(attrs["function"], ins[0], known.get(node["inputs"][0]), Params(attrs, "out"))
        else:
            y = moved(op, attrs, ins)
        if y is not None:
            have[node["outputs"][0]] = y
            known[node["outputs"][0]] = params(attrs, "out") or params(attrs, "codes") or known.get(node["inputs"][0])
            yield at, values[node["outputs"][0]]["name"], y


def main():
    for job in json.load(open(sys.argv[1])):
        graph, tensors = read_graph(job["graph"])
        inputs = {name: np.load(path) for name, path in job["inputs"].items()}
        os.makedirs(job["out"], exist_ok=True)
        index = []
        for at, name, y in run(graph, tensors, inputs):
            np.save(os.path.join(job["out"], f"{at}.npy"), np.ascontiguousarray(y))
            index.append([name, f"{at}.npy"])
        json.dump(index, open(os.path.join(job["out"], "index.json"), "w"))


if __name__ == "__main__":
    main()

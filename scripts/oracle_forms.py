"""Operators whose integer forms are more than sums that are requantized once, and those that interpolate."""

import itertools
import math

import numpy as np
from oracle_codes import STORED, fixed, half_away, halves_to_even, multiplier, objects, over_power, place


def conv_transpose_sums(x, w, attrs):
    """[n, c, in...] by [c, o / group, kernel...]: what each input pixel adds to the outputs under its window."""
    groups, strides, dilations = attrs["group"], attrs["strides"], attrs["dilations"]
    kernel, n = attrs["kernel_shape"], len(attrs["kernel_shape"])
    begin, end = attrs["pads"][:n], attrs["pads"][n:]
    size = x.shape[2:]
    full = [strides[i] * (size[i] - 1) + (kernel[i] - 1) * dilations[i] + 1 + attrs["output_padding"][i] for i in range(n)]
    cg, og = x.shape[1] // groups, w.shape[1]
    y = np.zeros([x.shape[0], groups * og] + full, np.int64)
    for g in range(groups):
        part, weights = x[:, g * cg : (g + 1) * cg], w[g * cg : (g + 1) * cg]
        for k in itertools.product(*(range(k) for k in kernel)):
            at = tuple(
                slice(k[i] * dilations[i], k[i] * dilations[i] + (size[i] - 1) * strides[i] + 1, strides[i]) for i in range(n)
            )
            added = np.tensordot(weights[(slice(None), slice(None)) + k], part, (0, 1))
            y[(slice(None), slice(g * og, (g + 1) * og)) + at] += np.moveaxis(added, 0, 1)
    return y[(slice(None), slice(None)) + tuple(slice(begin[i], full[i] - end[i]) for i in range(n))]


def inverse_root(v):
    """1 / sqrt(v) as code * 2^-14 * 2^-shift: with n, the nearest 15 or 16 bits of v by an even power of two, halves up,
    the code is 2^22 / sqrt(n), halves up."""
    half = (v.bit_length() - 1) // 2
    by = 2 * half - 14
    n = (v + (1 << (by - 1))) >> by if by > 0 else v << -by
    if n == 1 << 16:
        n, half = 1 << 14, half + 1
    if n == 1 << 14:
        return 1 << 14, half
    # The largest code of which half a unit less is not above: (2 * code - 1)^2 * n <= 2^46.
    code = 1 << 15
    while (2 * code - 1) ** 2 * n > 1 << 46:
        code -= 1
    return code, half + 1


def layer_norm(ins, p, taps, out, attrs):
    """Over the last axes: c = n * x - sum(x), V = n * sum(x^2) - sum(x)^2 + eps * n^2 / s^2, exact; c / sqrt(V) in codes of
    the first tap; times gamma plus beta, rounded once."""
    x = p[0].steps(ins[0])
    axis = attrs["axis"] % x.ndim
    n = math.prod(x.shape[axis:])
    normal, s_y = taps[0], out.scales[0]
    epsilon = round(float(np.float32(attrs["epsilon"])) * (n / p[0].scales[0]) ** 2)
    m, r = multiplier(1.0 / normal.scales[0])
    gamma = p[1].steps(ins[1]).reshape(-1)
    beta = p[2].steps(ins[2]).reshape(-1) if len(ins) > 2 else np.zeros(n, np.int64)
    farthest = lambda q: max(abs(q.low - q.zeros[0]), abs(q.high - q.zeros[0]))  # noqa: E731
    reals = [normal.scales[0] * p[1].scales[0] / s_y, p[2].scales[0] / s_y if len(ins) > 2 else 0.0]
    most = [farthest(normal) * farthest(p[1]), farthest(p[2]) if len(ins) > 2 else 0]
    shift = multiplier(max(reals))[1]
    while True:
        factors = [half_away(math.ldexp(real, shift)) for real in reals]
        if all(f * q < 1 << 61 for f, q in zip(factors, most)):
            break
        shift -= 1
    rows = []
    for row in x.reshape(-1, n).tolist():
        total = sum(row)
        variance = n * sum(q * q for q in row) - total * total + epsilon
        code, by = inverse_root(max(variance, 1))
        y = []
        for q, g, b in zip(row, gamma.tolist(), beta.tolist()):
            unit = int(over_power(objects([(n * q - total) * code * m]), 14 + by + r)[0])
            unit = min(max(unit + normal.zeros[0], normal.low), normal.high) - normal.zeros[0]
            y.append(int(over_power(objects([unit * g * factors[0] + b * factors[1]]), shift)[0]))
        rows.append(y)
    return objects(rows).reshape(x.shape)


def coordinate(attrs, axis, i, size, length):
    """Where index i of an axis lies in the input, by the formulas of ONNX, in doubles."""
    mode, scale = attrs["coordinate_transformation_mode"], float(np.float32(attrs["scales"][axis]))
    if mode == "asymmetric":
        return i / scale
    if mode == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if mode == "pytorch_half_pixel" and length <= 1:
        return 0.0
    if mode == "align_corners":
        return i * (size - 1) / (length - 1) if length > 1 else 0.0
    if mode == "half_pixel_symmetric":
        return size / 2 * (1 - length / (scale * size)) + (i + 0.5) / scale - 0.5
    if mode == "tf_crop_and_resize":
        rank = len(attrs["scales"])
        begin, end = (float(np.float32(attrs["roi"][k])) for k in (axis, rank + axis))
        if length > 1:
            return begin * (size - 1) + i * (end - begin) * (size - 1) / (length - 1)
        return 0.5 * (begin + end) * (size - 1)
    return (i + 0.5) / scale - 0.5


def resize(x, p, out, attrs, op_attrs):
    """Linear: along each axis two pixels with weights in steps of 2^-11; sums are exact and rounded once. Where a coordinate
    lies outside a region of interest, the code of the extrapolation value."""
    sizes = [x.shape[0] if isinstance(s, str) else s for s in op_attrs["sizes"]]
    crops = op_attrs["coordinate_transformation_mode"] == "tf_crop_and_resize"
    outside = np.zeros(sizes, bool)
    axes = 0
    for axis, length in enumerate(sizes):
        size, rank = x.shape[axis], len(sizes)
        whole = not crops or [op_attrs["roi"][axis], op_attrs["roi"][rank + axis]] == [0.0, 1.0]
        if size == length and op_attrs["scales"][axis] == 1.0 and whole:
            continue
        axes += 1
        planes, beyond = [], []
        for i in range(length):
            at = coordinate(op_attrs, axis, i, size, length)
            beyond.append(crops and not 0 <= at <= size - 1)
            at = min(max(at, 0.0), float(size - 1))
            low = math.floor(at)
            second = round((at - low) * 2048)
            planes.append(np.take(x, low, axis) * (2048 - second) + np.take(x, min(low + 1, size - 1), axis) * second)
        x = np.stack(planes, axis)
        outside |= np.array(beyond).reshape([-1 if a == axis else 1 for a in range(rank)])
    codes = place(fixed(x, p.scales[0] * 2.0 ** (-11 * axes) / out.scales[0]), out, attrs)
    fill = np.rint(np.float32(op_attrs["extrapolation_value"]) * (np.float32(1) / np.float32(out.scales[0])))
    return np.where(outside, place(np.array(int(fill)), out, attrs), codes).astype(codes.dtype)


def mirrored(v, size, align):
    """A whole coordinate reflected at the centres of the outer pixels, or at their outer edges."""
    while size > 1 or not align:
        if v < 0:
            v = -v if align else -1 - v
        elif v > size - 1:
            v = 2 * (size - 1) - v if align else 2 * size - 1 - v
        else:
            return v
    return 0


def grid_sample(ins, p, out, attrs):
    """Points are brought to pixels in steps of 2^-8: round((q - z) * 128 * s * size) + 128 * (size - 1), with the distance
    between the outer pixels in place of the size where their centres are the ends. Then weights of these steps."""
    x, grid = p[0].steps(ins[0]), p[1].steps(ins[1])
    align, padding = bool(attrs["align_corners"]), attrs["padding_mode"]
    sizes = x.shape[:1:-1]
    places = []
    for k, size in enumerate(sizes):
        span = size - 1 if align else size
        steps = grid[..., k]
        moved = fixed(steps, 128.0 * p[1].scales[0] * span) if span else np.zeros_like(steps)
        places.append(objects(moved) + 128 * (size - 1))

    def pixel(v, size):
        if padding == "border":
            v = min(max(v, 0), size - 1)
        elif padding == "reflection":
            v = mirrored(v, size, align)
        return v if 0 <= v < size else None

    def along(at, size):
        if attrs["mode"] == "nearest":
            return [(pixel(int(halves_to_even(at, 256)), size), 256)]
        return [(pixel(at >> 8, size), 256 - (at & 255)), (pixel((at >> 8) + 1, size), at & 255)]

    n, height, width, _ = grid.shape
    sums = np.zeros([n, x.shape[1], height, width], np.int64)
    for b, i, j in itertools.product(range(n), range(height), range(width)):
        columns, rows = (along(int(places[k][b, i, j]), sizes[k]) for k in (0, 1))
        for (row, a), (column, c) in itertools.product(rows, columns):
            if row is not None and column is not None:
                sums[b, :, i, j] += x[b, :, row, column] * (a * c)
    return fixed(sums, p[0].scales[0] * 2.0**-16 / out.scales[0])


def safe(f, x):
    try:
        return f(x)
    except (ValueError, ZeroDivisionError):
        return math.nan


FUNCTIONS = {
    "Reciprocal": lambda x: 1 / x if x else math.inf,
    "Log": lambda x: math.log(x) if x else -math.inf,
    "Sqrt": math.sqrt,
}


def table(name, codes, p, out):
    """A function of one number of each code; of codes at which there is none that of the nearest code at which there is
    one, the lower one of two. Infinite numbers saturate."""
    if name not in FUNCTIONS or p is None:
        return None
    every = range(p.low, p.high + 1)
    values = {q: safe(FUNCTIONS[name], (q - p.zeros[0]) * p.scales[0]) for q in every}
    there = np.array([q for q, v in values.items() if not math.isnan(v)])

    def entry(q):
        if math.isnan(values[q]):
            q = int(there[np.argmin(abs(there - q))])
        v = values[q] / out.scales[0]
        return min(max(round(min(max(v, -1e9), 1e9)) + out.zeros[0], out.low), out.high)

    made = {q: entry(q) for q in np.unique(codes).tolist()}
    return np.vectorize(made.get, otypes=[np.int64])(codes).astype(STORED[out.dtype])

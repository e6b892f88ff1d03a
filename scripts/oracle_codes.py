"""What the oracle computes with: parameters of codes, multipliers and roundings on integers."""

import math

import numpy as np

LIMITS = {"i4": (-8, 7), "i8": (-128, 127), "i16": (-32768, 32767), "u4": (0, 15), "u8": (0, 255), "u16": (0, 65535)}
STORED = {"i4": np.int8, "u4": np.uint8, "i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16}


class Params:
    """Scales and zero points of codes."""

    def __init__(self, attrs, name):
        self.dtype = attrs[name]
        self.scales = [float(np.float32(s)) for s in attrs[name + ".scale"]]
        self.zeros = [int(z) for z in attrs[name + ".zero_point"]]
        self.axis = attrs.get(name + ".axis")
        low, self.high = LIMITS[self.dtype]
        self.low = low + attrs.get(name + ".narrow", 0)
        # Profile samebit.
        assert attrs.get(name + ".rounding", "half_even") == "half_even"

    def steps(self, codes):
        """Codes less their zero point, as 64-bit integers."""
        codes = codes.astype(np.int64)
        if self.axis is None or len(self.zeros) == 1:
            return codes - self.zeros[0]
        shape = [1] * codes.ndim
        shape[self.axis] = -1
        return codes - np.array(self.zeros, np.int64).reshape(shape)


def params(attrs, name):
    return Params(attrs, name) if name in attrs else None


def half_away(x):
    """A double to the nearest integer, halves away from zero; exact."""
    num, den = abs(x).as_integer_ratio()
    q = (2 * num + den) // (2 * den)
    return q if x >= 0 else -q


def multiplier(real):
    """m in [2^30, 2^31) and r with real ~ m * 2^-r."""
    _, exponent = math.frexp(real)
    r = 31 - exponent
    m = half_away(math.ldexp(real, r))
    if m == 1 << 31:
        m, r = 1 << 30, r - 1
    assert 1 << 30 <= m < 1 << 31
    return m, r


def halves_to_even(num, den):
    """num / den, both integers, den positive, num an array of Python integers, rounded."""
    q = num // den
    rest = 2 * (num - q * den)
    up = (rest > den) | ((rest == den) & (q % 2 == 1))
    return q + up.astype(object) if isinstance(up, np.ndarray) else q + int(up)


def objects(x):
    return np.asarray(x).astype(object)


def over_power(num, r):
    """num * 2^-r, rounded."""
    if r <= 0:
        return num * (1 << -r)
    small = int(abs(num).max()) if num.size else 0
    if r <= 62 and small < 1 << 61:
        # The same in 64 bits, as nothing overflows.
        n = num.astype(np.int64)
        q = n >> r
        rest = n - (q << r)
        half = np.int64(1 << (r - 1))
        return q + ((rest > half) | ((rest == half) & (q & 1 == 1)))
    return halves_to_even(objects(num), 1 << r)


def product(x, m):
    """x * m, in 64 bits where they hold it."""
    small = int(abs(x).max()) if x.size else 0
    return x * np.int64(m) if small * m < 1 << 62 else objects(x) * m


def fixed(x, real):
    m, r = multiplier(real)
    return over_power(product(x, m), r)


def place(v, out, attrs):
    """Codes of what was rounded: the zero point, then the clamp."""
    low, high = attrs.get("low", out.low), attrs.get("high", out.high)
    v = objects(v) if v.dtype == object else v
    return np.clip(v + out.zeros[0], low, high).astype(STORED[out.dtype])


def per_channel(x, axis, scales, f):
    """f of the part of x of each channel and its scale."""
    if len(scales) == 1:
        return f(x, scales[0])
    parts = [f(part, s) for part, s in zip(np.moveaxis(x, axis, 0), scales)]
    return np.moveaxis(np.stack(parts), 0, axis)


def exact_matmul(a, b):
    largest = float(abs(a).max(initial=0)) * float(abs(b).max(initial=0)) * a.shape[-1]
    if largest < 2**53:
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
    return a @ b

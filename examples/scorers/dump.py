"""Reads a dump folder: `<percent-encoded tensor name>.npy`, or split in `NAME.00000.npy`, `NAME.00001.npy`, ..."""
import json
from pathlib import Path
from urllib.parse import quote

import numpy as np


def tensor(folder, name):
    """All frames of one tensor, axis 0 = frame."""
    stem = Path(folder) / quote(name, safe="")
    whole = stem.with_name(stem.name + ".npy")
    parts = [whole] if whole.exists() else sorted(stem.parent.glob(stem.name + ".[0-9]*.npy"))
    if not parts:
        raise SystemExit(f"{folder} holds no tensor named {name}")
    return np.concatenate([np.load(p) for p in parts])


def samples(folder):
    """The sample ids, one per frame: row numbers of an npy, file names of an image folder."""
    return json.loads((Path(folder) / "index.json").read_text())["samples"]


def average_precision(hits, truths):
    """All-point average precision of hits (best score first) among `truths` objects, and the best F1 on the way."""
    if not hits:
        return 0.0, 0.0
    found = np.cumsum(hits)
    precision, recall = found / np.arange(1, len(hits) + 1), found / truths
    f1 = 2 * found / (np.arange(1, len(hits) + 1) + truths)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * envelope)), float(f1.max())

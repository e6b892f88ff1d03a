#!/usr/bin/env python3
"""Scores the bird's eye view detector: outputs `heat` [n,1,28,20] and `reg` [n,3,28,20]. Needs numpy.

samebit eval bev_grid.onnx --data examples/datasets/bev_grid.toml --scorer "python3 examples/scorers/bev_ap.py"

A detection is a cell above 0.1 that is the largest of its 3x3 neighbours. Best score first, each takes the nearest
free object of its frame and is right if that is closer than 2 m or 10 % of the object's range, whichever is more.
"""
import argparse
import csv
import json
from pathlib import Path

import numpy as np

from dump import average_precision, samples, tensor

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "bev"
CELL, NEAR, RIGHT = 2.0, 4.0, -20.0  # metres: cell size, and the corner of cell (0, 0) in x (forward) and y (left)
THRESHOLD, SURE = 0.1, 0.3


def detections(heat, reg):
    """Rows (score, frame, x, y, range), best score first; of equal scores the earlier frame and cell first."""
    padded = np.pad(heat[:, 0], ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    largest = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2)).max((3, 4))
    frame, i, j = np.nonzero((heat[:, 0] >= largest) & (heat[:, 0] > THRESHOLD))
    dx, dy, distance = reg[frame, :, i, j].astype(np.float64).T
    rows = np.stack([heat[frame, 0, i, j], frame, NEAR + (i + 0.5) * CELL + dx, RIGHT + (j + 0.5) * CELL + dy,
                     distance], 1)
    return rows[np.argsort(-rows[:, 0], kind="stable")]


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--objects", default=DATA / "eval_objects.csv", help="csv with frame,x_m,y_m,range_m")
    args.add_argument("dump", help="dump folder with heat, reg and index.json")
    args = args.parse_args()

    objects = {}
    with open(args.objects, newline="") as f:
        for row in csv.DictReader(f):
            objects.setdefault(row["frame"], []).append([float(row[k]) for k in ("x_m", "y_m", "range_m")])
    truth = [np.array(objects.get(s, [])).reshape(-1, 3) for s in samples(args.dump)]
    free = [np.ones(len(t), bool) for t in truth]
    count = sum(map(len, truth))
    if count == 0:
        raise SystemExit(f"{args.objects} has no object in the frames of {args.dump}")

    hits, errors = [], []
    for score, frame, x, y, distance in detections(tensor(args.dump, "heat"), tensor(args.dump, "reg")):
        known, usable = truth[int(frame)], free[int(frame)]
        hit = False
        if usable.any():
            away = np.where(usable, np.hypot(known[:, 0] - x, known[:, 1] - y), np.inf)
            nearest = int(away.argmin())
            hit = bool(away[nearest] < max(2.0, 0.1 * known[nearest, 2]))
        if hit:
            usable[nearest] = False
            if score >= SURE:
                errors.append(abs(known[nearest, 2] - distance))
        hits.append(hit)
    ap, f1 = average_precision(hits, count)
    result = {"ap": ap, "f1": f1, "detections": len(hits), "objects": count}
    if errors:
        result["range_mae_m"] = float(np.mean(errors))
    print(json.dumps(result))


if __name__ == "__main__":
    main()

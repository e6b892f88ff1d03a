#!/usr/bin/env python3
"""Scores the face detector: outputs `scores` [n,4420,2] and `boxes` [n,4420,4]. Needs numpy.

samebit eval ultraface_rfb320.onnx --data examples/datasets/ultraface_rfb320.toml \
    --scorer "python3 examples/scorers/faces_ap.py"

The truth is what the float model found with a score of at least 0.7. `ap50`: average precision at an overlap of 0.5 of
all detections above 0.05 after suppression of overlaps above 0.3; `faces`: those of at least 0.7.
"""
import argparse
import csv
import json
from pathlib import Path

import numpy as np

from dump import average_precision, samples, tensor

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "faces"
KEEP, SURE, SUPPRESS, MATCH = 0.05, 0.7, 0.3, 0.5


def decode(offsets, priors):
    """Offsets to priors (centre and size) -> corners x1, y1, x2, y2, as fractions of the image."""
    centre = offsets[:, :2] * 0.1 * priors[:, 2:] + priors[:, :2]
    half = np.exp(offsets[:, 2:] * 0.2) * priors[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], 1)


def overlap(box, boxes):
    """Intersection over union of one box with many."""
    side = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    inner = np.maximum(side, 0).prod(1)
    return inner / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - inner)


def suppress(scores, boxes):
    """Indices of the boxes that no better one overlaps too much, best first."""
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left):
        kept.append(left[0])
        left = left[1:][overlap(boxes[left[0]], boxes[left[1:]]) <= SUPPRESS]
    return kept


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--truth", default=DATA / "float_detections.csv", help="csv with file,x1,y1,x2,y2,score")
    args.add_argument("--priors", default=DATA / "priors.npy", help="npy [4420,4]: centre and size of each prior")
    args.add_argument("--decoded", action="store_true", help="the boxes are corners already")
    args.add_argument("dump", help="dump folder with scores, boxes and index.json")
    args = args.parse_args()

    known = {}
    with open(args.truth, newline="") as f:
        for row in csv.DictReader(f):
            known.setdefault(row["file"], []).append([float(row[k]) for k in ("x1", "y1", "x2", "y2")])
    truth = [np.array(known.get(s, [])).reshape(-1, 4) for s in samples(args.dump)]
    count = sum(map(len, truth))
    if count == 0:
        raise SystemExit(f"{args.truth} has no face in the images of {args.dump}")

    priors = np.load(args.priors)
    found = []
    for frame, (scores, boxes) in enumerate(zip(tensor(args.dump, "scores"), tensor(args.dump, "boxes"))):
        good = scores[:, 1] > KEEP
        corners = boxes[good] if args.decoded else decode(boxes[good], priors[good])
        found += [(scores[good, 1][i], frame, corners[i]) for i in suppress(scores[good, 1], corners)]
    found.sort(key=lambda d: -d[0])

    free = [np.ones(len(t), bool) for t in truth]
    hits = []
    for _, frame, box in found:
        shared = np.where(free[frame], overlap(box, truth[frame]), -1)
        hit = len(shared) > 0 and shared.max() >= MATCH
        if hit:
            free[frame][shared.argmax()] = False
        hits.append(hit)
    ap, _ = average_precision(hits, count)
    print(json.dumps({"ap50": ap, "faces": sum(bool(s >= SURE) for s, _, _ in found), "float_faces": count}))


if __name__ == "__main__":
    main()

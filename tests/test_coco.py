"""The COCO figures: equal to pycocotools', and defined where there is nothing to find or nothing found."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys

import numpy as np
import pytest

from zoo.dense.coco import CocoEvaluation
from zoo.errors import DataError

STATS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


def scene(seed, images=12, classes=3, objects=8, noise=6.0, crowds=0.1, empty=0.2):
    """Random truths of all sizes and detections near them, with false alarms, doubles and equal scores."""
    rng = np.random.default_rng(seed)
    for _ in range(images):
        count = 0 if rng.random() < empty else int(rng.integers(1, objects + 1))
        low, side = rng.uniform(0, 300, (count, 2)), np.exp(rng.uniform(np.log(6), np.log(200), (count, 2)))
        truth = np.concatenate([low, low + side], axis=1)
        labels = rng.integers(0, classes, count)
        copies = rng.integers(0, 3, count)
        found = np.repeat(truth, copies, axis=0) + rng.normal(0, noise, (copies.sum(), 4))
        stray = rng.uniform(0, 300, (int(rng.integers(0, 4)), 2))
        found = np.concatenate([found, np.concatenate([stray, stray + 40], axis=1)])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        named = np.concatenate([np.repeat(labels, copies), rng.integers(0, classes, len(stray))])
        yield found, rng.random(len(found)).round(1), named, truth, labels, rng.random(count) < crowds


def reference(scenes, classes):
    """pycocotools' evaluation of the same."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def corners(box):
        return [*box[:2], *(box[2:] - box[:2])]

    truths, found = [], []
    for image, (boxes, scores, labels, truth, names, crowd) in enumerate(scenes, 1):
        for box, name, mark in zip(truth, names, crowd, strict=True):
            box = corners(box)
            row = {"id": len(truths) + 1, "image_id": image, "category_id": int(name) + 1, "bbox": box}
            truths.append({**row, "area": box[2] * box[3], "iscrowd": int(mark)})
        for box, score, label in zip(boxes, scores, labels, strict=True):
            box = corners(box)
            row = {"id": len(found) + 1, "image_id": image, "category_id": int(label) + 1, "bbox": box}
            found.append({**row, "area": box[2] * box[3], "score": score, "iscrowd": 0})
    loaded = []
    for rows in (truths, found):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i + 1} for i in range(len(scenes))],
            "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
            "annotations": rows,
        }
        coco.createIndex()
        loaded.append(coco)
    evaluation = COCOeval(*loaded, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def evaluated(scenes, classes=3):
    evaluation = CocoEvaluation([str(k) for k in range(classes)])
    for one in scenes:
        evaluation.add(*one)
    return evaluation


def assert_equal_to_the_reference(scenes, classes=3):
    ours = evaluated(scenes, classes)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = reference(scenes, classes)
    figures = ours.compute()
    for name, value in zip(STATS, theirs.stats, strict=True):
        if value == -1:
            assert figures[name] == (0.0 if name in ("AP", "AP50", "AP75", "AR100") else None)
        else:
            assert figures[name] == value, name
    precision, scores = theirs.eval["precision"], theirs.eval["scores"]
    curves = ours.curves()
    for k in range(classes):
        named = figures["per_class"][str(k)]
        values = precision[:, :, k, 0, 2]
        if (values == -1).all():
            assert named == {"AP": None, "AP50": None, "AR100": None, "truths": 0} and str(k) not in curves
            continue
        assert named["AP"] == values[values > -1].mean() and named["AP50"] == values[0].mean()
        np.testing.assert_array_equal(curves[str(k)].precision, values[0])
        np.testing.assert_array_equal(curves[str(k)].score, scores[0, :, k, 0, 2])
    json.dumps(figures, allow_nan=False)
    return figures


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_pycocotools(seed):
    figures = assert_equal_to_the_reference(list(scene(seed, crowds=(0, 0.1, 0.5)[seed % 3])))
    assert 0 < figures["AP"] < figures["AP50"] < 1


def test_more_detections_than_count():
    scenes = list(scene(3, images=2, objects=30, empty=0))
    rng = np.random.default_rng(0)
    many = [(np.tile(one[0], (9, 1)), rng.random(9 * len(one[0])), np.tile(one[2], 9), *one[3:]) for one in scenes]
    assert max(len(one[0]) for one in many) > 250
    assert_equal_to_the_reference(many)


NONE = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
TRUTH = (np.array([[10.0, 10, 60, 60]]), np.array([1]), np.array([False]))


def test_nothing_to_find_and_nothing_found():
    nothing = (np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))
    alarm = (TRUTH[0], np.array([0.9]), np.array([1]))
    for scenes in ([(*NONE, *nothing)], [(*alarm, *nothing)]):
        figures = assert_equal_to_the_reference(scenes)
        assert figures["AP"] == 0 and figures["AP_large"] is None and figures["truths"] == 0
    figures = assert_equal_to_the_reference([(*NONE, *TRUTH)])
    assert figures["AP"] == 0 and figures["per_class"]["1"]["AP50"] == 0 and figures["truths"] == 1
    only_crowd = (*TRUTH[:2], np.array([True]))
    assert assert_equal_to_the_reference([(*alarm, *only_crowd)])["truths"] == 0
    assert assert_equal_to_the_reference([(*alarm, *TRUTH), (*NONE, *nothing)])["AP"] == pytest.approx(1)
    empty = CocoEvaluation(["a"]).compute()
    assert empty["AP"] == 0 and empty["images"] == 0 and CocoEvaluation(["a"]).curves() == {}


def test_what_is_found_later_counts():
    evaluation = evaluated([(*NONE, *TRUTH)])
    assert evaluation.compute()["AP"] == 0
    evaluation.add(TRUTH[0], np.array([0.5]), np.array([1]), *TRUTH)
    assert evaluation.compute()["AP"] == pytest.approx(0.5, abs=0.01) and evaluation.compute()["images"] == 2


def test_detections_that_are_not_finite_are_counted():
    boxes = np.array([[10.0, 10, 60, 60], [np.nan, 0, 1, 1], [0, 0, np.inf, 5]], np.float32)
    evaluation = CocoEvaluation(["a", "b"])
    evaluation.add(boxes, np.array([0.9, 0.8, 0.7]), np.ones(3, int), *TRUTH)
    evaluation.add(TRUTH[0], np.array([np.nan]), np.ones(1, int), *TRUTH)
    figures = evaluation.compute()
    assert figures["detections_lost"] == 3 and figures["detections"] == 1 and figures["truths"] == 2
    assert "detections_lost" not in evaluated([(*NONE, *TRUTH)]).compute()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((np.zeros((2, 4)), np.zeros(1), np.zeros(1, int), *TRUTH), r"detections: boxes \(2, 4\)"),
        ((np.zeros((1, 4)), np.zeros(1), np.array([3]), *TRUTH), "accepted: 0 to 2, for 3 classes"),
        ((*NONE, TRUTH[0], np.array([-1]), TRUTH[2]), "truths: class indices go from -1"),
        ((*NONE, TRUTH[0] * np.nan, *TRUTH[1:]), "not finite"),
    ],
)
def test_wrong_input(given, said):
    with pytest.raises(DataError, match=said):
        evaluated([given])


def test_imported_only_when_needed():
    code = "import sys, zoo.dense.coco; print('hotcoco' in sys.modules, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"

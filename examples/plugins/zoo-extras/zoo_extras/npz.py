"""An export format: `model.npz` with every parameter and statistic, in the family's native key layout."""

import json

import numpy as np

from zoo.models.export import native_tensors


def export(model, folder):
    np.savez(folder / "model.npz", **dict(native_tensors(model)))
    (folder / "labels.json").write_text(json.dumps(model.labels), "utf-8")

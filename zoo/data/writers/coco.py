"""Write COCO: a JSON file for each split. Lin et al., 2014; https://cocodataset.org/#format-data"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np

from zoo.data.category_ids import category_ids
from zoo.data.dataset import Dataset
from zoo.data.writers import classes_of
from zoo.data.written import Folder
from zoo.targets.boxes import Boxes, InstanceMasks
from zoo.targets.masks import instance_values
from zoo.targets.outlines import Polygons, Shape, inside

NAME = "coco"
KINDS = ("boxes",)
LAYOUT = (
    "annotations/instances_SPLIT.json, with the ids of images and categories if the data has them; images in SPLIT/"
)


def write(splits: Mapping[str, Dataset], folder: Folder) -> None:
    """Write boxes with their outlines. Nothing is left out."""
    names = folder.names(splits)
    for split, dataset in splits.items():
        place = "images" if split == "all" else split
        content = _content(dataset, names[split], category_ids(classes_of(splits), dataset.category_ids))
        for sample, name in zip(dataset, names[split], strict=True):
            folder.image(sample, f"{place}/{name}")
        folder.json(f"annotations/instances{'' if split == 'all' else f'_{split}'}.json", content)


def _content(dataset: Dataset, names: list[str], categories: Mapping[str, int | str]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids = list(categories.values())
    used = {sample.number for sample in dataset}
    free = (number for number in count(1) if number not in used)
    for sample, name in zip(dataset, names, strict=True):
        target: Boxes = sample.target
        number = next(free) if sample.number is None else sample.number
        height, width = target.size
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        segmentations = _segmentations(target)
        for i, (x1, y1, x2, y2) in enumerate(target.boxes):
            box = [_short(value) for value in (x1, y1, x2 - x1, y2 - y1)]
            segmentation, area = segmentations[i]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": ids[target.labels[i]],
                    "bbox": box,
                    "area": _short((x2 - x1) * (y2 - y1) if area is None else area),
                    "iscrowd": int(target.crowd[i]),
                    "segmentation": segmentation,
                }
            )
    return {
        "info": {"description": dataset.name},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": id, "name": name} for name, id in categories.items()],
    }


def _short(value: float) -> int | float:
    return int(value) if value == int(value) else value


def _segmentations(target: Boxes) -> list[tuple[Any, float | None]]:
    """Return (segmentation, its area in pixels) of each box; an empty one, and None, if only the box is known."""
    if isinstance(target.masks, InstanceMasks):
        pixels = instance_values(target.masks.file, target.size)
        return [_runs(pixels == value) for value in target.masks.values]
    shapes = target.masks.shapes if target.masks else (None,) * len(target)
    return [_segmentation(shape, target.size) for shape in shapes]


def _segmentation(shape: Shape | None, size: tuple[int, int]) -> tuple[Any, float | None]:
    if shape is None:
        return [], None
    if isinstance(shape, Polygons):
        return [list(map(_short, ring)) for ring in shape.rings], sum(map(_area, shape.rings))
    if isinstance(shape.counts, str):
        return {"size": list(size), "counts": shape.counts}, float(inside(shape, size).sum())
    return {"size": list(size), "counts": list(shape.counts)}, float(sum(shape.counts[1::2]))


def _area(ring: tuple[float, ...]) -> float:
    """Return the area of a polygon (the shoelace formula)."""
    x, y = np.array(ring[::2]), np.array(ring[1::2])
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _runs(pixels: np.ndarray) -> tuple[dict[str, Any], float]:
    """Return the pixels (height, width) of an object in COCO's run-length encoding, and their number."""
    flat = pixels.reshape(-1, order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate([[0] * (1 + bool(flat[0])), ends, [len(flat)]])
    return {"size": list(pixels.shape), "counts": np.diff(edges).tolist()}, float(flat.sum())

"""Label Studio's own exports, JSON and JSON-MIN: tasks with rectangles and polygons in per cent of the image.

https://labelstud.io/guide/export#Label-Studio-JSON-format-of-annotated-tasks
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.data.dataset import Dataset
from zoo.data.files import files, holds_key, is_image, load_json
from zoo.data.listed_boxes import Entry, Object, checked_size, datasets_of, only_file, root_of, turned
from zoo.data.listed_images import base_name
from zoo.errors import DataError, counted
from zoo.labels.spelling import nfc, ordered
from zoo.reading import read_file
from zoo.targets.outlines import Polygons, box_of, shape_of
from zoo.text import shown

NAME = "label_studio"
KINDS = ("boxes",)
LAYOUT = (
    "Label Studio: a .json file (JSON or JSON-MIN) with rectangles or polygons, beside the images or folders of them"
)
_SHAPES = ("rectanglelabels", "polygonlabels")
_Remark = tuple[str, str]
"""A remark after the number 1, and after other numbers."""
_EMPTY = ("image has no annotation, and is left out", "images have no annotation, and are left out")
_SEVERAL = (
    "image has several annotations, of which the last is read",
    "images have several annotations, of which the last is read",
)
_OTHER = (
    "result is no rectangle or polygon with a label, and not read",
    "results are no rectangles or polygons with labels, and not read",
)


def detect(path: Path) -> bool:
    """Whether `path` is a JSON file of Label Studio, or a folder with one."""
    return bool(_exports(path))


def read(path: Path) -> dict[str, Dataset]:
    """Read a JSON file of Label Studio, as the single key `all`.

    Classes are the labels that occur, sorted. A polygon gives the box around it and an outline, and so does a turned
    rectangle. An image that nobody has annotated is left out with a note; one whose annotation is empty has no boxes.
    If an image has several annotations, the last one is read.

    Raises:
        DataError: a task is broken, or no image exists; names the file and the task.
    """
    file = only_file(_exports(path), path, LAYOUT)
    tasks = load_json(file)
    if not isinstance(tasks, list):
        raise DataError(f"{file} must hold a JSON list of tasks.")
    remarks: Counter[_Remark] = Counter()
    entries = [entry for i, task in enumerate(tasks) if (entry := _entry(task, f"{file}: task {i}", remarks))]
    if not entries:
        raise DataError(f"{file} has no task with an annotation.")
    classes = tuple(ordered({one.label for entry in entries for one in entry.objects}))
    notes = [counted(count, *texts) for texts, count in remarks.items()]
    return datasets_of({"all": entries}, classes, file, root_of(path, file), notes)


def _exports(path: Path) -> list[Path]:
    found = [path] if path.is_file() else files(path)
    return [file for file in found if file.suffix.lower() == ".json" and _is_export(file)]


def _is_export(file: Path) -> bool:
    """Whether a file is a list that has a shape of Label Studio. It is searched as text, which is fast."""
    try:
        starts = read_file(file, 64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    except DataError:
        return False
    return starts and any(holds_key(file, shape) for shape in _SHAPES)


def _entry(task: Any, place: str, remarks: Counter[_Remark]) -> Entry | None:
    """Return the image of a task and its objects; None if nobody has annotated it."""
    if not isinstance(task, dict):
        raise DataError(f"{place} is {shown(task)}; it must be a JSON object.")
    name = _image(task.get("data", task))
    if name is None:
        raise DataError(f"{place} names no image.")
    place = f"{place} ({name})"
    given = task.get("annotations", task.get("completions"))
    if given is not None or "data" in task:
        done = [one for one in given or () if isinstance(one, dict) and not one.get("was_cancelled")]
        if not done:
            remarks[_EMPTY] += 1
            return None
        if len(done) > 1:
            remarks[_SEVERAL] += 1
        results = done[-1].get("result") or []
    else:  # JSON-MIN
        lists = [value for value in task.values() if isinstance(value, list)]
        results = [one for value in lists for one in value if isinstance(one, dict)]
    sizes: list[tuple[int, int]] = []
    objects: list[Object] = []
    for result in results:
        if not isinstance(result, dict):
            raise DataError(f"{place}: a result is {shown(result)}; it must be a JSON object.")
        value = result.get("value", result)
        kind = next((shape for shape in _SHAPES if isinstance(value, dict) and shape in value), None)
        if kind is None:
            remarks[_OTHER] += 1
            continue
        stated = {**result, **value}
        height, width = (_number(stated, f"original_{side}", place) for side in ("height", "width"))
        size = checked_size(height, width, place)
        if size is None or sizes and size != sizes[0]:
            raise DataError(f"{place}: original_width and original_height are missing or differ between results.")
        sizes.append(size)
        objects += _objects(value, kind, size, place)
    return Entry(place, name, sizes[0] if sizes else None, tuple(objects))


def _image(data: Any) -> str | None:
    """Return the name of a task's image: the field `image`, or the first one that looks like an image."""
    if not isinstance(data, dict):
        return None
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value.strip()}
    return texts.get("image") or next((text for text in texts.values() if is_image(base_name(text))), None)


def _objects(value: Mapping[str, Any], kind: str, size: tuple[int, int], place: str) -> Iterator[Object]:
    """Yield an object for each label of a shape, whose coordinates are in per cent of the image."""
    labels = value[kind]
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise DataError(f"{place}: {kind} is {shown(labels)}; it must be a list of labels.")
    across, down = size[1] / 100, size[0] / 100
    shape: Polygons | None
    if kind == "rectanglelabels":
        x, y, width, height = (_number(value, key, place) for key in ("x", "y", "width", "height"))
        corner = (x * across, y * down)
        flat = (*corner, (x + width) * across, (y + height) * down)
        # The rotation is around the upper left corner, in pixels.
        box, shape = turned(flat, _number({"rotation": 0, **value}, "rotation", place), corner)
    else:
        points = value.get("points")
        pairs = points if isinstance(points, list) else []
        if not all(isinstance(point, list) and len(point) == 2 for point in pairs):
            raise DataError(f"{place}: points are {shown(points)}; they must be a list of x and y.")
        corners = [{"x": x, "y": y} for x, y in pairs]
        ring = [[_number(one, "x", place) * across, _number(one, "y", place) * down] for one in corners]
        outline = shape_of([ring], size)
        shape = outline if isinstance(outline, Polygons) else None
        around = box_of(shape, size) if shape else None
        if around is None:
            raise DataError(f"{place}: a polygon has {counted(len(ring), 'point')}; it needs at least three.")
        box = around
    for label in labels:
        yield Object(nfc(label.strip()), box, shape)


def _number(value: Mapping[str, Any], key: str, place: str) -> float:
    given = value.get(key)
    if not isinstance(given, int | float) or isinstance(given, bool) or not abs(given) < 1e9:
        raise DataError(f"{place}: {key} is {shown(given)}; it must be a number.")
    return float(given)

"""Make datasets of boxes from one annotation file that lists images and their objects, as annotation tools write it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.data.dataset import Dataset, Sample
from zoo.data.listed_images import find_listed, places_of
from zoo.data.pairs import below, title
from zoo.data.unique import listed
from zoo.errors import DataError
from zoo.image_header import MAX_PIXELS, image_size
from zoo.targets.boxes import UNKNOWN, Box, Boxes
from zoo.targets.faults import Fault
from zoo.targets.outlines import Outlines, Polygons, Shape


@dataclass(frozen=True)
class Object:
    """An object of an image: its class, x1, y1, x2, y2 in pixels, and its outline if there is one."""

    label: str
    box: Box
    shape: Shape | None = None


@dataclass(frozen=True)
class Entry:
    """A listed image.

    Attributes:
        place: where it is listed, for errors and faults.
        name: of the image file, as written.
        size: height and width as stated, or None.
        objects: in the image.
    """

    place: str
    name: str
    size: tuple[int, int] | None
    objects: tuple[Object, ...]


def only_file(found: Sequence[Path], path: Path, layout: str) -> Path:
    """Return the one annotation file that was found at `path`. Raise `DataError` if there are none or several."""
    if not found:
        raise DataError(f"{path} is not {layout}.")
    if len(found) > 1:
        raise DataError(f"{path} holds {found[0].name} and {found[1].name}. Give the path of one of them.")
    return found[0]


def root_of(path: Path, file: Path) -> Path:
    """Return the folder of a dataset: the given one, or that of the annotation file."""
    return path if path.is_dir() else file.parent


def datasets_of(
    by_split: Mapping[str, Sequence[Entry]], classes: tuple[str, ...], file: Path, root: Path, notes: Sequence[str] = ()
) -> dict[str, Dataset]:
    """Return split -> dataset. Images that do not exist are left out as faults, which the check reports.

    Args:
        by_split: split (or `all`) -> images.
        classes: class names. Objects of others are of an unknown class.
        file: the annotation file.
        root: folder of the dataset.
        notes: remarks for the user.

    Raises:
        DataError: no image exists, or there is no object in any.
    """
    index = {name: i for i, name in enumerate(classes)}
    if not any(entry.objects for entries in by_split.values() for entry in entries):
        raise DataError(f"{file} has no boxes or polygons in any of its images.")
    datasets = {}
    for split, entries in by_split.items():
        names, listed_in = [entry.name for entry in entries], [entry.place for entry in entries]
        places = places_of(root, file, split)
        found, note = find_listed(names, places, root, split, listed_in.__getitem__)
        if not any(found):
            shown = ", ".join(map(str, places[:4])) + (", ..." if len(places) > 4 else "")
            raise DataError(f"{entries[0].place}: the image {names[0]!r} does not exist (looked in {shown}).")
        both = [(entry, image) for entry, image in zip(entries, found, strict=True) if image]
        samples = [_sample(entry, image, index, root) for entry, image in both]
        said = [f"{file.name}: {one}." for one in (*notes, note) if one]
        dataset = listed(
            samples, classes, "boxes", title(root, split), root, places=[e.place for e, _ in both], notes=tuple(said)
        )
        missing = (e for e, image in zip(entries, found, strict=True) if image is None)
        faults = tuple(Fault("missing", entry.name, None, "", entry.place) for entry in missing)
        datasets[split] = replace(dataset, faults=faults)
    return datasets


def _sample(entry: Entry, image: Path, index: Mapping[str, int], root: Path) -> Sample:
    boxes, shapes = tuple(one.box for one in entry.objects), tuple(one.shape for one in entry.objects)
    labels = tuple(index.get(one.label, UNKNOWN) for one in entry.objects)
    size = entry.size or image_size(image)[0]
    outlines = Outlines(shapes) if any(shapes) else None
    return Sample(image, Boxes(boxes, labels, (False,) * len(boxes), size, outlines), below(image, root))


def checked_size(height: float, width: float, place: str) -> tuple[int, int] | None:
    """Return a stated size as integers, None if it is not positive.

    Raises:
        DataError: it is not finite, or an image of that size would be too large; names the `place`.
    """
    if not math.isfinite(height) or not math.isfinite(width) or height * width > MAX_PIXELS:
        raise DataError(
            f"{place}: height and width are {height:g} and {width:g}; an image may have at most {MAX_PIXELS:,} pixels."
        )
    return (int(height), int(width)) if min(height, width) >= 1 else None


def turned(box: Box, degrees: float, around: tuple[float, float]) -> tuple[Box, Polygons | None]:
    """Return (the box around a box that is turned clockwise, its outline or None if it is not turned)."""
    if not degrees % 360 or not math.isfinite(degrees):
        return box, None
    x1, y1, x2, y2 = box
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))

    def corners() -> Iterator[float]:
        for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)):
            across, down = x - around[0], y - around[1]
            yield around[0] + across * cosine - down * sine
            yield around[1] + across * sine + down * cosine

    ring = tuple(corners())
    return (min(ring[::2]), min(ring[1::2]), max(ring[::2]), max(ring[1::2])), Polygons((ring,))

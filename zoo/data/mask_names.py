"""Match masks with images by the names that annotation tools give them: `cat_mask.png`, `cat.jpg.png`, `mask_cat.png`.

A mask belongs to the image of the same name in the same sub-folder. The names may differ in what tools add, in this
order of preference: nothing; words in the mask's name (`_mask`, `gt_`) or the suffix of the image's file; words in the
image's name as well (`cat_image.png`, nnU-Net's `cat_0000.png`); upper and lower case; the sub-folder, if the bare name
occurs only once.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from zoo.data.files import images_below, is_image, walk_text
from zoo.data.pairs import images_by_stem, stem
from zoo.errors import DataError
from zoo.targets.faults import MOST_LOST

_BETWEEN = r"[ _.-]+"
_SURE = r"masks?|seg(?:m|mented|mentations?)?|labels?|gt|ground[ _-]?truths?|annot(?:ation)?s?"
"""Words that mark a mask, also in a folder that holds the images as well."""
_LIKELY = (
    r"l|p|lbl|lab|anno|instances?|manual[12]?|1stho|targets?|trimaps?|mattes?|semantic|pixels|label_?(?:train)?_?ids|"
    r"train_?ids?|gt(?:fine|coarse)_label(?:train)?ids"
)
"""Words that mark a mask in a folder of masks. Beside images they may mean something else, such as left and right."""
_IMAGE = r"images?|imgs?|im|photos?|rgb|sat|training|test|leftimg8bit|0000"
"""Words that tools add to the names of images."""


def _ending(words: str) -> re.Pattern[str]:
    return re.compile(rf"{_BETWEEN}(?:{words})$", re.IGNORECASE)


def _beginning(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{words}){_BETWEEN}", re.IGNORECASE)


_ENDINGS = {True: _ending(_SURE), False: _ending(f"{_SURE}|{_LIKELY}")}
_BEGINNINGS = {True: _beginning(_SURE), False: _beginning(f"{_SURE}|{_LIKELY}")}
_IMAGE_ENDING, _IMAGE_BEGINNING = _ending(_IMAGE), _beginning(_IMAGE)
_FILE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
_DEEPEST = 3
"""Number of additions to one name, as in `mask_cat.jpg_gt.png`."""


def mask_keys(name: str, sure: bool = False) -> list[str]:
    """Return the names that the image of a mask may have: the mask's own, then those without words for masks.

    Args:
        name: path of the mask, relative to the folder, without suffix.
        sure: drop only words that mark a mask even beside images.
    """
    folder, base = os.path.split(name)
    names = [base]
    for _ in range(_DEEPEST):
        last = names[-1]
        place = _ENDINGS[sure].search(last)
        start = _BEGINNINGS[sure].match(last)
        root, suffix = os.path.splitext(last)
        if place and place.start():
            names.append(last[: place.start()])
        elif start and start.end() < len(last):
            names.append(last[start.end() :])
        elif suffix.lower() in _FILE_SUFFIXES and root:
            names.append(root)
        else:
            break
    return [f"{folder}/{one}" for one in names] if folder else names


def image_key(name: str) -> str:
    """Return the name of an image without words such as `_image` or `_0000`; unchanged if it has none."""
    folder, base = os.path.split(name)
    if (place := _IMAGE_ENDING.search(base)) and place.start():
        base = base[: place.start()]
    elif (start := _IMAGE_BEGINNING.match(base)) and start.end() < len(base):
        base = base[start.end() :]
    return f"{folder}/{base}" if folder else base


def image_keys(names: Iterable[str]) -> dict[str, str]:
    """Return each name by which masks may refer to an image -> the image's name. Names that fit several are left out.

    Args:
        names: paths of the images, relative to their folder, without suffix.
    """
    exact = {name: name for name in names}
    short: dict[str, str] = {}
    for name in exact:
        key = image_key(name)
        if key != name and not (
            name.endswith("0000") and f"{name[:-1]}1" in exact
        ):  # one channel of several, or frames
            short[key] = "" if key in short else name
    return {key: name for key, name in short.items() if name} | exact


class Matches(NamedTuple):
    """Masks matched with images.

    Attributes:
        images: path relative to the folder, without suffix -> the images of that name.
        mask_of: the same name -> its mask.
        strays: masks that belong to no image or to several, or to one that has another mask.
    """

    images: dict[str, list[Path]]
    mask_of: dict[str, Path]
    strays: list[Path]


def matched(images: Path, masks: Path) -> list[tuple[Path, Path | None]]:
    """Return each image with its mask or None; nothing if most masks do not belong to exactly one image."""
    by_stem, mask_of, strays = match(images, masks)
    if len(strays) > len(mask_of):
        return []
    return [(image, mask_of.get(name)) for name, (image, *_) in by_stem.items()] if mask_of else []


def unmatched(images: Path, masks: Path, name: str) -> list[str]:
    """Return a note on masks that do not belong to exactly one image; raise `DataError` if they are over a tenth."""
    _, mask_of, strays = match(images, masks)
    if not strays:
        return []
    count = len(mask_of) + len(strays)
    note = f"{name}: {len(strays)} of {count} masks do not have the name of exactly one image, e.g. {strays[0]}"
    if len(strays) > MOST_LOST * count:
        raise DataError(f"{note}. Add the images, rename the masks, or move them away.")
    return [f"{note}; they are left out."]


def mixed(folder: Path) -> bool:
    """Whether a folder seems to hold images and their masks: a mask for at least half of the images."""
    start = len(os.path.join(folder, ""))
    files = (file[start:] for file in walk_text(folder) if is_image(os.path.basename(file)))
    names = [os.path.splitext(name)[0].replace(os.sep, "/") for name in files]
    # A quick test first: most folders are not of this kind, and some are large.
    likely = sum(len(mask_keys(name, sure=True)) > 1 for name in names)
    if not likely or 3 * likely < len(names):
        return False
    inside = beside(names)
    return 2 * len(inside) >= len(names) - len(inside) > 0


def match(images: Path, masks: Path) -> Matches:
    """Match the masks of a folder with the images of another, or of the same one (`cat.jpg` and `cat_mask.png`)."""
    by_stem = images_by_stem(images)
    if images == masks:
        inside = beside(by_stem)
        files = [(name, mask) for name in inside for mask in by_stem[name]]
        by_stem = {name: found for name, found in by_stem.items() if name not in inside}
    else:
        files = [(stem(mask, masks), mask) for mask in images_below(masks)]
    find = _Finder(by_stem)
    owners: dict[str, list[tuple[str, Path]]] = {}
    strays: list[Path] = []
    for name, mask in files:
        owner, key = find(name)
        if len(by_stem.get(owner, ())) == 1:
            owners.setdefault(owner, []).append((_added(name, key), mask))
        else:
            strays.append(mask)
    # If images have masks of several kinds (x.png and x_gt.png), the kind that most images have is taken.
    common = Counter(kind for found in owners.values() for kind in {kind for kind, _ in found})
    mask_of: dict[str, Path] = {}
    for owner, found in owners.items():
        best = max(common[kind] for kind, _ in found)
        chosen = [mask for kind, mask in found if common[kind] == best]
        mask_of[owner] = chosen[0]
        strays += [mask for _, mask in found if mask != chosen[0]]
    return Matches(by_stem, mask_of, strays)


def _added(name: str, key: str) -> str:
    """Return what a mask's name adds to that of its image, e.g. `*_mask`."""
    place = name.rindex(key)
    return f"{name[:place]}*{name[place + len(key) :]}"


def beside(names: Iterable[str]) -> dict[str, str]:
    """Return the names of masks among images in one folder (`cat_mask` beside `cat`) -> name of the image."""
    images = image_keys(names)
    found: dict[str, str] = {}
    for name in dict.fromkeys(images.values()):
        owners = [images[key] for key in mask_keys(name, sure=True)[1:] if key in images]
        if owners and owners[0] != name:
            found[name] = owners[0]
    return found


class _Finder:
    """Find the image of a mask by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.exact = dict.fromkeys(names)
        self.keys = image_keys(self.exact)
        self.folded = _unique((key.casefold(), name) for key, name in self.keys.items())
        self.bare = _unique((os.path.basename(key), name) for key, name in self.folded.items())

    def __call__(self, mask: str) -> tuple[str, str]:
        """Return (name of the image or an empty string, the part of the mask's name that names it)."""
        keys = mask_keys(mask)
        for key in keys:
            if key in self.exact:
                return key, key
        for key in keys:
            if key in self.keys:
                return self.keys[key], key
        for key in keys:
            if key.casefold() in self.folded:
                return self.folded[key.casefold()], key
        for key in keys:
            base = os.path.basename(key)
            if base.casefold() in self.bare:
                return self.bare[base.casefold()], base
        return "", mask


def _unique(entries: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Return a dict without keys that have several different values."""
    values: dict[str, str] = {}
    for key, value in entries:
        values[key] = value if values.get(key, value) == value else ""
    return {key: value for key, value in values.items() if value}

"""Find the images that an annotation file lists.

Tools write names that hold on the machine of the tool only: upload paths (`/data/upload/3/5f2c91ab-cat.jpg`), URLs
(`https://host/cat%201.jpg`, `/data/local-files/?d=pets/cat.jpg`), backslashes. Such images are found by the end of the
name, if one file fits. A name that fits several files is refused, since a wrong choice would go unnoticed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from zoo.data.files import is_image, split_name, subfolders, walk_text
from zoo.data.pairs import SEGMENTED
from zoo.errors import DataError
from zoo.labels.spelling import nfc

_MOST_FILES = 1_000_000
"""Number of files to search. A dataset has fewer; a home folder that was given by mistake may have more."""
_UPLOAD = re.compile(r"[0-9a-f]{6,12}[-_]+(?=.)", re.IGNORECASE)
"""The number that Label Studio and other tools put before the name of an uploaded file."""


def places_of(root: Path, file: Path, split: str) -> list[Path]:
    """Return the folders that file names may be relative to, the most likely first; none of another split or of masks.

    Masks often have the names of the images.
    """
    outer = [folder for folder in subfolders(root) if not SEGMENTED.fullmatch(folder.name)]
    inner = [folder for place in outer for folder in subfolders(place) if not SEGMENTED.fullmatch(folder.name)]
    every = dict.fromkeys([file.parent, root, *outer, *inner])
    fitting = [folder for folder in every if split_name(folder.name) in (split, None)]
    return sorted(fitting, key=lambda folder: split_name(folder.name) != split)


def find_listed(
    names: Sequence[str], places: Sequence[Path], root: Path, split: str, entry: Callable[[int], str]
) -> tuple[list[Path | None], str]:
    """Return (the image of each name or None, a note on images found by the end of their name or an empty string).

    Args:
        names: as the annotation file has them.
        places: folders that the names may be relative to, the most likely first.
        root: folder to search for the other names.
        split: split of the annotation file. Folders of other splits are not searched; `all` searches all folders.
        entry: describes the entry of an index, for errors.

    Raises:
        DataError: a name fits several images, or several names fit the same one; names the entry.
    """
    found: list[Path | None] = [_exact(name, places) for name in names]
    left = [index for index, image in enumerate(found) if image is None]
    if not left:
        return found, ""
    # If names hold with their folders elsewhere in the file, another folder means another image.
    folders_hold = any(image and "/" in _plain(name) for name, image in zip(names, found, strict=True))
    taken = {image: "" for image in found if image}
    search, moved = _Search(root, split), []
    for index in left:
        fitting = search(names[index], folders_hold)
        if len(fitting) > 1:
            shown = " or ".join(image.relative_to(root).as_posix() for image in fitting[:2])
            raise DataError(
                f"{entry(index)}: the image {names[index]!r} could be {shown}. Correct the name, or keep one of them."
            )
        if not fitting or taken.get(fitting[0]) == "":
            continue
        found[index] = image = fitting[0]
        if taken.setdefault(image, names[index]) != names[index]:
            raise DataError(
                f"{entry(index)}: the images {taken[image]!r} and {names[index]!r} do not exist, and both could be "
                f"{image.relative_to(root).as_posix()}. Correct the names."
            )
        moved.append(index)
    if not moved:
        return found, ""
    first = found[moved[0]]
    assert first is not None
    return found, (
        f"{len(moved)} of {len(names)} images were found by the end of their names, e.g. {names[moved[0]]!r} is "
        f"{first.relative_to(root).as_posix()}"
    )


def loose(name: str) -> str:
    """Return what all spellings of a file's name have in common: no folders, upload number, suffix or case."""
    return _key(base_name(name))


def base_name(name: str) -> str:
    """Return the name of the file that a path or URL leads to, without folders and escapes."""
    return list(_spellings(name))[-1].rpartition("/")[2]


def _plain(name: str) -> str:
    return name.strip().replace("\\", "/")


def _exact(name: str, places: Sequence[Path]) -> Path | None:
    """Return the first file of that name in the folders `places`."""
    for text in dict.fromkeys((name, _plain(name))):
        for folder in places:
            try:
                if text and (folder / text).is_file():
                    return folder / text
            except (OSError, ValueError):  # too long a name, or one with a zero byte
                continue
    return None


def _spellings(name: str) -> Iterator[str]:
    """Yield the name, and what it may stand for if it is a URL or has escapes; the plainest comes last."""
    plain = _plain(name)
    yield plain
    try:
        parts = urlsplit(plain)
        values = [value for _, value in parse_qsl(parts.query) if is_image(value.rpartition("/")[2])]
    except ValueError:
        return
    place = _plain(values[0]) if values else parts.path if parts.scheme or parts.query else plain
    if place and place != plain:
        yield place
    for _ in range(2):  # escapes are escaped again if a URL is part of another one
        if unquote(place) != place:
            place = unquote(place)
            yield place


def _folded(name: str) -> str:
    return nfc(name).casefold()


def _stem(name: str) -> str:
    return os.path.splitext(name)[0] if is_image(name) else name


def _bare(name: str) -> str:
    return _UPLOAD.sub("", _folded(name))


def _key(name: str) -> str:
    return _stem(_bare(name))


def _rank(listed: str, other: str) -> int | None:
    """Return how well the name of an image fits a listed one, 0 being best; None if it does not.

    The name is the same, but for case, or but for an upload number on one side, or but for the suffix as well. Two
    different upload numbers are two different images.
    """
    if nfc(listed) == nfc(other):
        return 0
    one, two = _folded(listed), _folded(other)
    if one == two:
        return 1
    if one == _bare(two) or two == _bare(one):
        return 2
    return 3 if _stem(one) in (_stem(two), _key(two)) or _stem(two) == _key(one) else None


class _Search:
    """Finds images by the ends of their names. The folder is searched when the first image is asked for."""

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = root, split
        self.by_key: dict[str, list[Path]] | None = None

    def __call__(self, name: str, folders_hold: bool) -> list[Path]:
        """Return the images that fit a name best; with `folders_hold`, only those in the folder that it names."""
        if self.by_key is None:
            self.by_key = self._index()
        for text in _spellings(name):
            base = text.rpartition("/")[2]
            candidates = self.by_key.get(_key(base), [])
            ranks = {image: rank for image in candidates if (rank := _rank(base, image.name)) is not None}
            for best in sorted(set(ranks.values())):
                images = [image for image, rank in ranks.items() if rank == best]
                if fitting := self._nearest(text, images, folders_hold):
                    return fitting
        return []

    def _index(self) -> dict[str, list[Path]]:
        by_key: dict[str, list[Path]] = {}
        for text in islice(walk_text(self.root), _MOST_FILES):
            if is_image(os.path.basename(text)) and self._fits(file := Path(text)):
                by_key.setdefault(_key(file.name), []).append(file)
        return by_key

    def _fits(self, file: Path) -> bool:
        """Whether an image lies in no folder of another split or of masks."""
        folders = file.relative_to(self.root).parts[:-1]
        splits = {split_name(folder) for folder in folders} - {None}
        return (self.split == "all" or splits <= {self.split}) and not any(map(SEGMENTED.fullmatch, folders))

    def _nearest(self, text: str, images: Sequence[Path], folders_hold: bool) -> list[Path]:
        """Return the images that share most folders with a name, counted from the end; those of the split first."""
        wanted = [folder for folder in text.split("/")[:-1] if folder not in ("", ".", "..")]
        shared = {image: _shared(wanted, image.relative_to(self.root).parts[:-1]) for image in images}
        if folders_hold:
            shared = {image: count for image, count in shared.items() if count == len(wanted)}
        best = max(shared.values(), default=0)
        fitting = [image for image, count in shared.items() if count == best]
        own = [i for i in fitting if self.split in map(split_name, i.relative_to(self.root).parts[:-1])]
        return own or fitting


def _shared(wanted: Sequence[str], folders: Sequence[str]) -> int:
    """Return the number of equal folders, from the last one upwards."""
    count = 0
    for one, other in zip(reversed(wanted), reversed(folders), strict=False):
        if _folded(one) != _folded(other):
            break
        count += 1
    return count

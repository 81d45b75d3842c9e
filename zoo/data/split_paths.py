"""Find the images of each split that a file names: a folder, an image, or a list of images (`train.txt`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.data.files import files, images_below, is_image, read_lines
from zoo.errors import DataError, counted
from zoo.text import shown

SPLIT_FIELDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Field or name of a list -> split."""


def listed_splits(path: Path) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Return (split -> images, notes) from lists of images named after splits (`train.txt`) in the dataset's folder."""
    lists = {file.stem.lower(): file for file in files(path) if file.suffix.lower() == ".txt"}
    notes: list[str] = []
    given = {key: lists[key].name for key in SPLIT_FIELDS if key in lists and _lists_images(lists[key])}
    return Places(path / "the lists", None, notes).splits(given)[0], tuple(notes)


def _lists_images(file: Path) -> bool:
    lines = [line.strip() for line in read_lines(file) if line.strip()]
    return bool(lines) and all(is_image(PurePosixPath(line.replace("\\", "/")).name) for line in lines)


class Places:
    """Resolves the paths in a file that lists the images of each split."""

    def __init__(self, file: Path, path: Any, notes: list[str]) -> None:
        self.file, self.notes = file, notes
        self.folder = file.parent
        if path is not None and not isinstance(path, str):
            raise DataError(f"{file}: path is {shown(path)}; it must be a folder.")
        self.root = self._root(path) if path else self.folder

    def _root(self, path: str) -> Path:
        place = Path(path.replace("\\", "/"))
        with suppress(RuntimeError):  # the home folder of an unknown user
            place = place.expanduser()
        if (self.folder / place).is_dir():
            return self.folder / place
        found = next((tail for tail in _tails(place) if (self.folder / tail).is_dir()), None)
        if place.name != self.folder.resolve().name or found:
            self.notes.append(
                f"{self.file.name}: path is {path}, which does not exist; {found or 'the folder of the file'} is used."
            )
        return self.folder / found if found else self.folder

    def splits(
        self, given: dict[str, Any], optional: Collection[str] = ("test",)
    ) -> tuple[dict[str, list[Path]], tuple[Path, ...]]:
        """Return (split -> images, folders of which all images are used).

        Args:
            given: field -> path or paths.
            optional: splits that may be left out with a note if none of their paths exist. Tools write the fields even
                if the dataset has no such split.
        """
        found: dict[str, list[Path]] = {}
        folders: list[Path] = []
        for key, value in given.items():
            split = SPLIT_FIELDS[key]
            if split in found:
                raise DataError(f"{self.file}: {key} and another field both give the {split} split. Keep one.")
            entries = value if isinstance(value, list) else [value]
            if not all(isinstance(entry, str) and entry.strip() for entry in entries):
                raise DataError(
                    f"{self.file}: {key} is {shown(value)}; it must be a folder, a .txt file, or a list of these."
                )
            if split in optional and all(self.find(entry) is None for entry in entries):
                self.notes.append(
                    f"{self.file.name}: {key} is {shown(value)}, which does not exist; there is no {split} split."
                )
                continue
            found[split] = list(
                dict.fromkeys(image for entry in entries for image in self._images(entry, key, folders))
            )
        for split, others in (("test", ("val", "train")), ("val", ("train",))):
            for other in others:
                if split in found and set(found[split]) == set(found.get(other, ())):
                    self.notes.append(f"{self.file.name}: {split} is the same as {other}, and is not used.")
                    del found[split]
        return found, tuple(folders)

    def _images(self, entry: str, key: str, folders: list[Path]) -> Iterator[Path]:
        place = self.find(entry)
        if place is None:
            raise DataError(
                f"{self.file}: {key} is {entry!r}, which does not exist in {self.root}. Correct the path, or remove "
                "the line to use folders named after splits."
            )
        if place.is_dir():
            folders.append(place)
            images = [*images_below(place)]
            if not images:
                raise DataError(f"{self.file}: {key} is {entry!r}, and {place} holds no image.")
            yield from images
        elif place.suffix.lower() == ".txt":
            yield from self._listed(place)
        elif is_image(place.name):
            yield place
        else:
            raise DataError(f"{self.file}: {key} is {entry!r}; a folder, a .txt file or an image is needed.")

    def _listed(self, file: Path) -> Iterator[Path]:
        """Yield the images that a .txt file lists, one per line."""
        lines = [line.strip() for line in read_lines(file) if line.strip()]
        images = [self.find(line, file.parent) for line in lines]
        missing = [line for line, image in zip(lines, images, strict=True) if image is None]
        if missing:
            raise DataError(
                f"{len(missing)} of {counted(len(lines), 'image')} in {file} cannot be found, e.g. {missing[0]!r}. "
                "Paths must be relative to the list or to the folder of the dataset."
            )
        if not images:
            raise DataError(f"{file} lists no image; fill it or remove it.")
        yield from (image for image in images if image is not None)

    def find(self, entry: str, *first: Path) -> Path | None:
        """Resolve a path against `first`, the root and the file's folder; None if nothing exists.

        Paths are often absolute on the machine that wrote the file. So if the whole path does not exist, ever shorter
        ends of it are tried (`/data/cells/train/images`, `cells/train/images`, `train/images`), with a note.
        """
        place, bases = Path(entry.strip().replace("\\", "/")), (*first, self.root, self.folder)
        for tail in (place, *_tails(place)):
            for base in bases:
                if _exists(base / tail):
                    # Roboflow writes ../train/images for train/images, and CVAT data/train.txt for train.txt.
                    known = tail == place or (place.parts[:1] in (("..",), ("data",)) and tail.parts == place.parts[1:])
                    if not known:
                        said = f"{self.file.name}: {place.parent} does not exist; its content is read from "
                        said += f"{(base / tail).parent.relative_to(base)}/ in {base.name}/."
                        self.notes += [said] * (said not in self.notes)
                    return base / tail
        return None


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except (OSError, ValueError):  # too long a name, or one with a zero byte
        return False


def _tails(place: Path) -> Iterator[Path]:
    """Yield the ends of a path, the longest first; the last one starts with the folder of a split if there is one."""
    parts = [part for part in PurePosixPath(place).parts if part not in ("/", ".", "..")]
    for start, part in enumerate(parts):
        yield Path(*parts[start:])
        if part.lower().rstrip("0123456789") in SPLIT_FIELDS:
            return

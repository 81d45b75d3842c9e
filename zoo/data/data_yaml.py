"""YOLO's `data.yaml`: where the images of each split are, what the classes are called, whether there are key points.

The fields are those of Ultralytics (https://docs.ultralytics.com/datasets/detect/). Each is honoured or refused; those
that do not matter here are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.data.files import files, images_below, is_image, read_lines
from zoo.errors import DataError

SUFFIXES = (".yaml", ".yml")
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_READ = (*_SPLITS, "path", "names", "nc", "kpt_shape", "task", "channels")
_IDLE = frozenset(
    {
        *("download", "roboflow", "flip_idx", "kpt_names", "skeleton", "description", "info", "license", "licence"),
        *("author", "authors", "contributor", "url", "version", "date", "date_created", "year", "docs", "citation"),
    }
)
"""Fields that say nothing about what is read."""
_TASKS = ("detect", "segment", "pose", "obb")
_MOST = 10_000
"""Classes; a higher number is no class."""


@dataclass(frozen=True)
class DataYaml:
    """What a `data.yaml` says.

    Attributes:
        file: itself. names: of the classes by number, None for numbers that have none; empty where nothing is said.
        splits: split -> its images; empty where nothing is said. folders: whose images are all taken.
        key_points: how many there are and how many values each has, or None.
        polygons: whether lines of more than a box are said to be polygons.
        notes: what was passed over or found elsewhere, for people.
    """

    file: Path
    names: tuple[str | None, ...] = ()
    splits: dict[str, list[Path]] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    key_points: tuple[int, int] | None = None
    polygons: bool = False
    notes: tuple[str, ...] = ()


def find_yaml(path: Path) -> Path | None:
    """The YAML file that names classes or splits, in a folder or given itself. Raises `DataError` where several do."""
    if path.is_file():
        return path if path.suffix.lower() in SUFFIXES and _describes(path) else None
    found = [file for file in files(path) if file.suffix.lower() in SUFFIXES and _describes(file)]
    named = [file for file in found if file.stem.lower() in ("data", "dataset")]
    if len(found) > 1 and len(named) != 1:
        raise DataError(
            f"{path} holds {found[0].name} and {found[1].name}, which both describe the data. Give the one that is "
            "meant as the data, or keep one."
        )
    return next(iter(named if len(found) > 1 else found), None)


def describes_boxes(path: Path) -> bool:
    """Whether a folder has a `data.yaml` that says where images are, some of which have a .txt file."""
    with suppress(DataError):  # what is wrong `read_yaml` says, where it is wanted
        file = find_yaml(path)
        splits = read_yaml(file).splits if file else {}
        return any(label_file(image) for images in splits.values() for image in images)
    return False


def _describes(file: Path) -> bool:
    content = _load(file)
    return isinstance(content, dict) and ("names" in content or ("nc" in content and "train" in content))


def listed_splits(path: Path) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """(split -> images, notes) of files that list images and are called for splits (`train.txt`), beside the data."""
    lists = {file.stem.lower(): file for file in files(path) if file.suffix.lower() == ".txt"}
    notes: list[str] = []
    given = {key: lists[key].name for key in _SPLITS if key in lists and _lists_images(lists[key])}
    return _Places(path / "the lists", None, notes).splits(given)[0], tuple(notes)


def _lists_images(file: Path) -> bool:
    lines = [line.strip() for line in read_lines(file) if line.strip()]
    return bool(lines) and all(is_image(PurePosixPath(line.replace("\\", "/")).name) for line in lines)


def _load(file: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(file.read_text("utf-8-sig"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as YAML: {error}.") from error


def read_yaml(file: Path) -> DataYaml:
    """Read a `data.yaml`.

    Names are a list, or an object from number to name, which may leave numbers out. Paths are relative to `path`, or to
    the file's folder; where they are of another machine, their ends are looked for there. A split is a folder, an
    image, a .txt with one image a line, or a list of these.

    Raises `DataError` for fields that are not known but look like one that is, that contradict each other, or that name
    what is not there.
    """
    content = _load(file)
    notes: list[str] = []
    unknown = [str(key) for key in content if key not in _READ and key not in _IDLE]
    for key in unknown:
        if near := get_close_matches(key.lower(), _READ, 1, 0.75):
            raise DataError(
                f"{file}: {key} is no field that is known; {near[0]} may be meant. Correct it or remove it."
            )
    if unknown:
        notes.append(f"{file.name}: {', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} not used.")
    task = content.get("task")
    if task is not None and task not in _TASKS:
        raise DataError(f"{file}: task is {task!r}; accepted: {', '.join(_TASKS)}.")
    if content.get("channels") not in (None, 1, 3):
        raise DataError(f"{file}: channels is {content['channels']!r}; images of 1 or 3 channels are read.")
    places = _Places(file, content.get("path"), notes)
    splits, folders = places.splits({key: content[key] for key in _SPLITS if content.get(key)})
    key_points = _key_points(content.get("kpt_shape"), file)
    if key_points:
        notes.append(f"{file.name}: of {key_points[0]} key points for each object only the boxes are read.")
    elif task == "pose":
        raise DataError(
            f"{file}: task is pose, and kpt_shape (how many key points, and 2 or 3 values each) is not given."
        )
    return DataYaml(
        file,
        _names(content.get("names"), content.get("nc"), file, notes),
        splits,
        folders,
        key_points,
        task == "segment" or task == "obb",
        tuple(notes),
    )


def _names(names: Any, count: Any, file: Path, notes: list[str]) -> tuple[str | None, ...]:
    """The names by number; of classes that are only counted, their numbers."""
    if count is not None and (type(count) is not int or not 0 < count < _MOST):
        raise DataError(f"{file}: nc is {count!r}; it must be the number of classes.")
    if names is None:
        return tuple(map(str, range(count or 0)))
    by_number = names
    if isinstance(names, list):
        by_number = dict(enumerate(names))
    if isinstance(by_number, dict):
        by_number = {int(k) if isinstance(k, str) and k.isdecimal() else k: name for k, name in by_number.items()}
    fine = isinstance(by_number, dict) and by_number
    if not fine or any(type(k) is not int or not 0 <= k < _MOST for k in by_number):
        raise DataError(
            f"{file}: names must list the classes, or give each number from 0 its name, as in 'names: {{0: cat, 1: "
            f"dog}}'; it is {names!r}."
        )
    if any(name is None or isinstance(name, list | dict) or not str(name).strip() for name in by_number.values()):
        raise DataError(f"{file}: names must list the classes, each by a word; it is {names!r}.")
    # YAML reads a class called 1 or no as a number or a truth value.
    found = tuple(None if k not in by_number else str(by_number[k]).strip() for k in range(max(by_number) + 1))
    called = [name for name in found if name is not None]
    if twice := next((name for name in called if called.count(name) > 1), None):
        raise DataError(f"{file}: two classes are called {twice!r}; each needs a name of its own.")
    if count is not None and count not in (len(called), len(found)):
        raise DataError(
            f"{file}: nc is {count}, and names has {len(called)} classes, from {min(by_number)} to {max(by_number)}. "
            "Correct the one that is wrong."
        )
    if gaps := [str(number) for number, name in enumerate(found) if name is None]:
        shown = ", ".join(gaps[:5]) + ", ..." * (len(gaps) > 5)
        notes.append(f"{file.name}: names leaves out {shown}; numbers stay as they are, and these are called 'unused'.")
    return found


def _key_points(shape: Any, file: Path) -> tuple[int, int] | None:
    if shape is None:
        return None
    fine = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)
    if not fine or shape[0] < 1 or shape[1] not in (2, 3):
        raise DataError(
            f"{file}: kpt_shape is {shape!r}; needed are how many key points each object has, and 2 (x, y) or 3 (x, y, "
            "visible), e.g. [17, 3]."
        )
    return shape[0], shape[1]


class _Places:
    """Finds what a `data.yaml` points to."""

    def __init__(self, file: Path, path: Any, notes: list[str]) -> None:
        self.file, self.notes = file, notes
        self.folder = file.parent
        if path is not None and not isinstance(path, str):
            raise DataError(f"{file}: path is {path!r}; it must be a folder.")
        self.root = self._root(path) if path else self.folder

    def _root(self, path: str) -> Path:
        place = Path(path.replace("\\", "/")).expanduser()
        if (self.folder / place).is_dir():
            return self.folder / place
        found = next((tail for tail in _tails(place) if (self.folder / tail).is_dir()), None)
        if place.name != self.folder.resolve().name or found:
            self.notes.append(
                f"{self.file.name}: path is {path}, which is not there; {found or 'its own folder'} is taken."
            )
        return self.folder / found if found else self.folder

    def splits(self, given: dict[str, Any]) -> tuple[dict[str, list[Path]], tuple[Path, ...]]:
        """(split -> images, folders that are taken as a whole)."""
        found: dict[str, list[Path]] = {}
        folders: list[Path] = []
        for key, value in given.items():
            split = _SPLITS[key]
            if split in found:
                raise DataError(f"{self.file}: {key} is there beside another field for {split}. Keep one.")
            entries = value if isinstance(value, list) else [value]
            if not all(isinstance(entry, str) and entry.strip() for entry in entries):
                raise DataError(
                    f"{self.file}: {key} is {value!r}; it must be a folder, a .txt file, or a list of these."
                )
            if split == "test" and all(self._find(entry) is None for entry in entries):
                # Exports without a test set name one all the same.
                self.notes.append(f"{self.file.name}: {key} is {value}, which is not there; there is no test set.")
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
        place = self._find(entry)
        if place is None:
            raise DataError(
                f"{self.file}: {key} is {entry!r}, which is not there (looked in {self.root}). Correct it, or remove "
                "the line to have the folders decide."
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
        """The images that a .txt names, one a line."""
        lines = [line.strip() for line in read_lines(file) if line.strip()]
        images = [self._find(line, file.parent) for line in lines]
        missing = [line for line, image in zip(lines, images, strict=True) if image is None]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(lines)} images that {file} lists are not there, e.g. {missing[0]!r}. Paths "
                "are relative to the list, or to the data's folder."
            )
        if not images:
            raise DataError(f"{file} lists no image; fill it or remove it.")
        yield from (image for image in images if image is not None)

    def _find(self, entry: str, *first: Path) -> Path | None:
        """Where a path leads: from `first`, the root or the file's folder; else what its end names there."""
        place, bases = Path(entry.strip().replace("\\", "/")), (*first, self.root, self.folder)
        for tail in (place, *_tails(place)):
            for base in bases:
                if (base / tail).exists():
                    known = tail == place or ".." in place.parts[:1]  # Roboflow writes ../train/images for train/images
                    said = f"{self.file.name}: {place.parent} is not there; what it is to hold is taken from "
                    said += f"{(base / tail).parent.relative_to(base)}/ of {base.name}/."
                    if not known and said not in self.notes:
                        self.notes.append(said)
                    return base / tail
        return None


def _tails(place: Path) -> Iterator[Path]:
    """The ends of a path, the longest first; none without a folder that is named for a split."""
    parts = [part for part in PurePosixPath(place).parts if part not in ("/", ".", "..")]
    for start, part in enumerate(parts):
        yield Path(*parts[start:])
        if part.lower().rstrip("0123456789") in _SPLITS:
            return


def label_file(image: Path) -> Path | None:
    """The .txt file that belongs to an image, in `labels` where the path has `images`, or beside it; else None."""
    parts = image.with_suffix(".txt").parts
    places = [i for i, part in enumerate(parts[:-1]) if part.lower() == "images"]
    swapped = [Path(*parts[: places[-1]], name, *parts[places[-1] + 1 :]) for name in ("labels", "Labels") if places]
    return next((file for file in (*swapped, image.with_suffix(".txt")) if file.is_file()), None)


def strays(folders: Sequence[Path], images: Sequence[Path], other_texts: Sequence[str]) -> list[Path]:
    """The .txt files, but for those of these names, that would belong to images of folders, which are not there."""
    found: list[Path] = []
    taken = {label_file(image) for image in images}
    for folder in folders:
        places = [i for i, part in enumerate(folder.parts) if part.lower() == "images"]
        if places:
            parts = folder.parts
            other = Path(*parts[: places[-1]], "labels", *parts[places[-1] + 1 :])
            found += [
                file for file in sorted(other.rglob("*.txt")) if file not in taken and file.name not in other_texts
            ]
    return found

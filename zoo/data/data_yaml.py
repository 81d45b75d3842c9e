"""Read YOLO's `data.yaml`: the images of each split, the class names, and the shape of key points.

The fields are those of Ultralytics (https://docs.ultralytics.com/datasets/detect/). Each field is used or refused,
except those in `_IDLE`, which do not affect reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.data.files import files, images_below, is_image, read_lines
from zoo.errors import DataError, counted

SUFFIXES = (".yaml", ".yml")
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_READ = (*_SPLITS, "path", "names", "nc", "kpt_shape", "task", "channels")
_IDLE = frozenset(
    {
        *("download", "roboflow", "flip_idx", "kpt_names", "skeleton", "description", "info", "license", "licence"),
        *("author", "authors", "contributor", "url", "version", "date", "date_created", "year", "docs", "citation"),
    }
)
"""Fields that do not affect what is read."""
_TASKS = ("detect", "segment", "pose", "obb")
_MOST = 10_000
"""Class numbers must be smaller than this."""


@dataclass(frozen=True)
class DataYaml:
    """Content of a `data.yaml`.

    Attributes:
        file: the file itself.
        names: class names by number, None for numbers without a name; empty if none are given.
        splits: split -> its images; empty if none are given.
        folders: folders of which all images are used.
        key_points: number of key points and of values per key point, or None.
        polygons: whether the task says that lines with more than a box are polygons.
        notes: remarks for the user on fields that are ignored and paths that were found elsewhere.
    """

    file: Path
    names: tuple[str | None, ...] = ()
    splits: dict[str, list[Path]] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    key_points: tuple[int, int] | None = None
    polygons: bool = False
    notes: tuple[str, ...] = ()


def find_yaml(path: Path) -> Path | None:
    """Return the YAML file that describes the dataset, given itself or in a folder; None if there is none.

    Raises:
        DataError: a folder has several such files.
    """
    if path.is_file():
        return path if path.suffix.lower() in SUFFIXES and _describes(path) else None
    found = [file for file in files(path) if file.suffix.lower() in SUFFIXES and _describes(file)]
    named = [file for file in found if file.stem.lower() in ("data", "dataset")]
    if len(found) > 1 and len(named) != 1:
        raise DataError(
            f"{path} holds {found[0].name} and {found[1].name}, which both describe the data. Give the path of the "
            "right file, or keep only one."
        )
    return next(iter(named if len(found) > 1 else found), None)


def describes_boxes(path: Path) -> bool:
    """Return whether a folder has a `data.yaml` that lists images, at least one of them with a .txt file."""
    with suppress(DataError):  # reading the dataset reports errors later
        file = find_yaml(path)
        splits = read_yaml(file).splits if file else {}
        return any(label_file(image) for images in splits.values() for image in images)
    return False


def _describes(file: Path) -> bool:
    content = _load(file)
    return isinstance(content, dict) and ("names" in content or ("nc" in content and "train" in content))


def listed_splits(path: Path) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Return (split -> images, notes) from lists of images named after splits (`train.txt`) in the dataset's folder."""
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

    Class names are a list, or a mapping from number to name, which may leave numbers out. Paths are relative to `path`
    or to the folder of the file. If they come from another machine, their last components are looked up there. A split
    is a folder, an image, a .txt file with one image per line, or a list of these.

    Raises:
        DataError: an unknown field looks like a misspelt known one, fields contradict each other, or a path does not
            exist.
    """
    content = _load(file)
    notes: list[str] = []
    unknown = [str(key) for key in content if key not in _READ and key not in _IDLE]
    for key in unknown:
        if near := get_close_matches(key.lower(), _READ, 1, 0.75):
            raise DataError(f"{file}: the field {key} is unknown; did you mean {near[0]}? Correct it or remove it.")
    if unknown:
        notes.append(f"{file.name}: {', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} not used.")
    task = content.get("task")
    if task is not None and task not in _TASKS:
        raise DataError(f"{file}: task is {task!r}; accepted: {', '.join(_TASKS)}.")
    if content.get("channels") not in (None, 1, 3):
        raise DataError(f"{file}: channels is {content['channels']!r}; accepted: 1, 3.")
    places = _Places(file, content.get("path"), notes)
    splits, folders = places.splits({key: content[key] for key in _SPLITS if content.get(key)})
    key_points = _key_points(content.get("kpt_shape"), file)
    if key_points:
        notes.append(f"{file.name}: the {key_points[0]} key points of each object are ignored; only boxes are read.")
    elif task == "pose":
        raise DataError(
            f"{file}: task is pose, but kpt_shape (number of key points, and 2 or 3 values each) is missing. Add it."
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
    """Return the class names by number. If only the number of classes is given, names are the numbers."""
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
            f"{file}: names is {names!r}; it must be a list of the classes, or map numbers from 0 to names, as in "
            "'names: {0: cat, 1: dog}'."
        )
    if any(name is None or isinstance(name, list | dict) or not str(name).strip() for name in by_number.values()):
        raise DataError(f"{file}: names is {names!r}; each class must have a name that is text.")
    # YAML reads a class called 1 or no as a number or a boolean, hence str().
    found = tuple(None if k not in by_number else str(by_number[k]).strip() for k in range(max(by_number) + 1))
    called = [name for name in found if name is not None]
    if twice := next((name for name in called if called.count(name) > 1), None):
        raise DataError(f"{file}: two classes are called {twice!r}; each class needs a unique name.")
    if count is not None and count not in (len(called), len(found)):
        raise DataError(
            f"{file}: nc is {count}, but names has {len(called)} classes, from {min(by_number)} to {max(by_number)}. "
            "Correct the wrong one."
        )
    if gaps := [str(number) for number, name in enumerate(found) if name is None]:
        shown = ", ".join(gaps[:5]) + ", ..." * (len(gaps) > 5)
        notes.append(
            f"{file.name}: names leaves out {shown}; these classes are called 'unused', and numbers stay unchanged."
        )
    return found


def _key_points(shape: Any, file: Path) -> tuple[int, int] | None:
    if shape is None:
        return None
    fine = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)
    if not fine or shape[0] < 1 or shape[1] not in (2, 3):
        raise DataError(
            f"{file}: kpt_shape is {shape!r}; it must be the number of key points per object, and 2 (x, y) or 3 (x, y, "
            "visible), e.g. [17, 3]."
        )
    return shape[0], shape[1]


class _Places:
    """Resolves the paths in a `data.yaml`."""

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
                f"{self.file.name}: path is {path}, which does not exist; {found or 'the folder of the file'} is used."
            )
        return self.folder / found if found else self.folder

    def splits(self, given: dict[str, Any]) -> tuple[dict[str, list[Path]], tuple[Path, ...]]:
        """Return (split -> images, folders of which all images are used)."""
        found: dict[str, list[Path]] = {}
        folders: list[Path] = []
        for key, value in given.items():
            split = _SPLITS[key]
            if split in found:
                raise DataError(f"{self.file}: {key} and another field both give the {split} split. Keep one.")
            entries = value if isinstance(value, list) else [value]
            if not all(isinstance(entry, str) and entry.strip() for entry in entries):
                raise DataError(
                    f"{self.file}: {key} is {value!r}; it must be a folder, a .txt file, or a list of these."
                )
            if split == "test" and all(self._find(entry) is None for entry in entries):
                # Export tools write the field even if the dataset has no test split.
                self.notes.append(f"{self.file.name}: {key} is {value}, which does not exist; there is no test split.")
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
        images = [self._find(line, file.parent) for line in lines]
        missing = [line for line, image in zip(lines, images, strict=True) if image is None]
        if missing:
            raise DataError(
                f"{len(missing)} of {counted(len(lines), 'image')} in {file} cannot be found, e.g. {missing[0]!r}. "
                "Paths must be relative to the list or to the folder of the dataset."
            )
        if not images:
            raise DataError(f"{file} lists no image; fill it or remove it.")
        yield from (image for image in images if image is not None)

    def _find(self, entry: str, *first: Path) -> Path | None:
        """Resolve a path against `first`, the root and the file's folder; None if nothing exists.

        Paths are often absolute on the machine that wrote the file. So if the whole path does not exist, ever shorter
        ends of it are tried (`/data/cells/train/images`, `cells/train/images`, `train/images`), with a note.
        """
        place, bases = Path(entry.strip().replace("\\", "/")), (*first, self.root, self.folder)
        for tail in (place, *_tails(place)):
            for base in bases:
                if (base / tail).exists():
                    known = tail == place or ".." in place.parts[:1]  # Roboflow writes ../train/images for train/images
                    said = f"{self.file.name}: {place.parent} does not exist; its content is read from "
                    said += f"{(base / tail).parent.relative_to(base)}/ in {base.name}/."
                    if not known and said not in self.notes:
                        self.notes.append(said)
                    return base / tail
        return None


def _tails(place: Path) -> Iterator[Path]:
    """Yield the ends of a path, the longest first; the last one starts with the folder of a split if there is one."""
    parts = [part for part in PurePosixPath(place).parts if part not in ("/", ".", "..")]
    for start, part in enumerate(parts):
        yield Path(*parts[start:])
        if part.lower().rstrip("0123456789") in _SPLITS:
            return


def label_file(image: Path) -> Path | None:
    """Return the .txt file of an image: in `labels` instead of `images`, or beside the image; None without one."""
    parts = image.with_suffix(".txt").parts
    places = [i for i, part in enumerate(parts[:-1]) if part.lower() == "images"]
    swapped = [Path(*parts[: places[-1]], name, *parts[places[-1] + 1 :]) for name in ("labels", "Labels") if places]
    return next((file for file in (*swapped, image.with_suffix(".txt")) if file.is_file()), None)


def strays(folders: Sequence[Path], images: Sequence[Path], other_texts: Sequence[str]) -> list[Path]:
    """Return the .txt files in the label folders that belong to no image.

    Args:
        folders: image folders; `labels` instead of `images` in the path gives the label folder.
        images: the images that were found.
        other_texts: names of text files that are no annotations.
    """
    stray_files: list[Path] = []
    taken = {label_file(image) for image in images}
    for folder in folders:
        places = [i for i, part in enumerate(folder.parts) if part.lower() == "images"]
        if places:
            parts = folder.parts
            other = Path(*parts[: places[-1]], "labels", *parts[places[-1] + 1 :])
            stray_files += [
                file for file in sorted(other.rglob("*.txt")) if file not in taken and file.name not in other_texts
            ]
    return stray_files

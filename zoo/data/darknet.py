"""Read Darknet's `obj.data`, as CVAT's export "YOLO 1.1" has it: the images of each split and the class names.

https://docs.cvat.ai/docs/manual/advanced/formats/format-yolo/
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from zoo.data.data_yaml import MOST_CLASSES, DataYaml
from zoo.data.files import files, read_lines
from zoo.data.split_paths import SPLIT_FIELDS, Places
from zoo.errors import DataError, counted

SUFFIX = ".data"
_FIELDS = frozenset({*SPLIT_FIELDS, "names", "classes"})


def find_data(path: Path) -> Path | None:
    """Return the `obj.data` that describes the dataset, given itself or in a folder; None if there is none."""
    found = [path] if path.is_file() else files(path)
    fitting = [file for file in found if file.suffix.lower() == SUFFIX and _FIELDS & _fields(file).keys()]
    return min(fitting, key=lambda file: file.name != "obj.data", default=None)


def read_data(file: Path) -> DataYaml:
    """Read an `obj.data`: lines of `field = value`.

    Paths are relative to the file. Usually they start with `data/`, the folder that Darknet expects the file in.

    Raises:
        DataError: a list or an image does not exist, or there are more or fewer names than classes.
    """
    fields, notes = _fields(file), list[str]()
    places = Places(file, None, notes)
    splits, folders = places.splits({key: fields[key] for key in SPLIT_FIELDS if fields.get(key)}, ("val", "test"))
    names: tuple[str | None, ...] = ()
    if given := fields.get("names"):
        if (listed := places.find(given)) is None or not listed.is_file():
            raise DataError(f"{file}: names is {given!r}, which does not exist. Add the file, or remove the line.")
        names = read_names(listed)
    if count := fields.get("classes"):
        if not count.isdecimal() or not 0 < int(count[:9]) < MOST_CLASSES:
            raise DataError(f"{file}: classes is {count[:80]!r}; it must be the number of classes.")
        if names and int(count) not in (len(names), sum(name is not None for name in names)):
            found = counted(len(names), "name is", "names are")
            raise DataError(f"{file}: classes is {count}, but {found} given. Correct the wrong one.")
        names = names or tuple(map(str, range(int(count))))
    return DataYaml(file, names, splits, folders, notes=tuple(notes))


def read_names(file: Path) -> tuple[str | None, ...]:
    """Return the class names in a text file, one per line. An empty line between names is a number without a name.

    Raises:
        DataError: a name occurs twice, or there are too many.
    """
    lines = [line.strip() for line in read_lines(file)]
    while lines and not lines[-1]:
        del lines[-1]
    if len(lines) > MOST_CLASSES:
        raise DataError(f"{file} has {len(lines):,} lines; at most {MOST_CLASSES:,} classes are accepted.")
    if twice := next((name for name, times in Counter(filter(None, lines)).items() if times > 1), None):
        raise DataError(f"{file}: two classes are called {twice!r}; each class needs a unique name.")
    return tuple(line or None for line in lines)


def _fields(file: Path) -> dict[str, str]:
    """Return field -> value; nothing for a file of another kind."""
    try:
        if file.stat().st_size > 1_000_000:
            return {}
        lines = read_lines(file)
    except (DataError, OSError):
        return {}
    split = [line.partition("#")[0].partition("=") for line in lines]
    return {key.strip().lower(): value.strip() for key, equals, value in split if equals}

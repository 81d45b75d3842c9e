"""Write a dataset in another format, and read it back to make sure that nothing was lost."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo import settings
from zoo.data.check import Policy, checked
from zoo.data.dataset import Dataset
from zoo.data.readers import FORMATS, read, suited
from zoo.data.unique import unified
from zoo.data.writers import WRITERS, quoted
from zoo.data.written import Folder
from zoo.errors import ConfigError, DataError, counted
from zoo.labels.spelling import nfc
from zoo.targets.boxes import Boxes
from zoo.targets.outlines import Outlines


@dataclass(frozen=True)
class Conversion:
    """A dataset that was written.

    Attributes:
        folder: where it is.
        format: its format.
        splits: split name (or `all`) -> number of images.
        classes: class names.
        notes: remarks on the data, and what the format cannot hold.
    """

    folder: Path
    format: str
    splits: Mapping[str, int]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def convert_dataset(
    data: str | Path | Dataset | Mapping[str, Dataset],
    to: str,
    out: str | Path,
    *,
    format: str | None = None,
    annotations: Policy = "fix",
    link: bool = False,
) -> Conversion:
    """Write a dataset in another format. Splits, class names and, where the format has them, ids are kept.

    Boxes with masks or outlines become masks where the format holds only these. What was written is read back and
    compared with the dataset. It is written beside `out` first, so that `out` never holds half a dataset.

    Args:
        data: A folder or file of any format that `zoo list formats` shows, a dataset, or datasets by split name.
        to: Name of the format to write; `zoo list data.writer` shows them.
        out: Folder to write; new or empty.
        format: Format of the data. Default: detected from the files.
        annotations: Treatment of faulty boxes and masks: fix, drop (leave out) or error.
        link: Link to the images instead of copying them.

    Raises:
        ConfigError: `out` is not empty, or lies in the data.
        DataError: The data cannot be read, or the format cannot hold them; the message says why.
        UnknownNameError: The format is unknown.
    """
    module, out = WRITERS[to], settings.expanded(out)
    _check_place(out, settings.expanded(data) if isinstance(data, str | Path) else None)
    if isinstance(data, str | Path):
        splits = read(data, format, module.KINDS)
    else:
        splits = suited(unified({"all": data} if isinstance(data, Dataset) else data), module.KINDS)
    _check_kind(splits, module)
    notes = dict.fromkeys(note for dataset in splits.values() for note in dataset.notes)
    proper, said = checked(splits, annotations)
    proper, lost = _without_unfit_outlines(splits, proper)
    draft = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        draft.mkdir(parents=True)
        folder = Folder(draft, link=link)
        module.write(proper, folder)
        said = (*said, *lost, *folder.notes, *_verify(proper, folder, to if to in FORMATS else module.NAME))
        if out.is_dir():
            out.rmdir()
        draft.rename(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    first = next(iter(proper.values()))
    return Conversion(
        out, to, {split: len(one) for split, one in proper.items()}, first.classes, (*notes, *dict.fromkeys(said))
    )


def _check_place(out: Path, data: Path | None) -> None:
    """Raise `ConfigError` unless the folder to write is new or empty, and outside the folder of the data."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "is not empty" if out.is_dir() else "is a file"
        raise ConfigError(f"{out} {what}: choose another folder to write.")
    if data is not None and data.is_dir() and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(data)):
        raise ConfigError(f"{out} lies in {data}, which would then hold two datasets: choose a folder outside.")


def _check_kind(splits: Mapping[str, Dataset], module: Any) -> None:
    """Raise `DataError` unless the format holds targets of this kind."""
    first = next(iter(splits.values()))
    if first.kind in module.KINDS:
        return
    fitting = [name for name in WRITERS if first.kind in WRITERS[name].KINDS]
    formats = f"Formats that hold them: {', '.join(fitting)}." if fitting else "No format to write holds them."
    raise DataError(
        f"{first.name} has targets of kind {first.kind}, and the format {module.NAME} holds "
        f"{' or '.join(module.KINDS)}. {formats}"
    )


def _without_unfit_outlines(
    before: Mapping[str, Dataset], after: Mapping[str, Dataset]
) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """Return the checked splits without outlines that were drawn for another image size, and a note on them.

    The check scales boxes, but not outlines.
    """
    splits, lost = dict(after), 0
    for split, dataset in after.items():
        sizes = {sample.id: dataset.targets.size(sample.target) for sample in before[split]}
        samples = []
        for sample in dataset:
            target = sample.target
            if isinstance(target, Boxes) and isinstance(target.masks, Outlines) and target.size != sizes[sample.id]:
                lost += sum(shape is not None for shape in target.masks.shapes)
                sample = replace(sample, target=replace(target, masks=None))
            samples.append(sample)
        splits[split] = replace(dataset, samples=tuple(samples))
    return splits, (f"{lost} outlines were drawn for another image size, and are not written.",) if lost else ()


def _verify(splits: Mapping[str, Dataset], folder: Folder, format: str) -> list[str]:
    """Read the written dataset and compare it with the original. Return a note on classes that no image has.

    Raises:
        DataError: it cannot be read, or differs.
    """
    first = next(iter(splits.values()))
    what = f"the format {format} cannot hold {first.name.partition('/')[0]}"
    try:
        back = read(folder.root, format, (first.kind,))
    except DataError as error:
        reason = str(error).replace(f"{folder.root}{os.sep}", "").replace(str(folder.root), "what was written")
        raise DataError(f"{what}: {reason} Nothing was written.") from error
    if list(back) != list(splits):
        raise DataError(f"{what}: its splits are read as {', '.join(back)}, not {', '.join(splits)}.")
    classes = next(iter(back.values())).classes
    names = [nfc(name) for name in first.classes]
    lost = [name for name in first.classes if nfc(name) not in classes]
    strange = [name for name in classes if name not in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and list(classes) != names:
        raise DataError(f"{what}: several classes are called {quoted(twice)}, and it tells classes apart by name.")
    if strange or any(_occurs(splits.values(), first.classes.index(name)) for name in lost):
        raise DataError(f"{what}: the classes {quoted(lost)} are read as {quoted(strange) or 'none'}.")
    mapping = [*range(len(names))] if list(classes) == names else [names.index(name) for name in classes]
    for split, dataset in splits.items():
        _compare(dataset, back[split], mapping, folder, what)
    if lost:
        count = counted(len(lost), "class that no image has is", "classes that no image has are")
        return [f"{count} not written, because the format has no list of classes: {quoted(lost)}."]
    return []


def _occurs(datasets: Iterable[Dataset], index: int) -> bool:
    return any(index in dataset.labels(sample) for dataset in datasets for sample in dataset)


def _compare(dataset: Dataset, back: Dataset, mapping: Sequence[int], folder: Folder, what: str) -> None:
    """Raise `DataError` unless each image is read with its target; `mapping`: class read -> class of the dataset."""
    kind = dataset.targets
    written = {str(sample.image): sample.target for sample in back}
    for sample in dataset:
        place = str(folder.images[sample.image])
        if place not in written:
            raise DataError(f"{what}: {sample.id} is not read back.")
        if not kind.same(sample.target, kind.mapped(written[place], mapping), folder.tolerance):
            raise DataError(f"{what}: the annotation of {sample.id} is different when it is read back.")
    if len(back) != len(dataset):
        raise DataError(f"{what}: {len(back)} images are read back, and {len(dataset)} were written.")

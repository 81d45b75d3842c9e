"""`zoo.check`: look at every image and every annotation of a dataset, and report what is wrong or unusual."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from zoo.data.dataset import Dataset, Sample
from zoo.data.inspect import classes, duplicates, images
from zoo.data.inspect.checks import CHECKS, ENTRIES, HIDDEN_FILE, OTHER_FILE, REFUSED, REMARK, UNREADABLE, UNUSED_IMAGE
from zoo.data.inspect.findings import Finding, Place, SplitFacts, ordered
from zoo.data.inspect.images import Look
from zoo.data.inspect.result import Inspection
from zoo.data.left_out import HIDDEN, NO_IMAGE, NO_SAMPLE, TEXTS, files_of, unused
from zoo.data.readers import opened, reader_of, suited
from zoo.data.refusals import collecting
from zoo.errors import DataError, unknown_name
from zoo.targets import TargetKind, kind, names
from zoo.targets.faults import Check, Fault
from zoo.text import decoded

_LEFT_OUT = {NO_SAMPLE: UNUSED_IMAGE, NO_IMAGE: OTHER_FILE, HIDDEN: HIDDEN_FILE}
_THREADS = min(8, os.cpu_count() or 1)

Progress = Callable[[int, int], None]


def every_check() -> dict[str, Check]:
    """Return the name of each kind of finding -> its description, those of the kinds of target included."""
    targets = [check for name in names() for check in kind(name).checks.values()]
    return {check.name: check for check in (*CHECKS, *targets)}


def check(
    data: str | Path | Dataset | Mapping[str, Dataset],
    format: str | None = None,
    kinds: Sequence[str] = (),
    *,
    near: bool = True,
    ignore: Iterable[str] = (),
    progress: Progress | None = None,
) -> Inspection:
    """Check a dataset: images, annotations, classes, splits and duplicates. Nothing is changed.

    Every image is decoded once.

    Args:
        data: a folder or file of any format that `zoo list formats` shows, or datasets by split.
        format: name of the format; by default it is recognised by the layout.
        kinds: accepted kinds of target, which decide if a layout fits several formats.
        near: search for near duplicates, not only for equal files.
        ignore: names of kinds of finding to leave out.
        progress: called with the number of images done, and of all images.

    Returns:
        Facts and findings. Its `text()`, `to_dict()` and `save_page(file)` show them.

    Raises:
        DataError: the data cannot be read, or name files outside of their folder; see `zoo.data.inside`.
        UnknownNameError: the format or a name in `ignore` is unknown.
    """
    began = time.monotonic()
    left_out = _known(ignore)
    source = _opened(data, format, kinds)
    samples = [(split, sample) for split, dataset in source.splits.items() for sample in dataset]
    places = [Place(split, sample.id, sample.image) for split, sample in samples]
    looked = _all_examined(source, samples, progress)
    looks = [one.look for one in looked]
    candidates = [
        duplicates.Candidate(place, one.digest, one.annotation, one.words)
        for place, one in zip(places, looked, strict=True)
    ]
    counts = _counts(source.splits, samples, looked)
    found = images.findings(places, looks)
    found += duplicates.exact(candidates)
    found += duplicates.near(candidates, looks) if near else []
    found += classes.findings(counts, source.kind.counted)
    for place, (_, sample), one in zip(places, samples, looked, strict=True):
        found += one.findings(place, source.kind, sample.target)
    found += [
        Finding(ENTRIES[fault.kind], (Place(split, fault.id),), fault.detail)
        for split, dataset in source.splits.items()
        for fault in dataset.faults
    ]
    found += _refused(source, samples, looked)
    found += source.findings
    some = next(iter(source.splits.values()))
    return Inspection(
        data=source.name,
        format=source.format,
        kind=some.kind,
        counted=source.kind.counted,
        classes=tuple(dict.fromkeys(name for dataset in source.splits.values() for name in dataset.classes)),
        splits={name: _facts(name, samples, looks, counts[name]) for name in source.splits},
        findings=ordered([finding for finding in found if finding.check.name not in left_out]),
        searched=near,
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True)
class _Source:
    """The data that is checked.

    Attributes:
        name: of the data, for the user.
        format: name of the format.
        splits: the datasets, in which a file may occur several times.
        findings: on files and by the reader.
    """

    name: str
    format: str
    splits: Mapping[str, Dataset]
    findings: tuple[Finding, ...]

    @property
    def kind(self) -> TargetKind:
        """Kind of the targets."""
        return next(iter(self.splits.values())).targets


@dataclass(frozen=True, slots=True)
class _Examined:
    """The result for one sample.

    Attributes:
        look: properties of the image.
        digest: identifies the content of the image file.
        labels: class indexes in its target.
        faults: of its target.
        error: why the annotation cannot be read; empty if it can.
        annotation: equal for equal targets.
        words: the target in a few words.
    """

    look: Look
    digest: str
    labels: tuple[int, ...]
    faults: tuple[Fault, ...]
    error: str
    annotation: str
    words: str

    def findings(self, place: Place, kind: TargetKind, target: Any) -> list[Finding]:
        """Return the findings on the annotation."""

        def area(index: int | None) -> tuple[float, float, float, float] | None:
            return None if index is None else kind.area(target, index)

        found = [Finding(UNREADABLE, (place,), self.error)] if self.error else []
        return found + [
            Finding(kind.checks[fault.kind], (place,), fault.detail, fault.index, area(fault.index))
            for fault in self.faults
            if fault.kind in kind.checks
        ]


def _known(ignore: Iterable[str]) -> frozenset[str]:
    """Return the names. Raise `UnknownNameError` for an unknown one."""
    chosen, known = frozenset(ignore), every_check()
    for name in sorted(chosen - known.keys()):
        raise unknown_name("kind of finding", name, known)
    return chosen


def _opened(data: str | Path | Dataset | Mapping[str, Dataset], format: str | None, kinds: Sequence[str]) -> _Source:
    """Read the data. Unlike `zoo.data.read`, a file may be in several splits: this is a finding, not an error."""
    if isinstance(data, Dataset):
        data = {"all": data}
    if isinstance(data, Mapping):
        if not data:
            raise DataError("there are no datasets to check.")
        splits = suited(data, kinds)
        return _Source(next(iter(splits.values())).name, "", splits, _remarks(splits))
    path, reader, named = reader_of(data, format, kinds)
    with collecting() as faults:
        splits = opened(path, reader, named)
    # A list may name an image that is missing or unreadable: one fault, which the reader meets twice.
    explained: dict[str, Fault] = {}
    for fault in faults:
        inside = path.is_dir() and Path(fault.id).is_relative_to(path)
        id = Path(fault.id).relative_to(path).as_posix() if inside else fault.id
        if not (fault.kind == "unannotated" and any(Path(other).stem == id for other in explained)):
            explained.setdefault(id, fault)
    found = [
        Finding(ENTRIES[fault.kind], (_entry(decoded(id), splits),), fault.detail) for id, fault in explained.items()
    ]
    found += _remarks(splits)
    if path.is_dir():
        for reason, files in unused(path, files_of(splits.values()), getattr(reader, "READS", TEXTS)).items():
            outside = [Place("", Path(file).relative_to(path).as_posix(), Path(file)) for file in files]
            found += [Finding(_LEFT_OUT[reason], (place,)) for place in outside if place.id not in explained]
    return _Source(str(data), reader.NAME, suited(splits, kinds), tuple(found))


def _remarks(splits: Mapping[str, Dataset]) -> tuple[Finding, ...]:
    notes = dict.fromkeys(note for dataset in splits.values() for note in dataset.notes)
    return tuple(Finding(REMARK, (), note) for note in notes)


def _entry(id: str, splits: Mapping[str, Dataset]) -> Place:
    """Return the place of an entry of an annotation file: its sample, if one was made of it."""
    samples = [(split, sample) for split, dataset in splits.items() for sample in dataset if sample.id == id]
    return Place(samples[0][0], id, samples[0][1].image) if samples else Place("", id)


def _examined(source: _Source, one: tuple[str, Sample]) -> _Examined:
    """Look at one sample of a split. Runs in a thread."""
    split, sample = one
    dataset = source.splits[split]
    looked = images.look(sample.image)
    labels: tuple[int, ...] = ()
    faults: Sequence[Fault] = ()
    error = ""
    try:
        labels, faults = source.kind.examined(sample, dataset.classes)
    except DataError as problem:
        # What is wrong with the image itself is said once.
        error = "" if looked.error else str(problem)
    beside = [] if error or looked.error else [images.digest(file) for file in source.kind.read_from(sample.target)]
    return _Examined(
        looked,
        "" if looked.error else images.digest(sample.image),
        labels,
        tuple(faults),
        error,
        hashlib.sha256(repr((sample.target, beside)).encode("utf-8", "surrogateescape")).hexdigest(),
        source.kind.words(sample.target, dataset.classes),
    )


def _all_examined(source: _Source, samples: Sequence[tuple[str, Sample]], progress: Progress | None) -> list[_Examined]:
    """Look at all samples, in threads."""
    looked = []
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for number, one in enumerate(pool.map(partial(_examined, source), samples), 1):
            looked.append(one)
            if progress is not None:
                progress(number, len(samples))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, images that are still waiting are not looked at
    return looked


def _counts(
    splits: Mapping[str, Dataset], samples: Sequence[tuple[str, Sample]], looked: Sequence[_Examined]
) -> dict[str, dict[str, int]]:
    """Return split name -> class name -> count, classes without samples included."""
    numbers: dict[str, Counter[int]] = {name: Counter() for name in splits}
    for (split, _), one in zip(samples, looked, strict=True):
        numbers[split].update(one.labels)
    return {
        split: {name: numbers[split][index] for index, name in enumerate(dataset.classes)}
        for split, dataset in splits.items()
    }


def _refused(source: _Source, samples: Sequence[tuple[str, Sample]], looked: Sequence[_Examined]) -> list[Finding]:
    """Return the error of training for annotations that it refuses although all of them can be read."""
    found = []
    for split, dataset in source.splits.items():
        both = [(sample, one) for (name, sample), one in zip(samples, looked, strict=True) if name == split]
        if not dataset.faults and not any(one.faults for _, one in both):
            continue
        readable = tuple(sample for sample, one in both if not one.look.error and not one.error)
        try:
            source.kind.checked(replace(dataset, samples=readable), "fix")
        except DataError as error:
            found.append(Finding(REFUSED, (Place(split, dataset.name),), str(error)))
    return found


def _facts(
    name: str, samples: Sequence[tuple[str, Sample]], looks: Sequence[Look], counts: Mapping[str, int]
) -> SplitFacts:
    inside = [one for (split, _), one in zip(samples, looks, strict=True) if split == name]
    sizes = Counter((one.size[1], one.size[0]) for one in inside if not one.error)
    return SplitFacts(len(inside), counts, dict(sizes.most_common()), sum(one.grey for one in inside))

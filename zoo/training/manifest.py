"""The manifest of a run's data: what identifies each sample, so that a resumed run can name the files that changed.

`data.jsonl`, beside `config.json`, has a line for each split and a line for each of its samples: id, target, and the
content of the sample's files (the first digits of their sha256). The fingerprints in `config.json` decide whether the
data are the same, and verify the manifest too; a damaged one only makes the message less precise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.data import Dataset
from zoo.data.content import Row, fingerprint, rows
from zoo.disk import write_whole
from zoo.errors import counted

NAME = "data.jsonl"
_SHOWN = 3
"""Files of each kind of change that a message names."""


@dataclass(frozen=True)
class Split:
    """What identifies a split.

    Attributes:
        kind: kind of its targets.
        classes: class names.
        samples: in their order.
    """

    kind: str
    classes: tuple[str, ...]
    samples: tuple[Row, ...]

    @classmethod
    def of(cls, dataset: Dataset) -> Split:
        """Describe a dataset. Raises `DataError` if a file cannot be read."""
        return cls(dataset.kind, dataset.classes, rows(dataset))

    def fingerprint(self) -> str:
        """Return the fingerprint of the dataset, see `Dataset.fingerprint`."""
        return fingerprint(self.kind, self.classes, self.samples)


Manifest = Mapping[str, Split]


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a run, atomically. Raises `OSError`."""
    write_whole(folder / NAME, _lines(manifest))


def _lines(manifest: Manifest) -> Iterator[bytes]:
    for name, split in manifest.items():
        yield _line({"split": name, "kind": split.kind, "classes": split.classes, "samples": len(split.samples)})
        for row in split.samples:
            yield _line([row.id, row.target, *row.files])


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def read(folder: Path, fingerprints: Mapping[str, Any]) -> Manifest | None:
    """Return the manifest of a run; None if it is missing, damaged or does not have these fingerprints."""
    manifest: dict[str, Split] = {}
    try:
        with (folder / NAME).open("rb") as stream:
            for line in stream:
                head = json.loads(line)
                samples = []
                for _ in range(head["samples"]):
                    id, target, *files = json.loads(next(stream))
                    samples.append(Row(id, tuple(files), target))
                manifest[head["split"]] = Split(head["kind"], tuple(head["classes"]), tuple(samples))
    except (OSError, ValueError, TypeError, KeyError, StopIteration, RecursionError):
        return None
    return manifest if {name: split.fingerprint() for name, split in manifest.items()} == fingerprints else None


def changes(before: Manifest, now: Manifest) -> str:
    """Return how the data differ, for messages: the files that changed, are missing or are new."""
    phrases: list[str] = []
    for name in dict.fromkeys([*before, *now]):
        if name not in before or name not in now:
            phrases.append(f"the split {name} is {'new' if name in now else 'missing'}")
            continue
        was, is_ = before[name], now[name]
        if (was.kind, was.classes) != (is_.kind, is_.classes):
            phrases.append(f"the classes of {name} were {_names(was.classes)} and are now {_names(is_.classes)}")
        old, new = {row.id: row for row in was.samples}, {row.id: row for row in is_.samples}
        both = [id for id in old if id in new]
        found = {
            "has changed": [id for id in both if old[id].files != new[id].files],
            "is missing": [id for id in old if id not in new],
            "is new": [id for id in new if id not in old],
            "is annotated differently": [
                id for id in both if old[id].target != new[id].target and old[id].files == new[id].files
            ],
        }
        phrases += [_counted(name, ids, what) for what, ids in found.items() if ids]
        if not any(found.values()) and was.samples != is_.samples:
            phrases.append(f"the samples of {name} are in another order")
    return "; ".join(phrases)


def _counted(split: str, ids: list[str], what: str) -> str:
    shown = ", ".join(ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
    verb, _, rest = what.partition(" ")
    if len(ids) > 1:
        verb = {"has": "have", "is": "are"}[verb]
    return f"{counted(len(ids), 'sample')} of {split} {verb} {rest} ({shown})"


def _names(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:_SHOWN]) + (f", ... ({len(classes)})" if len(classes) > _SHOWN else "")

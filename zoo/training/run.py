"""The run directory: everything about one training, in files that other programs can read.

- `config.json`: the options, and the versions of the packages.
- `data.jsonl`: what identifies each sample of the data, see `zoo.training.manifest`.
- `metrics.jsonl`: a line for each epoch.
- `tensorboard/`: the same as TensorBoard events.
- `checkpoints/`: states to resume from.
- `model.safetensors`: the best model; `zoo.load` reads it.
- `trained.json`: training has ended, but the final metrics or plots are missing.
- `metrics.json`: the final metrics.
- `plots/`: plots of the run.
- `SHA256SUMS`: the hashes of these files, see `zoo.training.checksums`.
"""

from __future__ import annotations

import json
import shutil
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zoo import settings
from zoo.disk import write_whole
from zoo.errors import RunError, ZooError
from zoo.models.model import Model
from zoo.models.store import load
from zoo.training.checksums import FILE as SUMS
from zoo.training.checksums import seal, verify
from zoo.training.lock import occupied
from zoo.training.manifest import NAME, Manifest, changes
from zoo.training.manifest import read as read_manifest
from zoo.training.manifest import write as write_manifest

PACKAGES = ("flax-zoo", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow", "simplejpeg")

TRAINED = "trained.json"
"""File in the run directory that says that training has ended, though the final metrics or plots are missing."""


@dataclass
class Run:
    """A finished training.

    Attributes:
        folder: the run directory.
        model: the best model, in evaluation mode.
        metrics: the final metrics, as in `metrics.json`.
        history: a dict for each epoch, as in `metrics.jsonl`.
    """

    folder: Path
    model: Model
    metrics: dict[str, Any]
    history: list[dict[str, Any]] = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open a finished run. Raises `RunError` if the folder has none, or a file of it has changed."""
        folder = settings.expanded(folder)
        if (folder / "metrics.json").is_file():
            verify(folder / "metrics.json")
            verify(folder / "metrics.jsonl")
        if not finished(folder):
            raise RunError(f"{folder} has no finished run; continue it with --resume, or train one.")
        return cls(folder, load(folder), read_json(folder / "metrics.json"), read_lines(folder / "metrics.jsonl"))


def prepare_folder(folder: Path, config: Mapping[str, Any], data: Manifest, *, resume: bool) -> str:
    """Create the folder and write the configuration; for a resumed run, check that the configuration is the same.

    Args:
        folder: the run directory.
        config: the configuration; `asked` is what a resumed run must share.
        data: what identifies the data.
        resume: whether to continue the run that the folder may have.

    Returns:
        A remark on data that have changed in a way that does no harm, or an empty string.

    Raises:
        RunError: the folder is not empty or cannot be written, or the resumed run has other options or data.
    """
    file = folder / "config.json"
    if resume and file.is_file():
        verify(file)
        return _compare(folder, read_json(file), json.loads(json.dumps(config["asked"])), data)
    try:
        if occupied(folder):
            if resume:
                raise RunError(f"{folder} has no run to resume: it is not empty and has no config.json.")
            raise RunError(f"{folder} exists and is not empty: choose another --out or delete it.")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, config)
        write_manifest(folder, data)
        seal(folder)
    except OSError as error:
        raise RunError(f"the run directory {folder} cannot be written: {error.strerror or error}.") from error
    return ""


def finished(folder: Path) -> bool:
    """Return whether a folder has a finished run: one whose final metrics and plots have been written."""
    with suppress(RunError):  # a damaged file is written anew
        metrics = read_json(folder / "metrics.json")
        return isinstance(metrics, dict) and "plots" in metrics
    return False


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """Raise `RunError` where a file or folder of the run cannot be written, for example because the disk is full."""
    try:
        yield
    except ZooError:
        raise
    except OSError as error:
        raise RunError(
            f"{what} could not be written ({error.strerror or error}). Free some space or check the permissions, then "
            "continue with --resume: complete files are intact."
        ) from error


def _compare(folder: Path, config: Any, asked: Mapping[str, Any], data: Manifest) -> str:
    """Raise `RunError` unless a run was begun with these options and data.

    If training has ended, the test images may be others, and the remark that says so is returned.
    """
    before: Any = config.get("asked") if isinstance(config, dict) else None
    fingerprints = before.get("data") if isinstance(before, dict) else None
    if not isinstance(fingerprints, dict):
        raise RunError(
            f"{folder} cannot be resumed: its config.json does not hold the options of a training. Start a new run."
        )
    if "root" in fingerprints:
        raise RunError(
            f"{folder} cannot be resumed: it was begun by an earlier version of zoo, which identified data by time "
            "stamps and folders, not by content. Finish it with that version, or start a new run."
        )
    if fingerprints != asked["data"]:
        known = read_manifest(folder, fingerprints)
        words = changes(known, data) if known else f"which of them is not known, because {NAME} is missing or damaged"
        difference, same = f"the data have changed: {words}", "data"
        if (folder / TRAINED).is_file() and not _difference({**before, "data": None}, {**asked, "data": None}):
            if {**fingerprints, "test": None} == {**asked["data"], "test": None}:
                return f"{difference}. The test metrics are those of the present test images."
    elif found := _difference(before, asked):
        difference, same = "{} was {!r} and is now {!r}".format(*found), "options"
    else:
        return ""
    advice = f"Use the same {same}, or a different folder."
    if finished(folder):
        advice = (
            f"The run is finished. To train its model longer, or on other data, start a new run from it: "
            f"weights={str(folder)!r} (--weights {folder}) and a different folder."
        )
    raise RunError(f"{folder} cannot be resumed: {difference}. {advice}")


def _difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Return the first difference of two trees of JSON values: (dotted name, earlier value, present value)."""
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = [(key, before.get(key), now.get(key)) for key in sorted(before.keys() | now.keys())]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(before, now, strict=True))]
    else:
        return None if before == now else (name, before, now)
    differences = (_difference(was, is_, f"{name}.{key}" if name else key) for key, was, is_ in pairs)
    return next(filter(None, differences), None)


def abandon(folder: Path) -> None:
    """Undo `prepare_folder`, so that a training that never began leaves no folder behind."""
    for name in ("config.json", NAME, SUMS):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    with suppress(OSError):  # it may be a mount, or contain other files by now
        folder.rmdir()


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that determine the result of a training."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def stamp() -> str:
    """Return the current time in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_json(file: Path, value: Any) -> None:
    """Write plain values as JSON, atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    write_whole(file, [text.encode("utf-8", "backslashreplace")])  # a byte of a file name becomes an escape of JSON


def read_json(file: Path) -> Any:
    """Return the content of a JSON file. Raises `RunError`, with the file, if it cannot be read."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file} cannot be read: {error}.") from error


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file, up to a line that a crash has left unfinished."""
    rows = []
    for line in file.read_bytes().split(b"\n") if file.is_file() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    return rows


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are single numbers."""
    return {k: v for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write `metrics.jsonl`, with all epochs so far."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in history)
    with writing(folder / "metrics.jsonl"):
        write_whole(folder / "metrics.jsonl", [lines.encode("utf-8", "backslashreplace")])


def write_tensorboard(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write the history as TensorBoard events. Older files are replaced, or a resumed run would have duplicates."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import scalar

    # tensorboardX's own writer works in a thread, which waits forever for a disk that is full.
    now = time.time()
    events = [Event(wall_time=now, file_version="brain.Event:2")]
    for row in history:
        for name, value in scalars(row).items():
            if name not in ("epoch", "step"):
                events.append(Event(wall_time=now, step=row["step"], summary=scalar(name, value)))
    place = folder / "tensorboard"
    with writing(place):
        before = list(place.glob("events.*"))
        file = place / f"events.out.tfevents.{int(now)}.{socket.gethostname()}"
        write_whole(file, [_record(event.SerializeToString()) for event in events])
        for old in before:
            if old != file:
                old.unlink()


def _record(data: bytes) -> bytes:
    """Return data as a record of TensorFlow's format: length and data, each with its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def write_metrics(run: Run) -> None:
    """Write the metrics of a run."""
    with writing(run.folder / "metrics.json"):
        write_json(run.folder / "metrics.json", run.metrics)


def close(folder: Path) -> None:
    """Record the hashes of the files of a finished run."""
    with writing(folder / SUMS):
        seal(folder)

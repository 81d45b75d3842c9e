"""The run folder: everything about one training, in files that other programs can read.

`config.json` (what was asked, and the versions that ran it), `metrics.jsonl` (a line an epoch), `tensorboard/`,
`checkpoints/`, `model.safetensors` (the best model, which `zoo.load` reads), `metrics.json` (the final metrics) and
`plots/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zoo.errors import RunError
from zoo.models.model import Model
from zoo.models.store import load
from zoo.weights.disk import write_whole

PACKAGES = ("flax-zoo", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow", "simplejpeg")


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
        """Open a finished run. Raises `RunError` when it holds none."""
        folder = Path(folder)
        if not (folder / "metrics.json").is_file():
            raise RunError(f"{folder} holds no finished run (no metrics.json); go on with --resume, or train into it.")
        return cls(folder, load(folder), read_json(folder / "metrics.json"), read_lines(folder / "metrics.jsonl"))


def prepare_folder(folder: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Make the folder and write the configuration, or check it against the one that is there.

    Raises:
        RunError: for a folder that is not empty, one that cannot be written, or a resumed run that was asked for
            something else.
    """
    file = folder / "config.json"
    if resume and file.is_file():
        before = read_json(file)["asked"]
        asked = json.loads(json.dumps(config["asked"]))
        if found := _difference(before, asked):
            name, was, now = found
            advice = "Use the same options and data, or another folder."
            if (folder / "metrics.json").is_file():
                advice = (
                    f"It is finished. To train it for longer, or on other data, start from it: weights={str(folder)!r} "
                    f"(--weights {folder}) and another folder."
                )
            raise RunError(f"{folder} cannot be resumed: {name} was {was!r} and is now {now!r}. {advice}")
        return
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            if resume:
                raise RunError(f"{folder} holds no run that could be resumed: it is not empty and has no config.json.")
            raise RunError(
                f"{folder} exists and is not empty: choose another --out, delete it, or go on with --resume."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, config)
    except OSError as error:
        raise RunError(f"the run folder {folder} cannot be written: {error.strerror or error}.") from error


def _difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first value that differs between two trees of JSON values: its dotted name, what it was and what it is."""
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = [(key, before.get(key), now.get(key)) for key in sorted(before.keys() | now.keys())]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(before, now, strict=True))]
    else:
        return None if before == now else (name, before, now)
    found = (_difference(was, is_, f"{name}.{key}" if name else key) for key, was, is_ in pairs)
    return next(filter(None, found), None)


def abandon(folder: Path) -> None:
    """Take back `prepare_folder`, so that a training which never began does not occupy its folder."""
    (folder / "config.json").unlink(missing_ok=True)
    with suppress(OSError):  # it may be a mount, or hold something of somebody else's
        folder.rmdir()


def versions() -> dict[str, str]:
    """The installed versions that decide what a training does."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def stamp() -> str:
    """Now, in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_json(file: Path, value: Any) -> None:
    """Write plain values as JSON, whole or not at all."""
    write_whole(file, [json.dumps(value, indent=1, ensure_ascii=False).encode()])


def read_json(file: Path) -> Any:
    """Raises `RunError`, naming the file, when it is no JSON."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read: {error}.") from error


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; an unfinished last line, left by a crash, is passed over."""
    rows = []
    for line in file.read_text("utf-8").splitlines() if file.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are single numbers."""
    return {k: v for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """`metrics.jsonl`, with all epochs so far."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in history)
    write_whole(folder / "metrics.jsonl", [lines.encode()])


def write_tensorboard(folder: Path, history: list[dict[str, Any]]) -> None:
    """The history as TensorBoard events, anew: a resumed run leaves no doubled points."""
    from tensorboardX import SummaryWriter

    events = folder / "tensorboard"
    for old in events.glob("events.*"):
        old.unlink()
    with SummaryWriter(str(events), write_to_disk=True) as writer:
        for row in history:
            for name, value in scalars(row).items():
                if name not in ("epoch", "step"):
                    writer.add_scalar(name, value, row["step"])


def finish(run: Run, plots: list[Path]) -> None:
    """Write what a finished run holds beside its model."""
    run.metrics["plots"] = [str(path.relative_to(run.folder)) for path in plots]
    write_json(run.folder / "metrics.json", run.metrics)

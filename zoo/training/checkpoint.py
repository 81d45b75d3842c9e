"""Checkpoints: orbax writes the arrays, and a manifest of hashes tells which checkpoints are intact.

Orbax does not detect a flipped bit in an array file, and it takes an empty folder for the latest step. Therefore the
sha256 of every file goes into a manifest, which is written last and contains its own digest. Only a checkpoint with a
manifest that verifies is restored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.disk import sha256, write_whole
from zoo.errors import RunError

MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of a run, in one folder for each step.

    Args:
        folder: the folder that holds them.
        keep: number of checkpoints to keep; older ones are deleted.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = folder, keep

    def save(self, step: int, arrays: Any, position: Mapping[str, Any]) -> Path:
        """Write a checkpoint, and delete those that are too old.

        Args:
            step: number of steps taken.
            arrays: a pytree of arrays.
            position: where training stands, as JSON values.

        Returns:
            The folder of the checkpoint.

        Raises:
            RunError: it cannot be written. Older checkpoints are untouched.
        """
        import orbax.checkpoint as ocp

        target, draft = self.folder / f"{step:08d}", self.folder / f".{step:08d}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for old in self.folder.glob(".*.tmp"):  # of a process that was killed
                shutil.rmtree(old, ignore_errors=True)
            with _unlogged(), ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(draft.resolve() / "arrays", _plain(arrays))
                checkpointer.wait_until_finished()
            files = {str(p.relative_to(draft)): sha256(p) for p in sorted(draft.rglob("*")) if p.is_file()}
            manifest = {"step": step, "position": dict(position), "files": files}
            write_whole(draft / MANIFEST, [json.dumps(sealed(manifest), indent=1).encode()])
            # An earlier checkpoint of the same step is deleted once the new one is complete.
            if target.exists():
                target.rename(self.folder / f".{step:08d}.old.tmp")
            draft.rename(target)
            shutil.rmtree(self.folder / f".{step:08d}.old.tmp", ignore_errors=True)
        except (OSError, ValueError, RuntimeError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise RunError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({_reason(error)}). Free some "
                "space, then continue with --resume: earlier checkpoints are intact."
            ) from error
        kept = {f"{step:08d}" for step in self.steps()[-self.keep :]}
        for old in self.folder.iterdir():
            # Folders without a manifest go as well: a process was killed while it wrote them.
            if old.name.isdigit() and old.name not in kept:
                shutil.rmtree(old, ignore_errors=True)
        return target

    def discard(self, after: int) -> None:
        """Delete the checkpoints of later steps than `after`."""
        for step in self.steps():
            if step > after:
                shutil.rmtree(self.folder / f"{step:08d}", ignore_errors=True)

    def steps(self) -> list[int]:
        """Return the steps that have a manifest, in ascending order."""
        return sorted(int(p.parent.name) for p in self.folder.glob(f"*/{MANIFEST}") if p.parent.name.isdigit())

    def latest(self, before: int | None = None) -> tuple[Path, dict[str, Any], list[str]] | None:
        """Return the newest intact checkpoint, or None if there are no checkpoints.

        Args:
            before: consider only checkpoints of earlier steps than this.

        Returns:
            Its folder, its position, and a sentence for each newer checkpoint that is damaged.

        Raises:
            RunError: there are checkpoints, but all are damaged.
        """
        damaged: list[str] = []
        for step in reversed([step for step in self.steps() if before is None or step < before]):
            target = self.folder / f"{step:08d}"
            if damage := _damage(target):
                damaged.append(f"checkpoint {step} is damaged ({damage})")
                continue
            return target, json.loads((target / MANIFEST).read_text())["position"], damaged
        if damaged:
            raise RunError(f"no checkpoint in {self.folder} is intact: {'; '.join(damaged)}. Start a new run.")
        return None


@contextmanager
def _unlogged() -> Iterator[None]:
    """Silence absl's logger: orbax logs each error that it raises, three times and with the traceback."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _reason(error: Exception) -> str:
    """Return why a file cannot be written, without the names of orbax's own files."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    text, code, _ = str(error).partition(" [os_error_code")
    return text.rpartition(": ")[2] if code else text


def _damage(target: Path) -> str:
    """Return what is wrong with the files of a checkpoint; empty if it is intact."""
    try:
        manifest = json.loads((target / MANIFEST).read_text("utf-8"))
        if not intact(manifest):
            return "its manifest has changed"
        for name, digest in manifest["files"].items():
            if not (target / name).is_file():
                return f"{name} is missing"
            if sha256(target / name) != digest:
                return f"{name} has changed"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read: {error}"
    return ""


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values with their own digest, which `intact` compares."""
    return {**values, "digest": _digest(values)}


def intact(values: Mapping[str, Any]) -> bool:
    """Return whether values from `sealed` are unchanged."""
    return values["digest"] == _digest({name: value for name, value in values.items() if name != "digest"})


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read(target: Path, like: Any) -> Any:
    """Return the arrays of a checkpoint.

    Args:
        target: the folder of the checkpoint.
        like: a pytree of the same structure, shapes and dtypes.

    Raises:
        RunError: the checkpoint belongs to a different model or optimizer.
    """
    import orbax.checkpoint as ocp

    expected = _plain(like)
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(target.resolve() / "arrays").item_metadata.tree
        shapes = {k: (tuple(m.shape), np.dtype(m.dtype)) for k, m in stored.items()}
        needed = {k: (v.shape, v.dtype) for k, v in expected.items()}
        # Checked here because orbax would silently cast to another dtype.
        if shapes != needed:
            different = sorted(k for k in shapes.keys() | needed.keys() if shapes.get(k) != needed.get(k))
            first = different[0]
            raise RunError(
                f"the checkpoint {target} belongs to a different model or optimizer: {len(different)} arrays differ; "
                f"the first is {shapes.get(first, 'absent')} in the checkpoint and {needed.get(first, 'absent')} here."
            )
        arrays = checkpointer.restore(target.resolve() / "arrays", expected)
    leaves, structure = jax.tree.flatten(like)
    restored = [_typed(arrays[_name(i)], leaf) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, restored)


def _name(index: int) -> str:
    return f"leaf{index:05d}"


def _plain(tree: Any) -> dict[str, np.ndarray]:
    """Return the leaves by number, as NumPy arrays; random keys as their data, which orbax can write."""
    return {_name(i): np.asarray(_data(leaf)) for i, leaf in enumerate(jax.tree.leaves(tree))}


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _typed(value: np.ndarray, like: Any) -> jax.Array:
    array = jnp.asarray(value)
    return jax.random.wrap_key_data(array) if jnp.issubdtype(like.dtype, jax.dtypes.prng_key) else array

"""Checkpoints: orbax writes the arrays, a manifest of hashes says which checkpoints are whole.

Orbax does not notice a flipped bit in an array file, and takes an empty folder for the latest step. So every file's
sha256 goes into a manifest, which is written last and holds a digest of itself; only a checkpoint whose manifest
verifies is restored.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import RunError
from zoo.weights.disk import sha256, write_whole

MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of a run, one folder a step; the newest `keep` are kept."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = folder, keep

    def save(self, step: int, arrays: Any, position: Mapping[str, Any]) -> Path:
        """Write a pytree of arrays and where training stands (plain JSON values).

        Raises:
            RunError: when it cannot be written; older checkpoints are untouched.
        """
        import orbax.checkpoint as ocp

        target = self.folder / f"{step:08d}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(target.resolve() / "arrays", _plain(arrays))
                checkpointer.wait_until_finished()
            files = {str(p.relative_to(target)): sha256(p) for p in sorted(target.rglob("*")) if p.is_file()}
            manifest = {"step": step, "position": dict(position), "files": files}
            text = json.dumps({**manifest, "digest": _digest(manifest)}, indent=1)
            write_whole(target / MANIFEST, [text.encode()])
        except (OSError, ValueError, RuntimeError) as error:
            shutil.rmtree(target, ignore_errors=True)
            raise RunError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({error}). Free some space, then "
                "go on with --resume: earlier checkpoints are untouched."
            ) from error
        kept = {f"{step:08d}" for step in self.steps()[-self.keep :]}
        for old in self.folder.iterdir():
            # Also what a killed process did not finish.
            if old.name.isdigit() and old.name not in kept:
                shutil.rmtree(old, ignore_errors=True)
        return target

    def steps(self) -> list[int]:
        """Steps that have a manifest, rising."""
        return sorted(int(p.parent.name) for p in self.folder.glob(f"*/{MANIFEST}") if p.parent.name.isdigit())

    def latest(self) -> tuple[Path, dict[str, Any], list[str]] | None:
        """The newest checkpoint that verifies: (its folder, its position, what was passed over and why), or None.

        Raises:
            RunError: when there are checkpoints and none of them is whole.
        """
        passed: list[str] = []
        for step in reversed(self.steps()):
            target = self.folder / f"{step:08d}"
            if damage := _damage(target):
                passed.append(f"checkpoint {step} is damaged ({damage})")
                continue
            return target, json.loads((target / MANIFEST).read_text())["position"], passed
        if passed:
            raise RunError(f"no checkpoint in {self.folder} is whole: {'; '.join(passed)}. Start a new run.")
        return None


def _damage(target: Path) -> str:
    """What is wrong with a checkpoint's files; empty when nothing is."""
    try:
        manifest = json.loads((target / MANIFEST).read_text("utf-8"))
        if manifest.pop("digest") != _digest(manifest):
            return "its manifest has changed"
        for name, digest in manifest["files"].items():
            if not (target / name).is_file():
                return f"{name} is missing"
            if sha256(target / name) != digest:
                return f"{name} has changed"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read: {error}"
    return ""


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read(target: Path, like: Any) -> Any:
    """The arrays of a checkpoint.

    Args:
        like: a pytree of the same structure, shapes and dtypes.
    Raises:
        RunError: when the checkpoint is of another model or optimizer.
    """
    import orbax.checkpoint as ocp

    expected = _plain(like)
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(target.resolve() / "arrays").item_metadata.tree
        shapes = {k: (tuple(m.shape), np.dtype(m.dtype)) for k, m in stored.items()}
        wanted = {k: (v.shape, v.dtype) for k, v in expected.items()}
        # Orbax would cast to another dtype without a word.
        if shapes != wanted:
            different = sorted(k for k in shapes.keys() | wanted.keys() if shapes.get(k) != wanted.get(k))
            first = different[0]
            raise RunError(
                f"the checkpoint {target} is of another model or optimizer: {len(different)} arrays differ, the first "
                f"is {shapes.get(first, 'absent')} there and {wanted.get(first, 'absent')} here."
            )
        found = checkpointer.restore(target.resolve() / "arrays", expected)
    leaves, structure = jax.tree.flatten(like)
    restored = [_typed(found[_name(i)], leaf) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, restored)


def _name(index: int) -> str:
    return f"leaf{index:05d}"


def _plain(tree: Any) -> dict[str, np.ndarray]:
    """The leaves by number as NumPy arrays, random keys as their data."""
    return {_name(i): np.asarray(_data(leaf)) for i, leaf in enumerate(jax.tree.leaves(tree))}


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _typed(value: np.ndarray, like: Any) -> jax.Array:
    array = jnp.asarray(value)
    return jax.random.wrap_key_data(array) if jnp.issubdtype(like.dtype, jax.dtypes.prng_key) else array

"""What to do when a step does not fit into memory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

from zoo.errors import RunError
from zoo.training.session import Session
from zoo.training.step import Batch, Program, TrainState

MARGIN = 0.9
"""Share of the memory that a step may take."""
ERRORS = (MemoryError, jax.errors.JaxRuntimeError)
"""Errors that may say that memory is exhausted, see `is_exhausted`."""


def is_exhausted(error: BaseException) -> bool:
    """Return whether an error says that the memory of the host or of a device is exhausted."""
    text = str(error)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "Out of memory" in text


def out_of_memory(session: Session, fitting: int | None = None) -> RunError:
    """Return the error that says which batch size to use.

    Args:
        session: the training.
        fitting: largest batch size that fits, if it is known; otherwise half of the present one is suggested.
    """
    recipe, size = session.recipe, session.recipe.batch_size
    smaller = max(size // 2, 1)
    while fitting is not None and smaller > max(fitting, 1):
        smaller = max(smaller // 2, 1)
    how = f"--batch-size {smaller} --accumulate {recipe.accumulate * -(-size // smaller)}"
    advice = f"Try {how}, which keeps the number of images in an update; "
    if size == 1:
        advice = "Not even one image fits: "
    elif fitting is not None and fitting > 0:
        advice = f"About {fitting} images fit: use {how}, which keeps the number of images in an update; "
    return RunError(
        f"out of memory on {jax.default_backend()} in step {session.step + 1}, with batch_size {size}. {advice}"
        "--remat, a smaller --image-size and --dtype bfloat16 save memory too. The options of a run that has begun "
        "cannot be changed: if the run directory exists, choose another --out."
    )


def fitting_batch(program: Program, state: TrainState, batch: Batch, key: jax.Array) -> int | None:
    """Return the largest batch size whose step fits into memory, by the compiler's own count; None if not known.

    Two smaller steps are compiled; what a step takes is linear in the number of images.
    """
    size = len(batch["valid"])
    limit = available()
    if size < 2 or limit is None:
        return None

    def needed(images: int) -> int:
        part = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((images, *leaf.shape[1:]), leaf.dtype), dict(batch))
        sizes = program.run.lower(shapes, program.frozen, part, key).compile().memory_analysis()  # type: ignore[attr-defined]
        total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
        return int(total - sizes.alias_size_in_bytes)

    # The arrays of the state were donated, but their shapes are still known.
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    with suppress(Exception):  # advice, not worth an error of its own
        few, many = max(size // 4, 1), max(size // 2, 2)
        small, large = needed(few), needed(many)
        slope = (large - small) / (many - few)
        return max(min(int((MARGIN * limit - small) / slope) + few, size - 1), 0) if slope > 0 else None
    return None


def available() -> int | None:
    """Return the memory of the device, or of the host for the CPU, in bytes; None if it is not known."""
    statistics: dict[str, Any] = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    if jax.default_backend() != "cpu":
        return None
    limits = []
    with suppress(OSError, ValueError, AttributeError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # of a container
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    with suppress(ImportError, OSError, ValueError):
        import resource

        limits += [limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit != resource.RLIM_INFINITY]
    return min(limits, default=None)

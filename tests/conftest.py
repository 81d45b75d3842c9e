"""Fixtures for all tests. JAX is set up by environment variables, so that tests without it do not import it."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Axes are never added behind anybody's back, neither here nor in the processes that tests start.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# The arrays of a net that was tested go back to the system. glibc keeps what is freed below a limit, which it raises to
# 32 MB by itself: a worker that tests one net after the other then holds gigabytes of nothing.
M_MMAP_THRESHOLD = -3
with suppress(OSError, AttributeError):
    ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 1 << 20)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one backbone follow each other within a file and go to one worker, so that what several build of it is
    built once; and so do the other tests of a file, with the fixtures and compiled programs that they share."""
    first: dict[object, int] = {}

    def name_of(item: pytest.Item) -> str:
        return str(item.callspec.params.get("name", "")) if hasattr(item, "callspec") else ""

    def place(item: pytest.Item) -> tuple[int, int]:
        return first.setdefault(item.path, len(first)), first.setdefault((item.path, name_of(item)), len(first))

    items.sort(key=place)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {name_of(item)}".strip()))


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real weights and photos beside the repository; not part of it."""
    path = ROOT.parent / "shared" / "assets"
    if not path.is_dir():
        message = f"real weights and photos are not at {path}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs() -> Iterator[None]:
    """Compiled programs are forgotten after each file of tests: those of every backbone fill gigabytes."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """Nor are dtypes mixed. For everything but training: optax itself raises a float to an integer power."""
    import jax

    with jax.numpy_dtype_promotion("strict"):
        yield

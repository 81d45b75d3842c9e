"""Fixtures for all tests. JAX is set up by environment variables, so that tests without it do not import it."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Optimising takes half of the time that the tests' many programs take to compile. `OPTIMISED` says where it is done.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Axes are never added behind anybody's back, neither here nor in the processes that tests start.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# The arrays of a net that was tested go back to the system. glibc keeps what is freed below a limit, which it raises to
# 32 MB by itself: a worker that tests one net after the other then holds gigabytes of nothing.
M_MMAP_THRESHOLD = -3
with suppress(OSError, AttributeError):
    ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 1 << 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one backbone follow each other within a file, so that what several build of it is built once."""
    first: dict[object, int] = {}

    def place(item: pytest.Item) -> tuple[int, int]:
        name = item.callspec.params.get("name", "") if hasattr(item, "callspec") else ""
        return first.setdefault(item.path, len(first)), first.setdefault((item.path, name), len(first))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadscope`, the tests of a file go to one worker, which makes its fixtures and compiles its programs
    once; those of a single backbone may go elsewhere, all of them."""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    plugins = tomllib.loads((ROOT / "registry.toml").read_text())["plugin"].values()
    backbones = {name for plugin in plugins for name in plugin.get("backbones", {})}

    class ByFileAndBackbone(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            named = backbones.intersection(test.partition("[")[2].removesuffix("]").split("-"))
            return " ".join([file, *sorted(named)])

    return ByFileAndBackbone(config, log)


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


OPTIMISED = {"test_acceptance", "test_backbones", "test_layers", "test_real_weights"}
"""Files of tests whose programs are compiled as users' are."""


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compiled programs are forgotten after each file of tests: those of every backbone fill gigabytes, and not all
    files want them optimised."""
    optimised = request.path.stem in OPTIMISED
    if optimised:
        import jax

        jax.config.update("jax_disable_most_optimizations", False)
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()
    if optimised:
        jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """Nor are dtypes mixed. For everything but training: optax itself raises a float to an integer power."""
    import jax

    with jax.numpy_dtype_promotion("strict"):
        yield

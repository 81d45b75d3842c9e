"""Fixtures for all tests. JAX is set up by environment variables, so that tests without it do not import it."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Compiled programs are kept outside the tree, so that a second run, also of another checkout, is faster.
USER_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.environ.get("ZOO_TEST_CACHE") or str(USER_CACHE / "zoo-tests"))
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2 << 30))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Two workers share the processor; threads of small matrix products would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Optimising takes half of the time that the tests' many programs take to compile. `OPTIMISED` says where it is done.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Plugins are imported without an examination in a process of its own, which has tests of its own.
os.environ.setdefault("ZOO_PLUGIN_SECONDS", "0")
# Where it is done, a third of that time unrolls loops, which makes these small programs no faster.
if "xla_backend_extra_options" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_backend_extra_options=xla_cpu_disable_loop_unrolling"
    )
# Axes are never added behind anybody's back, neither here nor in the processes that tests start.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# The arrays of a net that was tested go back to the system. glibc keeps what is freed below a limit, which it raises to
# 32 MB by itself: a worker that tests one net after the other then holds gigabytes of nothing.
M_MMAP_THRESHOLD = -3
with suppress(OSError, AttributeError):
    ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 1 << 20)


SELECTION = {
    "test_checkpoint",
    "test_data_loader",
    "test_data_transform",
    "test_dense_boxes",
    "test_fcos",
    "test_layers",
    "test_registry",
    "test_rules",
    "test_segmentation_losses",
    "test_training",
    "test_training_data",
    "test_weights_load",
}
"""Files whose tests run with the oldest libraries; of the tests of backbones, those of the smallest one."""


LONG = (
    "test_detector",
    "test_segmenter",
    "test_style",
    "test_decoders",
    "test_rcnn",
    "test_extension_points",
    "test_style_nets",
    "test_fcos",
    "test_training_options",
    "test_checkpoint",
    "test_layers",
    "test_yolox",
    "test_freezing",
    "test_demo",
    "test_acceptance",
    "test_training",
    "test_cli_listing",
)
"""Files that take longest, by how long, which are begun first, so that no worker is left alone with one of them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--values", action="store_true", help="compare the values of every net, also of unchanged ones")
    parser.addoption("--selection", action="store_true", help="a few tests of every part, for the oldest libraries")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which nets' programs are not those that are recorded."""
    reports = terminalreporter.getreports("passed")
    compared = [value for report in reports for key, value in report.user_properties if key == "compared"]
    if compared and not terminalreporter.config.getoption("--values"):
        terminalreporter.write_line(
            f"The programs of {len(compared)} nets are not those recorded (with this JAX); their values were compared. "
            "With the newest JAX, record them: python tools/fingerprints.py"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one backbone follow each other within a file, so that what several build of it is built once. The
    longest files come first."""
    if config.getoption("--selection"):
        items[:] = [item for item in items if item.path.stem in SELECTION]
    first: dict[object, int] = {}

    def place(item: pytest.Item) -> tuple[int, int, int]:
        name = item.callspec.params.get("name", "") if hasattr(item, "callspec") else ""
        of_file = first.setdefault(item.path, len(first))
        rank = LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG)
        return rank, of_file, first.setdefault((item.path, name), len(first))

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


@pytest.fixture(scope="session", autouse=True)
def session_cache() -> Iterator[None]:
    """Every session, and every worker of one, has a cache of its own, so that no test reads what another session or the
    user left in theirs."""
    if os.environ.get("ZOO_CACHE"):
        yield
        return
    with (
        tempfile.TemporaryDirectory(prefix="zoo-tests-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ZOO_CACHE", folder)
        yield


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
"""Files of tests whose programs are all compiled as users' are."""


ENOUGH = 3 << 30
"""Bytes of memory at which a worker forgets its compiled programs."""


def memory() -> int:
    """Return the bytes that this process uses; where that is not known, more than enough."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return ENOUGH + 1


def forget() -> None:
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compiled programs are forgotten around files that want them optimised, and where they fill the memory, as those
    of every backbone would. Other files use the small ones again, such as that of an addition."""
    if request.path.stem in OPTIMISED:
        import jax

        forget()
        jax.config.update("jax_disable_most_optimizations", False)
        yield
        jax.config.update("jax_disable_most_optimizations", True)
        forget()
        return
    yield
    if memory() > ENOUGH:
        forget()


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """Nor are dtypes mixed. For everything but training: optax itself raises a float to an integer power."""
    import jax

    with jax.numpy_dtype_promotion("strict"):
        yield

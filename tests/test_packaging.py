"""A built wheel, installed in a fresh environment, is the same zoo: catalogue, plugins, adapters, command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import plugin_kit as kit
import pytest

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "registry.toml")
PACKAGES = ("zoo", "plugins", "adapters")


def command(*args: str | Path, cwd: Path, **variables: str) -> str:
    """Its stdout, or a failure that shows what it said."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ZOO_", "PYTHON", "PYTEST_"))}
    environment |= {"ZOO_CONFIG": str(cwd / "none"), **variables}
    result = subprocess.run(
        [str(arg) for arg in args], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build_wheel(source: Path, out: Path) -> Path:
    """A wheel by the build backend that pyproject.toml names, with what is installed here: no network."""
    program = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    out.mkdir()
    command(sys.executable, "-W", "ignore", "-c", program, out, cwd=source)
    (wheel,) = out.glob("*.whl")
    return wheel


def environment(folder: Path) -> Path:
    """A virtual environment that sees the libraries installed here, but not this zoo; its python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(command(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    for library in Path(sysconfig.get_path("purelib")).iterdir():
        name = library.name.lower()
        if name.endswith(".pth") or "flax_zoo" in name or name in ("zoo", "__pycache__"):
            continue
        (site / library.name).symlink_to(library)
    return python


def install(python: Path, wheel: Path) -> None:
    """Installs a wheel and nothing else, by pip."""
    arguments = ("install", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", wheel)
    command(python, "-m", "pip", *arguments, cwd=wheel.parent)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the wheel is built from: building leaves files behind."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copy(kit.ROOT / name, source / name)
    for name in PACKAGES:
        shutil.copytree(kit.ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    return source


@pytest.fixture(scope="session")
def wheel(source: Path) -> Path:
    """zoo's wheel."""
    return build_wheel(source, source / "dist")


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a fresh environment with zoo's wheel."""
    python = environment(tmp_path_factory.mktemp("environment"))
    install(python, wheel)
    return python


def test_the_wheel_holds_everything(wheel: Path, source: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in (("zoo", "zoo"), ("plugins", "zoo/plugins"), ("adapters", "zoo/adapters")):
        for file in (source / folder).rglob("*"):
            if file.is_file():
                assert f"{place}/{file.relative_to(source / folder)}" in names
    assert zipfile.ZipFile(wheel).read("zoo/registry.toml") == (source / "registry.toml").read_bytes()
    assert not [name for name in names if not name.startswith(("zoo/", "flax_zoo-"))]


def test_the_installed_wheel_lists_what_the_checkout_lists(python: Path, tmp_path: Path):
    program = (
        "import zoo, zoo.plugins, zoo.adapters; from zoo.registry.catalogue import first_party_path;"
        "print(zoo.__file__, zoo.plugins.__file__, zoo.adapters.__file__, first_party_path(), sep='\\n')"
    )
    prefix = str(python.parent.parent)
    for path in command(python, "-c", program, cwd=tmp_path).split():
        assert path.startswith(prefix)
    zoo = python.parent / "zoo"
    for kind in ("backbones", "weights", "tasks", "models"):
        listed = command(zoo, "list", kind, "--json", cwd=tmp_path)
        assert listed == kit.zoo("list", kind, "--json").stdout
    assert len(json.loads(command(zoo, "list", "weights", "--json", cwd=tmp_path))) > 50


def test_the_installed_wheel_s_plugins_load(python: Path, tmp_path: Path):
    records = json.loads(command(python.parent / "zoo", "plugins", "--json", cwd=tmp_path))
    assert {record["state"] for record in records} == {"ok"}
    assert {"resnet", "classifier"} <= {record["name"] for record in records}


def test_the_installed_wheel_makes_a_model(python: Path, tmp_path: Path):
    program = (
        "import zoo, numpy; m = zoo.create('squeezenet1_1', 'classifier', labels=['a', 'b'], pretrained=False,"
        "image_size=64); print(m.predict(numpy.zeros((64, 64, 3), 'uint8')))"
    )
    assert command(python, "-c", program, cwd=tmp_path, JAX_PLATFORMS="cpu").strip()


def test_the_installed_wheel_s_own_tests_pass(python: Path, tmp_path: Path):
    said = command(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "zoo", cwd=tmp_path)
    assert " passed" in said and "skipped" not in said


def test_a_wheel_is_not_confused_by_a_checkout_in_the_working_directory(python: Path):
    """Started inside a checkout, Python imports the checkout's `zoo`, whose plugins are not installed."""
    result = subprocess.run([python, "-c", "import zoo"], cwd=kit.ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "run `pip install -e .`" in result.stderr.splitlines()[-1]
    assert command(python.parent / "zoo", "list", cwd=kit.ROOT)

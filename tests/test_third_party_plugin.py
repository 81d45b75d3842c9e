"""A third party's backbone, in one file and installed by pip, is created, trained and saved like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import plugin_kit as kit
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

import zoo.registry
from zoo.cli.app import app

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "zoo-tinynet"
version = "2.5"

[project.entry-points."zoo.plugins"]
tinynet = "zoo_tinynet"

[tool.setuptools]
py-modules = ["zoo_tinynet"]
"""

PLUGIN = '''
"""TinyNet: two convolutions, for the test that a stranger's plugin is a full citizen."""

from flax import nnx

import zoo
from zoo.models.backbone import Backbone
from zoo.layers import BatchNorm, Conv
from zoo.registry.spec import ClassifierLayout, Preprocess, Stage

ZOO_API = 1


class TinyNet(Backbone):
    def __init__(self, *, rngs, in_channels=3):
        self.conv1 = Conv(in_channels, 8, 3, 2, 1, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(8, rngs=rngs)
        self.conv2 = Conv(8, 16, 3, 2, 1, rngs=rngs)

    def stages(self):
        return {"stem": self.stem, "body": self.body}

    def stem(self, x):
        return nnx.relu(self.bn1(self.conv1(x)))

    def body(self, x):
        return nnx.relu(self.conv2(x))


@zoo.hookimpl
def zoo_backbones():
    return [
        zoo.BackboneSpec(
            name="tinynet",
            family="TinyNet",
            build=TinyNet,
            stages=(
                Stage("stem", 8, 2, modules=("conv1", "bn1")),
                Stage("body", 16, 4, modules=("conv2",)),
            ),
            classifier=ClassifierLayout("fc"),
            preprocess=Preprocess(size=(32, 32), crop_pct=1.0),
            min_size=8,
        )
    ]
'''

PROGRAM = """
import sys
from pathlib import Path

import numpy as np

import zoo

data, out = map(Path, sys.argv[1:])
model = zoo.create("tinynet", "classifier", labels=["dot", "stripe"], pretrained=False)
before = np.asarray(model.backbone.conv1.kernel[...]).copy()
run = zoo.train(model, data, out=out / "run", plan="all", epochs=2, seed=0)
assert not np.array_equal(before, np.asarray(run.model.backbone.conv1.kernel[...])), "the backbone did not train"
photo = data / "dot" / "0.png"
zoo.save(run.model, out / "model")
top = [m.predict(photo).top for m in (run.model, zoo.load(out / "model"), zoo.load(out / "run"))]
assert top[0] == top[1] == top[2] and {name for name, _ in top[0]} == {"dot", "stripe"}, top
print("ok")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip installed the plugin into: no network, no other environment."""
    source = tmp_path_factory.mktemp("zoo-tinynet")
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "zoo_tinynet.py").write_text(PLUGIN)
    target = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target))
    command = [sys.executable, "-m", "pip", "install", *options, str(source)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return target


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight drawn images of each of two classes."""
    root = tmp_path_factory.mktemp("drawn")
    for name in ("dot", "stripe"):
        (root / name).mkdir()
        for i in range(8):
            image = Image.new("RGB", (32, 32), (20 * i, 80, 120))
            box = (8 + i, 8, 20 + i, 20) if name == "dot" else (0, 8 + i, 31, 12 + i)
            (ImageDraw.Draw(image).ellipse if name == "dot" else ImageDraw.Draw(image).rectangle)(box, fill="white")
            image.save(root / name / f"{i}.png")
    return root


def test_it_appears_in_the_listing(site: Path):
    with pytest.MonkeyPatch.context() as patch:  # in this process, which has imported jax already
        patch.syspath_prepend(str(site))
        zoo.registry.reset()
        record = kit.records(kit.called("plugins", "--json"))["tinynet"]
        (entry,) = json.loads(CliRunner().invoke(app, ["list", "backbones", "tinynet", "--json"]).stdout)
        page = CliRunner().invoke(app, ["show", "tinynet"]).stdout
    zoo.registry.reset()
    assert (record["state"], record["distribution"], record["version"]) == ("ok", "zoo-tinynet", "2.5")
    assert (entry["name"], entry["distribution"], entry["module"]) == ("tinynet", "zoo-tinynet", "zoo_tinynet")
    assert "body   map         16       4" in page
    assert kit.zoo("show", "tinynet").returncode == 2  # not without the plugin


def test_it_conforms(site: Path):
    result = kit.zoo("plugins", "check", "zoo-tinynet/tinynet", paths=(site,))
    assert (result.returncode, "conforms" in result.stdout) == (0, True), result.stdout


def test_it_is_created_trained_and_saved(site: Path, data: Path, tmp_path: Path):
    result = kit.run("-c", PROGRAM, str(data), str(tmp_path), paths=(site,), JAX_PLATFORMS="cpu")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "ok"


def test_it_can_be_disabled(site: Path):
    result = kit.zoo("list", "backbones", "tinynet", paths=(site,), ZOO_DISABLE_PLUGINS="tinynet")
    assert result.returncode == 2

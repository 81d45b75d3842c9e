"""Weights that come with zoo: small enough for the package, so that a first run needs no network.

`resnet20.demo` was trained by zoo itself (`tools/pretrain_demo.py`) on drawn shapes (`zoo.demo.draw.PRETRAIN`);
code and weights are under Apache-2.0. A source `zoo://FOLDER` is a folder of the installed package.
"""

from __future__ import annotations

from pathlib import Path

import zoo
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import Preprocess, WeightSpec

SCHEME = "zoo://"

WEIGHTS = (
    WeightSpec(
        "resnet20.demo",
        source=f"{SCHEME}demo/weights",
        file="resnet20.demo.safetensors",
        sha256="94399f3dd873d7a3dc27ba71e664dca2fc6c402777d00e4fa1b96f043496445e",
        preprocess=Preprocess(size=(24, 24), crop_pct=1.0),
        num_classes=24,
        labels="drawings",
        license="apache-2.0",
        commercial_use="yes",
        note="in the package; trained by zoo on 24 kinds of drawn shapes",
    ),
)


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return list(WEIGHTS)


@hookimpl
def zoo_fetch(source: str, file: str) -> Path | None:
    # `zoo.weights.fetch` has already refused sources that lead out of the folder.
    return Path(zoo.__file__).parent / source.removeprefix(SCHEME) / file if source.startswith(SCHEME) else None

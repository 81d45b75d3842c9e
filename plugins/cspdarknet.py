"""CSPDarknet, the backbone of the YOLOX detectors.

Papers: YOLOX: Exceeding YOLO Series in 2021, arXiv:2107.08430; CSPNet (the split and joined stages), arXiv:1911.11929.
Weights: none of their own. Names are those of the detectors' checkpoints (Megvii-BaseDetection/YOLOX, Apache-2.0) below
`backbone.backbone.`, so such a file can be given whole; its pyramid and head are left out. The detectors take pixels as
they are, from 0 to 255, in the order BGR. They have no classifier: one that zoo trains is called `classifier`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.blocks.csp import CrossStage, convolution, spatial
from zoo.layers import Chain, max_pool
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Convention, Preprocess, Stage


class Focus(nnx.Module):
    """Blocks of 2x2 pixels as channels, then a 3x3 convolution: (b, h, w, c) -> (b, h / 2, w / 2, channels)."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.conv = convolution(4 * inputs, outputs, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        # Down the columns first: the order in which the checkpoints have the four pixels.
        pixels = [x[:, down::2, right::2] for right in (0, 1) for down in (0, 1)]
        return self.conv(jnp.concatenate(pixels, axis=-1))


class PyramidPooling(nnx.Module):
    """Maxima over windows of three sizes beside the map itself (arXiv:1406.4729 as in YOLOv3-SPP)."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv1 = convolution(channels, channels // 2, 1, rngs=rngs)
        self.conv2 = convolution(4 * (channels // 2), channels, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.conv1(x)
        return self.conv2(jnp.concatenate([x, *(max_pool(x, side, 1, side // 2) for side in (5, 9, 13))], axis=-1))


class CSPDarknet(Backbone):
    """A stem of stride 2 and four stages that halve the map and double the channels each."""

    dark2: Chain
    dark3: Chain
    dark4: Chain
    dark5: Chain

    def __init__(self, width: int, depth: int, separable: bool, *, in_channels: int = 3, rngs: nnx.Rngs):
        self.stem = Focus(in_channels, width, rngs=rngs)
        for index, repeats in enumerate((depth, 3 * depth, 3 * depth, depth)):
            channels, last = width * 2 ** (index + 1), index == 3
            narrow = spatial(channels // 2, channels, 2, separable=separable, rngs=rngs)
            pooling = [PyramidPooling(channels, rngs=rngs)] if last else []
            stage = CrossStage(channels, channels, repeats, not last, separable, rngs=rngs)
            setattr(self, f"dark{index + 2}", Chain([narrow, *pooling, stage]))

    def stages(self) -> Mapping[str, StageFunction]:
        return {
            "stem": Chain([self.stem]),
            "dark2": self.dark2,
            "dark3": self.dark3,
            "dark4": self.dark4,
            "dark5": self.dark5,
        }


# The authors' configurations: widths times 64, depths times 3, rounded (arXiv:2107.08430, section 2.2, table 2).
# name: (channels of the stem, bottlenecks in the first stage, separable convolutions, image side)
VARIANTS = {
    "cspdarknet_nano": (16, 1, True, 416),
    "cspdarknet_tiny": (24, 1, False, 416),
    "cspdarknet_s": (32, 1, False, 640),
    "cspdarknet_m": (48, 2, False, 640),
    "cspdarknet_l": (64, 3, False, 640),
    "cspdarknet_x": (80, 4, False, 640),
}
CITATION = """@article{ge2021yolox,
  title = {{YOLOX}: Exceeding {YOLO} Series in 2021},
  author = {Ge, Zheng and Liu, Songtao and Wang, Feng and Li, Zeming and Sun, Jian},
  journal = {arXiv:2107.08430},
  year = {2021}
}"""
PYRAMID = "the detector's feature pyramid"
IGNORED = {
    "*head.*": "the detector's head",
    "*lateral_conv0.*": PYRAMID,
    "*reduce_conv1.*": PYRAMID,
    "*bu_conv[12].*": PYRAMID,
    "*C3_[np][34].*": PYRAMID,
}


def is_a_detector(tensors: Mapping[str, Any]) -> bool:
    """Whether the file holds a whole YOLOX, which takes pixels as they are (since its version 0.1.1)."""
    return any("lateral_conv0." in name for name in tensors)


def _spec(name: str) -> BackboneSpec:
    width, depth, separable, side = VARIANTS[name]
    preprocess = Preprocess(size=(side, side), crop_pct=1.0, crop_mode="squash")
    pixels = Preprocess(
        preprocess.size, (0.0,) * 3, (1 / 255,) * 3, crop_pct=1.0, crop_mode=preprocess.crop_mode, channels="BGR"
    )
    return BackboneSpec(
        name=name,
        family="CSPDarknet",
        build=partial(CSPDarknet, width, depth, separable),
        stages=(
            Stage("stem", width, 2, modules=("stem",)),
            *(Stage(f"dark{i + 1}", width * 2**i, 2 ** (i + 1), modules=(f"dark{i + 1}",)) for i in range(1, 5)),
        ),
        classifier=ClassifierLayout("classifier", labels=""),
        preprocess=preprocess,
        native_layout="original",
        ignored=IGNORED,
        conventions=(Convention("YOLOX", is_a_detector, pixels),),
        fold=2,
        size_multiple=2,
        paper="https://arxiv.org/abs/2107.08430",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]

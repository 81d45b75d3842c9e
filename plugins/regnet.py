"""RegNetX and RegNetY.

Paper: Designing Network Design Spaces, arXiv:2003.13678. Names are timm's; torchvision's and transformers' layouts are
read too. Weights: timm's on the Hugging Face hub (licence in each row). The `_tv` variants round their widths as
torchvision does, where that gives others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import jax
import numpy as np
from flax import nnx
from jax import Array

from zoo.blocks.conv import ConvNormAct
from zoo.blocks.squeeze import SqueezeExciteFc
from zoo.blocks.transformer import drop_path_rates
from zoo.layers import Chain, DropPath
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Preprocess, Range, Stage, WeightSpec, weight_table


class Block(nnx.Module):
    """1x1, 3x3 in groups of `group` channels, in RegNetY squeeze-and-excitation, 1x1, and a shortcut (figure 4): all of
    one width."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, group: int, squeeze: bool, rate: float, *, rngs: nnx.Rngs
    ):
        linear = partial(ConvNormAct, act=jax.nn.identity, rngs=rngs)
        self.conv1 = ConvNormAct(inputs, outputs, 1, rngs=rngs)
        self.conv2 = ConvNormAct(outputs, outputs, 3, stride, 1, groups=outputs // group, rngs=rngs)
        self.se = SqueezeExciteFc(outputs, round(inputs / 4), rngs=rngs) if squeeze else None
        self.conv3 = linear(outputs, outputs, 1, scale_init=0.0)
        self.downsample = linear(inputs, outputs, 1, stride) if inputs != outputs or stride != 1 else None
        self.drop_path = DropPath(rate, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = self.conv2(self.conv1(x))
        y = self.conv3(y if self.se is None else self.se(y))
        return jax.nn.relu(self.drop_path(y) + (x if self.downsample is None else self.downsample(x)))


class Group(nnx.Module):
    """Blocks of one width, called `b1` and so on."""

    def __init__(self, blocks: list[Block]):
        self.depth = len(blocks)
        for i, block in enumerate(blocks, start=1):
            setattr(self, f"b{i}", block)

    def chain(self) -> Chain:
        """The blocks in order."""
        return Chain([getattr(self, f"b{i}") for i in range(1, self.depth + 1)])


class RegNet(Backbone):
    """A 3x3 stem of stride 2 and four groups of blocks, each of stride 2."""

    def __init__(self, name: str, *, in_channels: int = 3, drop_path_rate: float = 0.0, rngs: nnx.Rngs):
        widths, depths, group = plan(name)
        squeeze = name.startswith("regnety")
        self.stem = ConvNormAct(in_channels, 32, 3, 2, 1, rngs=rngs)
        rates, inputs = iter(drop_path_rates(drop_path_rate, sum(depths))), 32
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            side = min(group, width)
            first = Block(inputs, width, 2, side, squeeze, next(rates), rngs=rngs)
            rest = [Block(width, width, 1, side, squeeze, next(rates), rngs=rngs) for _ in range(depth - 1)]
            setattr(self, f"s{index}", Group([first, *rest]))
            inputs = width

    def stages(self) -> Mapping[str, StageFunction]:
        return {"stem": self.stem, **{f"s{i}": getattr(self, f"s{i}").chain() for i in range(1, 5)}}


# The authors' configurations (facebookresearch/pycls) in the terms of section 3.3:
# name: (w_0, w_a, w_m, width of a group, depth, tag of the default weights)
VARIANTS = {
    "regnetx_002": (24, 36.44, 2.49, 8, 13, "pycls_in1k"),
    "regnetx_004": (24, 24.48, 2.54, 16, 22, "pycls_in1k"),
    "regnetx_004_tv": (24, 24.48, 2.54, 16, 22, "tv2_in1k"),
    "regnetx_006": (48, 36.97, 2.24, 24, 16, "pycls_in1k"),
    "regnetx_008": (56, 35.73, 2.28, 16, 16, "tv2_in1k"),
    "regnetx_016": (80, 34.01, 2.25, 24, 18, "tv2_in1k"),
    "regnetx_032": (88, 26.31, 2.25, 48, 25, "tv2_in1k"),
    "regnetx_040": (96, 38.65, 2.43, 40, 23, "pycls_in1k"),
    "regnetx_064": (184, 60.83, 2.07, 56, 17, "pycls_in1k"),
    "regnetx_080": (80, 49.56, 2.88, 120, 23, "tv2_in1k"),
    "regnetx_120": (168, 73.36, 2.37, 112, 19, "pycls_in1k"),
    "regnetx_160": (216, 55.59, 2.1, 128, 22, "tv2_in1k"),
    "regnety_002": (24, 36.44, 2.49, 8, 13, "pycls_in1k"),
    "regnety_004": (48, 27.89, 2.09, 8, 16, "tv2_in1k"),
    "regnety_006": (48, 32.54, 2.32, 16, 15, "pycls_in1k"),
    "regnety_008": (56, 38.84, 2.4, 16, 14, "pycls_in1k"),
    "regnety_008_tv": (56, 38.84, 2.4, 16, 14, "tv2_in1k"),
    "regnety_016": (48, 20.71, 2.65, 24, 27, "tv2_in1k"),
    "regnety_032": (80, 42.63, 2.66, 24, 21, "ra_in1k"),
    "regnety_040": (96, 31.41, 2.24, 64, 22, "ra3_in1k"),
    "regnety_064": (112, 33.22, 2.27, 72, 25, "ra3_in1k"),
    "regnety_080": (192, 76.82, 2.19, 56, 17, "ra3_in1k"),
    "regnety_080_tv": (192, 76.82, 2.19, 56, 17, "tv2_in1k"),
    "regnety_120": (168, 73.36, 2.37, 112, 19, "sw_in12k_ft_in1k"),
    "regnety_160": (200, 106.23, 2.48, 112, 18, "sw_in12k_ft_in1k"),
}
# The variants that torchvision has too.
IN_TORCHVISION = {
    *("regnetx_004_tv", "regnetx_008", "regnetx_016", "regnetx_032", "regnetx_080", "regnetx_160"),
    *("regnety_004", "regnety_008_tv", "regnety_016", "regnety_032", "regnety_080_tv", "regnety_160"),
}


def plan(name: str) -> tuple[list[int], list[int], int]:
    """Return (width of each group of blocks, its depth, width of a group of channels).

    The widths of the blocks lie on a line. Each is moved to the nearest w_0 times a power of w_m (eq. 2 to 4), then
    rounded to a multiple of 8, and last to whole groups of channels.
    """
    start, slope, base, group, depth, _ = VARIANTS[name]
    line = start + slope * np.arange(depth)
    powers = start * base ** np.round(np.log(line / start) / math.log(base))
    counts = sorted(Counter((np.round(powers / 8) * 8).astype(int).tolist()).items())

    def whole(width: int) -> int:
        side = min(group, width)
        if not name.endswith("_tv"):
            return round(width / side) * side
        rounded = max(side, int(width + side / 2) // side * side)
        return rounded + side if rounded < 0.9 * width else rounded

    return [whole(width) for width, _ in counts], [count for _, count in counts], group


def torchvision_layout(name: str) -> Mapping[str, str]:
    """torchvision's RegNet."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield from (("stem.conv", "stem.0"), ("stem.bn", "stem.1"), ("head.fc", "fc"))
        for i, depth in enumerate(plan(name)[1], start=1):
            for j in range(depth):
                here, there = f"s{i}.b{j + 1}", f"trunk_output.block{i}.block{i}-{j}"
                yield f"{here}.se", f"{there}.f.se"
                for a, b in (("conv1", "f.a"), ("conv2", "f.b"), ("conv3", "f.c"), ("downsample", "proj")):
                    yield from ((f"{here}.{a}.conv", f"{there}.{b}.0"), (f"{here}.{a}.bn", f"{there}.{b}.1"))

    return dict(pairs())


def transformers_layout(name: str) -> Mapping[str, str]:
    """transformers' RegNet, without the name of the body before its tensors."""

    def pairs() -> Iterator[tuple[str, str]]:
        last = "layer.3" if name.startswith("regnety") else "layer.2"
        yield from (("stem.conv", "embedder.embedder.convolution"), ("stem.bn", "embedder.embedder.normalization"))
        yield "head.fc", "classifier.1"
        for i, depth in enumerate(plan(name)[1], start=1):
            for j in range(depth):
                here, there = f"s{i}.b{j + 1}", f"encoder.stages.{i - 1}.layers.{j}"
                yield from ((f"{here}.se.fc{n}", f"{there}.layer.2.attention.{2 * n - 2}") for n in (1, 2))
                for a, b in (("conv1", "layer.0"), ("conv2", "layer.1"), ("conv3", last), ("downsample", "shortcut")):
                    yield f"{here}.{a}.conv", f"{there}.{b}.convolution"
                    yield f"{here}.{a}.bn", f"{there}.{b}.normalization"

    return dict(pairs())


CITATION = """@inproceedings{radosavovic2020designing,
  title = {Designing Network Design Spaces},
  author = {Radosavovic, Ilija and Kosaraju, Raj Prateek and Girshick, Ross and He, Kaiming and Doll{\\'a}r, Piotr},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2020}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    regnetx_002.pycls_in1k 224 0.875 bicubic mit
    regnetx_004.pycls_in1k 224 0.875 bicubic mit
    regnetx_004_tv.tv2_in1k 224 0.965 bicubic bsd-3-clause
    regnetx_006.pycls_in1k 224 0.875 bicubic mit
    regnetx_008.pycls_in1k 224 0.875 bicubic mit
    regnetx_008.tv2_in1k 224 0.965 bicubic bsd-3-clause
    regnetx_016.pycls_in1k 224 0.875 bicubic mit
    regnetx_016.tv2_in1k 224 0.965 bicubic bsd-3-clause
    regnetx_032.pycls_in1k 224 0.875 bicubic mit
    regnetx_032.tv2_in1k 224 0.965 bicubic bsd-3-clause
    regnetx_040.pycls_in1k 224 0.875 bicubic mit
    regnetx_064.pycls_in1k 224 0.875 bicubic mit
    regnetx_080.pycls_in1k 224 0.875 bicubic mit
    regnetx_080.tv2_in1k 224 0.965 bicubic bsd-3-clause
    regnetx_120.pycls_in1k 224 0.875 bicubic mit
    regnetx_160.pycls_in1k 224 0.875 bicubic mit
    regnetx_160.tv2_in1k 224 0.965 bicubic bsd-3-clause
    regnety_002.pycls_in1k 224 0.875 bicubic mit
    regnety_004.pycls_in1k 224 0.875 bicubic mit
    regnety_004.tv2_in1k 224 0.965 bicubic bsd-3-clause
    regnety_006.pycls_in1k 224 0.875 bicubic mit
    regnety_008.pycls_in1k 224 0.875 bicubic mit
    regnety_008_tv.tv2_in1k 224 0.965 bicubic bsd-3-clause
    regnety_016.pycls_in1k 224 0.875 bicubic mit
    regnety_016.tv2_in1k 224 0.965 bicubic bsd-3-clause
    regnety_032.pycls_in1k 224 0.875 bicubic mit
    regnety_032.ra_in1k 224 0.95 bicubic apache-2.0
    regnety_032.tv2_in1k 224 0.965 bicubic bsd-3-clause
    regnety_040.pycls_in1k 224 0.875 bicubic mit
    regnety_040.ra3_in1k 224 0.95 bicubic apache-2.0
    regnety_064.pycls_in1k 224 0.875 bicubic mit
    regnety_064.ra3_in1k 224 0.95 bicubic apache-2.0
    regnety_080.pycls_in1k 224 0.875 bicubic mit
    regnety_080.ra3_in1k 224 0.95 bicubic apache-2.0
    regnety_080_tv.tv2_in1k 224 0.965 bicubic bsd-3-clause
    regnety_120.pycls_in1k 224 0.875 bicubic mit
    regnety_120.sw_in12k 224 0.95 bicubic apache-2.0 classes=11821
    regnety_120.sw_in12k_ft_in1k 224 0.95 bicubic apache-2.0
    regnety_160.deit_in1k 224 0.95 bicubic apache-2.0
    regnety_160.lion_in12k_ft_in1k 224 0.95 bicubic apache-2.0
    regnety_160.pycls_in1k 224 0.875 bicubic mit
    regnety_160.sw_in12k 224 0.95 bicubic apache-2.0 classes=11821
    regnety_160.sw_in12k_ft_in1k 224 0.95 bicubic apache-2.0
    regnety_160.swag_ft_in1k 384 1.0 bicubic cc-by-nc-4.0
    regnety_160.swag_lc_in1k 224 0.965 bicubic cc-by-nc-4.0
    regnety_160.tv2_in1k 224 0.965 bicubic bsd-3-clause
""")


def _spec(name: str) -> BackboneSpec:
    widths = plan(name)[0]
    layouts: dict[str, Callable[[], Mapping[str, str]]] = {}
    if name in IN_TORCHVISION:
        layouts["torchvision"] = partial(torchvision_layout, name)
    if not name.endswith("_tv"):
        layouts["transformers"] = partial(transformers_layout, name)
    return BackboneSpec(
        name=name,
        family="RegNet",
        build=partial(RegNet, name),
        stages=(
            Stage("stem", 32, 2, modules=("stem",)),
            *(Stage(f"s{i}", width, 2 * 2**i, modules=(f"s{i}",)) for i, width in enumerate(widths, start=1)),
        ),
        classifier=ClassifierLayout("head.fc"),
        preprocess=Preprocess(interpolation="bicubic"),
        options={"drop_path_rate": Range(0.0)},
        pretrained=VARIANTS[name][-1],
        layouts=layouts,
        paper="https://arxiv.org/abs/2003.13678",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

"""MobileNetV3 large and small, trained in torch and, with the prefix `tf_`, converted from TensorFlow.

Paper: Searching for MobileNetV3, arXiv:1905.02244. Names are timm's; torchvision's layout is read too. The `minimal`
nets of the paper's authors have 3x3 kernels and ReLU throughout, and no squeeze-and-excitation. The converted weights
need TensorFlow's padding and its epsilon in the batch norms; torchvision's have the latter as well (`eps`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.blocks.inverted import (
    ConvBnAct,
    DepthwiseSeparable,
    InvertedNet,
    InvertedResidual,
    Row,
    Style,
    blocks_of,
    declared,
    round_channels,
)
from zoo.blocks.squeeze import SqueezeExcite, hard_sigmoid
from zoo.layers import Conv
from zoo.models.backbone import StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import (
    STATISTICS,
    BackboneSpec,
    ClassifierLayout,
    Convention,
    Preprocess,
    Range,
    Stage,
    Stored,
    WeightSpec,
    weight_table,
)

# arXiv:1905.02244, tables 1 and 2, by stage: (kernel, expanded channels, channels, squeeze, activation, stride). In the
# last stage there is one convolution without expansion, whose output is pooled.
HS, RE = jax.nn.hard_swish, jax.nn.relu
LARGE = (
    ((3, 16, 16, False, RE, 1),),
    ((3, 64, 24, False, RE, 2), (3, 72, 24, False, RE, 1)),
    ((5, 72, 40, True, RE, 2), (5, 120, 40, True, RE, 1), (5, 120, 40, True, RE, 1)),
    ((3, 240, 80, False, HS, 2), (3, 200, 80, False, HS, 1), (3, 184, 80, False, HS, 1), (3, 184, 80, False, HS, 1)),
    ((3, 480, 112, True, HS, 1), (3, 672, 112, True, HS, 1)),
    ((5, 672, 160, True, HS, 2), (5, 960, 160, True, HS, 1), (5, 960, 160, True, HS, 1)),
    ((1, 0, 960, False, HS, 1),),
)
SMALL = (
    ((3, 16, 16, True, RE, 2),),
    ((3, 72, 24, False, RE, 2), (3, 88, 24, False, RE, 1)),
    ((5, 96, 40, True, HS, 2), (5, 240, 40, True, HS, 1), (5, 240, 40, True, HS, 1)),
    ((5, 120, 48, True, HS, 1), (5, 144, 48, True, HS, 1)),
    ((5, 288, 96, True, HS, 2), (5, 576, 96, True, HS, 1), (5, 576, 96, True, HS, 1)),
    ((1, 0, 576, False, HS, 1),),
)
# size: (stages, channels of the head)
SIZES = {"large": (LARGE, 1280), "small": (SMALL, 1024)}
# name: (size, width multiplier, minimal, tag of the default weights)
VARIANTS = {
    "mobilenetv3_large_075": ("large", 0.75, False, None),
    "mobilenetv3_large_100": ("large", 1.0, False, "ra_in1k"),
    "mobilenetv3_small_050": ("small", 0.5, False, "lamb_in1k"),
    "mobilenetv3_small_075": ("small", 0.75, False, "lamb_in1k"),
    "mobilenetv3_small_100": ("small", 1.0, False, "lamb_in1k"),
    "tf_mobilenetv3_large_075": ("large", 0.75, False, "in1k"),
    "tf_mobilenetv3_large_100": ("large", 1.0, False, "in1k"),
    "tf_mobilenetv3_large_minimal_100": ("large", 1.0, True, "in1k"),
    "tf_mobilenetv3_small_075": ("small", 0.75, False, "in1k"),
    "tf_mobilenetv3_small_100": ("small", 1.0, False, "in1k"),
    "tf_mobilenetv3_small_minimal_100": ("small", 1.0, True, "in1k"),
}


def squeeze(inputs: int, wide: int, rngs: nnx.Rngs) -> SqueezeExcite:
    """A quarter of the wide map's channels (section 5.3), rounded, with the piecewise linear gate."""
    del inputs
    return SqueezeExcite(wide, round_channels(wide / 4), gate=hard_sigmoid, rngs=rngs)


def plan(name: str) -> tuple[tuple[Row, ...], ...]:
    """The rows of a variant by stage. Expansion is a factor, so that it scales with the rounded input channels."""
    size, width, minimal, _ = VARIANTS[name]
    stages, inputs = [], 16
    for lines in SIZES[size][0]:
        rows = []
        for kernel, wide, outputs, squeezed, act, stride in lines:
            block: Any = InvertedResidual if wide > inputs else DepthwiseSeparable if wide else ConvBnAct
            args: dict[str, Any] = {"expansion": wide / inputs} if wide > inputs else {}
            if wide and not minimal:
                args |= {"squeeze": squeezed, "act": act}
            rows.append(
                Row(block, 1, min(kernel, 3) if minimal else kernel, stride, round_channels(outputs * width), args)
            )
            inputs = outputs
        stages.append(tuple(rows))
    return tuple(stages)


class MobileNetV3(InvertedNet):
    """The stem, six or seven stages, and the head: a 1x1 convolution after pooling."""

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        eps: float = 1e-5,
        drop_path_rate: float = 0.0,
        rngs: nnx.Rngs,
    ):
        size, _, minimal, _ = VARIANTS[name]
        style = Style(RE if minimal else HS, eps=eps, squeeze=squeeze)
        if name.startswith("tf_"):
            style = replace(style, eps=1e-3, padding="same")
        stages = plan(name)
        super().__init__(stages, 16, 0, style, in_channels=in_channels, drop_path_rate=drop_path_rate, rngs=rngs)
        self.conv_head = Conv(stages[-1][-1].channels, SIZES[size][1], 1, rngs=rngs)

    def stages(self) -> Mapping[str, StageFunction]:
        return {**super().stages(), "head": self._head}

    def _head(self, x: Array) -> Array:
        """(b, h, w, c) -> (b, features)."""
        return self.act(self.conv_head(jnp.mean(x, axis=(1, 2), keepdims=True))).reshape(x.shape[0], -1)


def torchvision_layout(name: str) -> Mapping[str, str | Stored]:
    """Module paths here -> module paths of torchvision's MobileNetV3, where a block is a list of steps. Its head is an
    affine map of the pooled features."""

    def pairs() -> Iterator[tuple[str, str | Stored]]:
        yield from (("conv_stem", "features.0.0"), ("bn1", "features.0.1"))
        *blocks, (last, row) = blocks_of(plan(name))
        for flat, (path, row) in enumerate(blocks):
            wide = row.block is InvertedResidual
            steps = [("conv_pw", "bn1")] if wide else []
            steps.append(("conv_dw", "bn2" if wide else "bn1"))
            steps += [("se.conv_reduce", "se.conv_expand")] if row.args["squeeze"] else []
            steps.append(("conv_pwl", "bn3") if wide else ("conv_pw", "bn2"))
            for i, names in enumerate(steps):
                there = ("fc1", "fc2") if names[0].startswith("se") else ("0", "1")
                for leaf, other in zip(names, there, strict=True):
                    yield f"{path}.{leaf}", f"features.{flat + 1}.block.{i}.{other}"
        final = f"features.{len(blocks) + 1}"
        yield from ((f"{last}.conv", f"{final}.0"), (f"{last}.bn1", f"{final}.1"))
        shape = (SIZES[VARIANTS[name][0]][1], -1)
        yield "conv_head.weight", Stored(("classifier.0.weight",), shape)
        yield from (("conv_head.bias", "classifier.0.bias"), ("classifier", "classifier.3"))

    return dict(pairs())


def has_torchvision_names(tensors: Mapping[str, Any]) -> bool:
    """Whether these are torchvision's names, possibly below a wrapper's."""
    return any(name.endswith("features.1.block.0.0.weight") for name in tensors)


TENSORFLOW_PREPROCESS = Preprocess(mean=STATISTICS["half"][0], std=STATISTICS["half"][1])
CITATION = """@inproceedings{howard2019searching,
  title = {Searching for {MobileNetV3}},
  author = {Howard, Andrew and Sandler, Mark and Chu, Grace and Chen, Liang-Chieh and Chen, Bo and Tan, Mingxing and
    Wang, Weijun and Zhu, Yukun and Pang, Ruoming and Vasudevan, Vijay and Le, Quoc V. and Adam, Hartwig},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  pages = {1314--1324},
  year = {2019}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    mobilenetv3_large_100.ra4_e3600_r224_in1k 224 0.95 bicubic apache-2.0 stats=half
    mobilenetv3_large_100.ra_in1k 224 0.875 bicubic apache-2.0
    mobilenetv3_small_050.lamb_in1k 224 0.875 bicubic apache-2.0
    mobilenetv3_small_075.lamb_in1k 224 0.875 bicubic apache-2.0
    mobilenetv3_small_100.lamb_in1k 224 0.875 bicubic apache-2.0
    tf_mobilenetv3_large_075.in1k 224 0.875 bilinear apache-2.0 stats=half
    tf_mobilenetv3_large_100.in1k 224 0.875 bilinear apache-2.0 stats=half
    tf_mobilenetv3_large_minimal_100.in1k 224 0.875 bilinear apache-2.0 stats=half
    tf_mobilenetv3_small_075.in1k 224 0.875 bilinear apache-2.0 stats=half
    tf_mobilenetv3_small_100.in1k 224 0.875 bilinear apache-2.0 stats=half
    tf_mobilenetv3_small_minimal_100.in1k 224 0.875 bilinear apache-2.0 stats=half
    mobilenetv3_large_100.miil_in21k 224 0.875 bilinear apache-2.0 classes=11221 stats=none
    mobilenetv3_large_100.miil_in21k_ft_in1k 224 0.875 bilinear apache-2.0 stats=none
""")


def _spec(name: str) -> BackboneSpec:
    size, width, _, tag = VARIANTS[name]
    stages, features = plan(name), SIZES[size][1]
    converted = name.startswith("tf_")
    torchvision_has_it = width == 1 and not converted
    return BackboneSpec(
        name=name,
        family="MobileNetV3",
        build=partial(MobileNetV3, name),
        stages=(*declared(stages, 16), Stage("head", features, 1, kind="vector", modules=("conv_head",))),
        classifier=ClassifierLayout("classifier", dropout=0.2),
        preprocess=TENSORFLOW_PREPROCESS if converted else Preprocess(interpolation="bicubic"),
        options={"drop_path_rate": Range(0.0), **({"eps": (1e-5, 1e-3)} if torchvision_has_it else {})},
        pretrained=tag,
        conventions=(Convention("torchvision", has_torchvision_names, options={"eps": 1e-3}),)
        if torchvision_has_it
        else (),
        export_args={"eps": {1e-3: {"bn_eps": 1e-3}}} if torchvision_has_it else {},
        layouts={"torchvision": partial(torchvision_layout, name)} if torchvision_has_it else {},
        paper="https://arxiv.org/abs/1905.02244",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

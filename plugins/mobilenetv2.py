"""MobileNetV2 and its deeper `d` variants.

Paper: MobileNetV2: Inverted Residuals and Linear Bottlenecks, arXiv:1801.04381. Names are timm's; torchvision's layout
is read too. `padding="same"` pads strided convolutions at the bottom and right as TensorFlow does, which weights
converted from TensorFlow need: padding belongs to the weights, not to the architecture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
from flax import nnx
from jax import Array

from zoo.backbone import Backbone, StageFunction
from zoo.hookspecs import hookimpl
from zoo.layers import BatchNorm, Chain, Conv, Padding
from zoo.spec import STATISTICS, BackboneSpec, ClassifierLayout, Convention, Preprocess, Stage, WeightSpec, weight_table


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, never more than a tenth below `channels` (the paper's reference code)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class DepthwiseSeparable(nnx.Module):
    """Depthwise 3x3, then a linear 1x1 (the block without expansion)."""

    def __init__(self, inputs: int, outputs: int, stride: int, padding: Padding, *, rngs: nnx.Rngs):
        self.conv_dw = Conv(inputs, inputs, 3, stride, padding, groups=inputs, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(inputs, rngs=rngs)
        self.conv_pw = Conv(inputs, outputs, 1, bias=False, rngs=rngs)
        self.bn2 = BatchNorm(outputs, rngs=rngs)
        self.residual = stride == 1 and inputs == outputs

    def __call__(self, x: Array) -> Array:
        y = jax.nn.relu6(self.bn1(self.conv_dw(x)))
        y = self.bn2(self.conv_pw(y))
        return x + y if self.residual else y


class InvertedResidual(nnx.Module):
    """1x1 expansion by six, depthwise 3x3, linear 1x1 projection (arXiv:1801.04381, table 1)."""

    def __init__(self, inputs: int, outputs: int, stride: int, padding: Padding, *, rngs: nnx.Rngs):
        inner = round_channels(inputs * 6)
        self.conv_pw = Conv(inputs, inner, 1, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(inner, rngs=rngs)
        self.conv_dw = Conv(inner, inner, 3, stride, padding, groups=inner, bias=False, rngs=rngs)
        self.bn2 = BatchNorm(inner, rngs=rngs)
        self.conv_pwl = Conv(inner, outputs, 1, bias=False, rngs=rngs)
        self.bn3 = BatchNorm(outputs, rngs=rngs)
        self.residual = stride == 1 and inputs == outputs

    def __call__(self, x: Array) -> Array:
        y = jax.nn.relu6(self.bn1(self.conv_pw(x)))
        y = jax.nn.relu6(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.residual else y


# arXiv:1801.04381, table 2: (repeats, stride of the first, channels). The first row has no expansion.
ROWS = ((1, 1, 16), (2, 2, 24), (3, 2, 32), (4, 2, 64), (3, 1, 96), (3, 2, 160), (1, 1, 320))
# name: (width multiplier, depth multiplier, stem and head keep their width, tag of the default weights)
VARIANTS = {
    "mobilenetv2_035": (0.35, 1.0, False, None),
    "mobilenetv2_050": (0.5, 1.0, False, "lamb_in1k"),
    "mobilenetv2_075": (0.75, 1.0, False, None),
    "mobilenetv2_100": (1.0, 1.0, False, "ra_in1k"),
    "mobilenetv2_110d": (1.1, 1.2, True, "ra_in1k"),
    "mobilenetv2_120d": (1.2, 1.4, True, "ra_in1k"),
    "mobilenetv2_140": (1.4, 1.0, False, "ra_in1k"),
}


def plan(name: str) -> tuple[int, tuple[tuple[int, int, int], ...], int]:
    """(stem channels, rows of (repeats, stride, channels), head channels) of a variant."""
    width, depth, fixed, _ = VARIANTS[name]
    last = len(ROWS) - 1
    rows = tuple(
        (n if fixed and i in (0, last) else math.ceil(n * depth), stride, round_channels(c * width))
        for i, (n, stride, c) in enumerate(ROWS)
    )
    return (
        32 if fixed else round_channels(32 * width),
        rows,
        1280 if fixed else max(1280, round_channels(1280 * width)),
    )


class MobileNetV2(Backbone):
    """Stem, seven rows of blocks, and the 1x1 convolution that widens the last map."""

    def __init__(self, name: str, *, in_channels: int = 3, padding: str = "torch", rngs: nnx.Rngs):
        stem, rows, head = plan(name)
        pad: Padding = "same" if padding == "same" else 1
        self.conv_stem = Conv(in_channels, stem, 3, 2, pad, bias=False, rngs=rngs)
        self.bn1 = BatchNorm(stem, rngs=rngs)
        blocks, inputs = [], stem
        for index, (repeats, stride, outputs) in enumerate(rows):
            block = DepthwiseSeparable if index == 0 else InvertedResidual
            row = []
            for i in range(repeats):
                row.append(block(inputs, outputs, stride if i == 0 else 1, pad, rngs=rngs))
                inputs = outputs
            blocks.append(Chain(row))
        self.blocks = nnx.List(blocks)
        self.conv_head = Conv(inputs, head, 1, bias=False, rngs=rngs)
        self.bn2 = BatchNorm(head, rngs=rngs)

    def stages(self) -> Mapping[str, StageFunction]:
        return {
            "stem": lambda x: jax.nn.relu6(self.bn1(self.conv_stem(x))),
            **{f"blocks.{i}": row for i, row in enumerate(self.blocks)},
            "head": lambda x: jax.nn.relu6(self.bn2(self.conv_head(x))),
        }


def torchvision_layout(name: str) -> Mapping[str, str]:
    """Module paths here -> module paths of torchvision's MobileNetV2, whose blocks stand in one flat list."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield from (("conv_stem", "features.0.0"), ("bn1", "features.0.1"))
        flat = 1
        for index, (repeats, *_) in enumerate(plan(name)[1]):
            names = (
                {"conv_dw": "conv.0.0", "bn1": "conv.0.1", "conv_pw": "conv.1", "bn2": "conv.2"}
                if index == 0
                else {
                    "conv_pw": "conv.0.0",
                    "bn1": "conv.0.1",
                    "conv_dw": "conv.1.0",
                    "bn2": "conv.1.1",
                    "conv_pwl": "conv.2",
                    "bn3": "conv.3",
                }
            )
            for i in range(repeats):
                yield from ((f"blocks.{index}.{i}.{here}", f"features.{flat}.{there}") for here, there in names.items())
                flat += 1
        yield from (("conv_head", f"features.{flat}.0"), ("bn2", f"features.{flat}.1"), ("classifier", "classifier.1"))

    return dict(pairs())


CITATION = """@inproceedings{sandler2018mobilenetv2,
  title = {{MobileNetV2}: Inverted Residuals and Linear Bottlenecks},
  author = {Sandler, Mark and Howard, Andrew and Zhu, Menglong and Zhmoginov, Andrey and Chen, Liang-Chieh},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  pages = {4510--4520},
  year = {2018}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    mobilenetv2_050.lamb_in1k 224 0.875 bicubic apache-2.0
    mobilenetv2_100.ra_in1k 224 0.875 bicubic apache-2.0
    mobilenetv2_110d.ra_in1k 224 0.875 bicubic apache-2.0
    mobilenetv2_120d.ra_in1k 224 0.875 bicubic apache-2.0
    mobilenetv2_140.ra_in1k 224 0.875 bicubic apache-2.0
""")
TENSORFLOW_PREPROCESS = Preprocess(mean=STATISTICS["half"][0], std=STATISTICS["half"][1])
TENSORFLOW_OPTIONS = {"padding": "same"}
TENSORFLOW_WEIGHTS = WeightSpec(
    "mobilenetv2_100.coral_in1k",
    sha256="31f2ba18ab9bc5f95b8a7d9ae529dc558595354b741e0e7073439a09b602c5bf",
    preprocess=TENSORFLOW_PREPROCESS,
    labels="imagenet-1k",
    options=TENSORFLOW_OPTIONS,
    license="apache-2.0",
    commercial_use="yes",
    note="google-coral/test_data mobilenet_v2_1.0_224_quant, dequantised to float32 in torchvision's layout",
)


def batch_norm_was_folded(tensors: Mapping[str, Any]) -> bool:
    """Whether every batch norm is the identity. Nets exported for inference by TensorFlow have theirs folded into the
    convolutions; torch's keep trained statistics."""
    means = [v for k, v in tensors.items() if k.endswith("running_mean")]
    variances = [v for k, v in tensors.items() if k.endswith("running_var")]
    return bool(means) and not any(v.any() for v in means) and all((v == 1).all() for v in variances)


def _spec(name: str) -> BackboneSpec:
    stem, rows, head = plan(name)
    stages, stride = [Stage("stem", stem, 2, modules=("conv_stem", "bn1"))], 2
    for index, (_, step, channels) in enumerate(rows):
        stride *= step
        stages.append(Stage(f"blocks.{index}", channels, stride, modules=(f"blocks.{index}",)))
    return BackboneSpec(
        name=name,
        family="MobileNetV2",
        build=partial(MobileNetV2, name),
        stages=(*stages, Stage("head", head, stride, modules=("conv_head", "bn2"))),
        classifier=ClassifierLayout("classifier", dropout=0.2),
        preprocess=Preprocess(interpolation="bicubic"),
        options={"padding": ("torch", "same")},
        pretrained=VARIANTS[name][3],
        conventions=(Convention("tensorflow", batch_norm_was_folded, TENSORFLOW_PREPROCESS, TENSORFLOW_OPTIONS),),
        export_args={"padding": {"same": {"pad_type": "same"}}},
        layouts={"torchvision": partial(torchvision_layout, name)},
        paper="https://arxiv.org/abs/1801.04381",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS, TENSORFLOW_WEIGHTS]

"""MobileNetV2 and its deeper `d` variants.

Paper: MobileNetV2: Inverted Residuals and Linear Bottlenecks, arXiv:1801.04381. Names are timm's; the layouts of
torchvision and transformers are read too. `padding="same"` pads strided convolutions at the bottom and right as
TensorFlow does, which weights converted from TensorFlow need, as they need its epsilon in the batch norms (`eps`):
both belong to the weights, not to the architecture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal

import jax
from flax import nnx

from zoo.blocks import dilation
from zoo.blocks.inverted import (
    DepthwiseSeparable,
    InvertedNet,
    InvertedResidual,
    Row,
    Style,
    blocks_of,
    declared,
    round_channels,
)
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import (
    STATISTICS,
    BackboneSpec,
    ClassifierLayout,
    Convention,
    Preprocess,
    WeightSpec,
    weight_table,
)

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


def plan(name: str) -> tuple[int, tuple[tuple[Row], ...], int]:
    """(stem channels, rows, head channels) of a variant."""
    width, depth, fixed, _ = VARIANTS[name]
    rows = []
    for index, (repeats, stride, channels) in enumerate(ROWS):
        if not fixed or 0 < index < len(ROWS) - 1:
            repeats = math.ceil(repeats * depth)
        block = DepthwiseSeparable if index == 0 else InvertedResidual
        rows.append((Row(block, repeats, 3, stride, round_channels(channels * width)),))
    stem = 32 if fixed else round_channels(32 * width)
    return stem, tuple(rows), 1280 if fixed else max(1280, round_channels(1280 * width))


def build(
    name: str,
    *,
    in_channels: int = 3,
    padding: Literal["torch", "same"] = "torch",
    eps: float = 1e-5,
    output_stride: int = 32,
    rngs: nnx.Rngs,
) -> InvertedNet:
    """The stem, seven rows of blocks, and the 1x1 convolution that widens the last map."""
    stem, rows, head = plan(name)
    style = Style(jax.nn.relu6, eps, padding)
    return InvertedNet(rows, stem, head, style, in_channels=in_channels, output_stride=output_stride, rngs=rngs)


def torchvision_layout(name: str) -> Mapping[str, str]:
    """Module paths here -> module paths of torchvision's MobileNetV2, whose blocks stand in one flat list."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield from (("conv_stem", "features.0.0"), ("bn1", "features.0.1"))
        flat = 1
        for path, row in blocks_of(plan(name)[1]):
            names = (
                {"conv_dw": "conv.0.0", "bn1": "conv.0.1", "conv_pw": "conv.1", "bn2": "conv.2"}
                if row.block is DepthwiseSeparable
                else {
                    "conv_pw": "conv.0.0",
                    "bn1": "conv.0.1",
                    "conv_dw": "conv.1.0",
                    "bn2": "conv.1.1",
                    "conv_pwl": "conv.2",
                    "bn3": "conv.3",
                }
            )
            yield from ((f"{path}.{here}", f"features.{flat}.{there}") for here, there in names.items())
            flat += 1
        yield from (("conv_head", f"features.{flat}.0"), ("bn2", f"features.{flat}.1"), ("classifier", "classifier.1"))

    return dict(pairs())


def transformers_layout(name: str) -> Mapping[str, str]:
    """Module paths here -> module paths of transformers' MobileNetV2, whose stem holds the first block."""

    def pairs() -> Iterator[tuple[str, str]]:
        steps = {"conv_pw": "expand_1x1", "conv_dw": "conv_3x3", "conv_pwl": "reduce_1x1"}
        norms = {"conv_pw": "bn1", "conv_dw": "bn2", "conv_pwl": "bn3"}
        convolutions = [
            ("conv_stem", "bn1", "conv_stem.first_conv"),
            ("blocks.0.0.conv_dw", "blocks.0.0.bn1", "conv_stem.conv_3x3"),
            ("blocks.0.0.conv_pw", "blocks.0.0.bn2", "conv_stem.reduce_1x1"),
            ("conv_head", "bn2", "conv_1x1"),
        ]
        for flat, (path, _) in enumerate(list(blocks_of(plan(name)[1]))[1:]):
            convolutions += [(f"{path}.{k}", f"{path}.{norms[k]}", f"layer.{flat}.{v}") for k, v in steps.items()]
        for convolution, norm, there in convolutions:
            yield from ((convolution, f"{there}.convolution"), (norm, f"{there}.normalization"))
        yield "classifier", "classifier"

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
    """Whether every batch norm is the identity.

    TensorFlow folds batch norms into the convolutions when it exports a network for inference; torch's networks keep
    the trained statistics.
    """
    means = [v for k, v in tensors.items() if k.endswith("running_mean")]
    variances = [v for k, v in tensors.items() if k.endswith("running_var")]
    return bool(means) and not any(v.any() for v in means) and all((v == 1).all() for v in variances)


def has_transformers_names(tensors: Mapping[str, Any]) -> bool:
    """Whether these are transformers' names, with or without that of the body."""
    return any(name.endswith("conv_stem.first_conv.convolution.weight") for name in tensors)


CONVENTIONS = (
    Convention("tensorflow", batch_norm_was_folded, TENSORFLOW_PREPROCESS, TENSORFLOW_OPTIONS),
    Convention("tensorflow", has_transformers_names, TENSORFLOW_PREPROCESS, {"padding": "same", "eps": 1e-3}),
)


def _spec(name: str) -> BackboneSpec:
    stem, rows, head = plan(name)
    layouts = {"torchvision": partial(torchvision_layout, name)}
    options: dict[str, tuple[Any, ...]] = {"padding": ("torch", "same"), **dilation.OPTIONS}
    export_args: dict[str, dict[Any, dict[str, Any]]] = {"padding": {"same": {"pad_type": "same"}}, **dilation.EXPORT}
    if not VARIANTS[name][2]:  # Google's widths
        layouts["transformers"] = partial(transformers_layout, name)
        options["eps"], export_args["eps"] = (1e-5, 1e-3), {1e-3: {"bn_eps": 1e-3}}
    return BackboneSpec(
        name=name,
        family="MobileNetV2",
        build=partial(build, name),
        stages=declared(rows, stem, head),
        classifier=ClassifierLayout("classifier", dropout=0.2),
        preprocess=Preprocess(interpolation="bicubic"),
        options=options,
        capabilities=(dilation.DILATABLE,),
        pretrained=VARIANTS[name][3],
        conventions=CONVENTIONS,
        export_args=export_args,
        layouts=layouts,
        paper="https://arxiv.org/abs/1801.04381",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS, TENSORFLOW_WEIGHTS]

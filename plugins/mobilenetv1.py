"""MobileNet (v1): depthwise and 1x1 convolutions in turn, without shortcuts.

Paper: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, arXiv:1704.04861. Names and
weights are timm's. `mobilenetv1_100h` has one more 1x1 convolution. `mobilenetv1_025`, with leaky ReLU, is the small
backbone of RetinaFace's published implementation, whose layout is read as `original`. Google's weights come in
transformers' layout; they need TensorFlow's padding and its epsilon in the batch norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal

import jax
from flax import nnx

from zoo.blocks.inverted import (
    Activation,
    DepthwiseSeparable,
    InvertedNet,
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

# arXiv:1704.04861, table 1: (repeats, stride of the first, channels).
ROWS = ((1, 1, 64), (2, 2, 128), (2, 2, 256), (6, 2, 512), (2, 2, 1024))
LEAKY = partial(jax.nn.leaky_relu, negative_slope=0.1)
# name: (width multiplier, channels of the head or 0, activation, tag of the default weights)
VARIANTS: dict[str, tuple[float, int, Activation, str | None]] = {
    "mobilenetv1_025": (0.25, 0, LEAKY, None),
    "mobilenetv1_100": (1.0, 0, jax.nn.relu6, "ra4_e3600_r224_in1k"),
    "mobilenetv1_100h": (1.0, 1024, jax.nn.relu6, "ra4_e3600_r224_in1k"),
    "mobilenetv1_125": (1.25, 0, jax.nn.relu6, "ra4_e3600_r224_in1k"),
}


def plan(name: str) -> tuple[int, tuple[tuple[Row], ...]]:
    """(stem channels, rows) of a variant."""
    width = VARIANTS[name][0]
    args = {"last_act": True}
    rows = ((Row(DepthwiseSeparable, n, 3, stride, round_channels(c * width), args),) for n, stride, c in ROWS)
    return round_channels(32 * width), tuple(rows)


def build(
    name: str,
    *,
    in_channels: int = 3,
    padding: Literal["torch", "same"] = "torch",
    eps: float = 1e-5,
    rngs: nnx.Rngs,
) -> InvertedNet:
    """The stem and five rows of blocks."""
    stem, rows = plan(name)
    _, head, act, _ = VARIANTS[name]
    return InvertedNet(rows, stem, head, Style(act, eps, padding), in_channels=in_channels, rngs=rngs)


def original_layout(name: str) -> Mapping[str, str]:
    """Module paths here -> module paths of RetinaFace's MobileNet, in three stages that end where the stride does."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield from (("conv_stem", "stage1.0.0"), ("bn1", "stage1.0.1"), ("classifier", "fc"))
        places = [*(f"stage1.{i}" for i in range(1, 6)), *(f"stage2.{i}" for i in range(6)), "stage3.0", "stage3.1"]
        for (path, _), there in zip(blocks_of(plan(name)[1]), places, strict=True):
            for leaf, index in {"conv_dw": 0, "bn1": 1, "conv_pw": 3, "bn2": 4}.items():
                yield f"{path}.{leaf}", f"{there}.{index}"

    return dict(pairs())


def transformers_layout(name: str) -> Mapping[str, str]:
    """Module paths here -> module paths of transformers' MobileNetV1, in which each convolution is a layer."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield from (("conv_stem", "conv_stem.convolution"), ("bn1", "conv_stem.normalization"))
        yield "classifier", "classifier"
        for flat, (path, _) in enumerate(blocks_of(plan(name)[1])):
            for i, names in enumerate((("conv_dw", "bn1"), ("conv_pw", "bn2"))):
                there = (f"layer.{2 * flat + i}.{leaf}" for leaf in ("convolution", "normalization"))
                yield from ((f"{path}.{here}", other) for here, other in zip(names, there, strict=True))

    return dict(pairs())


def has_transformers_names(tensors: Mapping[str, Any]) -> bool:
    """Whether these are transformers' names, with or without that of the body."""
    return any(name.endswith("layer.0.convolution.weight") for name in tensors)


TENSORFLOW = Convention(
    "tensorflow",
    has_transformers_names,
    Preprocess(mean=STATISTICS["half"][0], std=STATISTICS["half"][1]),
    {"padding": "same", "eps": 1e-3},
)
CITATION = """@article{howard2017mobilenets,
  title = {{MobileNets}: Efficient Convolutional Neural Networks for Mobile Vision Applications},
  author = {Howard, Andrew G. and Zhu, Menglong and Chen, Bo and Kalenichenko, Dmitry and Wang, Weijun and
    Weyand, Tobias and Andreetto, Marco and Adam, Hartwig},
  journal = {arXiv preprint arXiv:1704.04861},
  year = {2017}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    mobilenetv1_100.ra4_e3600_r224_in1k 224 0.875 bicubic apache-2.0 stats=half
    mobilenetv1_100h.ra4_e3600_r224_in1k 224 0.875 bicubic apache-2.0 stats=half
    mobilenetv1_125.ra4_e3600_r224_in1k 224 0.9 bicubic apache-2.0 stats=half
""")


def _spec(name: str) -> BackboneSpec:
    stem, rows = plan(name)
    width, head, act, tag = VARIANTS[name]
    shared: dict[str, Any] = {}
    if act is LEAKY:
        shared["layouts"] = {"original": partial(original_layout, name)}
    elif width == 1 and not head:
        shared["layouts"] = {"transformers": partial(transformers_layout, name)}
        shared["options"] = {"padding": ("torch", "same"), "eps": (1e-5, 1e-3)}
        shared["export_args"] = {"padding": {"same": {"pad_type": "same"}}, "eps": {1e-3: {"bn_eps": 1e-3}}}
        shared["conventions"] = (TENSORFLOW,)
    return BackboneSpec(
        name=name,
        family="MobileNetV1",
        build=partial(build, name),
        stages=declared(rows, stem, head),
        classifier=ClassifierLayout("classifier", dropout=0.2),
        preprocess=Preprocess() if act is LEAKY else Preprocess(interpolation="bicubic"),
        pretrained=tag,
        paper="https://arxiv.org/abs/1704.04861",
        citation=CITATION,
        **shared,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

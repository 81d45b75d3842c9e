"""Inception v3.

Paper: Rethinking the Inception Architecture for Computer Vision, arXiv:1512.00567. Weights: TensorFlow's, also those
trained on adversarial images (arXiv:1611.01236), torchvision's and Gluon's, as timm publishes them on the Hugging Face
hub. Names are timm's and torchvision's alike; stages bear those of the paper's reference code. torchvision's weights
come from TensorFlow's and take images scaled to [-1, 1]: `transform_input` there undoes the usual normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping

from flax import nnx

from zoo.blocks.inception import Branches, Convolution, Step, convolution
from zoo.layers import AvgPool, Chain, MaxPool
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import STATISTICS, BackboneSpec, ClassifierLayout, Preprocess, Stage, WeightSpec, weight_table

NARROW, POOL = MaxPool(3, 2), AvgPool(3, 1, 1)


def inception_a(pool: int) -> tuple[tuple[Step, ...], ...]:
    """Factored 5x5 (arXiv:1512.00567, figure 5); `pool` channels follow the mean."""
    return (
        ({"branch1x1": (64, 1)},),
        ({"branch5x5_1": (48, 1)}, {"branch5x5_2": (64, 5)}),
        ({"branch3x3dbl_1": (64, 1)}, {"branch3x3dbl_2": (96, 3)}, {"branch3x3dbl_3": (96, 3)}),
        (POOL, {"branch_pool": (pool, 1)}),
    )


def inception_b() -> tuple[tuple[Step, ...], ...]:
    """From 35x35 to 17x17 (figure 10)."""
    return (
        ({"branch3x3": (384, 3, 2)},),
        ({"branch3x3dbl_1": (64, 1)}, {"branch3x3dbl_2": (96, 3)}, {"branch3x3dbl_3": (96, 3, 2)}),
        (NARROW,),
    )


def inception_c(width: int) -> tuple[tuple[Step, ...], ...]:
    """7x7 factored into rows and columns of `width` channels (figure 6)."""
    return (
        ({"branch1x1": (192, 1)},),
        ({"branch7x7_1": (width, 1)}, {"branch7x7_2": (width, (1, 7))}, {"branch7x7_3": (192, (7, 1))}),
        (
            {"branch7x7dbl_1": (width, 1)},
            {"branch7x7dbl_2": (width, (7, 1))},
            {"branch7x7dbl_3": (width, (1, 7))},
            {"branch7x7dbl_4": (width, (7, 1))},
            {"branch7x7dbl_5": (192, (1, 7))},
        ),
        (POOL, {"branch_pool": (192, 1)}),
    )


def inception_d() -> tuple[tuple[Step, ...], ...]:
    """From 17x17 to 8x8."""
    return (
        ({"branch3x3_1": (192, 1)}, {"branch3x3_2": (320, 3, 2)}),
        (
            {"branch7x7x3_1": (192, 1)},
            {"branch7x7x3_2": (192, (1, 7))},
            {"branch7x7x3_3": (192, (7, 1))},
            {"branch7x7x3_4": (192, 3, 2)},
        ),
        (NARROW,),
    )


def inception_e() -> tuple[tuple[Step, ...], ...]:
    """Rows and columns side by side, for the coarsest maps (figure 7)."""
    return (
        ({"branch1x1": (320, 1)},),
        ({"branch3x3_1": (384, 1)}, {"branch3x3_2a": (384, (1, 3)), "branch3x3_2b": (384, (3, 1))}),
        (
            {"branch3x3dbl_1": (448, 1)},
            {"branch3x3dbl_2": (384, 3)},
            {"branch3x3dbl_3a": (384, (1, 3)), "branch3x3dbl_3b": (384, (3, 1))},
        ),
        (POOL, {"branch_pool": (192, 1)}),
    )


# arXiv:1512.00567, table 1, with the sizes of the reference code. Stage: its stem convolutions, channels, stride.
STEM: Mapping[str, tuple[Mapping[str, Convolution], int, int]] = {
    "Conv2d_2b_3x3": ({"Conv2d_1a_3x3": (32, 3, 2), "Conv2d_2a_3x3": (32, 3, 1), "Conv2d_2b_3x3": (64, 3)}, 64, 2),
    "Conv2d_4a_3x3": ({"Conv2d_3b_1x1": (80, 1), "Conv2d_4a_3x3": (192, 3, 1)}, 192, 4),
}
# Stage: its branches, channels, stride.
MIXED: Mapping[str, tuple[tuple[tuple[Step, ...], ...], int, int]] = {
    "Mixed_5b": (inception_a(32), 256, 8),
    "Mixed_5c": (inception_a(64), 288, 8),
    "Mixed_5d": (inception_a(64), 288, 8),
    "Mixed_6a": (inception_b(), 768, 16),
    "Mixed_6b": (inception_c(128), 768, 16),
    "Mixed_6c": (inception_c(160), 768, 16),
    "Mixed_6d": (inception_c(160), 768, 16),
    "Mixed_6e": (inception_c(192), 768, 16),
    "Mixed_7a": (inception_d(), 1280, 32),
    "Mixed_7b": (inception_e(), 2048, 32),
    "Mixed_7c": (inception_e(), 2048, 32),
}


NARROWED = ("Conv2d_4a_3x3", "Mixed_5b")  # stages that a maximum of stride 2 opens


class InceptionV3(Backbone):
    """Two stages of plain convolutions and eleven of branches."""

    def __init__(self, *, in_channels: int = 3, rngs: nnx.Rngs):
        inputs = in_channels
        for convolutions, *_ in STEM.values():
            for name, spec in convolutions.items():
                setattr(self, name, convolution(inputs, spec, rngs=rngs))
                inputs = spec[0]
        for name, (branches, *_) in MIXED.items():
            module = Branches(inputs, *branches, rngs=rngs)
            setattr(self, name, module)
            inputs = module.channels

    def stages(self) -> Mapping[str, StageFunction]:
        stem = [[getattr(self, name) for name in convolutions] for convolutions, *_ in STEM.values()]
        mixed = {name: [getattr(self, name)] for name in MIXED}
        chains = dict(zip(STEM, stem, strict=True)) | mixed
        return {name: Chain([NARROW, *chain] if name in NARROWED else chain) for name, chain in chains.items()}


CITATION = """@inproceedings{szegedy2016rethinking,
  title = {Rethinking the Inception Architecture for Computer Vision},
  author = {Szegedy, Christian and Vanhoucke, Vincent and Ioffe, Sergey and Shlens, Jon and Wojna, Zbigniew},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  pages = {2818--2826},
  year = {2016}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    inception_v3.gluon_in1k 299 0.875 bicubic apache-2.0
    inception_v3.tf_adv_in1k 299 0.875 bicubic apache-2.0 stats=half
    inception_v3.tf_in1k 299 0.875 bicubic apache-2.0 stats=half
    inception_v3.tv_in1k 299 0.875 bicubic apache-2.0 stats=half
""")
SPEC = BackboneSpec(
    name="inception_v3",
    family="Inception v3",
    build=InceptionV3,
    stages=(
        *(Stage(name, channels, stride, modules=tuple(names)) for name, (names, channels, stride) in STEM.items()),
        *(Stage(name, channels, stride, modules=(name,)) for name, (_, channels, stride) in MIXED.items()),
    ),
    classifier=ClassifierLayout("fc", dropout=0.5),
    preprocess=Preprocess((299, 299), *STATISTICS["half"], interpolation="bicubic"),
    pretrained="tv_in1k",
    layouts={"torchvision": dict},
    ignored={"AuxLogits.*": "the auxiliary classifier, which only helped in training"},
    min_size=75,
    paper="https://arxiv.org/abs/1512.00567",
    citation=CITATION,
)


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [SPEC]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

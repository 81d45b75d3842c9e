"""Inception-ResNet v2.

Paper: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning, arXiv:1602.07261. Weights:
TensorFlow's, also those trained on the adversarial images of an ensemble (arXiv:1705.07204), as timm publishes them on
the Hugging Face hub. Names are timm's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
from flax import nnx
from jax import Array

from zoo.blocks.conv import ConvNormAct
from zoo.blocks.inception import Branches, Convolution, Step, convolution
from zoo.layers import AvgPool, Chain, Conv, MaxPool
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import STATISTICS, BackboneSpec, ClassifierLayout, Preprocess, Stage, WeightSpec, weight_table

NARROW, POOL = MaxPool(3, 2), AvgPool(3, 1, 1, count_padding=False)


class Residual(Branches):
    """x + scale * conv2d(branches), followed by a ReLU except in the last block.

    The 1x1 convolution restores the number of channels, and small scales keep training stable (arXiv:1602.07261,
    section 3.3).
    """

    def __init__(self, inputs: int, scale: float, *branches: Sequence[Step], relu: bool = True, rngs: nnx.Rngs):
        super().__init__(inputs, *branches, rngs=rngs)
        self.conv2d = Conv(self.channels, inputs, 1, rngs=rngs)
        self.scale, self.relu = scale, relu

    def __call__(self, x: Array) -> Array:
        y = x + self.scale * self.conv2d(super().__call__(x))
        return jax.nn.relu(y) if self.relu else y


# The reference code's own stem, which is Inception v3's.
STEM: Mapping[str, Mapping[str, Convolution]] = {
    "conv2d_2b": {"conv2d_1a": (32, 3, 2), "conv2d_2a": (32, 3, 1), "conv2d_2b": (64, 3)},
    "conv2d_4a": {"conv2d_3b": (80, 1), "conv2d_4a": (192, 3, 1)},
}
MIXED_5B: tuple[tuple[Step, ...], ...] = (
    ({"branch0": (96, 1)},),
    ({"branch1": [(48, 1), (64, 5)]},),
    ({"branch2": [(64, 1), (96, 3), (96, 3)]},),
    ({"branch3": [POOL, (64, 1)]},),
)
BLOCK35: tuple[tuple[Step, ...], ...] = (  # arXiv:1602.07261, figure 16
    ({"branch0": (32, 1)},),
    ({"branch1": [(32, 1), (32, 3)]},),
    ({"branch2": [(32, 1), (48, 3), (64, 3)]},),
)
MIXED_6A: tuple[tuple[Step, ...], ...] = (  # figure 7, table 1
    ({"branch0": (384, 3, 2)},),
    ({"branch1": [(256, 1), (256, 3), (384, 3, 2)]},),
    (NARROW,),
)
BLOCK17: tuple[tuple[Step, ...], ...] = (  # figure 17
    ({"branch0": (192, 1)},),
    ({"branch1": [(128, 1), (160, (1, 7)), (192, (7, 1))]},),
)
MIXED_7A: tuple[tuple[Step, ...], ...] = (  # figure 18
    ({"branch0": [(256, 1), (384, 3, 2)]},),
    ({"branch1": [(256, 1), (288, 3, 2)]},),
    ({"branch2": [(256, 1), (288, 3), (320, 3, 2)]},),
    (NARROW,),
)
BLOCK8: tuple[tuple[Step, ...], ...] = (  # figure 19
    ({"branch0": (192, 1)},),
    ({"branch1": [(192, 1), (224, (1, 3)), (256, (3, 1))]},),
)


class InceptionResNetV2(Backbone):
    """The stem, then three times a block of branches that changes the map and a row of residual blocks; last, a 1x1
    convolution. The numbers and scales of the blocks are those of the reference code."""

    conv2d_1a: ConvNormAct
    conv2d_2a: ConvNormAct
    conv2d_2b: ConvNormAct
    conv2d_3b: ConvNormAct
    conv2d_4a: ConvNormAct

    def __init__(self, *, in_channels: int = 3, rngs: nnx.Rngs):
        inputs = in_channels
        for convolutions in STEM.values():
            for name, spec in convolutions.items():
                setattr(self, name, convolution(inputs, spec, rngs=rngs))
                inputs = spec[0]
        self.mixed_5b = Branches(192, *MIXED_5B, rngs=rngs)
        self.repeat = Chain([Residual(320, 0.17, *BLOCK35, rngs=rngs) for _ in range(10)])
        self.mixed_6a = Branches(320, *MIXED_6A, rngs=rngs)
        self.repeat_1 = Chain([Residual(1088, 0.1, *BLOCK17, rngs=rngs) for _ in range(20)])
        self.mixed_7a = Branches(1088, *MIXED_7A, rngs=rngs)
        self.repeat_2 = Chain([Residual(2080, 0.2, *BLOCK8, rngs=rngs) for _ in range(9)])
        self.block8 = Residual(2080, 1.0, *BLOCK8, relu=False, rngs=rngs)
        self.conv2d_7b = convolution(2080, (1536, 1), rngs=rngs)

    def stages(self) -> Mapping[str, StageFunction]:
        return {
            "conv2d_2b": Chain([self.conv2d_1a, self.conv2d_2a, self.conv2d_2b]),
            "conv2d_4a": Chain([NARROW, self.conv2d_3b, self.conv2d_4a]),
            "mixed_5b": Chain([NARROW, self.mixed_5b]),
            "repeat": self.repeat,
            "mixed_6a": Chain([self.mixed_6a]),
            "repeat_1": self.repeat_1,
            "mixed_7a": Chain([self.mixed_7a]),
            "repeat_2": self.repeat_2,
            "conv2d_7b": Chain([self.block8, self.conv2d_7b]),
        }


CITATION = """@inproceedings{szegedy2017inception,
  title = {Inception-v4, {Inception-ResNet} and the Impact of Residual Connections on Learning},
  author = {Szegedy, Christian and Ioffe, Sergey and Vanhoucke, Vincent and Alemi, Alexander A.},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  pages = {4278--4284},
  year = {2017}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    inception_resnet_v2.tf_ens_adv_in1k 299 0.8975 bicubic apache-2.0 stats=half
    inception_resnet_v2.tf_in1k 299 0.8975 bicubic apache-2.0 stats=half
""")
SPEC = BackboneSpec(
    name="inception_resnet_v2",
    family="Inception-ResNet v2",
    build=InceptionResNetV2,
    stages=(
        Stage("conv2d_2b", 64, 2, modules=tuple(STEM["conv2d_2b"])),
        Stage("conv2d_4a", 192, 4, modules=tuple(STEM["conv2d_4a"])),
        Stage("mixed_5b", 320, 8, modules=("mixed_5b",)),
        Stage("repeat", 320, 8, modules=("repeat",)),
        Stage("mixed_6a", 1088, 16, modules=("mixed_6a",)),
        Stage("repeat_1", 1088, 16, modules=("repeat_1",)),
        Stage("mixed_7a", 2080, 32, modules=("mixed_7a",)),
        Stage("repeat_2", 2080, 32, modules=("repeat_2",)),
        Stage("conv2d_7b", 1536, 32, modules=("block8", "conv2d_7b")),
    ),
    classifier=ClassifierLayout("classif", dropout=0.2),
    preprocess=Preprocess((299, 299), *STATISTICS["half"], interpolation="bicubic", crop_pct=0.8975),
    pretrained="tf_in1k",
    min_size=75,
    paper="https://arxiv.org/abs/1602.07261",
    citation=CITATION,
)


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [SPEC]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

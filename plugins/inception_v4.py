"""Inception v4.

Paper: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning, arXiv:1602.07261. Weights:
TensorFlow's, as timm publishes them on the Hugging Face hub. Names are timm's, whose blocks are one numbered list; the
stages bear the names of the paper's reference code.
"""

from __future__ import annotations

from collections.abc import Mapping

from flax import nnx

from zoo.blocks.conv import ConvNormAct
from zoo.blocks.inception import Branches, Convolution, Step, convolution
from zoo.layers import AvgPool, Chain, MaxPool
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import STATISTICS, BackboneSpec, ClassifierLayout, Preprocess, Stage, WeightSpec, weight_table

NARROW, POOL = MaxPool(3, 2), AvgPool(3, 1, 1, count_padding=False)

# arXiv:1602.07261, figure 3: the stem's three joins.
MIXED_3A: tuple[tuple[Step, ...], ...] = ((NARROW,), ({"conv": (96, 3, 2)},))
MIXED_4A: tuple[tuple[Step, ...], ...] = (
    ({"branch0": [(64, 1), (96, 3, 1)]},),
    ({"branch1": [(64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1)]},),
)
MIXED_5A: tuple[tuple[Step, ...], ...] = (({"conv": (192, 3, 2)},), (NARROW,))
INCEPTION_A: tuple[tuple[Step, ...], ...] = (  # figure 4
    ({"branch0": (96, 1)},),
    ({"branch1": [(64, 1), (96, 3)]},),
    ({"branch2": [(64, 1), (96, 3), (96, 3)]},),
    ({"branch3": [POOL, (96, 1)]},),
)
REDUCTION_A: tuple[tuple[Step, ...], ...] = (  # figure 7, table 1
    ({"branch0": (384, 3, 2)},),
    ({"branch1": [(192, 1), (224, 3), (256, 3, 2)]},),
    (NARROW,),
)
INCEPTION_B: tuple[tuple[Step, ...], ...] = (  # figure 5
    ({"branch0": (384, 1)},),
    ({"branch1": [(192, 1), (224, (1, 7)), (256, (7, 1))]},),
    ({"branch2": [(192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))]},),
    ({"branch3": [POOL, (128, 1)]},),
)
REDUCTION_B: tuple[tuple[Step, ...], ...] = (  # figure 8
    ({"branch0": [(192, 1), (192, 3, 2)]},),
    ({"branch1": [(256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2)]},),
    (NARROW,),
)
INCEPTION_C: tuple[tuple[Step, ...], ...] = (  # figure 6
    ({"branch0": (256, 1)},),
    ({"branch1_0": (384, 1)}, {"branch1_1a": (256, (1, 3)), "branch1_1b": (256, (3, 1))}),
    (
        {"branch2_0": (384, 1)},
        {"branch2_1": (448, (3, 1))},
        {"branch2_2": (512, (1, 3))},
        {"branch2_3a": (256, (1, 3)), "branch2_3b": (256, (3, 1))},
    ),
    ({"branch3": [POOL, (256, 1)]},),
)
STEM: tuple[Convolution, ...] = ((32, 3, 2), (32, 3, 1), (64, 3))
# arXiv:1602.07261, figure 9. Stage: its branches, channels, stride.
MIXED: Mapping[str, tuple[tuple[tuple[Step, ...], ...], int, int]] = {
    "Mixed_3a": (MIXED_3A, 160, 4),
    "Mixed_4a": (MIXED_4A, 192, 4),
    "Mixed_5a": (MIXED_5A, 384, 8),
    **{f"Mixed_5{letter}": (INCEPTION_A, 384, 8) for letter in "bcde"},
    "Mixed_6a": (REDUCTION_A, 1024, 16),
    **{f"Mixed_6{letter}": (INCEPTION_B, 1024, 16) for letter in "bcdefgh"},
    "Mixed_7a": (REDUCTION_B, 1536, 32),
    **{f"Mixed_7{letter}": (INCEPTION_C, 1536, 32) for letter in "bcd"},
}


class InceptionV4(Backbone):
    """Three plain convolutions, then blocks of branches, all in the list `features`."""

    def __init__(self, *, in_channels: int = 3, rngs: nnx.Rngs):
        layers: list[ConvNormAct | Branches] = []
        inputs = in_channels
        for spec in STEM:
            layers.append(convolution(inputs, spec, rngs=rngs))
            inputs = spec[0]
        for branches, *_ in MIXED.values():
            block = Branches(inputs, *branches, rngs=rngs)
            layers.append(block)
            inputs = block.channels
        self.features = Chain(layers)

    def stages(self) -> Mapping[str, StageFunction]:
        blocks = zip(MIXED, self.features[len(STEM) :], strict=True)
        return {"Conv2d_2b_3x3": Chain(self.features[: len(STEM)]), **{name: Chain([block]) for name, block in blocks}}


CITATION = """@inproceedings{szegedy2017inception,
  title = {Inception-v4, {Inception-ResNet} and the Impact of Residual Connections on Learning},
  author = {Szegedy, Christian and Ioffe, Sergey and Vanhoucke, Vincent and Alemi, Alexander A.},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  pages = {4278--4284},
  year = {2017}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    inception_v4.tf_in1k 299 0.875 bicubic apache-2.0 stats=half
""")
SPEC = BackboneSpec(
    name="inception_v4",
    family="Inception v4",
    build=InceptionV4,
    stages=(
        Stage("Conv2d_2b_3x3", STEM[-1][0], 2, modules=tuple(f"features.{i}" for i in range(len(STEM)))),
        *(
            Stage(name, channels, stride, modules=(f"features.{i}",))
            for i, (name, (_, channels, stride)) in enumerate(MIXED.items(), start=len(STEM))
        ),
    ),
    classifier=ClassifierLayout("last_linear", dropout=0.2),
    preprocess=Preprocess((299, 299), *STATISTICS["half"], interpolation="bicubic"),
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

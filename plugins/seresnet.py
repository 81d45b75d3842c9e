"""ResNet and ResNeXt with squeeze-and-excitation.

Papers: Squeeze-and-Excitation Networks, arXiv:1709.01507; the nets around it are ResNet (arXiv:1512.03385) and ResNeXt
(arXiv:1611.05431). Weights: timm's on the Hugging Face hub (licence in each row below).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from zoo.blocks import dilation
from zoo.blocks.residual import BasicBlock, Block, Bottleneck, ResidualNet, residual_stages
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Preprocess, Range, WeightSpec, weight_table

# Depths and groups: arXiv:1709.01507, table 1, and timm.
# name: (block, depths, groups, width of a group in the first stage, deep stem, tag of the default weights)
VARIANTS: Mapping[str, tuple[Block, tuple[int, ...], int, int, bool, str | None]] = {
    "seresnet18": (BasicBlock, (2, 2, 2, 2), 1, 64, False, None),
    "seresnet34": (BasicBlock, (3, 4, 6, 3), 1, 64, False, None),
    "seresnet50": (Bottleneck, (3, 4, 6, 3), 1, 64, False, "a1_in1k"),
    "seresnet101": (Bottleneck, (3, 4, 23, 3), 1, 64, False, None),
    "seresnet152": (Bottleneck, (3, 8, 36, 3), 1, 64, False, None),
    "seresnet152d": (Bottleneck, (3, 8, 36, 3), 1, 64, True, "ra2_in1k"),
    "seresnext26d_32x4d": (Bottleneck, (2, 2, 2, 2), 32, 4, True, "bt_in1k"),
    "seresnext50_32x4d": (Bottleneck, (3, 4, 6, 3), 32, 4, False, "racm_in1k"),
    "seresnext101_32x4d": (Bottleneck, (3, 4, 23, 3), 32, 4, False, "gluon_in1k"),
    "seresnext101_32x8d": (Bottleneck, (3, 4, 23, 3), 32, 8, False, "ah_in1k"),
    "seresnext101_64x4d": (Bottleneck, (3, 4, 23, 3), 64, 4, False, "gluon_in1k"),
    "seresnext101d_32x8d": (Bottleneck, (3, 4, 23, 3), 32, 8, True, "ah_in1k"),
}
CITATION = """@inproceedings{hu2018squeeze,
  title = {Squeeze-and-Excitation Networks},
  author = {Hu, Jie and Shen, Li and Sun, Gang},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  pages = {7132--7141},
  year = {2018}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    seresnet152d.ra2_in1k 256 0.95 bicubic apache-2.0
    seresnet50.a1_in1k 224 0.95 bicubic apache-2.0
    seresnet50.a2_in1k 224 0.95 bicubic apache-2.0
    seresnet50.a3_in1k 160 0.95 bicubic apache-2.0
    seresnet50.ra2_in1k 224 0.875 bicubic apache-2.0
    seresnext101_32x4d.gluon_in1k 224 0.875 bicubic apache-2.0
    seresnext101_32x8d.ah_in1k 224 0.95 bicubic apache-2.0
    seresnext101_64x4d.gluon_in1k 224 0.875 bicubic apache-2.0
    seresnext101d_32x8d.ah_in1k 224 0.95 bicubic apache-2.0
    seresnext26d_32x4d.bt_in1k 224 0.875 bicubic apache-2.0
    seresnext50_32x4d.gluon_in1k 224 0.875 bicubic apache-2.0
    seresnext50_32x4d.racm_in1k 224 0.875 bicubic apache-2.0
""")


def _spec(name: str) -> BackboneSpec:
    block, depths, groups, base_width, deep_stem, tag = VARIANTS[name]
    return BackboneSpec(
        name=name,
        family="SE-ResNet",
        build=partial(
            ResidualNet, block, depths, groups=groups, base_width=base_width, squeeze=1 / 16, deep_stem=deep_stem
        ),
        stages=residual_stages(block),
        classifier=ClassifierLayout("fc"),
        preprocess=Preprocess(interpolation="bicubic"),
        options={"drop_path_rate": Range(0.0), **dilation.OPTIONS},
        export_args=dilation.EXPORT,
        capabilities=(dilation.DILATABLE,),
        pretrained=tag,
        paper="https://arxiv.org/abs/1709.01507",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

"""ResNet, ResNeXt, Wide ResNet and their `d` stems.

Papers: Deep Residual Learning, arXiv:1512.03385; Aggregated Residual Transformations (ResNeXt), arXiv:1611.05431;
Wide Residual Networks, arXiv:1605.07146; Bag of Tricks (the `d` stem and shortcut), arXiv:1812.01187. Names are timm's,
which are torchvision's too; transformers' layout is read as well. Weights: timm's on the Hugging Face hub (licence in
each row below).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from zoo.blocks import dilation
from zoo.blocks.residual import BasicBlock, Block, Bottleneck, ResidualNet, residual_stages
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Preprocess, Range, WeightSpec, weight_table

# Depths: arXiv:1512.03385, table 1; groups and widths: arXiv:1611.05431, table 1 and arXiv:1605.07146 via torchvision.
# name: (block, depths, groups, width of a group in the first stage, deep stem, tag of the default weights)
VARIANTS: Mapping[str, tuple[Block, tuple[int, ...], int, int, bool, str | None]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1, 64, False, "a1_in1k"),
    "resnet18d": (BasicBlock, (2, 2, 2, 2), 1, 64, True, "ra2_in1k"),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 1, 64, False, "a1_in1k"),
    "resnet34d": (BasicBlock, (3, 4, 6, 3), 1, 64, True, "ra2_in1k"),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 1, 64, False, "a1_in1k"),
    "resnet50d": (Bottleneck, (3, 4, 6, 3), 1, 64, True, "ra2_in1k"),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 1, 64, False, "a1h_in1k"),
    "resnet101d": (Bottleneck, (3, 4, 23, 3), 1, 64, True, "ra2_in1k"),
    "resnet152": (Bottleneck, (3, 8, 36, 3), 1, 64, False, "a1h_in1k"),
    "resnet152d": (Bottleneck, (3, 8, 36, 3), 1, 64, True, "ra2_in1k"),
    "resnext50_32x4d": (Bottleneck, (3, 4, 6, 3), 32, 4, False, "a1h_in1k"),
    "resnext50d_32x4d": (Bottleneck, (3, 4, 6, 3), 32, 4, True, "bt_in1k"),
    "resnext101_32x4d": (Bottleneck, (3, 4, 23, 3), 32, 4, False, "gluon_in1k"),
    "resnext101_32x8d": (Bottleneck, (3, 4, 23, 3), 32, 8, False, "tv_in1k"),
    "resnext101_64x4d": (Bottleneck, (3, 4, 23, 3), 64, 4, False, "c1_in1k"),
    "wide_resnet50_2": (Bottleneck, (3, 4, 6, 3), 1, 128, False, "racm_in1k"),
    "wide_resnet101_2": (Bottleneck, (3, 4, 23, 3), 1, 128, False, "tv2_in1k"),
}


def transformers_layout(block: Block, depths: tuple[int, ...]) -> Mapping[str, str]:
    """transformers' ResNet, without the name of the body before its tensors."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield from (("conv1", "embedder.embedder.convolution"), ("bn1", "embedder.embedder.normalization"))
        yield "fc", "classifier.1"
        for i, depth in enumerate(depths):
            for j in range(depth):
                here, there = f"layer{i + 1}.{j}", f"encoder.stages.{i}.layers.{j}"
                yield f"{here}.downsample.0", f"{there}.shortcut.convolution"
                yield f"{here}.downsample.1", f"{there}.shortcut.normalization"
                for n in range(3 if block is Bottleneck else 2):
                    yield f"{here}.conv{n + 1}", f"{there}.layer.{n}.convolution"
                    yield f"{here}.bn{n + 1}", f"{there}.layer.{n}.normalization"

    return dict(pairs())


CITATION = """@inproceedings{he2016deep,
  title = {Deep Residual Learning for Image Recognition},
  author = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  pages = {770--778},
  year = {2016}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    resnet18.a1_in1k 224 0.95 bicubic apache-2.0
    resnet18.a2_in1k 224 0.95 bicubic apache-2.0
    resnet18.a3_in1k 160 0.95 bicubic apache-2.0
    resnet18.fb_ssl_yfcc100m_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnet18.fb_swsl_ig1b_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnet18.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet18.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnet18d.ra2_in1k 224 0.875 bicubic apache-2.0
    resnet18d.ra4_e3600_r224_in1k 224 0.9 bicubic apache-2.0 stats=half
    resnet34.a1_in1k 224 0.95 bicubic apache-2.0
    resnet34.a2_in1k 224 0.95 bicubic apache-2.0
    resnet34.a3_in1k 160 0.95 bicubic apache-2.0
    resnet34.bt_in1k 224 0.875 bicubic apache-2.0
    resnet34.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet34.ra4_e3600_r224_in1k 224 0.9 bicubic apache-2.0 stats=half
    resnet34.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnet34d.ra2_in1k 224 0.875 bicubic apache-2.0
    resnet50.a1_in1k 224 0.95 bicubic apache-2.0
    resnet50.a1h_in1k 176 0.9 bicubic apache-2.0
    resnet50.a2_in1k 224 0.95 bicubic apache-2.0
    resnet50.a3_in1k 160 0.95 bicubic apache-2.0
    resnet50.am_in1k 224 0.875 bicubic apache-2.0
    resnet50.b1k_in1k 224 0.95 bicubic apache-2.0
    resnet50.b2k_in1k 224 0.95 bicubic apache-2.0
    resnet50.bamboo 224 1.0 bicubic unknown classes=0
    resnet50.bt_in1k 224 0.875 bicubic apache-2.0
    resnet50.c1_in1k 224 0.95 bicubic apache-2.0
    resnet50.c2_in1k 224 0.95 bicubic apache-2.0
    resnet50.d_in1k 224 0.95 bicubic apache-2.0
    resnet50.fb_ssl_yfcc100m_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnet50.fb_swsl_ig1b_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnet50.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet50.ra_in1k 224 0.875 bicubic apache-2.0
    resnet50.ram_in1k 224 0.875 bicubic apache-2.0
    resnet50.tv2_in1k 176 0.875 bilinear bsd-3-clause
    resnet50.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnet50d.a1_in1k 224 0.95 bicubic apache-2.0
    resnet50d.a2_in1k 224 0.95 bicubic apache-2.0
    resnet50d.a3_in1k 160 0.95 bicubic apache-2.0
    resnet50d.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet50d.ra2_in1k 224 0.875 bicubic apache-2.0
    resnet50d.ra4_e3600_r224_in1k 224 0.95 bicubic apache-2.0 stats=half
    resnet101.a1_in1k 224 0.95 bicubic apache-2.0
    resnet101.a1h_in1k 224 0.95 bicubic apache-2.0
    resnet101.a2_in1k 224 0.95 bicubic apache-2.0
    resnet101.a3_in1k 160 0.95 bicubic apache-2.0
    resnet101.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet101.tv2_in1k 176 0.875 bilinear bsd-3-clause
    resnet101.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnet101d.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet101d.ra2_in1k 256 0.95 bicubic apache-2.0
    resnet152.a1_in1k 224 0.95 bicubic apache-2.0
    resnet152.a1h_in1k 224 0.95 bicubic apache-2.0
    resnet152.a2_in1k 224 0.95 bicubic apache-2.0
    resnet152.a3_in1k 160 0.95 bicubic apache-2.0
    resnet152.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet152.tv2_in1k 176 0.875 bilinear bsd-3-clause
    resnet152.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnet152d.gluon_in1k 224 0.875 bicubic apache-2.0
    resnet152d.ra2_in1k 256 0.95 bicubic apache-2.0
    resnext50_32x4d.a1_in1k 224 0.95 bicubic apache-2.0
    resnext50_32x4d.a1h_in1k 224 0.95 bicubic apache-2.0
    resnext50_32x4d.a2_in1k 224 0.95 bicubic apache-2.0
    resnext50_32x4d.a3_in1k 160 0.95 bicubic apache-2.0
    resnext50_32x4d.fb_ssl_yfcc100m_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext50_32x4d.fb_swsl_ig1b_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext50_32x4d.gluon_in1k 224 0.875 bicubic apache-2.0
    resnext50_32x4d.ra_in1k 224 0.875 bicubic apache-2.0
    resnext50_32x4d.tv2_in1k 176 0.875 bilinear bsd-3-clause
    resnext50_32x4d.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnext50d_32x4d.bt_in1k 224 0.875 bicubic apache-2.0
    resnext101_32x4d.fb_ssl_yfcc100m_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext101_32x4d.fb_swsl_ig1b_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext101_32x4d.gluon_in1k 224 0.875 bicubic apache-2.0
    resnext101_32x8d.fb_ssl_yfcc100m_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext101_32x8d.fb_swsl_ig1b_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext101_32x8d.fb_wsl_ig1b_ft_in1k 224 0.875 bilinear cc-by-nc-4.0
    resnext101_32x8d.tv2_in1k 176 0.875 bilinear bsd-3-clause
    resnext101_32x8d.tv_in1k 224 0.875 bilinear bsd-3-clause
    resnext101_64x4d.c1_in1k 224 0.95 bicubic apache-2.0
    resnext101_64x4d.gluon_in1k 224 0.875 bicubic apache-2.0
    resnext101_64x4d.tv_in1k 224 0.875 bilinear bsd-3-clause
    wide_resnet50_2.racm_in1k 224 0.875 bicubic apache-2.0
    wide_resnet50_2.tv2_in1k 176 0.875 bilinear bsd-3-clause
    wide_resnet50_2.tv_in1k 224 0.875 bilinear bsd-3-clause
    wide_resnet101_2.tv2_in1k 176 0.875 bilinear bsd-3-clause
    wide_resnet101_2.tv_in1k 224 0.875 bilinear bsd-3-clause
""")


def _spec(name: str) -> BackboneSpec:
    block, depths, groups, base_width, deep_stem, tag = VARIANTS[name]
    layouts: dict[str, Callable[[], Mapping[str, str]]] = {} if deep_stem else {"torchvision": dict}
    if name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
        layouts["transformers"] = partial(transformers_layout, block, depths)
    return BackboneSpec(
        name=name,
        family="ResNet",
        build=partial(ResidualNet, block, depths, groups=groups, base_width=base_width, deep_stem=deep_stem),
        stages=residual_stages(block),
        classifier=ClassifierLayout("fc"),
        preprocess=Preprocess(interpolation="bicubic", crop_pct=0.95),
        options={"drop_path_rate": Range(0.0), **dilation.OPTIONS},
        export_args=dilation.EXPORT,
        capabilities=(dilation.DILATABLE,),
        pretrained=tag,
        layouts=layouts,
        paper="https://arxiv.org/abs/1512.03385",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

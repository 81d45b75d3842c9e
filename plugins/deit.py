"""DeiT and DeiT III: plain vision transformers trained on ImageNet alone.

Papers: Training data-efficient image transformers & distillation through attention, arXiv:2012.12877; DeiT III: Revenge
of the ViT, arXiv:2204.07118, whose nets scale each residual branch and give the class token no position. Names are
timm's; transformers' layout is read too, where DeiT's files are ViT's. Weights: timm's on the Hugging Face hub.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zoo.blocks.transformer import LAYER_SCALE, SIZES, TransformerConfig, plain_spec
from zoo.blocks.transformer_layouts import transformers_layout
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, Stored, WeightSpec, weight_table

# arXiv:2012.12877, table 1; arXiv:2204.07118, and its code for the medium size. name: (size, image side)
MEDIUM = (512, 12, 8)
VARIANTS = {
    "deit_tiny_patch16_224": ("tiny", 224),
    "deit_small_patch16_224": ("small", 224),
    "deit_base_patch16_224": ("base", 224),
    "deit_base_patch16_384": ("base", 384),
    "deit3_small_patch16_224": ("small", 224),
    "deit3_small_patch16_384": ("small", 384),
    "deit3_medium_patch16_224": ("medium", 224),
    "deit3_base_patch16_224": ("base", 224),
    "deit3_base_patch16_384": ("base", 384),
    "deit3_large_patch16_224": ("large", 224),
    "deit3_large_patch16_384": ("large", 384),
}
CITATIONS = {
    "DeiT": """@inproceedings{touvron2021training,
  title = {Training data-efficient image transformers \\& distillation through attention},
  author = {Touvron, Hugo and Cord, Matthieu and Douze, Matthijs and Massa, Francisco and Sablayrolles, Alexandre and
            J{\\'e}gou, Herv{\\'e}},
  booktitle = {International Conference on Machine Learning},
  pages = {10347--10357},
  year = {2021}
}""",
    "DeiT III": """@inproceedings{touvron2022deit,
  title = {{DeiT III}: Revenge of the {ViT}},
  author = {Touvron, Hugo and Cord, Matthieu and J{\\'e}gou, Herv{\\'e}},
  booktitle = {European Conference on Computer Vision},
  pages = {516--533},
  year = {2022}
}""",
}

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    deit3_base_patch16_224.fb_in1k 224 0.9 bicubic apache-2.0
    deit3_base_patch16_224.fb_in22k_ft_in1k 224 1.0 bicubic apache-2.0
    deit3_base_patch16_384.fb_in1k 384 1.0 bicubic apache-2.0
    deit3_base_patch16_384.fb_in22k_ft_in1k 384 1.0 bicubic apache-2.0
    deit3_large_patch16_224.fb_in1k 224 0.9 bicubic apache-2.0
    deit3_large_patch16_224.fb_in22k_ft_in1k 224 1.0 bicubic apache-2.0
    deit3_large_patch16_384.fb_in1k 384 1.0 bicubic apache-2.0
    deit3_large_patch16_384.fb_in22k_ft_in1k 384 1.0 bicubic apache-2.0
    deit3_medium_patch16_224.fb_in1k 224 0.9 bicubic apache-2.0
    deit3_medium_patch16_224.fb_in22k_ft_in1k 224 1.0 bicubic apache-2.0
    deit3_small_patch16_224.fb_in1k 224 0.9 bicubic apache-2.0
    deit3_small_patch16_224.fb_in22k_ft_in1k 224 1.0 bicubic apache-2.0
    deit3_small_patch16_384.fb_in1k 384 1.0 bicubic apache-2.0
    deit3_small_patch16_384.fb_in22k_ft_in1k 384 1.0 bicubic apache-2.0
    deit_base_patch16_224.fb_in1k 224 0.9 bicubic apache-2.0
    deit_base_patch16_384.fb_in1k 384 1.0 bicubic apache-2.0
    deit_small_patch16_224.fb_in1k 224 0.9 bicubic apache-2.0
    deit_tiny_patch16_224.fb_in1k 224 0.9 bicubic apache-2.0
""")
BY_NAME = {weights.name: weights for weights in WEIGHTS}


def _spec(name: str) -> BackboneSpec:
    size, side = VARIANTS[name]
    third = name.startswith("deit3")
    family = "DeiT III" if third else "DeiT"
    config = TransformerConfig(
        16, side // 16, *SIZES.get(size, MEDIUM), embed_prefix=not third, layer_scale=LAYER_SCALE if third else None
    )
    layouts: dict[str, Callable[[], Mapping[str, str | Stored]]] = {
        "transformers": lambda: {**transformers_layout(config.depth), "head": "classifier"}
    }
    return plain_spec(
        config,
        BY_NAME[f"{name}.fb_in1k"],
        family=family,
        layouts={} if third else layouts,
        paper=f"https://arxiv.org/abs/{'2204.07118' if third else '2012.12877'}",
        citation=CITATIONS[family],
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

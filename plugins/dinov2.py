"""DINOv2: vision transformers trained without labels, with and without register tokens.

Papers: DINOv2: Learning Robust Visual Features without Supervision, arXiv:2304.07193; Vision Transformers Need
Registers, arXiv:2309.16588. Names are timm's; transformers' layout is read too where there are no registers (with them
it keeps the class token's position apart, which timm's files have added to the token). Weights: timm's on the Hugging
Face hub, without a classifier. Their own image side is 518; any multiple of 14 will do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zoo.blocks.transformer import LAYER_SCALE, SIZES, TransformerConfig, plain_spec
from zoo.blocks.transformer_layouts import transformers_layout
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, Stored, WeightSpec, weight_table

# arXiv:2304.07193, table 17; arXiv:2309.16588, section 3.1. name: (size, register tokens)
VARIANTS = {
    "vit_small_patch14_dinov2": ("small", 0),
    "vit_base_patch14_dinov2": ("base", 0),
    "vit_large_patch14_dinov2": ("large", 0),
    "vit_small_patch14_reg4_dinov2": ("small", 4),
    "vit_base_patch14_reg4_dinov2": ("base", 4),
    "vit_large_patch14_reg4_dinov2": ("large", 4),
}
# Path in our block -> path in transformers'.
TRANSFORMERS_BLOCK = {
    "norm1": "norm1",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "ls2.gamma": "layer_scale2.lambda1",
}
IGNORED = {
    "mask_token": "the token of hidden patches in pretraining",
    "embeddings.mask_token": "the token of hidden patches in pretraining",
    "classifier.*": "transformers' linear classifier, which reads the class token and the mean of the patches together",
}
CITATION = """@article{oquab2024dinov2,
  title = {{DINOv2}: Learning Robust Visual Features without Supervision},
  author = {Oquab, Maxime and Darcet, Timoth{\\'e}e and Moutakanni, Th{\\'e}o and others},
  journal = {Transactions on Machine Learning Research},
  year = {2024}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    vit_base_patch14_dinov2.lvd142m 518 1.0 bicubic apache-2.0 classes=0
    vit_base_patch14_reg4_dinov2.lvd142m 518 1.0 bicubic apache-2.0 classes=0
    vit_large_patch14_dinov2.lvd142m 518 1.0 bicubic apache-2.0 classes=0
    vit_large_patch14_reg4_dinov2.lvd142m 518 1.0 bicubic apache-2.0 classes=0
    vit_small_patch14_dinov2.lvd142m 518 1.0 bicubic apache-2.0 classes=0
    vit_small_patch14_reg4_dinov2.lvd142m 518 1.0 bicubic apache-2.0 classes=0
""")
BY_NAME = {weights.name: weights for weights in WEIGHTS}


def _spec(name: str) -> BackboneSpec:
    size, registers = VARIANTS[name]
    config = TransformerConfig(
        14, 518 // 14, *SIZES[size], registers=registers, embed_prefix=not registers, layer_scale=LAYER_SCALE
    )
    layouts: dict[str, Callable[[], Mapping[str, str | Stored]]] = {
        "transformers": lambda: transformers_layout(config.depth, TRANSFORMERS_BLOCK)
    }
    return plain_spec(
        config,
        BY_NAME[f"{name}.lvd142m"],
        family="DINOv2 with registers" if registers else "DINOv2",
        layouts={} if registers else layouts,
        ignored=IGNORED,
        paper=f"https://arxiv.org/abs/{'2309.16588' if registers else '2304.07193'}",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

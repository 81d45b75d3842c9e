"""SigLIP's image towers: vision transformers trained to tell right captions from wrong ones, one pair at a time.

Papers: Sigmoid Loss for Language Image Pre-Training, arXiv:2303.15343; SigLIP 2 (`v2`), arXiv:2502.14786. A learned
query attends to all tokens and gives the vector for the image (arXiv:2106.04560); there is no class token. Names are
timm's. Weights: timm's on the Hugging Face hub, without a classifier.
"""

from __future__ import annotations

from zoo.blocks.transformer import SIZES, TransformerConfig, plain_spec
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, WeightSpec, weight_table

# arXiv:2305.13035: dim, depth, heads of the shape-optimised net, whose MLP has 4304 features.
SO400M = (1152, 27, 16)
# name: (size, patch, image side, activation, tag of the default weights)
VARIANTS = {
    "vit_base_patch16_siglip_224": ("base", 16, 224, "gelu", "v2_webli"),
    "vit_base_patch16_siglip_256": ("base", 16, 256, "gelu", "v2_webli"),
    "vit_base_patch16_siglip_384": ("base", 16, 384, "gelu", "v2_webli"),
    "vit_base_patch16_siglip_512": ("base", 16, 512, "gelu", "v2_webli"),
    "vit_large_patch16_siglip_256": ("large", 16, 256, "gelu", "v2_webli"),
    "vit_large_patch16_siglip_384": ("large", 16, 384, "gelu", "v2_webli"),
    "vit_large_patch16_siglip_512": ("large", 16, 512, "gelu_tanh", "v2_webli"),
    "vit_so400m_patch14_siglip_224": ("so400m", 14, 224, "gelu", "v2_webli"),
    "vit_so400m_patch14_siglip_378": ("so400m", 14, 378, "gelu", "v2_webli"),
}
CITATION = """@inproceedings{zhai2023sigmoid,
  title = {Sigmoid Loss for Language Image Pre-Training},
  author = {Zhai, Xiaohua and Mustafa, Basil and Kolesnikov, Alexander and Beyer, Lucas},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  pages = {11975--11986},
  year = {2023}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    vit_base_patch16_siglip_224.v2_webli 224 0.9 bicubic apache-2.0 stats=half classes=0
    vit_base_patch16_siglip_224.webli 224 0.9 bicubic apache-2.0 stats=half classes=0
    vit_base_patch16_siglip_256.v2_webli 256 0.9 bicubic apache-2.0 stats=half classes=0
    vit_base_patch16_siglip_256.webli 256 0.9 bicubic apache-2.0 stats=half classes=0
    vit_base_patch16_siglip_256.webli_i18n 256 0.9 bicubic apache-2.0 stats=half classes=0
    vit_base_patch16_siglip_384.v2_webli 384 0.9 bicubic apache-2.0 stats=half classes=0
    vit_base_patch16_siglip_384.webli 384 0.9 bicubic apache-2.0 stats=half classes=0
    vit_base_patch16_siglip_512.v2_webli 512 0.9 bicubic apache-2.0 stats=half classes=0
    vit_base_patch16_siglip_512.webli 512 0.9 bicubic apache-2.0 stats=half classes=0
    vit_large_patch16_siglip_256.v2_webli 256 0.9 bicubic apache-2.0 stats=half classes=0
    vit_large_patch16_siglip_256.webli 256 0.9 bicubic apache-2.0 stats=half classes=0
    vit_large_patch16_siglip_384.v2_webli 384 0.9 bicubic apache-2.0 stats=half classes=0
    vit_large_patch16_siglip_384.webli 384 0.9 bicubic apache-2.0 stats=half classes=0
    vit_large_patch16_siglip_512.v2_webli 512 0.9 bicubic apache-2.0 stats=half classes=0
    vit_so400m_patch14_siglip_224.v2_webli 224 0.9 bicubic apache-2.0 stats=half classes=0
    vit_so400m_patch14_siglip_224.webli 224 0.9 bicubic apache-2.0 stats=half classes=0
    vit_so400m_patch14_siglip_378.v2_webli 378 0.9 bicubic apache-2.0 stats=half classes=0
    vit_so400m_patch14_siglip_378.webli 378 0.9 bicubic apache-2.0 stats=half classes=0
    vit_so400m_patch14_siglip_378.webli_ft_in1k 378 1.0 bicubic apache-2.0 stats=half crop=squash
""")
BY_NAME = {weights.name: weights for weights in WEIGHTS}


def _spec(name: str) -> BackboneSpec:
    size, patch, side, act, tag = VARIANTS[name]
    dim, depth, heads = SIZES.get(size, SO400M)
    ratio = 4.0 if size in SIZES else 4304 / 1152
    config = TransformerConfig(patch, side // patch, dim, depth, heads, ratio, class_token=False, act=act, pool="map")
    return plain_spec(
        config,
        BY_NAME[f"{name}.{tag}"],
        family="SigLIP",
        paper="https://arxiv.org/abs/2303.15343",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

"""Vision Transformer.

Papers: An Image is Worth 16x16 Words, arXiv:2010.11929; How to train your ViT? (`augreg`), arXiv:2106.10270. Names are
timm's; torchvision's and transformers' layouts are read too. Weights: timm's on the Hugging Face hub. The position
embedding keeps the checkpoint's grid and is resampled for other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from zoo.blocks.transformer import SIZES, TransformerConfig, plain_spec
from zoo.blocks.transformer_layouts import transformers_layout
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, Stored, WeightSpec, weight_table

# arXiv:2010.11929, table 1, and arXiv:2106.10270. name: (size, patch, image side, tag of the default weights)
VARIANTS = {
    "vit_tiny_patch16_224": ("tiny", 16, 224, "augreg_in21k_ft_in1k"),
    "vit_tiny_patch16_384": ("tiny", 16, 384, "augreg_in21k_ft_in1k"),
    "vit_small_patch32_224": ("small", 32, 224, "augreg_in21k_ft_in1k"),
    "vit_small_patch32_384": ("small", 32, 384, "augreg_in21k_ft_in1k"),
    "vit_small_patch16_224": ("small", 16, 224, "augreg_in21k_ft_in1k"),
    "vit_small_patch16_384": ("small", 16, 384, "augreg_in21k_ft_in1k"),
    "vit_small_patch8_224": ("small", 8, 224, "dino"),
    "vit_base_patch32_224": ("base", 32, 224, "augreg_in21k_ft_in1k"),
    "vit_base_patch32_384": ("base", 32, 384, "augreg_in21k_ft_in1k"),
    "vit_base_patch16_224": ("base", 16, 224, "augreg2_in21k_ft_in1k"),
    "vit_base_patch16_384": ("base", 16, 384, "augreg_in21k_ft_in1k"),
    "vit_base_patch8_224": ("base", 8, 224, "augreg2_in21k_ft_in1k"),
    "vit_large_patch32_224": ("large", 32, 224, "orig_in21k"),
    "vit_large_patch32_384": ("large", 32, 384, "orig_in21k_ft_in1k"),
    "vit_large_patch16_224": ("large", 16, 224, "augreg_in21k_ft_in1k"),
    "vit_large_patch16_384": ("large", 16, 384, "augreg_in21k_ft_in1k"),
}


def torchvision_layout(depth: int) -> Mapping[str, str | Stored]:
    """torchvision's VisionTransformer, whose attention is torch's own with all three input maps in one tensor."""

    def pairs() -> Iterator[tuple[str, str | Stored]]:
        yield from (("cls_token", "class_token"), ("pos_embed", "encoder.pos_embedding"))
        yield from (("patch_embed.proj", "conv_proj"), ("norm", "encoder.ln"), ("head", "heads.head"))
        inner = {
            "norm1": "ln_1",
            "attn.proj": "self_attention.out_proj",
            "norm2": "ln_2",
            "mlp.fc1": "mlp.0",
            "mlp.fc2": "mlp.3",
        }
        for i in range(depth):
            here, there = f"blocks.{i}", f"encoder.layers.encoder_layer_{i}"
            yield from ((f"{here}.{a}", f"{there}.{b}") for a, b in inner.items())
            for leaf in ("weight", "bias"):
                yield f"{here}.attn.qkv.{leaf}", f"{there}.self_attention.in_proj_{leaf}"

    return dict(pairs())


def older_torchvision_layout(depth: int) -> Mapping[str, str | Stored]:
    """The names in torchvision's published files, which its MLP had before it became a list."""
    return {
        here: there.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2")
        if isinstance(there, str)
        else there
        for here, there in torchvision_layout(depth).items()
    }


IGNORED = {
    "pooler.*": "the pooler of transformers' ViTModel, which its classifier does not read",
    "embeddings.mask_token": "the token of hidden patches in pretraining",
}
CITATION = """@inproceedings{dosovitskiy2021image,
  title = {An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale},
  author = {Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and Weissenborn, Dirk and Zhai, Xiaohua and
            Unterthiner, Thomas and Dehghani, Mostafa and Minderer, Matthias and Heigold, Georg and Gelly, Sylvain and
            Uszkoreit, Jakob and Houlsby, Neil},
  booktitle = {International Conference on Learning Representations},
  year = {2021}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    vit_base_patch16_224.augreg2_in21k_ft_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_base_patch16_224.augreg_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_base_patch16_224.augreg_in21k 224 0.9 bicubic apache-2.0 stats=half classes=21843
    vit_base_patch16_224.augreg_in21k_ft_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_base_patch16_224.bamboo 224 1.0 bicubic unknown stats=clip classes=115217
    vit_base_patch16_224.dino 224 0.9 bicubic apache-2.0 classes=0
    vit_base_patch16_224.mae 224 0.9 bicubic cc-by-nc-4.0 classes=0
    vit_base_patch16_224.orig_in21k 224 0.9 bicubic apache-2.0 stats=half classes=0
    vit_base_patch16_224.orig_in21k_ft_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_base_patch16_224.sam_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_base_patch16_384.augreg_in1k 384 1.0 bicubic apache-2.0 stats=half
    vit_base_patch16_384.augreg_in21k_ft_in1k 384 1.0 bicubic apache-2.0 stats=half
    vit_base_patch16_384.orig_in21k_ft_in1k 384 1.0 bicubic apache-2.0 stats=half
    vit_base_patch32_224.augreg_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_base_patch32_224.augreg_in21k 224 0.9 bicubic apache-2.0 stats=half classes=21843
    vit_base_patch32_224.augreg_in21k_ft_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_base_patch32_224.orig_in21k 224 0.9 bicubic apache-2.0 stats=half classes=0
    vit_base_patch32_224.sam_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_base_patch32_384.augreg_in1k 384 1.0 bicubic apache-2.0 stats=half
    vit_base_patch32_384.augreg_in21k_ft_in1k 384 1.0 bicubic apache-2.0 stats=half
    vit_base_patch8_224.augreg2_in21k_ft_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_base_patch8_224.augreg_in21k 224 0.9 bicubic apache-2.0 stats=half classes=21843
    vit_base_patch8_224.augreg_in21k_ft_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_base_patch8_224.dino 224 0.9 bicubic apache-2.0 classes=0
    vit_large_patch16_224.augreg_in21k 224 0.9 bicubic apache-2.0 stats=half classes=21843
    vit_large_patch16_224.augreg_in21k_ft_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_large_patch16_224.mae 224 0.9 bicubic cc-by-nc-4.0 classes=0
    vit_large_patch16_224.orig_in21k 224 0.9 bicubic apache-2.0 stats=half classes=0
    vit_large_patch16_384.augreg_in21k_ft_in1k 384 1.0 bicubic apache-2.0 stats=half
    vit_large_patch32_224.orig_in21k 224 0.9 bicubic apache-2.0 stats=half classes=0
    vit_large_patch32_384.orig_in21k_ft_in1k 384 1.0 bicubic apache-2.0 stats=half
    vit_small_patch16_224.augreg_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_small_patch16_224.augreg_in21k 224 0.9 bicubic apache-2.0 stats=half classes=21843
    vit_small_patch16_224.augreg_in21k_ft_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_small_patch16_224.dino 224 0.9 bicubic apache-2.0 classes=0
    vit_small_patch16_384.augreg_in1k 384 1.0 bicubic apache-2.0 stats=half
    vit_small_patch16_384.augreg_in21k_ft_in1k 384 1.0 bicubic apache-2.0 stats=half
    vit_small_patch32_224.augreg_in21k 224 0.9 bicubic apache-2.0 stats=half classes=21843
    vit_small_patch32_224.augreg_in21k_ft_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_small_patch32_384.augreg_in21k_ft_in1k 384 1.0 bicubic apache-2.0 stats=half
    vit_small_patch8_224.dino 224 0.9 bicubic apache-2.0 classes=0
    vit_tiny_patch16_224.augreg_in21k 224 0.9 bicubic apache-2.0 stats=half classes=21843
    vit_tiny_patch16_224.augreg_in21k_ft_in1k 224 0.9 bicubic apache-2.0 stats=half
    vit_tiny_patch16_384.augreg_in21k_ft_in1k 384 1.0 bicubic apache-2.0 stats=half
""")
BY_NAME = {weights.name: weights for weights in WEIGHTS}


def _spec(name: str) -> BackboneSpec:
    size, patch, side, tag = VARIANTS[name]
    dim, depth, heads = SIZES[size]
    config = TransformerConfig(patch, side // patch, dim, depth, heads)
    layouts: dict[str, Callable[[], Mapping[str, str | Stored]]] = {
        "transformers": lambda: {**transformers_layout(depth), "head": "classifier"}
    }
    if size in ("base", "large") and patch != 8:
        layouts["torchvision"] = partial(torchvision_layout, depth)
        layouts["torchvision-v1"] = partial(older_torchvision_layout, depth)
    return plain_spec(
        config,
        BY_NAME[f"{name}.{tag}"],
        family="ViT",
        layouts=layouts,
        ignored=IGNORED,
        paper="https://arxiv.org/abs/2010.11929",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

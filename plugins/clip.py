"""CLIP's image towers: vision transformers trained to agree with captions, and their fine-tuned classifiers.

Paper: Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020. Names are timm's. In
timm's files the classifier is the projection to the joint space of images and captions, or a real classifier if the tag
says `ft`. transformers' layout is read too, without the projection. Weights: timm's on the Hugging Face Hub. The
`quickgelu` networks compute x sigmoid(1.702 x) instead of GELU; their weights are in the repositories of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from zoo.blocks.transformer import SIZES, TransformerConfig, plain_spec
from zoo.blocks.transformer_layouts import block_layout
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, Stored, WeightSpec, weight_table

# arXiv:2103.00020, table 20. name: (size, patch, image side, tag of the default weights)
VARIANTS = {
    "vit_base_patch32_clip_224": ("base", 32, 224, "laion2b_ft_in12k_in1k"),
    "vit_base_patch32_clip_256": ("base", 32, 256, "datacompxl"),
    "vit_base_patch32_clip_384": ("base", 32, 384, "laion2b_ft_in12k_in1k"),
    "vit_base_patch32_clip_448": ("base", 32, 448, "laion2b_ft_in12k_in1k"),
    "vit_base_patch16_clip_224": ("base", 16, 224, "laion2b_ft_in12k_in1k"),
    "vit_base_patch16_clip_384": ("base", 16, 384, "laion2b_ft_in12k_in1k"),
    "vit_large_patch14_clip_224": ("large", 14, 224, "laion2b_ft_in12k_in1k"),
    "vit_large_patch14_clip_336": ("large", 14, 336, "laion2b_ft_in12k_in1k"),
    "vit_base_patch32_clip_quickgelu_224": ("base", 32, 224, "laion400m_e32"),
    "vit_base_patch16_clip_quickgelu_224": ("base", 16, 224, "metaclip_2pt5b"),
    "vit_large_patch14_clip_quickgelu_224": ("large", 14, 224, "dfn2b"),
    "vit_large_patch14_clip_quickgelu_336": ("large", 14, 336, "openai"),
}


def transformers_layout(config: TransformerConfig) -> Mapping[str, str | Stored]:
    """The names in transformers' files of CLIP's image tower, below `vision_model`."""
    names = {
        "norm1": "layer_norm1",
        "attn.proj": "self_attn.out_proj",
        "norm2": "layer_norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    return {
        "cls_token": Stored(("embeddings.class_embedding",), (-1,)),
        "pos_embed": Stored(("embeddings.position_embedding.weight",), (-1, config.dim)),
        "patch_embed.proj": "embeddings.patch_embedding",
        "norm_pre": "pre_layrnorm",
        **block_layout(config.depth, "encoder.layers", names, qkv),
        "norm": "post_layernorm",
    }


IGNORED = {
    "text_model.*": "the text tower",
    "text_projection.*": "the text tower",
    "logit_scale": "the temperature between images and captions",
    "visual_projection.*": "the projection to the joint space of images and captions",
    "*position_ids": "the numbers 0, 1, ... of the positions",
}
CITATION = """@inproceedings{radford2021learning,
  title = {Learning Transferable Visual Models From Natural Language Supervision},
  author = {Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and Goh, Gabriel and others},
  booktitle = {International Conference on Machine Learning},
  pages = {8748--8763},
  year = {2021}
}"""


def _explained(weights: WeightSpec) -> WeightSpec:
    """Return the weights with the repository of the GELU network, and a note if the outputs are not classes."""
    note = f"its {weights.num_classes} outputs are CLIP's image embedding, not classes"
    return replace(
        weights,
        source=weights.source.replace("_quickgelu", ""),
        note=note if weights.num_classes in (512, 768) else weights.note,
    )


# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = tuple(
    map(
        _explained,
        weight_table("""
    vit_base_patch16_clip_224.datacompxl 224 1.0 bicubic apache-2.0 stats=clip classes=512
    vit_base_patch16_clip_224.dfn2b 224 1.0 bicubic apple-ascl stats=clip classes=512
    vit_base_patch16_clip_224.laion2b 224 1.0 bicubic apache-2.0 stats=clip classes=512
    vit_base_patch16_clip_224.laion2b_ft_in12k 224 0.9 bicubic apache-2.0 stats=clip classes=11821
    vit_base_patch16_clip_224.laion2b_ft_in12k_in1k 224 0.95 bicubic apache-2.0 stats=clip
    vit_base_patch16_clip_224.laion2b_ft_in1k 224 1.0 bicubic apache-2.0 stats=clip
    vit_base_patch16_clip_224.laion400m_e32 224 1.0 bicubic mit stats=clip classes=512
    vit_base_patch16_clip_224.metaclip_2pt5b 224 1.0 bicubic cc-by-nc-4.0 stats=clip classes=512
    vit_base_patch16_clip_224.metaclip_400m 224 1.0 bicubic cc-by-nc-4.0 stats=clip classes=512
    vit_base_patch16_clip_224.openai 224 0.9 bicubic apache-2.0 stats=clip classes=512
    vit_base_patch16_clip_224.openai_ft_in12k 224 0.9 bicubic apache-2.0 stats=clip classes=11821
    vit_base_patch16_clip_224.openai_ft_in12k_in1k 224 0.95 bicubic apache-2.0 stats=clip
    vit_base_patch16_clip_224.openai_ft_in1k 224 0.9 bicubic apache-2.0 stats=clip
    vit_base_patch16_clip_384.laion2b_ft_in12k_in1k 384 1.0 bicubic apache-2.0 stats=clip crop=squash
    vit_base_patch16_clip_384.laion2b_ft_in1k 384 1.0 bicubic apache-2.0 stats=clip crop=squash
    vit_base_patch16_clip_384.openai_ft_in12k_in1k 384 0.95 bicubic apache-2.0 stats=clip crop=squash
    vit_base_patch16_clip_384.openai_ft_in1k 384 1.0 bicubic apache-2.0 stats=clip crop=squash
    vit_base_patch16_clip_quickgelu_224.metaclip_2pt5b 224 1.0 bicubic cc-by-nc-4.0 stats=clip classes=512
    vit_base_patch16_clip_quickgelu_224.metaclip_400m 224 1.0 bicubic cc-by-nc-4.0 stats=clip classes=512
    vit_base_patch16_clip_quickgelu_224.openai 224 0.9 bicubic apache-2.0 stats=clip classes=512
    vit_base_patch32_clip_224.datacompxl 224 1.0 bicubic apache-2.0 stats=clip classes=512
    vit_base_patch32_clip_224.laion2b 224 0.9 bicubic apache-2.0 stats=clip classes=512
    vit_base_patch32_clip_224.laion2b_ft_in12k_in1k 224 0.9 bicubic apache-2.0 stats=clip
    vit_base_patch32_clip_224.laion2b_ft_in1k 224 0.9 bicubic apache-2.0 stats=clip
    vit_base_patch32_clip_224.laion400m_e32 224 0.9 bicubic mit stats=clip classes=512
    vit_base_patch32_clip_224.metaclip_2pt5b 224 1.0 bicubic cc-by-nc-4.0 stats=clip classes=512
    vit_base_patch32_clip_224.metaclip_400m 224 1.0 bicubic cc-by-nc-4.0 stats=clip classes=512
    vit_base_patch32_clip_224.openai 224 0.9 bicubic apache-2.0 stats=clip classes=512
    vit_base_patch32_clip_224.openai_ft_in1k 224 0.9 bicubic apache-2.0 stats=clip
    vit_base_patch32_clip_256.datacompxl 256 1.0 bicubic apache-2.0 stats=clip classes=512
    vit_base_patch32_clip_384.laion2b_ft_in12k_in1k 384 1.0 bicubic apache-2.0 stats=clip
    vit_base_patch32_clip_384.openai_ft_in12k_in1k 384 0.95 bicubic apache-2.0 stats=clip crop=squash
    vit_base_patch32_clip_448.laion2b_ft_in12k_in1k 448 1.0 bicubic apache-2.0 stats=clip
    vit_base_patch32_clip_quickgelu_224.laion400m_e32 224 0.9 bicubic mit stats=clip classes=512
    vit_base_patch32_clip_quickgelu_224.metaclip_2pt5b 224 1.0 bicubic cc-by-nc-4.0 stats=clip classes=512
    vit_base_patch32_clip_quickgelu_224.metaclip_400m 224 1.0 bicubic cc-by-nc-4.0 stats=clip classes=512
    vit_base_patch32_clip_quickgelu_224.openai 224 0.9 bicubic apache-2.0 stats=clip classes=512
    vit_large_patch14_clip_224.apple_mclip2_dfndr2b 224 1.0 bicubic apple-amlr stats=clip classes=768
    vit_large_patch14_clip_224.datacompxl 224 1.0 bicubic apache-2.0 stats=clip classes=768
    vit_large_patch14_clip_224.dfn2b 224 1.0 bicubic apple-ascl stats=clip classes=768
    vit_large_patch14_clip_224.dfn2b_s39b 224 1.0 bicubic apple-ascl stats=clip classes=768
    vit_large_patch14_clip_224.laion2b 224 1.0 bicubic apache-2.0 stats=half classes=768
    vit_large_patch14_clip_224.laion2b_ft_in12k 224 1.0 bicubic apache-2.0 stats=half classes=11821
    vit_large_patch14_clip_224.laion2b_ft_in12k_in1k 224 1.0 bicubic apache-2.0 stats=half
    vit_large_patch14_clip_224.laion2b_ft_in1k 224 1.0 bicubic apache-2.0 stats=half
    vit_large_patch14_clip_224.laion400m_e32 224 1.0 bicubic mit stats=clip classes=768
    vit_large_patch14_clip_224.metaclip_2pt5b 224 1.0 bicubic cc-by-nc-4.0 stats=clip classes=768
    vit_large_patch14_clip_224.metaclip_400m 224 1.0 bicubic cc-by-nc-4.0 stats=clip classes=768
    vit_large_patch14_clip_224.openai 224 1.0 bicubic apache-2.0 stats=clip classes=768
    vit_large_patch14_clip_224.openai_ft_in12k 224 1.0 bicubic apache-2.0 stats=clip classes=11821
    vit_large_patch14_clip_224.openai_ft_in12k_in1k 224 1.0 bicubic apache-2.0 stats=clip
    vit_large_patch14_clip_224.openai_ft_in1k 224 1.0 bicubic apache-2.0 stats=clip
    vit_large_patch14_clip_336.laion2b_ft_in12k_in1k 336 1.0 bicubic apache-2.0 stats=half crop=squash
    vit_large_patch14_clip_336.laion2b_ft_in1k 336 1.0 bicubic apache-2.0 stats=half crop=squash
    vit_large_patch14_clip_336.openai 336 1.0 bicubic apache-2.0 stats=clip classes=768
    vit_large_patch14_clip_336.openai_ft_in12k_in1k 336 1.0 bicubic apache-2.0 stats=clip crop=squash
    vit_large_patch14_clip_quickgelu_224.dfn2b 224 1.0 bicubic apple-ascl stats=clip classes=768
    vit_large_patch14_clip_quickgelu_224.metaclip_2pt5b 224 1.0 bicubic cc-by-nc-4.0 stats=clip classes=768
    vit_large_patch14_clip_quickgelu_224.metaclip_400m 224 1.0 bicubic cc-by-nc-4.0 stats=clip classes=768
    vit_large_patch14_clip_quickgelu_224.openai 224 1.0 bicubic apache-2.0 stats=clip classes=768
    vit_large_patch14_clip_quickgelu_336.openai 336 1.0 bicubic apache-2.0 stats=clip classes=768
"""),
    )
)
BY_NAME = {weights.name: weights for weights in WEIGHTS}


def _spec(name: str) -> BackboneSpec:
    size, patch, side, tag = VARIANTS[name]
    act = "quick_gelu" if "quickgelu" in name else "gelu"
    config = TransformerConfig(patch, side // patch, *SIZES[size], pre_norm=True, act=act, eps=1e-5)
    return plain_spec(
        config,
        BY_NAME[f"{name}.{tag}"],
        family="CLIP",
        layouts={"transformers": lambda: transformers_layout(config)},
        ignored=IGNORED,
        computes={"hidden_act": (act, "quick_gelu")},
        paper="https://arxiv.org/abs/2103.00020",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

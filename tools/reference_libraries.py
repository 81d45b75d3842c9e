"""The reference libraries, by the name of their key layout.

Each function takes zoo's name of an architecture (timm's name, where timm has it) and returns a torch model with random
weights. It raises `LookupError` for an architecture that the library lacks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

try:
    import torchvision_cpu  # noqa: F401  # declares torchvision's compiled operators to a torch that lacks them
except ImportError:
    pass
import timm
import torch
import torchvision
from reference_cifar_resnet import CifarResNet
from reference_cspdarknet import CSPDarknet
from reference_mobilenetv1 import MobileNetV1
from timm.models import efficientnet, regnet
from torch import nn


def timm_model(name: str, **args: Any) -> nn.Module:
    if name == "mobilenetv1_025":  # no architecture of timm's, but its parts make it
        act = partial(nn.LeakyReLU, 0.1)
        return efficientnet._gen_mobilenet_v1("mobilenetv1_100", 0.25, act_layer=act, **args)
    return timm.create_model(name, **args)


# Names that torchvision spells in another way than timm does.
TORCHVISION_NAMES: dict[str, str] = {
    "mobilenetv3_large_100": "mobilenet_v3_large",
    "mobilenetv3_small_100": "mobilenet_v3_small",
    "efficientnetv2_s": "efficientnet_v2_s",
    "swin_tiny_patch4_window7_224": "swin_t",
    "swin_small_patch4_window7_224": "swin_s",
    "swin_base_patch4_window7_224": "swin_b",
    "regnetx_004_tv": "regnet_x_400mf",
    "regnetx_008": "regnet_x_800mf",
    "regnetx_016": "regnet_x_1_6gf",
    "regnetx_032": "regnet_x_3_2gf",
    "regnetx_080": "regnet_x_8gf",
    "regnetx_160": "regnet_x_16gf",
    "regnety_004": "regnet_y_400mf",
    "regnety_008_tv": "regnet_y_800mf",
    "regnety_016": "regnet_y_1_6gf",
    "regnety_032": "regnet_y_3_2gf",
    "regnety_080_tv": "regnet_y_8gf",
    "regnety_160": "regnet_y_16gf",
    **{f"vit_{size}_patch{patch}_224": f"vit_{size[0]}_{patch}" for size in ("base", "large") for patch in (16, 32)},
}
# Arguments of torchvision's constructors, for what has no place in zoo: the auxiliary classifier.
TORCHVISION_ARGS: dict[str, dict[str, Any]] = {"inception_v3": {"aux_logits": False, "init_weights": False}}


def torchvision_model(name: str, **args: Any) -> nn.Module:
    args = TORCHVISION_ARGS.get(name, {}) | args
    if name.startswith("mobilenetv2"):
        if name.endswith("d"):
            raise LookupError(f"torchvision has no {name}")
        return torchvision.models.mobilenet_v2(width_mult=int(name[-3:]) / 100, **args)
    if name == "resnext101_32x4d":
        block = torchvision.models.resnet.Bottleneck
        return torchvision.models.ResNet(block, [3, 4, 23, 3], groups=32, width_per_group=4, **args)
    if name.startswith("regnet"):  # it computes its widths with tensors, which must have values
        with torch.device("cpu"):
            return torchvision.models.get_model(TORCHVISION_NAMES[name], **args)
    try:
        return torchvision.models.get_model(TORCHVISION_NAMES.get(name, name), **args)
    except ValueError as error:
        raise LookupError(str(error)) from None


def legacy_torchvision_model(name: str, **args: Any) -> nn.Module:
    """Return DenseNet with the names of torchvision's published files, which its loader translates (`norm.1`)."""
    if not name.startswith("densenet"):
        raise LookupError(f"torchvision has one spelling for {name}")
    model = torchvision_model(name, **args)

    def rename(tensors: dict[str, Any], pattern: str, new: str) -> None:
        for key in list(tensors):
            tensors[re.sub(pattern, new, key)] = tensors.pop(key)

    def saving(module: nn.Module, tensors: dict[str, Any], *_: Any) -> None:
        rename(tensors, r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.")

    def loading(module: nn.Module, tensors: dict[str, Any], *_: Any) -> None:
        rename(tensors, r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.")

    model.register_state_dict_post_hook(saving)
    model.register_load_state_dict_pre_hook(loading)
    return model


def original_model(name: str, **args: Any) -> nn.Module:
    """Return nets that neither library has; they are in this folder."""
    if name.startswith("cspdarknet_"):
        return CSPDarknet(name.removeprefix("cspdarknet_"), **args)
    if name.startswith("mobilenetv1_"):
        return MobileNetV1(**args)
    return CifarResNet(int(name.removeprefix("resnet")), **args)


# Architecture -> (class of transformers, class of its configuration, arguments of that). Filled family by family.
TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {}
CONVNEXT_SIZES = {
    "atto": {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]},
    "femto": {"depths": [2, 2, 6, 2], "hidden_sizes": [48, 96, 192, 384]},
    "pico": {"depths": [2, 2, 6, 2], "hidden_sizes": [64, 128, 256, 512]},
    "nano": {"depths": [2, 2, 8, 2], "hidden_sizes": [80, 160, 320, 640]},
    "tiny": {"depths": [3, 3, 9, 3], "hidden_sizes": [96, 192, 384, 768]},
    "small": {"depths": [3, 3, 27, 3], "hidden_sizes": [96, 192, 384, 768]},
    "base": {"depths": [3, 3, 27, 3], "hidden_sizes": [128, 256, 512, 1024]},
    "large": {"depths": [3, 3, 27, 3], "hidden_sizes": [192, 384, 768, 1536]},
}
for name, cfg in regnet.model_cfgs.items():
    if name[:7] in ("regnetx", "regnety") and name[7:].strip("_").isdigit():
        widths, count, groups = regnet.generate_regnet(cfg.wa, cfg.w0, cfg.wm, cfg.depth, cfg.group_size)
        sizes, _ = regnet.adjust_widths_groups_comp(sorted(set(widths)), [1.0] * count, groups)
        args = {"depths": [widths.count(width) for width in sorted(set(widths))], "hidden_sizes": sizes}
        args |= {"groups_width": cfg.group_size, "layer_type": name[6]}
        TRANSFORMERS[name] = ("RegNetForImageClassification", "RegNetConfig", args)
RESNET_DEPTHS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
for layers, depths in RESNET_DEPTHS.items():
    args = {"depths": depths, "layer_type": "bottleneck" if layers >= 50 else "basic"}
    args["hidden_sizes"] = [256, 512, 1024, 2048] if layers >= 50 else [64, 128, 256, 512]
    TRANSFORMERS[f"resnet{layers}"] = ("ResNetForImageClassification", "ResNetConfig", args)
SWIN_SIZES = {
    "tiny": (96, [2, 2, 6, 2], [3, 6, 12, 24]),
    "small": (96, [2, 2, 18, 2], [3, 6, 12, 24]),
    "base": (128, [2, 2, 18, 2], [4, 8, 16, 32]),
    "large": (192, [2, 2, 18, 2], [6, 12, 24, 48]),
}
for size, (dim, depths, heads) in SWIN_SIZES.items():
    for window, side in ((7, 224), (12, 384)):
        args = {"embed_dim": dim, "depths": depths, "num_heads": heads, "window_size": window, "image_size": side}
        TRANSFORMERS[f"swin_{size}_patch4_window{window}_{side}"] = ("SwinForImageClassification", "SwinConfig", args)
for size, args in CONVNEXT_SIZES.items():
    TRANSFORMERS[f"convnextv2_{size}"] = ("ConvNextV2ForImageClassification", "ConvNextV2Config", args)
    TRANSFORMERS[f"convnext_{size}"] = ("ConvNextForImageClassification", "ConvNextConfig", args)

# Scale -> (width, depth, channels of the head): arXiv:1905.11946 by way of the published configurations.
for scale, (width, depth, head) in {
    "b0": (1.0, 1.0, 1280),
    "b1": (1.0, 1.1, 1280),
    "b2": (1.1, 1.2, 1408),
    "b3": (1.2, 1.4, 1536),
    "b4": (1.4, 1.8, 1792),
}.items():
    args = {"width_coefficient": width, "depth_coefficient": depth, "hidden_dim": head}
    TRANSFORMERS[f"tf_efficientnet_{scale}"] = ("EfficientNetForImageClassification", "EfficientNetConfig", args)

TRANSFORMERS["mobilenetv1_100"] = ("MobileNetV1ForImageClassification", "MobileNetV1Config", {})
for width in ("035", "050", "075", "100", "140"):
    args = {"depth_multiplier": int(width) / 100}
    TRANSFORMERS[f"mobilenetv2_{width}"] = ("MobileNetV2ForImageClassification", "MobileNetV2Config", args)

# Plain vision transformers: (dim, depth, heads).
TRANSFORMER_SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}


def add_plain_transformers(
    model: str, config: str, names: str, sizes: str, patch: int, side: int, **further: object
) -> None:
    """Return rows of `TRANSFORMERS` for `names`, in which {} stands for each of `sizes`; `further` is configuration."""
    for size in sizes.split():
        dim, depth, heads = TRANSFORMER_SIZES[size]
        args = {"hidden_size": dim, "num_hidden_layers": depth, "num_attention_heads": heads}
        args |= {"intermediate_size": 4 * dim, "patch_size": patch, "image_size": side, **further}
        TRANSFORMERS[names.format(size)] = (model, config, args)


for patch, side, sizes in (
    (32, 224, "small base large"),
    (32, 384, "small base large"),
    (16, 224, "tiny small base large"),
    (16, 384, "tiny small base large"),
    (8, 224, "small base"),
):
    names = f"vit_{{}}_patch{patch}_{side}"
    add_plain_transformers("ViTForImageClassification", "ViTConfig", names, sizes, patch, side)

for side, sizes in ((224, "tiny small base"), (384, "base")):
    names = f"deit_{{}}_patch16_{side}"  # DeiT's files are ViT's, but for those with a distillation token
    add_plain_transformers("ViTForImageClassification", "ViTConfig", names, sizes, 16, side)
add_plain_transformers("Dinov2Model", "Dinov2Config", "vit_{}_patch14_dinov2", "small base large", 14, 518)
for act in ("", "quickgelu_"):
    for patch, sides, size in ((32, (224, 256, 384, 448), "base"), (16, (224, 384), "base"), (14, (224, 336), "large")):
        for side in sides:
            names = f"vit_{{}}_patch{patch}_clip_{act}{side}"
            computed = "quick_gelu" if act else "gelu"
            add_plain_transformers("CLIPVisionModel", "CLIPVisionConfig", names, size, patch, side, hidden_act=computed)

# Models whose files come with and without the name of the body before its tensors; their layouts leave it out.
BODIES = {
    "ViTForImageClassification": "vit.",
    "CLIPVisionModel": "vision_model.",
    "ConvNextForImageClassification": "convnext.",
    "EfficientNetForImageClassification": "efficientnet.",
    "MobileNetV1ForImageClassification": "mobilenet_v1.",
    "MobileNetV2ForImageClassification": "mobilenet_v2.",
    "ConvNextV2ForImageClassification": "convnextv2.",
    "SwinForImageClassification": "swin.",
    "ResNetForImageClassification": "resnet.",
    "RegNetForImageClassification": "regnet.",
}


def names_in_files(model: nn.Module) -> nn.Module:
    """Return `model` with a `state_dict` as transformers writes it to files, whose names may differ from attributes."""
    from transformers.core_model_loading import revert_weight_conversion

    tensors = revert_weight_conversion(model, model.state_dict())
    body = BODIES.get(type(model).__name__, "")
    model.state_dict = lambda: {name.removeprefix(body): tensor for name, tensor in tensors.items()}
    return model


def transformers_model(name: str, num_classes: int = 1000) -> nn.Module:
    if name not in TRANSFORMERS:
        raise LookupError(f"transformers has no {name}")
    import transformers

    model, config, args = TRANSFORMERS[name]
    built = getattr(transformers, model)(getattr(transformers, config)(num_labels=num_classes, **args))
    if not hasattr(built, "classifier"):  # ours stands beside what transformers has
        built.head = nn.Linear(args["hidden_size"], num_classes)
    return names_in_files(built)


LIBRARIES: dict[str, Callable[..., nn.Module]] = {
    "timm": timm_model,
    "torchvision": torchvision_model,
    "torchvision-legacy": legacy_torchvision_model,
    "original": original_model,
    "transformers": transformers_model,
}

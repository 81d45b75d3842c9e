"""The reference libraries, by the name of their key layout.

Each takes an architecture by our name, which is timm's where timm has it, gives a torch model with random weights, and
raises `LookupError` for an architecture that it lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import torchvision_cpu  # noqa: F401  # declares torchvision's compiled operators to a torch that lacks them
except ImportError:
    pass
import timm
import torchvision
from reference_cifar_resnet import CifarResNet
from torch import nn


def timm_model(name: str, **args: Any) -> nn.Module:
    return timm.create_model(name, **args)


# Names that torchvision spells in another way than timm does.
TORCHVISION_NAMES: dict[str, str] = {}


def torchvision_model(name: str, **args: Any) -> nn.Module:
    if name.startswith("mobilenetv2"):
        if name.endswith("d"):
            raise LookupError(f"torchvision has no {name}")
        return torchvision.models.mobilenet_v2(width_mult=int(name[-3:]) / 100, **args)
    if name == "resnext101_32x4d":
        block = torchvision.models.resnet.Bottleneck
        return torchvision.models.ResNet(block, [3, 4, 23, 3], groups=32, width_per_group=4, **args)
    try:
        return torchvision.models.get_model(TORCHVISION_NAMES.get(name, name), **args)
    except ValueError as error:
        raise LookupError(str(error)) from None


def original_model(name: str, **args: Any) -> nn.Module:
    """Nets that neither library has, written down in this folder."""
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
for size, args in CONVNEXT_SIZES.items():
    TRANSFORMERS[f"convnextv2_{size}"] = ("ConvNextV2ForImageClassification", "ConvNextV2Config", args)
    TRANSFORMERS[f"convnext_{size}"] = ("ConvNextForImageClassification", "ConvNextConfig", args)


def transformers_model(name: str, num_classes: int = 1000) -> nn.Module:
    if name not in TRANSFORMERS:
        raise LookupError(f"transformers has no {name}")
    import transformers

    model, config, args = TRANSFORMERS[name]
    return getattr(transformers, model)(getattr(transformers, config)(num_labels=num_classes, **args))


LIBRARIES: dict[str, Callable[..., nn.Module]] = {
    "timm": timm_model,
    "torchvision": torchvision_model,
    "original": original_model,
    "transformers": transformers_model,
}

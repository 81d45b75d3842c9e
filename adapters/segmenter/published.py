"""Published segmenters: names, configurations and the key layouts of their checkpoints.

torchvision 0.28 (BSD-3-Clause): dilated ResNets, trained on COCO images with the 20 classes of Pascal VOC and a
background; images are resized to 520 pixels on the shorter side. segmentation_models.pytorch (MIT) publishes no
segmentation weights; its layouts load what users have trained with it.
"""

from __future__ import annotations

from zoo.adapters.segmenter import layouts
from zoo.registry.spec import OUTPUT_STRIDE, ModelSpec, Preprocess

_COCO = Preprocess(size=(520, 696), crop_pct=1.0, crop_mode="letterbox", frames=((696, 520), (520, 520)))

# name: (backbone, decoder)
_TORCHVISION = {
    "deeplabv3_resnet50": ("resnet50", "deeplabv3"),
    "deeplabv3_resnet101": ("resnet101", "deeplabv3"),
    "fcn_resnet50": ("resnet50", "fcn"),
    "fcn_resnet101": ("resnet101", "fcn"),
}
_SMP = {
    "unet_resnet34": ("resnet34", "unet", lambda: layouts.SMP_UNET),
    "fpn_resnet34": ("resnet34", "fpn", layouts.smp_fpn),
}


def _torchvision(name: str) -> ModelSpec:
    backbone, decoder = _TORCHVISION[name]
    return ModelSpec(
        name,
        backbone,
        "segmenter",
        {"decoder": decoder, "width": 0, "skip": False, "auxiliary": 0.5, "tta_flip": False, OUTPUT_STRIDE: 8},
        f"{name.split('_')[0]} on a dilated backbone: the 20 classes of Pascal VOC and a background.",
        _COCO,
        "voc-21",
        {"torchvision": lambda: layouts.TORCHVISION},
        "bsd-3-clause",
    )


def _smp(name: str) -> ModelSpec:
    backbone, decoder, layout = _SMP[name]
    return ModelSpec(
        name,
        backbone,
        "segmenter",
        {"decoder": decoder, "width": 0, "tta_flip": False},
        f"{decoder} of segmentation_models.pytorch, for its checkpoints.",
        layouts={"segmentation_models": layout},
        license="mit",
    )


MODELS = (*map(_torchvision, _TORCHVISION), *map(_smp, _SMP))

"""Key layouts of published segmenters: module path in the model -> module path in the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

TORCHVISION = {"backbone": "backbone", "head.decoder": "classifier", "head.auxiliary.0": "aux_classifier"}
"""torchvision's DeepLabV3 and FCN, with their auxiliary classifier."""

SMP_UNET = {"backbone": "encoder", "head.decoder": "decoder", "head.decoder.classifier": "segmentation_head.0"}
"""U-Net of segmentation_models.pytorch, whose encoder has the parameter names of the backbone."""

LEVELS = 4
"""Levels of the FPN of segmentation_models.pytorch."""


def smp_fpn() -> Mapping[str, str]:
    """Return the layout of the FPN of segmentation_models.pytorch, which counts levels from the coarsest."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield from (("backbone", "encoder"), ("head.decoder.classifier", "segmentation_head.0"))
        for level in range(LEVELS):
            coarsest = level == LEVELS - 1
            yield (
                f"head.decoder.pyramid.inner_blocks.{level}.0",
                f"decoder.p{level + 2}" + ".skip_conv" * (not coarsest),
            )
            for i in range(max(level, 1)):
                theirs = f"decoder.seg_blocks.{LEVELS - 1 - level}.block.{i}.block"
                yield f"head.decoder.seg_blocks.{level}.{i}", theirs

    return dict(pairs())

"""Key layouts of published segmenters: module path in a composed model -> module path in the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

TORCHVISION = {"backbone": "backbone", "head.decoder": "classifier", "head.auxiliary.0": "aux_classifier"}
"""torchvision's DeepLabV3 and FCN, with the auxiliary classifier that its weights have."""

SMP_UNET = {"backbone": "encoder", "head.decoder": "decoder", "head.decoder.classifier": "segmentation_head.0"}
"""segmentation_models.pytorch's U-Net on an encoder whose names are the backbone's own."""

LEVELS = 4


def smp_fpn() -> Mapping[str, str]:
    """segmentation_models.pytorch's FPN, whose levels are counted from the coarsest."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield from (("backbone", "encoder"), ("head.decoder.classifier", "segmentation_head.0"))
        for level in range(LEVELS):
            coarsest = level == LEVELS - 1
            yield (
                f"head.decoder.pyramid.inner_blocks.{level}.0",
                f"decoder.p{level + 2}" + ".skip_conv" * (not coarsest),
            )
            for i in range(max(level, 1)):
                there = f"decoder.seg_blocks.{LEVELS - 1 - level}.block.{i}.block"
                yield f"head.decoder.seg_blocks.{level}.{i}", there

    return dict(pairs())

"""What `zoo.check` finds in the mask of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from zoo.targets.check_masks import faults_of
from zoo.targets.faults import Check, Fault

if TYPE_CHECKING:
    from zoo.data.dataset import Sample

CHECKS: Mapping[str, Check] = {
    "size": Check(
        "mask-size",
        "warning",
        "masks of another size than the image",
        "Training turns or scales a mask if its aspect ratio fits, and leaves the image out otherwise. Export the mask "
        "again in the image's size.",
    ),
    "value": Check(
        "mask-value",
        "error",
        "masks with values that belong to no class",
        "Add a line for each value to the list of classes, called void if it is to be ignored. Many values mean that "
        "the mask was resized with blending or saved as JPEG.",
    ),
    "outline": Check(
        "mask-outline",
        "warning",
        "masks with an object that has a box but no outline",
        "Draw the outline; until then, the pixels of the box are ignored.",
    ),
    "unknown": Check(
        "mask-ignored", "error", "masks with ignored pixels only", "Annotate these images, or remove them."
    ),
    "empty": Check(
        "mask-empty",
        "note",
        "masks with background only",
        "Right for images without objects; otherwise draw the objects.",
    ),
}


def examine(sample: Sample, classes: Sequence[str]) -> tuple[tuple[int, ...], tuple[Fault, ...]]:
    """Return (class numbers that occur in the mask of one image, all its faults). Reads the mask.

    Raises:
        DataError: the mask or the header of the image cannot be read.
    """
    return faults_of(sample, classes)

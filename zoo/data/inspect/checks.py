"""Kinds of finding on images, files, classes and splits.

Those on targets belong to the kind of target (`TargetKind.checks`).
"""

from __future__ import annotations

from zoo.targets.faults import Check

BALANCE = 10
"""A class with fewer than one in `BALANCE` of the most frequent class is reported."""

DAMAGED = Check(
    "damaged-image",
    "error",
    "images that cannot be read",
    "Download them again, or remove them; --on-corrupt skip trains without them.",
)
ONE_COLOUR = Check("one-colour", "warning", "images of a single colour", "Remove them: there is nothing to learn from.")
TINY = Check(
    "tiny-image",
    "warning",
    "images much smaller than the others, or of less than 16 pixels",
    "Replace thumbnails and placeholders by the real images.",
)
ELONGATED = Check(
    "elongated-image",
    "warning",
    "images with an extreme aspect ratio",
    "Crop them: resizing and centre crops leave little of them. Check for banners and failed crops.",
)
MIXED = Check(
    "grey-and-colour",
    "note",
    "grey images among colour images, or the reverse",
    "Fine in general. If only some classes have grey images, the model learns this difference: convert all images.",
)

CONTRADICTING = Check(
    "contradicting-labels",
    "error",
    "the same image with different annotations",
    "Keep the right annotation, and remove the other copies.",
)
LEAK = Check(
    "duplicate-across-splits",
    "error",
    "the same image in several splits",
    "Remove it from all but one split: metrics on images that were trained on are too good.",
)
COPY = Check("duplicate", "warning", "the same image several times in a split", "Keep one of them.")
NEAR_LEAK = Check(
    "near-duplicate-across-splits",
    "warning",
    "nearly the same image in several splits",
    "Put all versions of an image into one split.",
)
NEAR = Check(
    "near-duplicate",
    "warning",
    "nearly the same image several times in a split",
    "Keep one of them, unless they are augmented copies that you made on purpose.",
)

NOT_TRAINED = Check(
    "class-without-training",
    "error",
    "classes that occur in other splits, but not in train",
    "Add training images of the class, or leave the class out: it cannot be learned.",
)
MISSING = Check(
    "class-missing-from-split",
    "warning",
    "classes that a split lacks",
    "Add images of the class to the split: without them, its metrics say nothing about the class.",
)
RARE = Check(
    "rare-class",
    "warning",
    "classes with a single sample",
    "Add images, or join the class with another: one sample cannot be both trained on and validated.",
)
SIMILAR = Check(
    "similar-class-names",
    "warning",
    "class names that are nearly the same",
    "If they are the same class, give it one name; otherwise they count as different classes.",
)
UNUSED = Check(
    "unused-class",
    "note",
    "classes without any annotation",
    "Remove the names from the list of classes, or annotate them.",
)
IMBALANCE = Check(
    "imbalance",
    "note",
    f"classes {BALANCE} times as rare as the most frequent one",
    "Look at the metrics of each class, not only at the accuracy. Add images, or weight the classes if the task has an "
    "option for it.",
)

UNREADABLE = Check(
    "unreadable-annotation",
    "error",
    "annotations that cannot be read",
    "Correct the file that the message names, or remove the image. Save masks in a lossless format, such as PNG.",
)
REFUSED = Check(
    "annotations-refused",
    "error",
    "annotations with more faults than training accepts",
    "Most are wrong in the same way: correct the export. --annotations drop leaves all faulty ones out.",
)
UNUSED_IMAGE = Check(
    "unused-image",
    "warning",
    "image files that no sample uses",
    "Annotate or list them, or move them out of the folder. Check the spelling of file names in the annotations.",
)
OTHER_FILE = Check(
    "unused-file", "note", "files that are not images", "Fine if they are not meant as images; otherwise convert them."
)
HIDDEN_FILE = Check(
    "hidden-image",
    "note",
    "images that are hidden or in system folders",
    "Fine for files that the system made (._cat.jpg, .thumbnails). Rename others.",
)
REMARK = Check("reader", "note", "remarks of the reader", "Read them: they say how the files were understood.")
ENTRIES = {
    "missing": Check(
        "missing-image",
        "error",
        "images that are listed but do not exist",
        "Copy them into the folder, or correct their names in the annotations.",
    ),
    "stray": Check(
        "stray-annotation",
        "error",
        "annotations of images that are not listed",
        "Correct the id of their image, or remove them.",
    ),
    "unlabelled": Check(
        "unlabelled-image", "error", "images without a label", "Label them, or remove them from the table."
    ),
    "unannotated": Check(
        "unannotated-image",
        "error",
        "images that a list of a split names, but that have no annotation",
        "Annotate them, or remove them from the list.",
    ),
    "contradicting": CONTRADICTING,
    "unreadable": UNREADABLE,
}
"""Findings on entries of annotation files that cannot become samples: kind of fault -> description."""

CHECKS = (
    *(DAMAGED, ONE_COLOUR, TINY, ELONGATED, MIXED),
    *(CONTRADICTING, LEAK, COPY, NEAR_LEAK, NEAR),
    *(NOT_TRAINED, MISSING, RARE, SIMILAR, UNUSED, IMBALANCE),
    *ENTRIES.values(),
    *(REFUSED, UNUSED_IMAGE, OTHER_FILE, HIDDEN_FILE, REMARK),
)
"""All of these kinds, some of them twice."""

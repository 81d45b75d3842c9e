"""Pascal VOC masks: a class for every pixel, 255 or off-white for ignored pixels. Everingham et al., 2010."""

from __future__ import annotations

from pathlib import Path

from zoo.data.class_table import classes_of, code, colours_of, find_table, read_table, values_of
from zoo.data.dataset import Dataset, Sample
from zoo.data.files import has_images, read_lines, subfolders
from zoo.data.pairs import images_by_stem, one_image, title
from zoo.data.readers.masks import coloured
from zoo.data.refusals import refuse
from zoo.errors import DataError
from zoo.image_header import size_if_readable
from zoo.targets.faults import Fault
from zoo.targets.masks import BACKGROUND, IGNORE, Mask, MaskFile

NAME = "voc_masks"
KINDS = ("masks",)
NEEDS = "JPEGImages/ and SegmentationClass/ with a .png for each image"
LAYOUT = (
    "Pascal VOC masks: SegmentationClass/ with a .png for each image and JPEGImages/ (or images/), perhaps "
    "ImageSets/Segmentation/train.txt and val.txt; labelmap.txt or class_names.txt if the classes are not Pascal's 20"
)
CLASSES = (
    *(BACKGROUND, "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_MASKS = ("SegmentationClass", "SegmentationClassPNG")
_BORDER = code(224, 224, 192)


def colour(index: int) -> int:
    """Return the colour of a class in Pascal VOC's palette.

    The bits of the class number, lowest first, go to red, green and blue in turn, filling each from its highest bit.
    So neighbouring numbers get very different colours.
    """
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return code(*channels)


def detect(path: Path) -> bool:
    """Whether there is a mask folder named as in Pascal VOC beside an image folder."""
    return path.is_dir() and _folders(path) is not None


def read(path: Path) -> dict[str, Dataset]:
    """Read Pascal VOC masks: split name -> dataset, or one key `all`.

    Splits are the lists in `ImageSets/Segmentation` (`trainval` replaces `train` if neither `train` nor `val` exists).
    Masks may hold class numbers, with or without a palette, or colours.

    Raises:
        DataError: a file is broken or missing; names the file.
    """
    folders = _folders(path) if path.is_dir() else None
    if folders is None:
        raise DataError(f"{path} is not {LAYOUT}.")
    images, folder = folders
    by_stem = images_by_stem(images)
    masks = {name: files[0] for name, files in images_by_stem(folder).items()}
    if not masks:
        raise DataError(f"{folder} holds no masks.")
    table = find_table(path)
    if table:
        rows = read_table(table)
        classes, values, colours = classes_of(rows), values_of(rows), colours_of(rows)
    else:
        classes = CLASSES
        values = (*((i, i) for i in range(len(CLASSES))), (IGNORE, IGNORE))
        colours = (*((colour(i), i) for i in range(len(CLASSES))), (_BORDER, IGNORE))
    by_colour = bool(colours) and coloured(masks.values(), colours, values)

    def sample(name: str) -> Sample | None:
        image = one_image(by_stem, name, masks[name])
        if image is None:
            return None
        source = MaskFile(masks[name], colours if by_colour else values, by_colour)
        return Sample(image, Mask(size_if_readable(masks[name]), source), image.relative_to(path).as_posix())

    lists, notes = _lists(path, masks)
    lists = lists or {"all": sorted(masks)}
    return {
        split: Dataset(tuple(filter(None, map(sample, names))), classes, "masks", title(path, split), path, notes)
        for split, names in lists.items()
    }


def _folders(path: Path) -> tuple[Path, Path] | None:
    """Return (image folder, mask folder); None unless there is one of each."""
    masks = next((path / name for name in reversed(_MASKS) if (path / name).is_dir()), None)
    named = [folder for folder in subfolders(path) if folder.name.lower() in ("jpegimages", "pngimages", "images")]
    return (named[0], masks) if masks and has_images(masks) and len(named) == 1 else None


def _lists(path: Path, masks: dict[str, Path]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Return (split -> image names, notes).

    A list is skipped with a note if none of its images has a mask: test sets are often published without masks.
    """
    folder = path / "ImageSets" / "Segmentation"
    files = {name: folder / f"{name}.txt" for name in ("train", "val", "test", "trainval")}
    files = {name: file for name, file in files.items() if file.is_file()}
    both = files.pop("trainval", None)
    if both and not {"train", "val"} & set(files):
        files = {"train": both, **files}
    by_split, notes = {}, []
    for split, file in files.items():
        names = [line.strip() for line in read_lines(file) if line.strip()]
        missing = [name for name in names if name not in masks]
        if len(missing) == len(names):
            notes.append(f"{file.name} lists {len(names)} images without masks: there is no {split} split.")
            continue
        if missing:
            faults = [Fault("unannotated", name, None, "", file.name) for name in missing]
            refuse(f"{file} lists {missing[0]!r}, which has no mask.", *faults)
        by_split[split] = [name for name in names if name in masks]
    return by_split, tuple(notes)

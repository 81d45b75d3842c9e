"""Pascal VOC's masks: a class for every pixel, 255 or white-ish where nobody decided. Everingham et al., 2010."""

from __future__ import annotations

from pathlib import Path

from zoo.data.class_table import classes_of, code, colours_of, find_table, read_table, values_of
from zoo.data.dataset import Dataset, Sample
from zoo.data.files import has_images, read_lines, subfolders
from zoo.data.pairs import images_by_stem, one_image, title
from zoo.data.readers.masks import coloured
from zoo.errors import DataError
from zoo.image_header import image_size
from zoo.targets.masks import BACKGROUND, IGNORE, Mask, MaskFile

NAME = "voc_masks"
KINDS = ("masks",)
LAYOUT = (
    "Pascal VOC masks: SegmentationClass/ with a .png for each image and JPEGImages/ (or images/), perhaps "
    "ImageSets/Segmentation/train.txt and val.txt; labelmap.txt or class_names.txt where classes are not Pascal's 20"
)
CLASSES = (
    *(BACKGROUND, "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_MASKS = ("SegmentationClass", "SegmentationClassPNG")
_BORDER = code(224, 224, 192)


def colour(index: int) -> int:
    """The colour of a class: its number's bits in turn go to red, green and blue, the lowest to the highest bit."""
    parts = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            parts[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return code(*parts)


def detect(path: Path) -> bool:
    """A folder of masks called as in Pascal VOC, beside one of images."""
    return path.is_dir() and _folders(path) is not None


def read(path: Path) -> dict[str, Dataset]:
    """The splits of `ImageSets/Segmentation` (`trainval` for a missing `train`), or `all`.

    Masks may hold class numbers, with or without a palette, or the colours.

    Raises:
        DataError: names the file that is broken or missing.
    """
    found = _folders(path) if path.is_dir() else None
    if found is None:
        raise DataError(f"{path} is not {LAYOUT}.")
    images, folder = found
    by_stem = images_by_stem(images)
    masks = {name: files[0] for name, files in images_by_stem(folder).items()}
    if not masks:
        raise DataError(f"{folder} holds no mask.")
    table = find_table(path)
    if table:
        rows = read_table(table)
        classes, values, colours = classes_of(rows), values_of(rows), colours_of(rows)
    else:
        classes = CLASSES
        values = (*((i, i) for i in range(len(CLASSES))), (IGNORE, IGNORE))
        colours = (*((colour(i), i) for i in range(len(CLASSES))), (_BORDER, IGNORE))
    by_colour = bool(colours) and coloured(masks.values(), colours, values)

    def sample(name: str) -> Sample:
        image = one_image(by_stem, name, masks[name])
        source = MaskFile(masks[name], colours if by_colour else values, by_colour)
        return Sample(image, Mask(image_size(masks[name])[0], source), image.relative_to(path).as_posix())

    lists, notes = _lists(path, masks)
    lists = lists or {"all": sorted(masks)}
    return {
        split: Dataset(tuple(map(sample, names)), classes, "masks", title(path, split), path, notes)
        for split, names in lists.items()
    }


def _folders(path: Path) -> tuple[Path, Path] | None:
    """(folder of images, folder of masks)."""
    masks = next((path / name for name in reversed(_MASKS) if (path / name).is_dir()), None)
    named = [folder for folder in subfolders(path) if folder.name.lower() in ("jpegimages", "pngimages", "images")]
    return (named[0], masks) if masks and has_images(masks) and len(named) == 1 else None


def _lists(path: Path, masks: dict[str, Path]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """(the names by split; empty without lists; what is passed over: lists of images that all have no mask, as those of
    a test set)."""
    folder = path / "ImageSets" / "Segmentation"
    files = {name: folder / f"{name}.txt" for name in ("train", "val", "test", "trainval")}
    files = {name: file for name, file in files.items() if file.is_file()}
    both = files.pop("trainval", None)
    if both and not {"train", "val"} & set(files):
        files = {"train": both, **files}
    found, notes = {}, []
    for split, file in files.items():
        names = [line.strip() for line in read_lines(file) if line.strip()]
        bare = [name for name in names if name not in masks]
        if len(bare) == len(names):
            notes.append(f"{file.name} lists {len(names)} images, none of which has a mask: there is no {split} set.")
            continue
        if bare:
            raise DataError(f"{file} lists {bare[0]!r}, which has no mask.")
        found[split] = names
    return found, tuple(notes)

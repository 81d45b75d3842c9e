"""Draw docs/segmentation.png: blood cells, their masks, and the predictions of a segmenter.

    python tools/segmentation_sheet.py masks ../shared/assets CELLS
    zoo train CELLS --task segmenter --backbone mobilenetv2_100 --weights FILE --plan head --image-size 320 --out RUN
    python tools/segmentation_sheet.py draw RUN CELLS [PICTURE]

BCCD (MIT licence) has boxes; its cells are round, so the ellipse in a box serves as the mask of the cell. `masks`
writes images and masks of BCCD's splits to the new folder CELLS. `draw` shows three images of the test split, one a
row: the image, the true masks, and the predicted ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import zoo
from zoo.adapters.segmenter.pictures import indexed, overlay
from zoo.data import read

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("background", "RBC", "WBC", "Platelets")
COUNTS = {"train": 60, "val": 20, "test": 20}
SHOWN = 3


def masks(assets: Path, folder: Path) -> None:
    """Write a folder of images and one of masks for each split, and the list of classes."""
    found = read(assets / "datasets" / "bccd")
    for split, count in COUNTS.items():
        data = found[split]
        for part in (folder / split, folder / f"{split}_labels"):
            part.mkdir(parents=True)
        for sample in list(data)[:count]:
            mask = Image.fromarray(np.zeros(sample.target.size, np.uint8))
            rows = zip(sample.target.boxes, (data.classes[i] for i in sample.target.labels), strict=True)
            # Small cells lie on large ones.
            for box, label in sorted(rows, key=lambda row: (row[0][0] - row[0][2]) * (row[0][3] - row[0][1])):
                ImageDraw.Draw(mask).ellipse(box, fill=CLASSES.index(label))
            indexed(np.asarray(mask), CLASSES).save(folder / f"{split}_labels" / f"{sample.image.stem}.png")
            Image.open(sample.image).save(folder / split / f"{sample.image.stem}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")


def draw(run: Path, folder: Path, target: Path) -> None:
    """Paste the images together and write the file."""
    model = zoo.load(run)
    rows = []
    for photo in sorted((folder / "test").iterdir())[:SHOWN]:
        pixels = np.asarray(Image.open(photo).convert("RGB"))
        true = np.asarray(Image.open(folder / "test_labels" / photo.name))
        seen = model.predict(photo).mask
        rows.append(np.hstack([pixels, *(overlay(pixels, mask, model.labels) for mask in (true, seen))]))
    sheet = Image.fromarray(np.vstack(rows))
    sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS).save(target, optimize=True)


def main() -> None:
    """Run `masks` or `draw`; see above."""
    what, first, second = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if what == "masks":
        masks(first, second)
    else:
        draw(first, second, Path(sys.argv[4]) if len(sys.argv) > 4 else ROOT / "docs" / "segmentation.png")


if __name__ == "__main__":
    main()

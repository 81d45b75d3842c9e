"""Write a CSV file with a line for each image, beside a folder of images."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from zoo.data.dataset import Dataset
from zoo.data.writers import classes_of, refuse_names
from zoo.data.written import Folder

NAME = "csv"
KINDS = ("class", "classes")
LAYOUT = "labels.csv with the columns image and label (or labels, separated by |) and split; images in images/"


def write(splits: Mapping[str, Dataset], folder: Folder) -> None:
    """Write one line for each image. A column `labels` holds several classes, separated by `|`."""
    classes, several = classes_of(splits), next(iter(splits.values())).kind == "classes"
    signs = "|;" if several else "|"
    unfit = [name for name in classes if name != name.strip() or set(name) & set(f"{signs}\r\n\0") or not name]
    reason = f"a name must not be empty, begin or end with a space, or hold a line break or {' or '.join(signs)}"
    refuse_names(unfit, NAME, reason, "another format, such as labels")
    names = folder.names(splits)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    by_split = "all" not in splits
    table.writerow(["image", "labels" if several else "label", *(["split"] if by_split else [])])
    for split, dataset in splits.items():
        place = f"images/{split}/" if by_split else "images/"
        for sample, name in zip(dataset, names[split], strict=True):
            folder.image(sample, f"{place}{name}")
            labels = "|".join(classes[label] for label in dataset.labels(sample))
            table.writerow([f"{place}{name}", labels, *([split] if by_split else [])])
    folder.text("labels.csv", text.getvalue())

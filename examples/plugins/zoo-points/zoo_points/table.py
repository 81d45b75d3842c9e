"""The data format: `points.csv` beside the images, with a header line, the column `image`, and x and y of each point.

An empty cell means that the point is not visible.
"""

import csv

from zoo.data import Dataset, Sample
from zoo.data.decode import image_size
from zoo.errors import DataError
from zoo_points.kind import Places

NAME = "points"
KINDS = ("points",)
LAYOUT = "points.csv with the columns image, x1, y1, x2, y2, ... beside the images"
READS = (".csv",)


def detect(path):
    return (path / "points.csv").is_file()


def read(path):
    file = path / "points.csv"
    with file.open(newline="", encoding="utf-8") as table:
        rows = list(csv.reader(table))[1:]
    counts = {len(row) for row in rows}
    if len(counts) != 1 or counts.pop() % 2 == 0:
        raise DataError(f"{file}: each line must have an image, and x and y of the same number of points.")
    samples = tuple(Sample(path / row[0], _places(path / row[0], row[1:], file), row[0]) for row in rows)
    return {"all": Dataset(samples, (), "points", path.name, path)}


def _places(image, cells, file):
    try:
        numbers = [float(cell) if cell else None for cell in cells]
    except ValueError as error:
        raise DataError(f"{file}: {image.name}: {error}.") from None
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return Places(tuple(None if None in pair else pair for pair in pairs), image_size(image)[0])

"""A data format, to read and write: `listing.txt` with a line for each image, `file<tab>class`, beside the images."""

from zoo.data import Dataset, Sample
from zoo.errors import DataError

NAME = "listing"
KINDS = ("class",)
LAYOUT = "listing.txt with a line for each image: file, tab, class"
READS = (".txt",)


def detect(path):
    return (path / "listing.txt").is_file()


def read(path):
    rows = []
    for number, line in enumerate((path / "listing.txt").read_text("utf-8").splitlines(), 1):
        file, tab, label = line.partition("\t")
        if not tab:
            raise DataError(f"{path / 'listing.txt'}, line {number}: {line!r} is not `file<tab>class`.")
        rows.append((file, label))
    classes = tuple(sorted({label for _, label in rows}))
    samples = tuple(Sample(path / file, classes.index(label), file) for file, label in rows)
    return {"all": Dataset(samples, classes, "class", path.name, path)}


def write(splits, folder):
    """Write `all` of a dataset; what was written is read back and compared, so that other splits are refused."""
    lines = []
    for split, names in folder.names(splits).items():
        for sample, name in zip(splits[split], names, strict=True):
            folder.image(sample, name)
            lines.append(f"{name}\t{splits[split].classes[sample.target]}")
    folder.lines("listing.txt", lines)

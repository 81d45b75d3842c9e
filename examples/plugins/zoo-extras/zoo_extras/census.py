"""The command `zoo census DATA`: the number of images of each class."""

from typing import Annotated

import typer


def census(data: Annotated[str, typer.Argument(help="Folder or file with the data.")]) -> None:
    """Count the images of each class of DATA, split by split."""
    from zoo.data import read

    for split, dataset in read(data).items():
        for name, count in dataset.counts().items():
            print(f"{split}\t{name}\t{count}")

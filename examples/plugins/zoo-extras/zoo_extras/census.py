"""The command `zoo census DATA`: how many images of each class there are."""

from typing import Annotated

import typer


def census(data: Annotated[str, typer.Argument(help="Folder or file with the data.")]) -> None:
    """Count the images of each class of DATA, split by split."""
    from zoo.data import read

    for split, part in read(data).items():
        for name, count in part.counts().items():
            print(f"{split}\t{name}\t{count}")

"""The command `zoo points RUN PHOTO...`: a line of CSV for each photo."""

from typing import Annotated

import typer


def points(
    run: Annotated[str, typer.Argument(help="Run folder or saved model of the task points.")],
    photos: Annotated[list[str], typer.Argument(help="Photos, or folders of them.")],
) -> None:
    """Print where a run sees points in photos, as CSV: file, x and y of each."""
    import zoo
    from zoo.data import list_images

    for seen in zoo.load(run).predict(list_images(photos)):
        print(",".join([seen.file, *(f"{value:.1f}" for point in seen.points for value in point)]))

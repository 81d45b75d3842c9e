"""The command `zoo points RUN IMAGE...`: a line of CSV for each image."""

from typing import Annotated

import typer


def points(
    run: Annotated[str, typer.Argument(help="Run folder or saved model of the task points.")],
    images: Annotated[list[str], typer.Argument(help="Images, or folders of them.")],
) -> None:
    """Print the predicted points of images as CSV: file, then x and y of each point."""
    import zoo
    from zoo.data import list_images

    for prediction in zoo.load(run).predict(list_images(images)):
        print(",".join([prediction.file, *(f"{value:.1f}" for point in prediction.points for value in point)]))

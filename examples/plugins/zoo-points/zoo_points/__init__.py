"""Point regression: the positions of a few landmarks, such as the corners of a page or the eyes of a face.

A whole task as a plugin: a kind of target (`kind`), a data format (`table`), the task with its head, loss, metrics and
plots (`task`), and the command `zoo points` (`command`).
"""

import zoo
from zoo.registry.spec import AdapterSpec, Part

ZOO_API = 1


@zoo.hookimpl
def zoo_adapters():
    from zoo_points.task import Points

    return [AdapterSpec("points", Points, "Positions of landmarks, in pixels.")]


@zoo.hookimpl
def zoo_parts():
    return [
        Part("target.kind", "points", "zoo_points.kind:POINTS", "Landmarks of an image, x and y in pixels."),
        Part("data.format", "points", "zoo_points.table", "points.csv: image, then x and y of each point."),
        Part("zoo.command", "points", "zoo_points.command:points", "Predicted points of images, as CSV."),
    ]

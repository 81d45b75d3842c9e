"""The kind of target: landmarks of one image."""

from dataclasses import dataclass

from zoo.targets import TargetKind


@dataclass(frozen=True)
class Places:
    """Landmarks of one image.

    Attributes:
        points: x, y of each, in pixels of the upright image; None for an invisible one.
        size: height and width of the image.
    """

    points: tuple[tuple[float, float] | None, ...]
    size: tuple[int, int]


class PointsKind(TargetKind):
    name = "points"

    def size(self, target):
        return target.size

    def words(self, target, classes):
        return f"{len(target.points)} points"


POINTS = PointsKind()

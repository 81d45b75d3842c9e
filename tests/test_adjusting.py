"""Options of a trained model on the command line: flags of their own, derived from the tasks."""

from __future__ import annotations

import pytest

from zoo.cli.adjusting import _as_set, _known
from zoo.cli.arguments import options
from zoo.errors import ConfigError


def rewritten(*args: str) -> list[str]:
    return list(_as_set(list(args), _known()))


def test_flags_are_short_for_set() -> None:
    assert rewritten("run", "a.jpg", "--out", "d") == ["run", "a.jpg", "--out", "d"]
    assert rewritten("--score-threshold", "0.2", "run") == ["--set", "score_threshold=0.2", "run"]
    assert rewritten("--nms-iou=0.7", "--max-detections", "300") == [
        *("--set", "nms_iou=0.7"),
        *("--set", "max_detections=300"),
    ]
    assert rewritten("--no-tta-flip", "--sliding-window") == ["--set", "tta_flip=false", "--set", "sliding_window=true"]
    assert rewritten("run", "--", "--nms-iou") == ["run", "--", "--nms-iou"]
    assert rewritten("--width", "3") == ["--width", "3"]  # an option that cannot be changed any more
    for args, words in {("--nms-iou",): "needs a value", ("--no-tta-flip=3",): "takes no value"}.items():
        with pytest.raises(ConfigError, match=words):
            rewritten(*args)


def test_contradictions_are_refused() -> None:
    assert options(["a=1", "b=x", "a=1"]) == {"a": 1, "b": "x"}
    with pytest.raises(ConfigError, match="score_threshold is given twice, as 0.2 and as 0.3"):
        options(["score_threshold=0.2", "score_threshold=0.3"])

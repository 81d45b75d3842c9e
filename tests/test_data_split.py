"""Splits: reproducible, a partition, and fair to every class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zoo.data import Dataset, Sample, kfold, split
from zoo.errors import ConfigError, DataError


def dataset(targets, kind="class", classes=5):
    samples = tuple(Sample(Path(f"{i}.png"), target, str(i)) for i, target in enumerate(targets))
    return Dataset(samples, tuple("abcde"[:classes]), kind, "toy", Path("."))


UNEVEN = dataset([0] * 40 + [1] * 7 + [2] * 2 + [3] * 1 + [4] * 50)


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.9])
def test_split_is_a_stratified_partition(fraction):
    train, val = split(UNEVEN, fraction, seed=3)
    assert sorted([s.id for s in train] + [s.id for s in val]) == sorted(s.id for s in UNEVEN)
    total, held = UNEVEN.counts(), val.counts()
    for name, count in total.items():
        if count >= 2:
            assert 1 <= held[name] <= count - 1
        if count >= 20:
            assert abs(held[name] - fraction * count) <= 2
    assert held["d"] == 0
    assert abs(len(val) - fraction * len(UNEVEN)) <= 3


def test_split_has_the_right_size_with_many_small_classes():
    many = Dataset(
        tuple(Sample(Path(f"{i}.png"), i % 100, str(i)) for i in range(700)),
        tuple(str(i) for i in range(100)),
        "class",
        "many",
        Path("."),
    )
    assert len(split(many, 0.2)[1]) == 140


def test_split_depends_on_the_seed_alone():
    first, again, other = (split(UNEVEN, 0.2, seed)[1] for seed in (0, 0, 1))
    assert first == again and first != other
    # Written down: the same on every platform and with every numpy.
    assert [int(s.id) for s in split(dataset([0] * 6 + [1] * 6), 0.34, seed=7)[1]] == [2, 5, 6, 11]


def test_split_of_several_labels_keeps_rare_ones_on_both_sides():
    rng = np.random.default_rng(0)
    targets = [tuple(np.flatnonzero(rng.random(4) < [0.5, 0.3, 0.1, 0.05])) for _ in range(400)]
    data = dataset([tuple(int(i) for i in t) for t in targets], "classes")
    train, val = split(data, 0.25, seed=1)
    assert len(train) + len(val) == 400 and abs(len(val) - 100) <= 5
    for name, count in data.counts().items():
        assert abs(val.counts()[name] - count / 4) <= 2
    assert split(data, 0.25, seed=1)[1] == val


@pytest.mark.parametrize("kind", ["class", "classes"])
def test_kfold_partitions_and_stratifies(kind):
    data = UNEVEN if kind == "class" else dataset([(s.target,) for s in UNEVEN], "classes")
    folds = kfold(data, 5, seed=2)
    assert sorted(s.id for _, val in folds for s in val) == sorted(s.id for s in data)
    for train, val in folds:
        assert not {s.id for s in train} & {s.id for s in val} and len(train) + len(val) == len(data)
        assert val.counts()["a"] == 8 and val.counts()["e"] == 10 and len(val) == 20
    assert [v for _, v in kfold(data, 5, seed=2)] == [v for _, v in folds]


def test_a_file_that_is_there_twice_is_not_split(tmp_path):
    """Else it would be learned and validated on."""
    (tmp_path / "a.png").touch()
    (tmp_path / "link.png").symlink_to("a.png")
    files = [tmp_path / name for name in ("a.png", "b.png", "c.png", "link.png")]
    data = Dataset(tuple(Sample(f, i % 2, f.name) for i, f in enumerate(files)), ("x", "y"), "class", "toy", tmp_path)
    for divide in (split, lambda data: kfold(data, 2)):
        with pytest.raises(DataError, match=r"a\.png and link\.png are the same file"):
            divide(data)


def test_bad_requests():
    for fraction in (0, 1, -0.1):
        with pytest.raises(ConfigError, match="fraction"):
            split(UNEVEN, fraction)
    with pytest.raises(ConfigError, match="at least 2"):
        split(dataset([0]), 0.2)
    for k in (1, 101):
        with pytest.raises(ConfigError, match="k is"):
            kfold(UNEVEN, k)

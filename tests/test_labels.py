"""Class names: the published sets, and which of a model's classes a data set's class means."""

from __future__ import annotations

import pytest

from zoo.errors import DataError, UnknownNameError
from zoo.labels import align, names


def test_published_sets():
    imagenet = names("imagenet-1k")
    assert (len(imagenet), imagenet[0], imagenet[207], imagenet[999]) == (
        1000,
        "tench",
        "golden retriever",
        "toilet tissue",
    )
    assert names("cifar-10")[:3] == ("airplane", "automobile", "bird")


def test_an_unknown_set_is_named():
    with pytest.raises(UnknownNameError, match="imagenet-1k"):
        names("imagenet-1000")


def test_names_are_compared_as_people_do():
    labels = ("great white shark", "T-shirt", "bee")
    assert align(["Bee", "great_white-shark", "t shirt"], labels) == (2, 0, 1)


def test_identifiers_of_the_label_set_are_names_too():
    labels = names("imagenet-1k")
    assert align(["n01443537", "tench"], labels, "imagenet-1k") == (1, 0)
    with pytest.raises(DataError, match="n01443537"):
        align(["n01443537"], labels)


def test_plain_numbers_are_positions():
    assert align(["0", "1", "2"], ("ant", "bee", "wasp", "fly")) == (0, 1, 2)
    with pytest.raises(DataError, match="'0', '1', '2'"):
        align(["0", "1", "2"], ("ant", "bee"))
    # Folders sort as text: `10` before `2`. Their names are still the labels'.
    assert align(["0", "1", "10", "2"], tuple(map(str, range(11)))) == (0, 1, 10, 2)


def test_unknown_classes_are_named():
    with pytest.raises(DataError) as caught:
        align(["bee", "wasp", "moth"], ("ant", "bee"))
    assert all(word in str(caught.value) for word in ("'wasp', 'moth'", "2 classes", "'ant', 'bee'"))


def test_two_that_are_swapped_are_not_taken_by_position():
    """Almost equal lists are taken one for one, but a class that has a name elsewhere keeps its meaning."""
    labels = tuple(f"class {i}" for i in range(60))
    classes = [*labels[:10], labels[11], labels[10], *labels[12:]]
    assert align(classes, labels) == (*range(10), 11, 10, *range(12, 60))


def test_a_list_with_a_few_other_words_is_taken_one_for_one():
    labels = tuple(f"class {i}" for i in range(60))
    assert align([*labels[:59], "the last one"], labels) == tuple(range(60))


def test_imagenet_onto_itself():
    """Two of its classes share a name."""
    labels = names("imagenet-1k")
    assert align(labels, labels) == tuple(range(1000))


def test_a_name_of_two_classes_is_refused():
    labels = names("imagenet-1k")
    with pytest.raises(DataError, match=r"several classes called 'cardigan'.*identifier"):
        align(["cardigan", "tench"], labels, "imagenet-1k")

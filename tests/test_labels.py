"""Class names: the published sets, and which of a model's classes a data set's class means."""

from __future__ import annotations

import unicodedata

import pytest

from zoo.errors import DataError, UnknownNameError
from zoo.labels import align, names
from zoo.labels.spelling import ordered, twins


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


def test_exact_names_go_first():
    """`Cat` and `cat` are two classes where both are known, in whatever order."""
    assert align(["cat", "Cat", "CAT"], ("Cat", "CAT", "cat")).indexes == (2, 0, 1)
    assert align(["10", "9", "1"], ("0", "1", "10", "9")).indexes == (2, 3, 1)


def test_names_are_compared_as_people_do_where_none_is_exact():
    labels = ("great white shark", "T-shirt", "bee")
    found = align(["Bee", "great_white-shark", "t shirt"], labels)
    assert found.indexes == (2, 0, 1)
    assert "3 classes are spelt differently" in found.notes[0] and "'Bee' as 'bee'" in found.notes[0]
    assert align(["bee"], labels).notes == ()


def test_a_sign_at_the_end_is_part_of_a_name():
    assert align(["A", "B+"], ("A-", "A", "B", "B+")).indexes == (1, 3)
    with pytest.raises(DataError, match="does not know: 'A', '-1'"):
        align(["A", "-1"], ("A-", "1", "B"))


def test_one_unicode_form():
    """macOS writes an accent as a character of its own."""
    composed, apart = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    assert composed != apart
    assert align([apart, "tea"], ("tea", composed)) == ((1, 0), ())
    assert align([composed], (apart, "tea")) == ((0,), ())


def test_identifiers_of_the_label_set_are_names_too():
    labels = names("imagenet-1k")
    assert align(["n01443537", "tench"], labels, "imagenet-1k") == ((1, 0), ())
    with pytest.raises(DataError, match="n01443537"):
        align(["n01443537"], labels)


def test_numbers_are_class_numbers_where_no_label_is_a_number():
    labels = ("ant", "bee", "wasp", "fly")
    assert align(["0", "1", "2"], labels).indexes == (0, 1, 2)
    found = align(["3", "0", "02"], labels)
    assert found.indexes == (3, 0, 2) and "3 is fly, 0 is ant, 02 is wasp" in found.notes[0]
    assert align(["0", "10", "2"], names("imagenet-1k"), "imagenet-1k").indexes == (0, 10, 2)
    assert align(["1.0", "2.0"], labels).indexes == (1, 2)
    for classes in (["1", "2", "3", "4"], ["-1", "0"], ["0.5", "1"]):
        with pytest.raises(DataError, match="does not know"):
            align(classes, labels)
    with pytest.raises(DataError, match=r"does not know: '4'.*class numbers, here from 0 to 3"):
        align(["1", "4"], labels)
    with pytest.raises(DataError, match="'0', '1'"):
        align(["0", "1"], labels, numbers=False)


def test_numbers_among_the_labels_are_names():
    """`12` is never the class that stands in the thirteenth place."""
    labels = tuple(sorted(map(str, range(13)), key=str))
    assert labels[:4] == ("0", "1", "10", "11")
    assert align([str(i) for i in range(10)], labels).indexes == (0, 1, 5, 6, 7, 8, 9, 10, 11, 12)
    with pytest.raises(DataError, match="'13'"):
        align(["0", "13"], labels)
    assert align(["00", "03", "10"], labels).indexes == (0, 6, 2)


def test_unknown_classes_are_named():
    with pytest.raises(DataError) as caught:
        align(["bee", "wasp", "moth"], ("ant", "bee"))
    assert all(word in str(caught.value) for word in ("'wasp', 'moth'", "2 classes", "'ant', 'bee'"))
    with pytest.raises(DataError, match="2 classes by number only"):
        align(["bee", "wasp"], ("0", "1"))


def test_two_that_are_swapped_are_not_taken_by_position():
    labels = tuple(f"class {i}" for i in range(60))
    classes = [*labels[:10], labels[11], labels[10], *labels[12:]]
    assert align(classes, labels).indexes == (*range(10), 11, 10, *range(12, 60))


def test_one_other_word_in_a_long_list_is_not_taken_by_position():
    """It is said where a sample has it, and left alone where none has."""
    labels = tuple(f"class {i}" for i in range(60))
    classes = [*labels[:59], "the last one"]
    with pytest.raises(DataError, match="does not know: 'the last one'"):
        align(classes, labels)
    found = align(classes, labels, used=range(59))
    assert found.indexes == (*range(59), -1) and "'the last one'" in found.notes[0]


def test_imagenet_onto_itself():
    """Two of its classes differ by case alone."""
    labels = names("imagenet-1k")
    assert align(labels, labels) == (tuple(range(1000)), ())
    assert align(["cardigan", "Cardigan"], labels).indexes == (labels.index("cardigan"), labels.index("Cardigan"))


def test_a_name_of_two_classes_is_refused():
    labels = names("imagenet-1k")
    with pytest.raises(DataError, match=r"several classes called 'CARDIGAN'.*identifier"):
        align(["CARDIGAN", "tench"], labels, "imagenet-1k")
    with pytest.raises(DataError, match=r"'tench' and 'Tench', have the same label in the model, 'tench'"):
        align(["tench", "Tench"], labels)
    assert align(["Tench", "tench"], labels, used=[1]).indexes == (-1, 0)


def test_order_of_names():
    assert ordered(["10", "9", "b", "B", "2.5", "-1", "01"]) == ["-1", "01", "2.5", "9", "10", "B", "b"]


def test_twins():
    assert twins(["Cat", "cat ", "dog", "hot dog", "hotdog", "A-"]) == [["Cat", "cat "], ["hot dog", "hotdog"]]

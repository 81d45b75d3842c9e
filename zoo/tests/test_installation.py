"""A short check of an installed zoo, with its plugins: `python -m pytest --pyargs zoo`.

The whole suite needs recorded values of other libraries and stays with the source code: run `make test` there.
"""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from zoo.models.conformance import check_adapter, check_backbone
from zoo.registry import Registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(strict=False)


def test_every_plugin_loads(registry: Registry) -> None:
    for _ in registry.loading():
        pass
    assert {record.name: record.reason for record in registry.records() if record.state != "ok"} == {}


def test_a_backbone_is_what_it_says(registry: Registry) -> None:
    """`zoo plugins check NAME` does the same for all backbones of a plugin."""
    assert check_backbone(registry.backbone("resnet20")) == []


def test_every_task_keeps_its_contract(registry: Registry) -> None:
    adapters = registry.adapters()
    assert adapters
    assert [problem for spec in adapters.values() for problem in check_adapter(spec)] == []


def test_the_weights_that_come_with_zoo_tell_images_apart() -> None:
    model = zoo.create("resnet20.demo", "classifier")
    images = [np.full((32, 32, 3), level, np.uint8) for level in (0, 255)]
    one, other = model.predict(images)
    assert {one.label, other.label} <= set(model.labels)
    assert one.score != other.score

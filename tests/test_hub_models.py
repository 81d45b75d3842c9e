"""Models from a hub: saved by zoo, in timm's layout, and by their names in the catalogue. The client is a real one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import hub_server
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.errors import ConfigError, FetchError, WeightsError
from zoo.models.export import export
from zoo.models.model import Model
from zoo.registry import registry
from zoo.registry.spec import Preprocess

hub = hub_server.hub
NAME = "resnet18.a1_in1k"


@pytest.fixture(scope="module")
def source() -> Model:
    """A random ResNet-18 with ImageNet's classes; its preprocessing is nobody's default."""
    model = zoo.create("resnet18", "classifier", num_classes=1000, pretrained=False, seed=3, image_size=64)
    own = Preprocess(size=(64, 64), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bicubic", crop_pct=0.9)
    model.card = replace(model.card, preprocess=own, license="mit")
    return model


@pytest.fixture(scope="module")
def timm_files(source: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a repository as timm publishes them."""
    folder = export(source, tmp_path_factory.mktemp("export") / "timm")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same(one: nnx.Module, other: nnx.Module) -> bool:
    pairs = [
        {path: np.asarray(v.get_value()) for path, v in nnx.to_flat_state(nnx.state(m, (nnx.Param, nnx.BatchStat)))}
        for m in (one, other)
    ]
    return pairs[0].keys() == pairs[1].keys() and all(np.array_equal(pairs[0][p], pairs[1][p]) for p in pairs[0])


def test_a_repository_in_timms_layout(hub: hub_server.HubServer, source: Model, timm_files: dict[str, bytes]):
    """Weights and what belongs to them: the preprocessing and licence are the repository's."""
    commit = hub.add_repo("org/mine", {"main": timm_files})["main"]
    model = zoo.create("resnet18", "classifier", labels=["ant", "bee"], weights="hf://org/mine")
    assert same(model.backbone, source.backbone)
    assert model.card.preprocess == source.card.preprocess and model.card.license == "mit"
    assert (model.card.weights, model.card.revision) == ("hf://org/mine", commit)
    assert model.labels == ("ant", "bee") and any("new classifier" in note for note in model.card.notes)


def test_its_own_classifier(hub: hub_server.HubServer, source: Model, timm_files: dict[str, bytes]):
    hub.add_repo("org/mine", {"main": timm_files})
    model = zoo.create("resnet18", "classifier", weights="hf://org/mine")
    assert len(model.labels) == 1000 and same(model, source)


def test_a_pinned_revision_and_a_second_use_without_requests(
    hub: hub_server.HubServer, source: Model, timm_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    first = hub.add_repo("org/mine", {"main": timm_files})["main"]
    hub.add_repo("org/mine", {"main": {**timm_files, "model.safetensors": b"something else"}})
    pinned = f"hf://org/mine@{first}"
    assert same(zoo.create("resnet18", "classifier", num_classes=2, weights=pinned).backbone, source.backbone)
    hub.log.clear()
    again = zoo.create("resnet18", "classifier", num_classes=2, weights=pinned)
    assert same(again.backbone, source.backbone) and again.card.preprocess == source.card.preprocess
    assert hub.log == []
    with pytest.raises(WeightsError):  # what `main` is by now
        zoo.create("resnet18", "classifier", num_classes=2, weights="hf://org/mine")


def test_offline(
    hub: hub_server.HubServer, source: Model, timm_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    hub.add_repo("org/mine", {"main": timm_files})
    zoo.create("resnet18", "classifier", num_classes=2, weights="hf://org/mine")
    hub.log.clear()
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    model = zoo.create("resnet18", "classifier", num_classes=2, weights="hf://org/mine")
    assert same(model.backbone, source.backbone) and model.card.preprocess == source.card.preprocess
    with pytest.raises(FetchError, match="ZOO_OFFLINE|offline"):
        zoo.create("resnet18", "classifier", num_classes=2, weights="hf://org/other")
    assert hub.log == []


def test_a_name_of_the_catalogue(hub: hub_server.HubServer, source: Model, timm_files: dict[str, bytes]):
    """`arch.tag` knows where its weights are and how they want their pixels: the row is believed, not the file."""
    row = registry().weights(NAME)
    assert row.source == f"hf://timm/{NAME}"
    hub.add_repo(f"timm/{NAME}", {"main": timm_files})
    model = zoo.create(NAME, "classifier", num_classes=3)
    assert same(model.backbone, source.backbone)
    assert (model.card.weights, model.card.preprocess, model.card.license) == (NAME, row.preprocess, row.license)
    assert zoo.create("resnet18", "classifier", num_classes=3).card.weights == NAME  # the architecture's default
    assert hub.count("GET", "config.json") == 0


def test_a_file_that_is_not_the_one_first_seen(hub: hub_server.HubServer, timm_files: dict[str, bytes], tmp_path: Path):
    """No hash is known for the row: the first download is recorded, and later ones are held to it."""
    hub.add_repo(f"timm/{NAME}", {"main": timm_files})
    zoo.create(NAME, "classifier", num_classes=3)
    for blob in (tmp_path / "hub").rglob("blobs/*"):
        data = bytearray(blob.read_bytes())
        data[-1] ^= 1
        blob.chmod(0o644)
        blob.write_bytes(data)
    hub.fail("flip", "model.safetensors")
    with pytest.raises((WeightsError, FetchError), match="sha256|content|differ|changed"):
        zoo.create(NAME, "classifier", num_classes=3)


def test_a_licence_that_must_be_accepted(hub: hub_server.HubServer, timm_files: dict[str, bytes]):
    name = "resnet18.fb_swsl_ig1b_ft_in1k"
    hub.add_repo(f"timm/{name}", {"main": timm_files})
    with pytest.raises(ConfigError, match=r"cc-by-nc-4\.0, which forbids commercial use.*accept_license=True"):
        zoo.create(name, "classifier", num_classes=3)
    assert hub.log == []
    assert zoo.create(name, "classifier", num_classes=3, accept_license=True).card.license == "cc-by-nc-4.0"


def test_what_cannot_work_is_said_before_the_download(hub: hub_server.HubServer, timm_files: dict[str, bytes]):
    hub.add_repo(f"timm/{NAME}", {"main": timm_files})
    for options in ({"droput": 1}, {"image_size": 8}, {"in_channels": 0}, {"dropout": 2}, {"dtype": "int8"}):
        with pytest.raises((ConfigError, LookupError)):
            zoo.create(NAME, "classifier", num_classes=3, **options)
    assert hub.log == []


@pytest.mark.parametrize("source_of", ["zoo.load", "zoo.create"])
def test_a_saved_model(hub: hub_server.HubServer, tmp_path: Path, source_of: str):
    model = zoo.create("resnet20", "classifier", labels=["ant", "bee"], pretrained=False, dropout=0.3, image_size=32)
    saved = zoo.save(model, tmp_path / "saved")
    hub.add_repo("org/ants", {"main": {saved.name: saved.read_bytes(), "README.md": "ants and bees"}})
    if source_of == "zoo.load":
        found = zoo.load("hf://org/ants")
        assert same(found, model) and found.labels == ("ant", "bee") and found.adapter == model.adapter
        photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        assert found.predict(photo) == model.predict(photo)
    else:  # its backbone alone, for other classes
        found = zoo.create("resnet20", "classifier", num_classes=5, weights="hf://org/ants")
        assert same(found.backbone, model.backbone) and len(found.labels) == 5


def test_repositories_without_a_model(hub: hub_server.HubServer, timm_files: dict[str, bytes]):
    hub.add_repo("org/mine", {"main": timm_files})
    hub.add_repo("org/empty", {"main": {"README.md": "nothing"}})
    with pytest.raises(WeightsError, match="weights, not a model saved by zoo: use zoo.create"):
        zoo.load("hf://org/mine")
    with pytest.raises(FetchError, match=r"org/empty"):
        zoo.load("hf://org/empty")
    with pytest.raises(FetchError, match=r"org/absent"):
        zoo.load("hf://org/absent")


def test_a_config_of_another_architecture_says_so(hub: hub_server.HubServer, timm_files: dict[str, bytes]):
    config = {**json.loads(timm_files["config.json"]), "architecture": "resnet50"}
    hub.add_repo("org/mine", {"main": {**timm_files, "config.json": json.dumps(config)}})
    with pytest.raises(WeightsError, match="resnet50"):
        zoo.create("resnet18", "classifier", num_classes=2, weights="hf://org/mine")

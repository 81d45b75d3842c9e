"""What a source may be: its spelling, local files and folders, and schemes of plugins."""

from __future__ import annotations

import json
import sys

import fetch_kit
import hub_server
import pytest
from fetch_kit import REPO, SOURCE, weights
from hub_server import HubServer

from zoo import registry
from zoo.disk import sha256
from zoo.errors import FetchError, WeightsError
from zoo.weights import lock
from zoo.weights.fetch import fetch, fetch_config

quick = fetch_kit.quick


@pytest.fixture(scope="module")
def any_hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def silent(any_hub, tmp_path, monkeypatch):
    """A hub that nothing should be asked of."""
    for name, value in hub_server.environment(any_hub, tmp_path).items():
        monkeypatch.setenv(name, value)
    return any_hub


@pytest.mark.parametrize(
    "source",
    [
        "hf://timm",
        "hf://timm/",
        "hf:///timm/x",
        "hf://timm/x/",
        "hf://timm/../x",
        "hf://timm/x/../../etc/passwd",
        "hf://timm/x//etc/passwd",
        "hf://timm/x/..%2f..%2fy",
        "hf://timm/x/a\\b",
        "hf://timm/x@",
        "hf://timm/x@..",
        "hf://timm/x@main@other",
        "hf://user:secret@timm/x",
        "hf://timm/x?download=true",
        "hf://timm/x#y",
        "hf://timm/x\n",
        "hf://timm/ x",
        "hf://tіmm/x",  # noqa: RUF001 (a Cyrillic letter)
        "hf://timm/x․y",  # noqa: RUF001 (a one dot leader)
        "hf://timm/x/．．/y",  # noqa: RUF001 (full-width dots)
        "hf://timm/.hidden",
        "hf://timm/a--b",
        "hf://timm/a..b",
        "hf://timm/x.git",
        "hf:timm/x",
    ],
)
def test_a_source_with_another_spelling_is_refused_before_any_request(silent, source):
    with pytest.raises(FetchError, match="hf://org/repo|cannot be a repository") as error:
        fetch(source)
    assert "secret" not in str(error.value)
    with pytest.raises(FetchError):
        fetch_config(source)
    assert silent.log == []


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("file:///etc/passwd", "plain path, without file://"),
        ("FILE://x", "plain path"),
        ("http://example.com/model.safetensors", "download the file and give its path"),
        (f"https://huggingface.co/{REPO}", "write hf://org/repo"),
        ("https://user:secret@example.com/x", "hf://org/repo"),
        ("ftp://user:secret@example.com/x", "user name or password"),
        ("s3://bucket/../x", r"must not contain '\.\.'"),
        ("s3://bucket/%2e%2E/x", r"must not contain '\.\.'"),
        ("s3://bucket/x y", "printable ASCII"),
        ("s3://bücket/x", "printable ASCII"),
        ("", "source is empty"),
        ("no/such/file.safetensors", "no file or folder"),
        ("timm/x", "write hf://timm/x"),
        ("x\0y", "no file or folder"),
    ],
)
def test_other_schemes_and_paths_get_advice(silent, source, advice):
    with pytest.raises(FetchError, match=advice) as error:
        fetch(source)
    assert "secret" not in str(error.value) and silent.log == []


@pytest.mark.parametrize("file", ["../x.safetensors", "/etc/passwd", "a/../../b", "", "a//b", "~/x", "a\\b", ".hidden"])
def test_file_names_cannot_leave_the_source(silent, tmp_path, file):
    for source in (SOURCE, str(tmp_path)):
        with pytest.raises(FetchError, match="not a file name inside a source"):
            fetch(source, file)
    assert silent.log == []


def test_contradictions_and_bad_arguments(silent):
    with pytest.raises(FetchError, match="another revision"):
        fetch(f"{SOURCE}@main", revision="v2")
    with pytest.raises(FetchError, match="is not a revision"):
        fetch(SOURCE, revision="../main")
    with pytest.raises(FetchError, match="64 hexadecimal"):
        fetch(SOURCE, sha256="abc")
    assert silent.log == []


def test_local_files_and_folders(tmp_path):
    data = weights(tmp_path)
    folder = tmp_path / "with spaces and ü"
    folder.mkdir()
    (folder / "only.safetensors").write_bytes(data)
    found = fetch(folder)
    assert found.path == folder / "only.safetensors" and found.revision == "" and found.sha256 == sha256(found.path)
    assert fetch(str(folder / "only.safetensors"), sha256=found.sha256).path == found.path
    with pytest.raises(WeightsError, match=f"has sha256 {found.sha256}, but {'a' * 64} was asked for"):
        fetch(folder, sha256="a" * 64)
    (folder / "second.safetensors").write_bytes(data)
    with pytest.raises(FetchError, match=r"several other files: only.safetensors, second.safetensors"):
        fetch(folder)
    (folder / "model.safetensors").write_bytes(data)
    assert fetch(folder).path.name == "model.safetensors"
    with pytest.raises(FetchError, match="has no 'zoo.json'"):
        fetch(folder, "zoo.json")


def test_local_config(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(weights(tmp_path))
    assert fetch_config(tmp_path / "model.safetensors") is None and fetch_config(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    assert fetch_config(tmp_path / "model.safetensors") == fetch_config(tmp_path) == {"architecture": "resnet18"}
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(WeightsError, match="not a JSON object"):
        fetch_config(tmp_path)


PLUGIN = """
from pathlib import Path
from zoo.registry.hookspecs import hookimpl
ZOO_API = 1

@hookimpl
def zoo_fetch(source, file, revision, offline):
    if source.startswith("store://"):
        return Path(source.removeprefix("store:/")) / file
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A plugin, installed as a distribution, that fetches from `store://` (here: a folder)."""
    site = tmp_path / "site"
    info = site / "zoo_store-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-store\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo.plugins]\nstore = zoo_store_plugin\n")
    (site / "zoo_store_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("ZOO_PLUGINS", "store")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "zoo"))
    registry.reset()
    yield tmp_path
    sys.modules.pop("zoo_store_plugin", None)
    registry.reset()


def test_a_plugins_scheme_is_fetched_recorded_and_verified(store):
    source, place = f"store:/{store}", store / "model.safetensors"
    place.write_bytes(weights(store))
    found = fetch(source)
    assert found.path == place and found.sha256 == sha256(place)
    assert lock.pins() == [lock.Pin(source, "", "model.safetensors", "", found.sha256)]
    assert fetch(source) == found
    place.write_bytes(weights(store, 1))
    with pytest.raises(WeightsError, match=f"sha256 {sha256(place)}, but {found.sha256} was expected.*forget"):
        fetch(source)
    assert lock.main(["forget", source]) == 0
    assert fetch(source).sha256 == sha256(place)
    with pytest.raises(WeightsError, match=f"but {'a' * 64} was expected"):
        fetch(source, sha256="a" * 64)


def test_a_scheme_or_file_that_no_plugin_has(store):
    with pytest.raises(FetchError, match="no installed plugin fetches 's3://bucket/x'. Accepted: hf://org/repo"):
        fetch("s3://bucket/x")
    with pytest.raises(FetchError, match="which is not a file"):
        fetch(f"store:/{store}", "none.safetensors")

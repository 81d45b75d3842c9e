"""Fetching with the hub's real client against a hub on loopback: the cache, the lock, offline, and wrong bytes."""

from __future__ import annotations

from pathlib import Path

import fetch_kit
import hub_server
import numpy as np
import pytest
from fetch_kit import REPO, SOURCE, offline, read_digest, tensors, weights
from hub_server import PORTAL

from zoo import settings
from zoo.disk import sha256
from zoo.errors import FetchError, WeightsError
from zoo.weights import lock
from zoo.weights.fetch import fetch, fetch_config
from zoo.weights.file import read

hub, repo, quick = hub_server.hub, fetch_kit.repo, fetch_kit.quick


def test_first_download_then_no_request(repo, tmp_path):
    first = fetch(SOURCE)
    assert first.path.read_bytes() == weights(tmp_path)
    assert first.revision == repo.commit(REPO, "main") and first.sha256 == sha256(first.path)
    assert repo.count("GET", "model.safetensors") == 1
    repo.log.clear()
    assert fetch(SOURCE) == first
    assert repo.log == []
    np.testing.assert_array_equal(read(first.path).load()["fc.bias"], tensors()["fc.bias"])


def test_the_cache_is_the_hubs_own(repo):
    found = fetch(SOURCE)
    assert found.path.is_relative_to(settings.hub_cache_dir() / "models--timm--tiny.a1_in1k" / "snapshots")


def test_a_cache_behind_a_link_and_with_spaces(repo, tmp_path, monkeypatch):
    (tmp_path / "a large disk ü").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a large disk ü")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "link"))
    first = fetch(SOURCE)
    repo.log.clear()
    assert fetch(SOURCE) == first and repo.log == []


def test_a_pinned_commit_that_is_cached_costs_no_request(repo, tmp_path):
    old = repo.commit(REPO, "main")
    repo.add_repo(REPO, {"main": {"model.safetensors": weights(tmp_path, 1)}})
    found = fetch(f"{SOURCE}@{old}")
    assert found.path.read_bytes() == weights(tmp_path, 0)
    lock.path().unlink()
    repo.log.clear()
    assert fetch(SOURCE, revision=old, sha256=found.sha256) == found
    assert repo.log == [] and not lock.path().exists(), "both were known: there is nothing to record"


def test_a_branch_stays_at_its_first_commit_until_it_is_forgotten(repo, tmp_path, capsys):
    first = fetch(SOURCE)
    new = repo.add_repo(REPO, {"main": {"model.safetensors": weights(tmp_path, 1)}})["main"]
    assert fetch(SOURCE) == first
    assert lock.main(["forget", SOURCE]) == 0 and "1 pins" in capsys.readouterr().out
    found = fetch(SOURCE)
    assert found.revision == new and found.path.read_bytes() == weights(tmp_path, 1)


def test_other_branches_and_tags_have_their_own_pins(repo, tmp_path):
    repo.add_repo(REPO, {"v2": {"model.safetensors": weights(tmp_path, 2)}})
    assert fetch(f"{SOURCE}@v2").path.read_bytes() == weights(tmp_path, 2)
    assert fetch(SOURCE, revision="v2").revision == repo.commit(REPO, "v2")
    assert fetch(SOURCE).path.read_bytes() == weights(tmp_path)


def test_a_file_in_a_folder_of_the_repository(hub, tmp_path):
    hub.add_repo("org/multi", {"main": {"b/model.safetensors": weights(tmp_path), "b/config.json": '{"x": 1}'}})
    assert fetch("hf://org/multi/b/model.safetensors").path.read_bytes() == weights(tmp_path)
    assert fetch("hf://org/multi@main", "b/model.safetensors").path.name == "model.safetensors"
    assert fetch_config("hf://org/multi/b/model.safetensors") == {"x": 1}


def test_a_known_hash_is_enough_to_trust_what_another_program_cached(repo):
    digest = fetch(SOURCE).sha256
    lock.path().unlink()
    repo.log.clear()
    assert fetch(SOURCE, sha256=digest.upper()).sha256 == digest
    assert repo.log == []


def test_the_lock_says_what_was_had(repo):
    found = fetch(SOURCE)
    assert lock.pins() == [lock.Pin(SOURCE, "main", "model.safetensors", found.revision, found.sha256)]


def test_config_comes_from_the_weights_commit(repo, tmp_path):
    fetch(SOURCE)
    repo.add_repo(REPO, {"main": {"model.safetensors": weights(tmp_path, 1), "config.json": '{"num_classes": 9}'}})
    assert fetch_config(SOURCE) == {"num_classes": 5}
    repo.log.clear()
    assert fetch_config(SOURCE) == {"num_classes": 5} and repo.log == []


def test_a_missing_config_is_remembered(hub, tmp_path, monkeypatch):
    hub.add_repo("org/bare", {"main": {"model.safetensors": weights(tmp_path)}})
    fetch("hf://org/bare")
    assert fetch_config("hf://org/bare") is None
    hub.log.clear()
    assert fetch_config("hf://org/bare") is None
    offline(monkeypatch)
    assert fetch_config("hf://org/bare") is None
    assert hub.log == []


def test_no_progress_bar_and_no_warning_outside_a_terminal(repo, capfd):
    fetch(SOURCE)
    assert capfd.readouterr() == ("", "")


# --- Offline ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["ZOO_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_reads_the_cache(repo, monkeypatch, variable):
    first = fetch(SOURCE)
    repo.log.clear()
    monkeypatch.setenv(variable, "1")
    assert fetch(SOURCE) == first
    lock.path().unlink()
    assert fetch(SOURCE) == first, "the branch's last commit is known to the cache"
    assert repo.log == []


def test_offline_and_not_cached_makes_no_request(repo, monkeypatch):
    offline(monkeypatch)
    for call in (fetch, fetch_config):
        with pytest.raises(FetchError, match="not in the cache .* zoo is offline.*ZOO_OFFLINE"):
            call(SOURCE)
    with pytest.raises(FetchError, match="offline"):
        fetch(f"{SOURCE}@{'0' * 40}")
    assert repo.log == []


def test_the_argument_outranks_the_environment(repo, monkeypatch):
    with pytest.raises(FetchError, match="offline"):
        fetch(SOURCE, offline=True)
    assert repo.log == []
    offline(monkeypatch)
    assert fetch(SOURCE, offline=False).path.is_file()


# --- Wrong bytes -----------------------------------------------------------------------------------------------------


def test_a_body_damaged_once_is_fetched_again(repo, tmp_path):
    repo.fail("flip", "model.safetensors", times=1)
    assert fetch(SOURCE).path.read_bytes() == weights(tmp_path)
    assert repo.count("GET", "model.safetensors") == 2


def test_a_body_damaged_twice_is_refused_and_deleted(repo, tmp_path):
    repo.fail("flip", "model.safetensors")
    right = read_digest(weights(tmp_path), tmp_path)
    with pytest.raises(WeightsError, match=f"damaged twice: sha256 (?!{right})[0-9a-f]{{64}}, expected {right}"):
        fetch(SOURCE)
    assert repo.count("GET", "model.safetensors") == 2
    assert not list(settings.hub_cache_dir().rglob("*.safetensors")) and lock.pins() == []
    assert not [path for path in settings.hub_cache_dir().rglob("blobs/*")]


def corrupt(path: Path) -> None:
    """One bit of the cached blob, as a disk would do it."""
    blob = path.resolve()
    data = bytearray(blob.read_bytes())
    data[-5] ^= 1
    blob.write_bytes(data)


def test_a_cached_file_damaged_later_is_never_returned(repo, tmp_path, monkeypatch):
    path = fetch(SOURCE).path
    corrupt(path)
    with pytest.raises(WeightsError, match="cached copy .* is damaged: .* has sha256 [0-9a-f]{64}, expected"):
        fetch(SOURCE, offline=True)
    lock.path().unlink()
    with pytest.raises(WeightsError, match="is damaged"):
        fetch(SOURCE, offline=True)  # the blob's own name gives it away
    repo.log.clear()
    assert fetch(SOURCE).path.read_bytes() == weights(tmp_path), "online it is deleted and fetched again"
    assert repo.count("GET", "model.safetensors") == 1


def test_a_wrong_known_hash_is_refused_before_the_download(repo, tmp_path):
    right = read_digest(weights(tmp_path), tmp_path)
    with pytest.raises(WeightsError, match=f"has sha256 {right}, but {'a' * 64} was asked for"):
        fetch(SOURCE, sha256="a" * 64)
    assert repo.count("GET") == 0
    fetch(SOURCE)
    with pytest.raises(WeightsError, match=f"has sha256 {right}, but {'a' * 64} was asked for"):
        fetch(SOURCE, sha256="a" * 64)
    with pytest.raises(WeightsError, match=f"has sha256 {right}, but {'a' * 64} was asked for"):
        fetch(SOURCE, sha256="a" * 64, offline=True)
    assert fetch(SOURCE, offline=True).path.is_file(), "an intact file stays"


def test_a_changed_file_behind_a_pin_shows_both_hashes_and_the_way_out(repo, tmp_path):
    found = fetch(SOURCE)
    changed = lock.Pin(SOURCE, "main", "model.safetensors", found.revision, "b" * 64)
    lock.record(changed)
    with pytest.raises(WeightsError, match=f"{found.sha256}, but {'b' * 64} was recorded in .*forget {SOURCE}"):
        fetch(SOURCE)


def test_a_web_page_in_place_of_the_hub_is_named(repo):
    repo.fail("portal", method="HEAD")
    with pytest.raises(FetchError, match="is not a Hugging Face Hub.*login page"):
        fetch(SOURCE)


def test_a_web_page_in_place_of_the_file_is_named(hub, tmp_path):
    data = weights(tmp_path)
    hub.add_repo(REPO, {"main": {"model.safetensors": data[: len(PORTAL)]}})  # so that its size does not tell
    hub.fail("portal", "model.safetensors")
    with pytest.raises(WeightsError, match="What arrived is a web page"):
        fetch(SOURCE)


@pytest.mark.parametrize("kind", ["short", "portal"])
def test_another_size_than_announced(repo, kind):
    repo.fail(kind, "model.safetensors")
    with pytest.raises(FetchError, match="another size than it announced"):
        fetch(SOURCE)


def test_a_config_that_is_no_json_is_named(hub, tmp_path):
    hub.add_repo(REPO, {"main": {"model.safetensors": weights(tmp_path), "config.json": PORTAL}})
    with pytest.raises(WeightsError, match="not JSON .* a web page"):
        fetch_config(SOURCE)

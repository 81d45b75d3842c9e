"""What may go wrong on the way while fetching: the hub, the network, the disk, and several processes at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import fetch_kit
import hub_server
import huggingface_hub
import numpy as np
import pytest
from fetch_kit import REPO, SOURCE, child, read_digest, weights

from zoo import settings
from zoo.errors import FetchError
from zoo.weights import client, lock
from zoo.weights.fetch import fetch
from zoo.weights.file import write

hub, repo, quick = hub_server.hub, fetch_kit.repo, fetch_kit.quick


# --- The hub says no -------------------------------------------------------------------------------------------------


def test_gated_is_not_called_missing(repo, monkeypatch):
    repo.gated.add(REPO)
    with pytest.raises(FetchError, match=f"is gated: accept its terms at {repo.url}/{REPO}"):
        fetch(SOURCE)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    assert fetch(SOURCE).path.is_file()
    stored = [r for r in repo.log if r.path.startswith("/storage/")]
    assert stored and not any("authorization" in map(str.lower, r.headers) for r in stored), (
        "the token stays on the hub"
    )


def test_what_does_not_exist(repo):
    with pytest.raises(FetchError, match="no repository 'timm/nothing' at http"):
        fetch("hf://timm/nothing")
    with pytest.raises(FetchError, match="has no revision 'nothing': see"):
        fetch(f"{SOURCE}@nothing")
    with pytest.raises(FetchError, match=r"no file 'weights\.safetensors' at revision 'main'"):
        fetch(f"{SOURCE}/weights.safetensors")


def test_a_pin_to_a_commit_that_is_gone_says_so(repo):
    lock.record(lock.Pin(SOURCE, "main", "model.safetensors", "c" * 40, "d" * 64))
    with pytest.raises(FetchError, match=f"commit {'c' * 40} in .*zoo.lock.*forget {SOURCE}"):
        fetch(SOURCE)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_busy_hub_is_asked_again(repo, status, method):
    repo.fail("status", "model.safetensors", status=status, method=method, times=1)
    assert fetch(SOURCE).path.is_file()


@pytest.mark.parametrize(("status", "words"), [(429, "too many requests"), (503, "HTTP 503 .*tried 3 times")])
def test_a_hub_that_stays_busy_is_given_up(repo, status, words):
    repo.fail("status", "model.safetensors", status=status, method="HEAD")
    with pytest.raises(FetchError, match=words):
        fetch(SOURCE)
    assert repo.count("HEAD") == 3


def test_a_long_pause_is_left_to_the_user(repo):
    repo.fail("status", status=429, method="HEAD", headers={"Retry-After": "3600"})
    with pytest.raises(FetchError, match="try again in 3600 s"):
        fetch(SOURCE)
    assert repo.count("HEAD") == 1


# --- The network breaks ----------------------------------------------------------------------------------------------


def test_a_connection_cut_in_the_middle_is_resumed(repo, tmp_path):
    repo.fail("cut", "model.safetensors", times=1)
    assert fetch(SOURCE).path.read_bytes() == weights(tmp_path)


def test_a_connection_that_is_always_cut_is_an_error_of_zoo(repo, monkeypatch):
    defaults = huggingface_hub.file_download.http_get.__wrapped__.__kwdefaults__
    monkeypatch.setitem(defaults, "_nb_retries", 0)  # five, a second each, add nothing here
    repo.fail("cut", "model.safetensors")
    with pytest.raises(FetchError, match="connection to http.* broke while"):
        fetch(SOURCE)
    assert not list(settings.hub_cache_dir().rglob("*.incomplete"))


def test_a_dead_hub_is_given_up_soon(repo):
    repo.close()
    start = time.monotonic()
    with pytest.raises(FetchError, match="cannot be reached .*tried 3 times.*ZOO_OFFLINE"):
        fetch(SOURCE)
    assert time.monotonic() - start < 3


def test_a_hub_that_never_answers_is_given_up(repo, monkeypatch):
    monkeypatch.setattr(client, "ANSWER", 0.2)
    repo.fail("hang", method="HEAD")
    with pytest.raises(FetchError, match="did not answer in time"):
        fetch(SOURCE)


def test_a_download_that_never_ends_is_given_up(repo, monkeypatch):
    monkeypatch.setattr(client, "PATIENCE", 1.0)
    repo.fail("hang", "model.safetensors")
    start = time.monotonic()
    with pytest.raises(FetchError, match="too slow, given up after 1 s"):
        fetch(SOURCE)
    assert time.monotonic() - start < 4


def test_a_cached_file_needs_no_hub(repo):
    first = fetch(SOURCE)
    repo.close()
    assert fetch(SOURCE) == first


# --- The disk --------------------------------------------------------------------------------------------------------


def test_no_room_is_said_before_the_download(repo):
    repo.fail("size", "model.safetensors", method="HEAD", size=10**16)
    with pytest.raises(FetchError, match="has 10000000000 MB and .* MB free"):
        fetch(SOURCE)
    assert repo.count("GET") == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit to set")
def test_a_disk_that_fills_up_is_named(hub, tmp_path):
    write(tmp_path / "large.safetensors", {"w": np.zeros((300, 1000), np.float32)})
    hub.add_repo(REPO, {"main": {"model.safetensors": (tmp_path / "large.safetensors").read_bytes()}})
    code = (
        "import resource\nfrom zoo.weights.fetch import fetch\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        f"try:\n    fetch({SOURCE!r})\nexcept OSError as error:\n    print(type(error).__name__, error)"
    )
    out, err = child(code, hub, tmp_path).communicate(timeout=30)
    assert out.startswith("FetchError no space in"), out + err
    assert not list((tmp_path / "hub").rglob("*.incomplete"))


def test_a_cache_folder_that_cannot_be_written(repo, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("a file where the folder should be")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "taken" / "zoo"))
    with pytest.raises(FetchError, match="cannot be written .*ZOO_CACHE"):
        fetch(SOURCE)
    assert repo.log == []


@pytest.mark.parametrize("text", ["[[pin]\n", "pin = 3\n", "[[pin]]\nsource = 1\n", "\0"])
def test_a_damaged_lock_is_named(repo, text):
    lock.path().parent.mkdir(parents=True)
    lock.path().write_text(text)
    with pytest.raises(FetchError, match=r"zoo\.lock cannot be read .*delete it"):
        fetch(SOURCE)


# --- Several processes -----------------------------------------------------------------------------------------------

FETCH = f"from zoo.weights.fetch import fetch\nprint(fetch({SOURCE!r}).sha256)"


def test_two_processes_download_once(repo, tmp_path):
    processes = [child(FETCH, repo, tmp_path) for _ in range(2)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert {out.strip() for out, _ in results} == {read_digest(weights(tmp_path), tmp_path)}
    assert repo.count("GET", "model.safetensors") == 1
    assert len(lock.pins()) == 1


def test_a_killed_process_blocks_nobody(repo, tmp_path):
    repo.fail("hang", "model.safetensors", times=1)
    first = child(FETCH, repo, tmp_path)
    deadline = time.monotonic() + 30
    while not repo.count("GET", "model.safetensors") and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
    first.communicate()
    out, err = child(FETCH, repo, tmp_path).communicate(timeout=60)
    assert out.strip() == read_digest(weights(tmp_path), tmp_path), err


def test_many_processes_lose_no_pin(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    code = (
        "import sys\nfrom zoo.weights import lock\n"
        "for i in range(15):\n    lock.record(lock.Pin('hf://o/r' + sys.argv[1], 'main', f'f{i}', 'c' * 40, 'd' * 64))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(i)]) for i in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert len(lock.pins()) == 45


def test_fetching_imports_no_jax():
    code = "import sys, zoo.weights.fetch; print(sorted({'jax', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"

"""Fetching with the hub's real client against a hub on loopback, and everything that may go wrong on the way."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hub_server
import huggingface_hub
import numpy as np
import pytest
from hub_server import PORTAL, HubServer, subprocess_environment

from zoo import registry, settings
from zoo.errors import FetchError, WeightsError
from zoo.weights import client, lock
from zoo.weights.disk import sha256
from zoo.weights.fetch import fetch, fetch_config
from zoo.weights.file import read, write

hub = hub_server.hub

REPO = "timm/tiny.a1_in1k"
SOURCE = f"hf://{REPO}"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The same retries and limits, in less time; the client's own warnings are not part of the output."""
    monkeypatch.setattr(client, "WAITS", (0.05, 0.1))
    monkeypatch.setattr(client, "PATIENCE", 12.0)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "level", logging.ERROR)


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    values = np.random.default_rng(seed).normal(size=(64, 32)).astype(np.float32)
    return {"fc.weight": values, "fc.bias": values[:, 0].copy()}


def weights(folder: Path, seed: int = 0) -> bytes:
    """The bytes of a real weight file."""
    path = folder / f"made-{seed}.safetensors"
    write(path, tensors(seed), {"format": "pt"})
    return path.read_bytes()


@pytest.fixture
def repo(hub: HubServer, tmp_path: Path) -> HubServer:
    """A hub with one repository of weights and configuration."""
    hub.add_repo(REPO, {"main": {"model.safetensors": weights(tmp_path), "config.json": '{"num_classes": 5}'}})
    return hub


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")


# --- What should work ------------------------------------------------------------------------------------------------


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


def read_digest(data: bytes, folder: Path) -> str:
    path = folder / "digest"
    path.write_bytes(data)
    return sha256(path)


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
    with pytest.raises(FetchError, match="is no hub.*login page"):
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


def child(code: str, hub: HubServer, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=subprocess_environment(hub, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
    assert out.startswith("FetchError no room in"), out + err
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


# --- Sources ---------------------------------------------------------------------------------------------------------


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
        with pytest.raises(FetchError, match="no file name inside a source"):
            fetch(source, file)
    assert silent.log == []


def test_contradictions_and_bad_arguments(silent):
    with pytest.raises(FetchError, match="another revision"):
        fetch(f"{SOURCE}@main", revision="v2")
    with pytest.raises(FetchError, match="no revision"):
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
    with pytest.raises(FetchError, match=r"there: only.safetensors, second.safetensors"):
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
    with pytest.raises(WeightsError, match="no JSON object"):
        fetch_config(tmp_path)


PLUGIN = """
from pathlib import Path
from zoo.hookspecs import hookimpl
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
    with pytest.raises(FetchError, match="which is no file"):
        fetch(f"store:/{store}", "none.safetensors")

"""Names and paths from anywhere: shown safely, written always, and found where the user means them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import plugin_kit
import pytest
from PIL import Image

from zoo import cli, settings
from zoo.cli import output
from zoo.data import content, read
from zoo.data.content import contents
from zoo.data.inspect.run import check
from zoo.errors import ConfigError, DataError, RunError, UnreadableError, WeightsError
from zoo.models.saved import saved
from zoo.text import decoded, json_text, printable
from zoo.training.run import Run, read_lines
from zoo.weights import lock
from zoo.weights.file import DESCRIPTION, write
from zoo.weights.file import read as read_tensors


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, café 日本 👩\u200d🔬", "plain text, café 日本 👩\u200d🔬"),
        ("a\x1b[2Jb\r\n\tc\x00\x7f\x9b", r"a\x1b[2Jb\r\n\tc\x00\x7f\x9b"),
        ("photo\u202egpj.exe\u2066\u200b\ufeff", r"photo\u202egpj.exe\u2066\u200b\ufeff"),
        (os.fsdecode(b"caf\xe9") + "\ud800", r"caf\xe9\ud800"),
        ("\udcc3\udca9", "é"),  # the bytes of UTF-8, as Python holds them in a locale that knows only ASCII
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str, capsys: pytest.CaptureFixture[str]):
    assert printable(text) == str(DataError(text)) == shown
    output.note(text)
    output.line(text)
    output.print_table(("name",), [(text,)])
    said = capsys.readouterr()
    assert said.err == f"{shown}\n" and said.out == f"{shown}\nname\n{shown}\n"


def test_errors_of_files_keep_their_path():
    error = UnreadableError("a\nb.jpg", "is damaged.")
    assert (error.path, str(error)) == ("a\nb.jpg", r"a\nb.jpg is damaged.")


def test_json_is_readable_by_everything():
    value = {"a\x1b\u202e": [os.fsdecode(b"caf\xe9"), "日本\x9b\x7f", 1.5]}
    text = json_text(value, 1)
    assert text.encode("utf-8").decode() == text and not set(text) & set("\x1b\u202e\x9b\x7f")
    assert json.loads(text) == {"a\x1b\u202e": [r"caf\xe9", "日本\x9b\x7f", 1.5]}
    with pytest.raises(ValueError, match="Out of range"):
        json_text(float("nan"))


def test_class_folders_and_files_whose_names_are_no_utf8(tmp_path: Path):
    for name in (b"th\xe9", "café".encode()):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)
        Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
        shutil.move(tmp_path / "x.png", os.fsdecode(folder + b"/\xff.png"))
    data = read(tmp_path)["all"]
    assert data.classes == ("café", r"th\xe9")
    assert [sample.id for sample in data] == [r"café/\xff.png", r"th\xe9/\xff.png"]
    assert all(sample.image.is_file() for sample in data) and data.fingerprint()
    assert decoded("plain") == "plain"


def test_the_posix_locale_knows_every_name():
    command = [sys.executable, "-m", "zoo", "list", "é"]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, cwd=plugin_kit.ROOT, env=environment, capture_output=True)
    assert done.returncode == 2 and "error: unknown kind 'é'." in done.stderr.decode()


def test_a_home_folder_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings.expanded("~/run") == tmp_path / "run"
    given = ("--out=~/run", "~/x", "@~/y", "style=~/z", "--rule=head.*=1", "a~b", "~nobody-here/x")
    expanded = [f"--out={tmp_path}/run", f"{tmp_path}/x", f"@{tmp_path}/y", f"style={tmp_path}/z", *given[4:]]
    assert [cli._expanded(arg) for arg in given] == expanded


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("~nobody-here/x", "no home folder to stand for ~"),
        ("a\0b", "null character"),
        ("x" * 256, "a name of 256 bytes"),
        ("é" * 128, "a name of 256 bytes"),
        ("abc/" * 1100, "has 4399 bytes"),
    ],
)
def test_paths_that_cannot_be(path: str, words: str):
    with pytest.raises(ConfigError, match=words):
        settings.expanded(path)


def test_a_cache_that_cannot_be_written_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    assert settings.cache_problem() == "" and list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file" / "cache"))
    assert settings.cache_problem() == f"the cache directory {tmp_path}/file/cache cannot be written (Not a directory)"

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ZOO_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert "no-home-folder" in settings.cache_problem()


def test_a_platform_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    import jax

    for problem, words in (
        (RuntimeError("Unable to initialize backend 'tpu': no\n library."), "Unable to initialize .*: no library"),
        (AssertionError(), "the platform is not installed"),
    ):

        def devices(problem: Exception = problem) -> list[jax.Device]:
            raise problem

        monkeypatch.setenv("JAX_PLATFORMS", "tpu")
        monkeypatch.setattr(jax, "devices", devices)
        with pytest.raises(ConfigError, match=rf"JAX_PLATFORMS is tpu, and JAX cannot start: {words}\. Set"):
            settings.start_jax()


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(content, "_SETTLED_NS", 0)
    files = [tmp_path / f"{i}" for i in range(100)]
    for file in files:
        file.write_bytes(file.name.encode())
    before = contents(files)
    assert len({one.sha256 for one in before}) == 100 and before[12].size == 2
    reads: list[object] = []
    monkeypatch.setattr(content.hashlib, "file_digest", lambda *args: reads.append(args) or pytest.fail("read again"))
    assert contents(files) == before and not reads
    monkeypatch.undo()
    stat = files[3].stat()
    files[3].write_bytes(b"x")
    os.utime(files[3], ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time
    assert [i for i, (one, other) in enumerate(zip(contents(files), before, strict=True)) if one != other] == [3]
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("gone", "No such file"), ("pipe", "it is a named pipe, not a regular file")):
        with pytest.raises(DataError, match=f"{name} cannot be read .*{words}"):
            contents([*files, tmp_path / name])


def test_a_flipped_bit_in_the_lock_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    pins = [lock.Pin(f"hf://org/{name}", "main", "model.safetensors", "c" * 40, "d" * 64) for name in "ab"]
    for pin in pins:
        lock.record(pin)
    whole = lock.path().read_bytes()
    for position in range(0, len(whole), 5):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 7
        lock.path().write_bytes(flipped)
        try:
            assert lock.pins() == pins, f"a flip in byte {position} went through"
        except lock.FetchError as error:
            assert "zoo.lock" in str(error)
    lock.path().write_bytes(b"\n".join(line for line in whole.split(b"\n") if not line.startswith(b"checksum")))
    assert lock.pins() == pins, "a file of an earlier version"


def test_annotations_do_not_lead_out_of_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    table, secret = tmp_path / "theirs" / "table.csv", tmp_path / "mine" / "0.png"
    for place in (secret, "../mine/0.png", "x/../../mine/0.png"):
        (tmp_path / "theirs" / "x").mkdir(exist_ok=True)
        table.write_text(f"image,label\n{place},a\n1.png,b\n")
        with pytest.raises(DataError, match=rf"1 file outside of the data's folder .*ZOO_DATA_FOLDERS={tmp_path}/mine"):
            read(table)
        with pytest.raises(DataError, match="1 file outside of the data's folder"):
            check(table)
    monkeypatch.setenv("ZOO_DATA_FOLDERS", f"/nowhere{os.pathsep}{tmp_path}/mine")
    assert len(read(table)["all"]) == 2
    monkeypatch.delenv("ZOO_DATA_FOLDERS")
    (tmp_path / "theirs" / "linked").symlink_to(tmp_path / "mine")
    table.write_text("image,label\nlinked/0.png,a\n1.png,b\n")
    assert len(read(table)["all"]) == 2, "the user made the link"
    (tmp_path / "alias").symlink_to(tmp_path / "theirs")
    table.write_text(f"image,label\n{tmp_path}/alias/0.png,a\n{tmp_path}/theirs/1.png,b\n")
    assert len(read(table)["all"]) == len(read(tmp_path / "alias")["all"]) == 2


def test_cells_of_any_size_and_names_that_are_too_long(tmp_path: Path):
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    (tmp_path / "table.csv").write_text(f"image,label,outline\n0.png,a,{'1 ' * 200_000}\n")
    assert read(tmp_path / "table.csv")["all"][0].target == 0
    (tmp_path / "table.csv").write_text(f"image,label\n{'x' * 300}.png,a\n")
    with pytest.raises(DataError, match="line 2: the image 'x+.png' does not exist"):
        read(tmp_path / "table.csv")


def test_lines_of_an_error_are_its_own():
    error = DataError("two files:", "  a\nerror: forged.png")
    assert str(error).splitlines() == ["two files:", r"  a\nerror: forged.png"]


@pytest.mark.parametrize(
    "text",
    ["3", "[]", "{}", "[" * 9999, '{"format": 2, "card": [], "labels": [], "adapter": {}}']
    + [
        json.dumps({"format": 2, "card": {"backbone": "b", "adapter": "a"}, "labels": ["a"], "adapter": {}, **other})
        for other in ({"labels": "ab"}, {"labels": [1]}, {"adapter": []}, {"adapter": None}, {"format": "x"})
    ],
)
def test_a_saved_model_whose_description_has_another_shape(tmp_path: Path, text: str):
    write(tmp_path / "x.safetensors", {"a": np.zeros(1)}, {DESCRIPTION: text})
    with pytest.raises(WeightsError, match=r"the description in .*x\.safetensors cannot be read"):
        saved(read_tensors(tmp_path / "x.safetensors"))


def test_a_saved_model_of_a_newer_version(tmp_path: Path):
    text = json.dumps({"format": 3, "card": {"backbone": "b", "adapter": "a"}, "labels": ["a"], "adapter": {}})
    write(tmp_path / "x.safetensors", {"a": np.zeros(1)}, {DESCRIPTION: text})
    with pytest.raises(WeightsError, match="written by a newer zoo: its format is 3"):
        saved(read_tensors(tmp_path / "x.safetensors"))


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"', "[1]", "[" * 9999, '{"a": "\xe9"}'])
def test_metrics_of_another_shape_are_those_of_no_finished_run(tmp_path: Path, text: str):
    (tmp_path / "metrics.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "metrics.jsonl").write_bytes(b'{"epoch": 1}\n' + text.encode("latin-1") + b"\n")
    with pytest.raises(RunError, match="has no finished run"):
        Run.open(tmp_path)
    assert read_lines(tmp_path / "metrics.jsonl") == [{"epoch": 1}]

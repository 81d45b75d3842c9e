"""Files of a run directory: each carries or has a hash, which is checked when the file is read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from zoo.errors import RunError
from zoo.training.checksums import FILE, seal
from zoo.training.run import Run, prepare_folder, write_history, write_json

CONFIG = {"asked": {"seed": 0, "epochs": 3, "data": {}}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The files of a finished run, except its model."""
    folder = tmp_path / "run"
    prepare_folder(folder, CONFIG, {}, resume=False)
    write_history(folder, [{"epoch": 1, "val_loss": 0.5}])
    write_json(folder / "metrics.json", {"accuracy": 0.75, "plots": []})
    (folder / "plots").mkdir()
    (folder / "plots" / "curves.png").write_bytes(b"pixels")
    seal(folder)
    return folder


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["metrics.json", "metrics.jsonl", FILE])
def test_a_changed_file_of_a_finished_run_is_refused_by_name(run: Path, name: str):
    for position in range(0, (run / name).stat().st_size, 7):
        flip(run / name, position)
        with pytest.raises(RunError, match=f"{name} has changed since zoo wrote it"):
            Run.open(run)
        flip(run / name, position)


def test_changed_options_are_not_resumed_from(run: Path):
    prepare_folder(run, CONFIG, {}, resume=True)
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace("3", "2"))
    with pytest.raises(RunError, match=r"config\.json has changed .* delete .*SHA256SUMS"):
        prepare_folder(run, CONFIG, {}, resume=True)


def test_a_deleted_plot_and_a_run_without_a_record_pass(run: Path):
    (run / "plots" / "curves.png").unlink()
    prepare_folder(run, CONFIG, {}, resume=True)
    flip(run / FILE, 0)
    (run / FILE).unlink()
    prepare_folder(run, CONFIG, {}, resume=True)


def test_the_record_is_read_by_the_usual_tool(run: Path):
    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sha256sum", "-c", FILE], cwd=run, capture_output=True, text=True)

    done = check()
    assert done.returncode == 0 and "plots/curves.png: OK" in done.stdout
    flip(run / "plots" / "curves.png", 2)
    assert "plots/curves.png: FAILED" in check().stdout

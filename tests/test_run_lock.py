"""A run directory belongs to one process at a time, and to nobody once that process has died."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from zoo.errors import RunError
from zoo.training import lock
from zoo.training.lock import GUARD, RECORD, locked, require_usable

HOLDS = """
import sys
from pathlib import Path
from zoo.training.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
assert "jax" not in sys.modules
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock of `run` until its standard input is closed."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_is_named(holder: subprocess.Popen, tmp_path: Path):
    run = tmp_path / "run"
    for resume in (False, True):
        with pytest.raises(RunError, match=rf"in use by process {holder.pid} on {socket.gethostname()}, since"):
            require_usable(run, resume=resume)
    with pytest.raises(RunError, match="in use"), locked(run):
        pytest.fail("two at once")
    holder.stdin.close()
    assert holder.wait(30) == 0
    with locked(run):
        assert {path.name for path in run.iterdir()} == {GUARD, RECORD}
    assert not run.exists()  # nothing was written there


def test_the_lock_of_a_killed_process_is_taken_over(holder: subprocess.Popen, tmp_path: Path):
    holder.kill()
    holder.wait(30)
    assert json.loads((tmp_path / "run" / RECORD).read_text())["process"] == holder.pid
    require_usable(tmp_path / "run", resume=False)
    with locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / RECORD).read_text())["process"] == os.getpid()
        with pytest.raises(RunError, match=f"process {os.getpid()}"), locked(tmp_path / "run"):
            pytest.fail("twice in one process")


def record(folder: Path, **values: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / RECORD).write_text(json.dumps({"host": "elsewhere", "process": 7, "boot": "b", "since": "now", **values}))
    return folder / RECORD


def test_a_record_of_another_machine_counts_while_it_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    file, done = record(tmp_path / "run"), threading.Event()
    thread = threading.Thread(target=lock._renew, args=(file, done))
    thread.start()
    try:
        with pytest.raises(RunError, match="in use by process 7 on elsewhere"):
            require_usable(tmp_path / "run", resume=True)
    finally:
        done.set()
        thread.join()
    require_usable(tmp_path / "run", resume=True)
    assert not file.exists()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def acquire(self: FileLock, **options: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", acquire)
    record(tmp_path / "run", host=socket.gethostname(), process=os.getppid())
    with pytest.raises(RunError, match=f"process {os.getppid()} on"):
        require_usable(tmp_path / "run", resume=True)
    record(tmp_path / "run", host=socket.gethostname(), process=2**22 + 1)  # no system gives such a number
    require_usable(tmp_path / "run", resume=False)


def test_what_is_in_the_way(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file, not a directory"):
        require_usable(tmp_path / "file", resume=False)
    with pytest.raises(RunError, match="exists and is not empty: choose another --out"):
        require_usable(tmp_path, resume=False)
    require_usable(tmp_path / "new", resume=False)
    for content in ("", "[1]", '{"host": 3}', "\0"):
        (tmp_path / "damaged").mkdir(exist_ok=True)
        (tmp_path / "damaged" / RECORD).write_text(content)
        with locked(tmp_path / "damaged"):
            pass

"""Sides of a comparison: processes on the same processors that report in lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def lines(
    command: Sequence[str], cpus: Sequence[int], extra: Mapping[str, str], given: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield the lines of JSON that a process on the given processors prints, as they come."""
    process = subprocess.Popen(
        command, env={**os.environ, **extra}, preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin and process.stdout
    process.stdin.write(given)
    process.stdin.close()
    yield from map(json.loads, process.stdout)
    if code := process.wait():
        sys.exit(f"{' '.join(command)} ended with {code}")


def torch_lines(
    script: str, python: str, path: str, cpus: Sequence[int], job: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Run a PyTorch script on a job and yield its lines.

    Args:
        python: the interpreter of an environment with torch. path: its PYTHONPATH, where it needs one.
    """
    extra = {"OMP_NUM_THREADS": str(len(cpus))} | ({"PYTHONPATH": path} if path else {})
    # Where other work runs, torch's waiting threads would spin ten times the processor time of its work away.
    extra |= {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    return lines([python, script], cpus, extra, json.dumps(job))

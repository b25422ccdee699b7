"""Measures what a start costs: seconds until ready, memory at rest, size of the install.

    python -m bench.footprint

Starts the service with its embedded parts twice on a data folder of its own, as `scripts/serve` does.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench.client import table
from embedded.parts import PROJECT, free_port

REST_SECONDS = 5.0
MIB = 1024 * 1024


def start(data: str) -> tuple[subprocess.Popen[str], float]:
    """The parent process, and the seconds until it printed that it is ready."""
    environment = os.environ | {"DATA_DIR": data, "MODULE_PORT": str(free_port())}
    began = time.monotonic()
    parent = subprocess.Popen(
        [sys.executable, "-m", "embedded"], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True
    )
    if parent.stdout is None or not any("is ready" in line for line in parent.stdout):
        raise SystemExit("the service did not start; run scripts/serve to see why")
    return parent, time.monotonic() - began


def memory(parent: subprocess.Popen[str]) -> list[tuple[str, str]]:
    """Resident memory of the parent and of each child with its own children."""
    rows = []
    family = psutil.Process(parent.pid)
    for process in (family, *family.children()):
        below = [] if process == family else process.children(recursive=True)
        size = sum(member.memory_info().rss for member in (process, *below))
        rows.append((f"memory at rest: {_name(process)}, MB", f"{size / MIB:.0f}"))
    return rows


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    if not Path(words[0]).name.startswith("python"):
        return process.name()
    return words[2] if words[1] == "-m" else words[1]


def installed() -> float:
    """Size of the virtual environment in MB."""
    return sum(path.lstat().st_size for path in Path(sys.prefix).rglob("*") if not path.is_dir()) / MIB


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.footprint", description=__doc__.split("\n", maxsplit=1)[0])
    parser.parse_args()
    seconds = []
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="sidecast-bench-") as data:
        for _ in range(2):
            parent, took = start(data)
            seconds.append(took)
            time.sleep(REST_SECONDS)
            rows = memory(parent)
            parent.send_signal(signal.SIGTERM)
            parent.communicate(timeout=60)
    starts = [
        (f"{name} start until ready, s", f"{took:.1f}") for name, took in zip(("first", "second"), seconds, strict=True)
    ]
    print(table([*starts, *rows, ("install (.venv), MB", f"{installed():.0f}")]))


if __name__ == "__main__":
    main()

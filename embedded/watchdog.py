"""Ends the children when the parent is gone: `python -m embedded.watchdog RUN_FOLDER`.

The parent writes a line for each child that starts (`+name pid signal`) or has ended (`-pid`) to this process's
standard input. The pipe closes when the parent dies, however it dies; what is still on the list is then stopped,
the newest first, and killed if it will not go. The data folder's lock is inherited, so it is held until the last
child is gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time

GRACE_SECONDS = {"service": 3.0}
OTHERS_GRACE_SECONDS = 4.0


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    children: dict[int, tuple[str, int]] = {}
    for line in sys.stdin:
        if line.startswith("+"):
            name, pid, stop_signal = line[1:].split()
            children[int(pid)] = (name, int(stop_signal))
        else:
            children.pop(int(line[1:]), None)
    stop(children)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


def stop(children: dict[int, tuple[str, int]]) -> None:
    """The service first, since it needs the others to finish; then these together."""
    service = {pid: child for pid, child in children.items() if child[0] == "service"}
    others = {pid: child for pid, child in children.items() if pid not in service}
    _end(service, GRACE_SECONDS["service"])
    _end(others, OTHERS_GRACE_SECONDS)


def _end(group: dict[int, tuple[str, int]], seconds: float) -> None:
    for pid, (_, number) in group.items():
        _signal(pid, number)
    deadline = time.monotonic() + seconds
    while any(map(_alive, group)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in group:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        # SIGINT means a fast stop to PostgreSQL's first process and a cancelled query to the others.
        (os.kill if number != signal.SIGKILL else os.killpg)(pid, number)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()

"""The files that pages are made of, read once, also as browsers like them compressed."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent.parent / "web"
STATIC = FOLDER / "static" / "dashboard"
KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class File:
    plain: bytes
    packed: bytes
    kind: str


class Files:
    """By name; the address of one changes with what is in it, so that a browser may keep it for good."""

    def __init__(self, files: dict[str, File]) -> None:
        self._files = files
        self._addresses = {
            name: f"/dashboard/static/{name}?{hashlib.sha256(file.plain).hexdigest()[:12]}"
            for name, file in files.items()
        }

    def get(self, name: str) -> File | None:
        return self._files.get(name)

    def address(self, name: str) -> str:
        return self._addresses[name]


def read_files() -> Files:
    """All that may be asked for."""
    found = {}
    for path in sorted(STATIC.iterdir()):
        if path.suffix in KINDS:
            plain = path.read_bytes()
            found[path.name] = File(plain, gzip.compress(plain, 9, mtime=0), KINDS[path.suffix])
    return Files(found)

"""What the benches share: where the service is, the key to it, percentiles."""

from __future__ import annotations

import json
import math
import os
from argparse import ArgumentParser
from pathlib import Path

API = "/api/v1/ai"


def add_service_arguments(parser: ArgumentParser) -> None:
    port = os.environ.get("MODULE_PORT", "8005")
    parser.add_argument("--url", default=f"http://127.0.0.1:{port}", help="where the service is (%(default)s)")
    parser.add_argument(
        "--key",
        help="an API key (default: $KEY, the first of $VALID_API_KEYS, or the one the first run made in DATA_DIR)",
    )


def find_key(given: str | None) -> str:
    """The key to use. Raises SystemExit with what to do when there is none."""
    if key := given or os.environ.get("KEY") or os.environ.get("VALID_API_KEYS", "").split(",")[0].strip():
        return key
    path = Path(os.environ.get("DATA_DIR", "./data")) / "secrets.json"
    if not path.exists():
        raise SystemExit(f"no key: give --key, set KEY, or run scripts/serve once, which makes one in {path}")
    return str(json.loads(path.read_text())["API_KEY"])


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (nearest rank); NaN of none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


def table(rows: list[tuple[str, str]]) -> str:
    """Two columns in Markdown."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(["| what | value |", "|---|---|", *(f"| {name:<{width}} | {value} |" for name, value in rows)])

"""How rightly the default rules decide when to speak, on real chat that was labelled by hand, and how fast.

    python -m bench.triggers tests/data/triggers.tsv CHAT

The labels name rows of CHAT, a log of chat in JSON lines (gzip or not), whose texts are not in this project. Those
count that the rules were made without looking at.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import load_settings
from services.events import ChatEvent
from services.settings import CommunitySettings, of_environment
from services.triggers import Triggers

KINDS = {"g": "greeting", "f": "farewell", "q": "question", "n": None}
ROUNDS = 20


@dataclass(frozen=True)
class Labelled:
    """A message, and the kind of trigger that it is to a person, or None."""

    row: int
    platform: str
    event: ChatEvent
    kind: str | None
    counts: bool  # the rules were made without looking at it


def read(labels: Path, chat: Path) -> list[Labelled]:
    lines = (line.split("\t") for line in labels.read_text().split("\n") if line and line[0] != "#")
    wanted = {int(row): (KINDS[kind], part == "report") for row, kind, part in lines}
    opened: Any = gzip.open if chat.suffix == ".gz" else open
    with opened(chat, "rt", encoding="utf-8") as file:
        return [
            Labelled(row, posted["platform"], event(row, posted), *wanted[row])
            for row, posted in enumerate(map(json.loads, file))
            if row in wanted
        ]


def event(row: int, posted: dict[str, Any]) -> ChatEvent:
    name = posted["username"] or f"user-{row}"
    ids = {"session_id": "s", "user_id": name, "username": name, "entity_id": "bench", "platform": posted["platform"]}
    return ChatEvent(message_content=posted["message"], **ids)


def default_rules() -> Triggers:
    return Triggers(CommunitySettings.model_validate(of_environment(load_settings())))


def decide(rules: Triggers, labelled: Labelled) -> str | None:
    trigger = rules.match(labelled.event)
    return trigger.type if trigger else None


def shares(pairs: list[tuple[str | None, str | None]]) -> tuple[float, float, float]:
    """Precision and recall of speaking at all, and how often the kind is right; of (label, decision)."""
    spoken = [pair for pair in pairs if pair[1]]
    wanted = [pair for pair in pairs if pair[0]]
    both = [pair for pair in spoken if pair[0]]
    right = [pair for pair in pairs if pair[0] == pair[1]]
    return len(both) / max(len(spoken), 1), len(both) / max(len(wanted), 1), len(right) / max(len(pairs), 1)


def report(rules: Triggers, found: list[Labelled]) -> str:
    by_platform: defaultdict[str, list[tuple[str | None, str | None]]] = defaultdict(list)
    for labelled in found:
        by_platform[labelled.platform].append((labelled.kind, decide(rules, labelled)))
    by_platform["all"] = [pair for pairs in by_platform.values() for pair in pairs]
    rows = ["| platform | messages | to be answered | precision | recall | kind right |", "|---|---|---|---|---|---|"]
    for platform, pairs in by_platform.items():
        wanted = Counter(kind for kind, _ in pairs)
        precision, recall, right = shares(pairs)
        counts = f"{len(pairs)} | {len(pairs) - wanted[None]}"
        rows.append(f"| {platform} | {counts} | {precision:.2f} | {recall:.2f} | {right:.2f} |")
    return "\n".join(rows)


def microseconds(rules: Triggers, found: list[Labelled]) -> float:
    """Of one decision, the best of several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for labelled in found:
            rules.match(labelled.event)
        best = min(best, time.perf_counter() - began)
    return best / len(found) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.triggers", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("labels", type=Path, help="rows and their labels (g, f, q, n)")
    parser.add_argument("chat", type=Path, help="the log that the rows are of")
    parser.add_argument(
        "--tuned", action="store_true", help="those that the rules were made by, in place of the others"
    )
    parser.add_argument("--wrong", action="store_true", help="list what was decided wrongly")
    arguments = parser.parse_args()
    rules, labelled = default_rules(), read(arguments.labels, arguments.chat)
    found = [each for each in labelled if each.counts != arguments.tuned]
    print(report(rules, found))
    print(f"\n{microseconds(rules, labelled):.1f} µs a message")
    if arguments.wrong:
        for each in found:
            if (decided := decide(rules, each)) != each.kind:
                print(f"{each.row}\t{each.platform}\t{each.kind} not {decided}\t{each.event.message_content}")


if __name__ == "__main__":
    main()

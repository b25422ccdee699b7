"""How long each page of the dashboard takes on a service that is in use, what a first look at it weighs, and by what
indexes it is found.

    python -m bench.pages

A week of 1,000 communities, one of which has a fifth of it all, is made up (`bench/past.py`); each page is asked for
with an admin's key, 20 times, of that one community and of all. Times are until the last byte was here, on the same
machine; the weight is that of the page and of all files it names, as a browser has them sent (gzip).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import inspect
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tqdm import tqdm

from bench.client import API, percentile
from bench.past import DAYS, Past, fill, make_past
from bench.rig import KEY, Rig, rig
from config import load_settings
from services.database import Database
from services.history import FIRST
from services.logs import open_log
from services.settings import DEFAULTS

if TYPE_CHECKING:
    from services.database import Connection

INTERACTIONS = 1_000_000
COMMUNITIES = 1_000
TIMES = 20
ROWS = 50
MOST_MS = 100
MOST_BYTES = 150_000
_FILE = re.compile(r'(?:href|src)="(/dashboard/static/[^"]+)"')
# The service trims nothing of it meanwhile.
KEEP = {"JOURNAL_RETENTION": "3650", "HISTORY_RETENTION": "3650"}


@dataclass(frozen=True)
class Measure:
    """A page: how long it took, each time, and bytes of it, and of it with its files."""

    name: str
    times: list[float]
    packed: int
    plain: int
    first_look: int

    @property
    def fits(self) -> bool:
        return percentile(self.times, 0.95) <= MOST_MS and self.first_look <= MOST_BYTES


class Browser:
    """One connection that is kept, with a key instead of a session."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str, *, gzip: bool = True) -> tuple[float, bytes]:
        """Milliseconds, and the bytes that were sent. Raises SystemExit for what is no 200."""
        headers = {"Authorization": f"Bearer {KEY}"} | ({"Accept-Encoding": "gzip"} if gzip else {})
        began = time.perf_counter()
        self._connection.request("GET", path, headers=headers)
        answer = self._connection.getresponse()
        body = answer.read()
        took = (time.perf_counter() - began) * 1000
        if answer.status != 200:
            raise SystemExit(f"{path} answers {answer.status}: {body[:500]!r}")
        return took, body

    def measure(self, name: str, path: str, times: int) -> Measure:
        _, plain = self.get(path, gzip=False)
        files = sum(len(self.get(file)[1]) for file in sorted(set(_FILE.findall(plain.decode()))))
        asked = [self.get(path) for _ in range(times)]
        packed = max(len(body) for _, body in asked)
        return Measure(name, [took for took, _ in asked], packed, len(plain), packed + files)


def pages(past: Past, browser: Browser) -> Iterator[tuple[str, str]]:
    """Every page, by what it is called here."""
    one, every = f"/dashboard/communities/{past.big}", "/dashboard/communities/all"
    yield from {"sign in": "/dashboard/sign-in", "health": "/dashboard/health"}.items()
    listed = "/dashboard/communities"
    yield "communities", listed
    yield "communities, later ones", f"{listed}?after={sorted(past.communities)[len(past.communities) // 2]}"
    yield "communities, by a name", f"{listed}?begins=community%201"
    yield "communities, by a channel", f"{listed}?begins=twitch:channel:{past.big.hex[:3]}"
    yield "playground", f"{one}/playground"
    yield from activity(past, browser, f"{one}/activity")
    for whose, at in (("", one), (", all", every)):
        for span in ("day", "week", "month"):
            yield f"numbers of a {span}{whose}", f"{at}/numbers?span={span}"
        yield f"settings{whose}", at
        yield f"versions{whose}", f"{at}/versions"
        yield f"versions{whose}, earlier ones", f"{at}/versions?before=30"
        yield f"keys{whose}", f"{at}/keys"
        yield f"audit{whose}", f"{at}/audit"
        yield f"audit{whose}, earlier ones", f"{at}/audit?before=500"


def activity(past: Past, browser: Browser, at: str) -> Iterator[tuple[str, str]]:
    history = f"{API}/history?community_id={past.big}&limit=1"
    yield "activity", at
    yield "activity, its rows alone", f"{at}?rows=1"
    for days in (1, DAYS - 1, DAYS + 3):
        before = quote((past.now - timedelta(days=days)).isoformat())
        found = json.loads(browser.get(f"{history}&before={before}", gzip=False)[1])["data"]
        yield f"activity, {days} days back", f"{at}?cursor={found['next']}"
    found = json.loads(browser.get(history, gzip=False)[1])["data"]["interactions"][0]
    yield "an interaction", f"{at}/{found['interaction_id']}"
    for query in filters(f"user-{past.big.hex[:6]}"):
        yield f"activity, {query}", f"{at}?{query}"


def filters(user: str) -> Iterator[str]:
    """Each filter with what is common, with what is rare, and with what there is not; users by how their ids begin."""
    for platform in ("twitch", "discord", "kick", "slack"):
        yield f"platform={platform}"
    for trigger in ("question", "command", "nothing"):
        yield f"trigger={trigger}"
    for state in ("delivered", "suppressed", "failed", "undeliverable", "nothing"):
        yield f"state={state}"
    for user_id in (f"{user}-0", f"{user}-19999", f"{user}-0&state=failed", f"{user}-1&platform=youtube", "nobody"):
        yield f"user_id={user_id}"
    yield from ("state=undeliverable&trigger=custom&platform=discord", "state=delivered&trigger=command&platform=kick")


class Explained:
    """Stands for a connection, and has PostgreSQL tell how it does what it is asked, planned for any arguments."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.plan: dict[str, Any] = {}

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        await self._connection.execute(f"prepare planned as {sql}")
        given = f"({', '.join(map(_literal, arguments))})" if arguments else ""
        text = await self._connection.fetchval(f"explain (analyze, format json) execute planned{given}")
        await self._connection.execute("deallocate planned")
        self.plan = json.loads(text)[0]
        return []

    fetchrow = fetchval = fetch


def _literal(value: Any) -> str:
    return "null" if value is None else "'" + str(value).replace("'", "''") + "'"


async def plans(url: str, past: Past) -> str:
    """Each query of the pages: by what indexes, how many rows it read, what is read from end to end."""
    database = Database(url, open_log(past.settings, sys.stderr))
    await database.open()
    lines = ["| query | indexes | rows read | reads all of | ms |", "|---|---|---|---|---|"]
    async with database.connection() as connection:
        await connection.execute("set plan_cache_mode = force_generic_plan")
        for name, query, about in asked(past):
            explained = Explained(connection)
            found = getattr(database.queries, query)(explained, **about)
            if inspect.isawaitable(found):
                await found
            else:
                [row async for row in found]
            lines.append(_plan_line(f"{query}{name}", explained.plan))
    await database.close()
    return "\n".join(lines)


def asked(past: Past) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Queries of the pages and what they are asked with."""
    nothing = dict.fromkeys(("since", "platform", "entity_id", "state", "trigger_type"))
    history = {"community_id": past.big, "before": None, "before_id": FIRST, "rows": ROWS} | nothing
    yield "", "select_history", history
    deep = {"before": past.now - timedelta(days=DAYS - 1)}
    narrowed: list[dict[str, Any]] = [
        deep,
        {"platform": "kick"},
        {"trigger_type": "command"},
        {"state": "undeliverable"},
    ]
    for about in narrowed:
        yield f", {next(iter(about))}", "select_history", history | about
    yield "", "select_history_of_user", history | {"user_id": f"user-{past.big.hex[:6]}-0"}
    yield "", "select_open", {"community_id": past.big, "rows": ROWS}
    since = past.now - timedelta(hours=1)
    about = {"community_id": past.big, "interaction_id": past.big, "since": since, "until": past.now}
    yield "", "select_calls", about
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    yield "", "select_spent", {"community_id": past.big, "since": today, "but": "{}"}
    for whose, community_id in (("", past.big), (", all", DEFAULTS)):
        numbers = {"community_id": community_id, "since": past.now - timedelta(days=7)}
        yield f" of a week{whose}", "select_numbers", numbers | {"seconds": 6 * 3600}
        numbers = {"community_id": community_id, "since": past.now - timedelta(days=30)}
        yield f" of a month{whose}", "select_numbers_by_day", numbers
        versions = {"community_id": community_id, "before": 100, "rows": 26}
        yield whose, "select_settings_versions", versions
    yield "", "search_communities", {"begins": "community 1", "rows": ROWS}
    yield "", "select_communities", {"community_id": None, "after": past.big, "rows": ROWS}
    yield ", one", "select_communities", {"community_id": past.big, "after": DEFAULTS, "rows": 1}
    page = {"before": 2**62, "rows": ROWS}
    yield "", "select_audit", page
    yield "", "select_audit_of", {"community_id": past.big} | page
    for whose, each in ((", one", past.big), ("", None)):
        yield whose, "select_keys", {"community_id": each, "before": None, "rows": ROWS}


def _plan_line(name: str, plan: dict[str, Any]) -> str:
    nodes = list(_nodes(plan["Plan"]))
    indexes = sorted({node["Index Name"] for node in nodes if "Index Name" in node})
    whole = sorted({node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"})
    # Of an index without a condition all of it is read, up to where there are rows enough.
    whole += sorted({node["Index Name"] for node in nodes if "Index Name" in node and "Index Cond" not in node})
    read = sum(_rows(node) for node in nodes if "Index Name" in node or node["Node Type"] == "Seq Scan")
    took = plan["Execution Time"]
    return f"| {name} | {', '.join(indexes)} | {read:.0f} | {', '.join(whole) or '–'} | {took:.1f} |"


def _rows(node: dict[str, Any]) -> float:
    lost = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + lost) * node["Actual Loops"])


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", []):
        yield from _nodes(below)


def report(measures: Iterable[Measure]) -> str:
    lines = [
        "| page | median ms | p95 ms | bytes, gzip | bytes, plain | first look, bytes | |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in measures:
        shares = " | ".join(f"{percentile(each.times, share):.1f}" for share in (0.5, 0.95))
        verdict = "" if each.fits else "over"
        lines.append(f"| {each.name} | {shares} | {each.packed} | {each.plain} | {each.first_look} | {verdict} |")
    return "\n".join(lines)


def run(made: Rig, count: int, communities: int, times: int) -> tuple[list[Measure], str]:
    """What each page took and weighs, and how its queries are planned."""
    past = make_past(count, communities, load_settings(secret_key="bench", log_level="ERROR"))
    url = made.addresses["DATABASE_URL"]
    asyncio.run(_make_tables(url, past))
    asyncio.run(fill(url, past))
    with contextlib.closing(Browser(made.service(made.stub(0.0), settings=KEEP))) as browser:
        every = list(pages(past, browser))
        measures = [browser.measure(name, path, times) for name, path in tqdm(every, desc="pages")]
    return measures, asyncio.run(plans(url, past))


async def _make_tables(url: str, past: Past) -> None:
    database = Database(url, open_log(past.settings, sys.stderr))
    await database.open()
    await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--interactions", type=int, default=INTERACTIONS, help="of the week (%(default)s)")
    parser.add_argument("--communities", type=int, default=COMMUNITIES, help="how many (%(default)s)")
    parser.add_argument("--times", type=int, default=TIMES, help="how often each page is asked for (%(default)s)")
    arguments = parser.parse_args()
    with rig() as made:
        measures, planned = run(made, arguments.interactions, arguments.communities, arguments.times)
    print(f"{report(measures)}\n\n{planned}")


if __name__ == "__main__":
    main()

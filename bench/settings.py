"""How soon a change of settings acts on the other instance, and whether changes made at once get lost.

    python -m bench.settings

Two instances on one PostgreSQL. A community is switched off and on at one of them, while the other is asked whether an
event triggers; the time from the change's answer counts. Then 200 changes are put at both, all at once.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import httpx
from tqdm import tqdm

from bench.client import API, percentile, table
from bench.intake import event
from bench.rig import KEY, rig

CHANGES = 50
AT_ONCE = 200
CHANNEL = "twitch:channel:settings"


async def triggers(instance: httpx.AsyncClient, number: int) -> tuple[bool, str]:
    """Whether an event that greets triggers, and its interaction."""
    posted = event("hello", number) | {"entity_id": CHANNEL}
    data = (await instance.post(f"{API}/interaction", json=posted)).raise_for_status().json()["data"]
    return data["triggered"], data["interaction_id"]


async def put(instance: httpx.AsyncClient, community_id: str, **changes: Any) -> int:
    """The version that a change has made."""
    answer = await instance.put(f"{API}/config", json={"community_id": community_id} | changes)
    return int(answer.raise_for_status().json()["data"]["version"])


async def live(one: httpx.AsyncClient, two: httpx.AsyncClient, community_id: str, changes: int) -> list[float]:
    """Seconds until each change acts on the other instance."""
    times, numbers = [], iter(range(10, 10**9))
    for number in tqdm(range(changes), desc="switched"):
        enabled = number % 2 == 1
        await put(one, community_id, enabled=enabled)
        began = time.perf_counter()
        while (await triggers(two, next(numbers)))[0] != enabled:
            pass
        times.append(time.perf_counter() - began)
    return times


async def measure(ports: list[int], changes: int) -> str:
    headers = {"X-API-Key": KEY}
    clients = [
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, trust_env=False)
        for port in ports
    ]
    one, two = clients
    _, interaction_id = await triggers(one, 1)
    await triggers(two, 2)
    outcome = (await one.get(f"{API}/interaction/{interaction_id}")).json()["data"]
    community_id = outcome["community_id"]
    times = await live(one, two, community_id, changes)
    before = await put(one, community_id, enabled=True)
    began = time.perf_counter()
    puts = (put(clients[number % 2], community_id, custom_triggers=[f"word{number}"]) for number in range(AT_ONCE))
    versions = sorted(await asyncio.gather(*puts))
    seconds = time.perf_counter() - began
    lost = AT_ONCE - len(set(versions) & set(range(before + 1, before + AT_ONCE + 1)))
    for client in clients:
        await client.aclose()
    return table(
        [
            ("changes", str(len(times))),
            ("live on the other instance after, p50 ms", f"{percentile(times, 0.5) * 1000:.1f}"),
            ("p99 ms", f"{percentile(times, 0.99) * 1000:.1f}"),
            ("max ms", f"{max(times) * 1000:.1f}"),
            ("changes put at once", str(AT_ONCE)),
            ("versions missing or given twice", str(lost)),
            ("changes/s", f"{AT_ONCE / seconds:.0f}"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--changes", type=int, default=CHANGES, help="changes whose time is taken (%(default)s)")
    arguments = parser.parse_args()
    with rig() as made:
        stub = made.stub(0.0)
        print(asyncio.run(measure([made.service(stub), made.service(stub)], arguments.changes)))


if __name__ == "__main__":
    main()

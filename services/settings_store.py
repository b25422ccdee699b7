"""Changes settings: with a version, a line in the audit log and news of it to every instance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import ValidationError

from providers.outbound import ForbiddenAddress
from services.audit import Audit
from services.bus import SETTINGS_CHANGED
from services.chains import Chains, place_of_key
from services.changes import Changes
from services.communities import COMMUNITY, Communities
from services.database import Database
from services.ledger import Ledger
from services.settings import DEFAULTS, CommunitySettings, resolve
from services.vault import Vault

if TYPE_CHECKING:
    from services.database import Connection

KEY = "api_key"
MOST_VERSIONS = 100
MAX_KEY = 500
# What makes the chain of those who answer, which is checked when any of it changes.
_CHAIN = {
    "provider",
    "model",
    "temperature",
    "max_tokens",
    "fallbacks",
    "base_url",
    "budget_cost",
    "budget_small_model",
}
# Of one community alone: an admin's go into the environment.
_NOT_FOR_ALL = (KEY, "base_url", "quiet_until")


@dataclass(frozen=True)
class View:
    """The settings that hold; `own` are the names of those that the community has set itself."""

    community_id: UUID
    version: int
    settings: CommunitySettings
    own: tuple[str, ...]
    has_key: bool


@dataclass(frozen=True)
class Version:
    """What a community had set for itself, from when on, and who had."""

    version: int
    own: dict[str, Any]
    actor: str
    changed_at: datetime


class StaleVersion(Exception):
    """Someone else has changed the settings since; `version` is what they are at."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class BadSettings(Exception):
    """Values that cannot be: (field, problem) for each."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__(problems)
        self.problems = problems


class SettingsStore:
    """The settings as PostgreSQL has them. All raise DatabaseUnavailable."""

    def __init__(
        self,
        database: Database,
        communities: Communities,
        chains: Chains,
        vault: Vault,
        ledger: Ledger,
        audit: Audit,
        changes: Changes,
    ) -> None:
        self._database = database
        self._queries = database.queries
        self._communities = communities
        self._chains = chains
        self._vault = vault
        self._ledger = ledger
        self._audit = audit
        self._changes = changes

    async def view(self, community_id: UUID) -> View | None:
        """The settings of a community, or with the id `DEFAULTS` those of all; None where there is no such one."""
        async with self._database.connection() as connection:
            if not await self._exists(connection, community_id):
                return None
            row = await self._queries.select_settings(connection, community_id=community_id)
            below = await self._below(connection, community_id)
        own = json.loads(row["own"]) if row else {}
        settings = CommunitySettings.model_validate(resolve(below, own))
        has_key = bool(row and row["sealed_key"])
        return View(community_id, row["version"] if row else 0, settings, tuple(sorted(own)), has_key)

    async def key(self, community_id: UUID) -> str | None:
        """A community's key for its provider, in clear. Raises Unreadable."""
        view = await self.view(community_id)
        async with self._database.connection() as connection:
            row = await self._queries.select_settings(connection, community_id=community_id)
        if view is None or row is None or row["sealed_key"] is None:
            return None
        return self._vault.open(place_of_key(community_id, view.settings), row["sealed_key"])

    async def change(self, community_id: UUID, changes: dict[str, Any], version: int | None, actor: str) -> View | None:
        """Set what `changes` names; None is inherited again. None where there is no such community.

        Raises BadSettings, and StaleVersion where `version` is not the one that they are at.
        """
        changes = dict(changes)
        if base_url := changes.get("base_url"):
            await self._check_address(base_url)
        async with self._changes.transaction() as change:
            connection = change.connection
            if not await self._exists(connection, community_id):
                return None
            row = await self._queries.lock_settings(connection, community_id=community_id)
            if version is not None and version != row["version"]:
                raise StaleVersion(row["version"])
            before = json.loads(row["own"])
            below = await self._below(connection, community_id)
            given, key = KEY in changes, changes.pop(KEY, None)
            self._check_names(community_id, [*changes, *([KEY] if given else [])])
            own = {name: value for name, value in (before | changes).items() if value is not None}
            settings = _checked(resolve(below, own))
            old = CommunitySettings.model_construct(**resolve(below, before))
            moved = (old.provider, old.base_url) != (settings.provider, settings.base_url)
            sealed = None if given or moved else row["sealed_key"]
            if key is not None and key != "":
                sealed = self._vault.seal(place_of_key(community_id, settings), _checked_key(key))
            if (given and not key) or changes.keys() & _CHAIN:
                self._check_chain(settings, "key" if sealed else "")
            written = await self._queries.update_settings(
                connection, community_id=community_id, own=json.dumps(own), sealed_key=sealed
            )
            version_row = {"version": written, "own": json.dumps(own), "actor": actor, "most": MOST_VERSIONS}
            await self._queries.insert_settings_version(connection, community_id=community_id, **version_row)
            details = _differences(before, own)
            if sealed != row["sealed_key"]:
                details[KEY] = "set" if sealed else "cleared"
            about = None if community_id == DEFAULTS else community_id
            await self._audit.note(connection, actor, "settings.changed", about, details | {"version": written})
            await change.tell(f"{COMMUNITY}:{community_id}")
            change.happen(SETTINGS_CHANGED, about, {"names": sorted(details), "version": written})
        return View(community_id, written, settings, tuple(sorted(own)), bool(sealed))

    async def problems(self, community_id: UUID, changes: dict[str, Any]) -> list[tuple[str, str]]:
        """What is wrong with changes, (field, problem) for each, as `change` would say."""
        try:
            if base_url := changes.get("base_url"):
                await self._check_address(base_url)
            async with self._database.connection() as connection:
                row = await self._queries.select_settings(connection, community_id=community_id)
                below = await self._below(connection, community_id)
            self._check_names(community_id, [*changes])
            if changes.get(KEY):
                _checked_key(changes[KEY])
            own = (json.loads(row["own"]) if row else {}) | changes
            given = {name: value for name, value in own.items() if value is not None and name != KEY}
            settings = _checked(resolve(below, given))
            if changes.keys() & _CHAIN:
                self._check_chain(settings, "key" if changes.get(KEY) or (row and row["sealed_key"]) else "")
        except BadSettings as bad:
            return bad.problems
        return []

    async def inherited(self, community_id: UUID) -> CommunitySettings:
        """What holds where a community sets nothing itself."""
        async with self._database.connection() as connection:
            return CommunitySettings.model_validate(await self._below(connection, community_id))

    async def versions(self, community_id: UUID, before: int, rows: int) -> list[Version]:
        """How settings were, up to `rows` versions older than `before`, the newest first."""
        about = {"community_id": community_id, "before": before, "rows": rows}
        async with self._database.connection() as connection:
            found = self._queries.select_settings_versions(connection, **about)
            return [Version(**dict(row) | {"own": json.loads(row["own"])}) async for row in found]

    async def undo(self, community_id: UUID, version: int, actor: str) -> View | None:
        """Set everything as it was at a version, but for the key; None where that is not known any more.

        Raises BadSettings.
        """
        async with self._database.connection() as connection:
            row = await self._queries.select_settings(connection, community_id=community_id)
            kept = await self._queries.select_settings_version(connection, community_id=community_id, version=version)
        if row is None or (kept is None and version != 0):
            return None
        now, then = json.loads(row["own"]), json.loads(kept or "{}")
        changes = {name: then.get(name) for name in {**now, **then} if now.get(name) != then.get(name)}
        return await self.change(community_id, changes, row["version"], actor)

    async def check(self, own: dict[str, Any], *, with_key: bool) -> None:
        """Whether a community may have such settings. Raises BadSettings."""
        self._check_names(UUID(int=1), [*own])
        if base_url := own.get("base_url"):
            await self._check_address(base_url)
        async with self._database.connection() as connection:
            below = await self._below(connection, UUID(int=1))
        self._check_chain(_checked(resolve(below, own)), "key" if with_key else "")

    async def _exists(self, connection: Connection, community_id: UUID) -> bool:
        if community_id == DEFAULTS:
            return True
        return await self._queries.select_community(connection, community_id=community_id) is not None

    async def _below(self, connection: Connection, community_id: UUID) -> dict[str, Any]:
        """What a community inherits, read within its transaction."""
        if community_id == DEFAULTS:
            return dict(self._communities.inherited)
        row = await self._queries.select_settings(connection, community_id=DEFAULTS)
        return resolve(self._communities.inherited, json.loads(row["own"]) if row else {})

    async def _check_address(self, base_url: Any) -> None:
        try:
            await self._chains.check_address(str(base_url))
        except ForbiddenAddress as error:
            raise BadSettings([("base_url", str(error))]) from None

    def _check_chain(self, settings: CommunitySettings, key: str) -> None:
        try:
            choices = self._chains.check(settings, key)
        except ValueError as error:
            name, _, problem = str(error).partition(": ")
            field = name if name in CommunitySettings.model_fields or name == KEY else "provider"
            raise BadSettings([(field, problem or name)]) from None
        for choice in choices if settings.budget_cost else []:
            provider = choice.link.provider.name
            if not self._ledger.has_price(provider, choice.model):
                problem = f"the price of {provider}/{choice.model} is not known; an admin adds it to sql/prices.csv"
                raise BadSettings([("budget_cost", problem)])

    def _check_names(self, community_id: UUID, names: list[str]) -> None:
        problems = []
        for name in names:
            if name not in CommunitySettings.model_fields and name != KEY:
                problems.append((name, "is no setting"))
            elif community_id == DEFAULTS and name in _NOT_FOR_ALL:
                problems.append((name, "is of one community; for all of them it is in the environment"))
        if problems:
            raise BadSettings(problems)


def _checked(values: dict[str, Any]) -> CommunitySettings:
    try:
        return CommunitySettings.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise BadSettings([(".".join(map(str, problem["loc"])), problem["msg"]) for problem in found]) from None


def _checked_key(key: Any) -> str:
    if not isinstance(key, str) or len(key) > MAX_KEY or not key.isascii() or not key.isprintable():
        raise BadSettings([(KEY, f"must be a text of at most {MAX_KEY} ASCII characters")])
    return key


def _differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What each setting was and is; null for inherited."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: {"from": before.get(name), "to": after.get(name)} for name in names}

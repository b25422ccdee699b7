"""PostgreSQL: the pool, the migrations, the named queries of `sql/queries`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiosql
import asyncpg

from config import CONNECT_TIMEOUT, DATABASE_TIMEOUT
from services.logs import Log

SQL = Path(__file__).resolve().parent.parent / "sql"
POOL_SIZE = 10
MIGRATION_SECONDS = 120
START_SECONDS = 30
# Any number that nothing else on the server locks: "sidecast" in ASCII.
MIGRATION_LOCK = 0x7369646563617374

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]

# What a server that is away, starting, stopping, read-only or full raises; the same work may succeed later.
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,  # a deadlock
)


# Every query has its index. A plan made while the tables were small would read all of them, or all of an index, for as
# long as the connection lives; these leave it the way by index alone.
_BY_INDEX = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}


class _Connection(asyncpg.Connection[asyncpg.Record] if TYPE_CHECKING else asyncpg.Connection):  # type: ignore[misc]
    """A connection whose session nobody changes, so that there is nothing to set back after each use of it."""

    def get_reset_query(self) -> str:
        return ""


@dataclass(frozen=True)
class PoolUse:
    """How many connections are open, of those how many nobody uses, and how many there may be."""

    size: int = 0
    idle: int = 0
    limit: int = POOL_SIZE


class DatabaseUnavailable(Exception):
    """PostgreSQL cannot do this now."""


class MigrationError(Exception):
    """The schema is not one that this version can use; the text says why."""


class Database:
    """One pool for the process. `connection()` and `own_connection()` are the only ways in."""

    def __init__(self, url: str, log: Log) -> None:
        self._url = url
        self._log = log
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._away_since: float | None = None
        self._own: list[OwnConnection] = []
        self.queries: Any = aiosql.from_path(SQL / "queries", "asyncpg")

    async def open(self) -> None:
        """Connect, waiting up to 30 s for a server that is starting, and bring the schema up to date.

        Raises DatabaseUnavailable, MigrationError, and ValueError for a URL that is none.
        """
        deadline = time.monotonic() + START_SECONDS
        while self._pool is None:
            try:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=1,
                    max_size=POOL_SIZE,
                    timeout=CONNECT_TIMEOUT,
                    command_timeout=DATABASE_TIMEOUT,
                    connection_class=_Connection,
                    server_settings=_BY_INDEX,
                )
            except _AWAY as error:
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable(f"PostgreSQL did not answer within {START_SECONDS} s") from error
                await asyncio.sleep(0.2)
            except ValueError:
                # Its words may be a part of the password.
                message = "DATABASE_URL: cannot be read; in a password, signs such as / are written as %2F"
                raise ValueError(message) from None
        await self.migrate()

    async def migrate(self) -> list[str]:
        """Bring the schema up to date; the migrations that it took. Raises DatabaseUnavailable, MigrationError."""
        async with self.connection() as connection:
            applied = await migrate(connection, SQL / "migrations")
        if applied:
            self._log.system("database.migrated", f"applied {', '.join(applied)}", result="SUCCESS")
        return applied

    async def close(self) -> None:
        if self._pool is not None:
            for own in self._own:
                await own.give_back()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._pool.close(), DATABASE_TIMEOUT)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for one piece of work. Raises DatabaseUnavailable, also for what fails inside."""
        with self.errors():
            async with self.pool.acquire(timeout=DATABASE_TIMEOUT) as connection:
                yield connection

    async def listen(self, channel: str, hear: Callable[[str], None]) -> asyncpg.Connection[asyncpg.Record]:
        """A connection of its own that hears what is told on a channel. Raises DatabaseUnavailable."""
        with self.errors():
            connection = await asyncpg.connect(self._url, timeout=CONNECT_TIMEOUT, command_timeout=DATABASE_TIMEOUT)
            await connection.add_listener(channel, lambda _connection, _pid, _channel, what: hear(what))
        return connection

    def own_connection(self) -> OwnConnection:
        """A connection for one user at a time, who keeps it."""
        own = OwnConnection(self)
        self._own.append(own)
        return own

    @property
    def pool(self) -> asyncpg.Pool[asyncpg.Record]:
        """Raises DatabaseUnavailable before `open`."""
        if self._pool is None:
            raise DatabaseUnavailable("PostgreSQL is not connected yet")
        return self._pool

    @property
    def pool_use(self) -> PoolUse:
        """How the pool is used now."""
        if self._pool is None:
            return PoolUse()
        return PoolUse(self._pool.get_size(), self._pool.get_idle_size(), self._pool.get_max_size())

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Raises DatabaseUnavailable where PostgreSQL is away; when that begins and ends is logged."""
        try:
            yield
        except _AWAY as error:
            self._note_away(error)
            raise DatabaseUnavailable("PostgreSQL is not available") from error
        self._note_back()

    async def ping(self) -> None:
        """Raises DatabaseUnavailable."""
        async with self.connection() as connection:
            await connection.fetchval("select 1")

    def _note_away(self, error: BaseException) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._log.error(
                "database.away",
                f"PostgreSQL does not answer ({type(error).__name__}); events are refused with 503 until it does. "
                "Check that it runs, has disk space and is not read-only.",
                result="ERROR",
            )

    def _note_back(self) -> None:
        if self._away_since is not None:
            seconds = round(time.monotonic() - self._away_since, 1)
            self._away_since = None
            self._log.system("database.back", f"PostgreSQL answers again after {seconds} s", result="SUCCESS")


class OwnConnection:
    """A connection that its user keeps, since taking one from the pool and giving it back takes as long as a query."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: PoolConnectionProxy[asyncpg.Record] | None = None

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """The connection, a fresh one after a failure. Raises DatabaseUnavailable, also for what fails inside."""
        with self._database.errors():
            async with contextlib.AsyncExitStack() as unless_done:
                connection = await self._take()
                unless_done.push_async_callback(self.give_back)
                yield connection
                unless_done.pop_all()

    async def _take(self) -> Connection:
        try:
            if self._kept is not None and not self._kept.is_closed():
                return self._kept
        except asyncpg.InterfaceError:
            pass  # it broke, and the pool has taken it back
        await self.give_back()
        self._kept = await self._database.pool.acquire(timeout=DATABASE_TIMEOUT)
        return self._kept

    async def give_back(self) -> None:
        connection, self._kept = self._kept, None
        if connection is not None:
            await self._database.pool.release(connection)


async def migrate(connection: Connection, folder: Path) -> list[str]:
    """Apply what is missing of `folder`, forward only, one instance at a time; returns the names applied.

    Raises MigrationError when an applied file has changed since, or the database is ahead of this version.
    """
    await connection.execute(f"select pg_advisory_lock({MIGRATION_LOCK})", timeout=MIGRATION_SECONDS)
    try:
        await connection.execute(
            "create table if not exists migrations "
            "(name text primary key, checksum text not null, applied_at timestamptz not null default now())"
        )
        done = {row["name"]: row["checksum"] for row in await connection.fetch("select name, checksum from migrations")}
        files = {path.name: path.read_text() for path in sorted(folder.glob("*.sql"))}
        if unknown := sorted(done.keys() - files.keys()):
            raise MigrationError(f"the database is ahead of this version: it has {', '.join(unknown)}")
        for name, text in files.items():
            await _apply(connection, name, text, done.get(name))
        return [name for name in files if name not in done]
    finally:
        await connection.execute(f"select pg_advisory_unlock({MIGRATION_LOCK})")


async def _apply(connection: Connection, name: str, text: str, applied: str | None) -> None:
    found = checksum(text)
    if applied == found:
        return
    if applied is not None:
        raise MigrationError(f"the migration {name} has changed since it was applied; write a new one instead")
    async with connection.transaction():
        await connection.execute(text, timeout=MIGRATION_SECONDS)
        await connection.execute("insert into migrations (name, checksum) values ($1, $2)", name, found)


def checksum(text: str) -> str:
    """What a migration is recognised by."""
    return hashlib.sha256(text.encode()).hexdigest()

"""All services of one instance, made from the settings and opened and closed in order."""

from __future__ import annotations

import asyncio
import contextlib
from ipaddress import ip_network
from typing import Any
from uuid import uuid4

from config import Settings
from services.access import Access
from services.activity import Activity
from services.ai_service import AIService
from services.alerts import Alerts
from services.answer_cache import AnswerCache
from services.audit import Audit
from services.backup import Backup
from services.budgets import Budgets
from services.bus import Bus
from services.cache_manager import CacheManager
from services.carrying import Carrying
from services.chains import Chains
from services.changes import Changes
from services.commands import Commands
from services.communities import Communities
from services.composer import Composer
from services.contents import Contents
from services.database import Database, DatabaseUnavailable
from services.deliveries import Deliveries
from services.gateway import Gateway
from services.gathering import Gathering
from services.hashing import Hashing
from services.health import HealthService
from services.history import History
from services.instances import Instances
from services.intake import Intake
from services.interactions import Interactions
from services.jwts import Jwts
from services.keys import Keys
from services.leases import Leases
from services.ledger import Ledger
from services.limits import Limits
from services.live import Live
from services.logs import Log
from services.metrics import Metrics, ModelMetrics
from services.numbers import Numbers
from services.oidc import Oidc
from services.playground import Playground
from services.privacy import Privacy
from services.rates import Rates
from services.readings import Readings
from services.repeats import Repeats
from services.retention import Retention
from services.rotation import Rotation
from services.router_service import DevRouter, HttpRouter
from services.sessions import Sessions
from services.settings import of_environment
from services.settings_store import SettingsStore
from services.summaries import Summaries
from services.tasks import Tasks
from services.tracing import Tracing
from services.trial import Trial
from services.valkey import Valkey
from services.vault import Vault
from services.webhooks import signing_key
from services.worker import Worker

CLOSE_SECONDS = 5.0


class Sidecast:
    """What the routes reach the services by."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.settings = settings
        self.log = log
        self.metrics = Metrics()
        self.tracing = Tracing(settings, log)
        self.trusted_proxies = [ip_network(entry, strict=False) for entry in settings.trusted_proxies]
        self.intake_keys = [signing_key(secret.get_secret_value()) for secret in settings.intake_secret]
        self._tasks = Tasks(log)
        self._renewing = Tasks(log)  # apart, since leases are renewed while the rest is drained
        self._make_stores(settings, log)
        self._make_models(settings, log)
        self._make_administration(settings, log)
        self._make_main_path(settings, log)
        self.health = HealthService(self.database, self.valkey, self.chains, self.router, self.alerts)

    def _make_stores(self, settings: Settings, log: Log) -> None:
        self.database = Database(settings.database_url, log)
        self.valkey = Valkey(settings.redis_url, log)
        self.bus = Bus(self.valkey, self._tasks, settings.event_stream_length)
        self.changes = Changes(self.database, self.bus)
        self.audit = Audit(self.database)
        self.vault = Vault(settings)
        self._hashing = Hashing(settings, self.vault, self.database, log)
        self._contents = Contents(self.vault, log)
        self.cache = CacheManager(self.valkey, self.changes, self._tasks, settings.context_ttl)
        self.limits = Limits(self.valkey, self.changes)
        self.rates = Rates(self.valkey, settings.api_rate_limit)
        self.ledger = Ledger(self.database, log)
        self.numbers = Numbers(self.database)
        self.ledger.listeners.append(self.numbers.note_call)
        instance_id = uuid4()
        lease = instance_id, settings.lease_seconds
        self.instances = Instances(self.database, self.changes, instance_id, settings.module_version, self._state)
        self.communities = Communities(
            self.database, self.changes, self.audit, of_environment(settings), auto_register=settings.auto_register
        )
        self.interactions = Interactions(self.database, self.communities, self._contents, self._tasks, *lease)
        self._leases = Leases(self.interactions, settings.lease_seconds, log)
        self.history = History(self.database, self.interactions, self._contents)
        self._answers = AnswerCache(self.valkey, self.database, self.vault, self._tasks, self.metrics, log)
        stores = self.interactions, self.communities, self._answers, self.history, self.numbers
        self._retention = Retention(*stores, settings, log)
        self.activity = Activity(self.database, self.interactions, self.history)
        self.live = Live(self.valkey)

    def _make_models(self, settings: Settings, log: Log) -> None:
        self.chains = Chains(settings, self.vault, self.bus, self.metrics, self.tracing, log)
        self.alerts = Alerts(settings, self.chains.models, self.bus, self.metrics, log)
        self.ledger.hearers += [ModelMetrics(self.metrics, self.chains.models).note, self.alerts.note]
        self.readings = Readings(self.database, self.valkey, self.interactions, self.ledger, self.metrics)
        self.budgets = Budgets(self.ledger, log)
        self.ai = AIService(self.chains, settings, self.ledger, log)
        self.gateway = Gateway(self.ai, self._tasks, log)

    def _make_administration(self, settings: Settings, log: Log) -> None:
        database, audit, changes = self.database, self.audit, self.changes
        self.keys = Keys(settings, database, changes, audit, log)
        self._jwts = Jwts(settings, log)
        self.access = Access(self.keys, self._jwts)
        self.oidc = Oidc(settings, self.valkey, self.communities, log)
        self.sessions = Sessions(self.valkey, self.keys, self.oidc, changes)
        self.rotation = Rotation(database, self.vault, self._hashing, audit, changes)
        self.settings_store = SettingsStore(
            database, self.communities, self.chains, self.vault, self.ledger, audit, changes
        )
        self.carrying = Carrying(self.communities, self.settings_store)
        self.backup = Backup(settings.database_url, database)
        self.privacy = Privacy(
            database,
            self.interactions,
            self.cache,
            self.limits,
            audit,
            changes,
            self._hashing,
            self.history,
            self.communities,
            self.bus,
        )

    def _make_main_path(self, settings: Settings, log: Log) -> None:
        composer = Composer(settings, self.cache, self._answers, self.ai, self.budgets, self.tracing, log)
        self.trial = Trial(composer)
        self.playground = Playground(self.valkey, self.communities)
        self._worker = Worker(
            settings,
            self._hashing,
            self.interactions,
            self._leases,
            self.communities,
            self.cache,
            Summaries(self.cache, self.ai, self.budgets, self.changes, log),
            Repeats(self.valkey),
            Commands(self.settings_store, self.privacy, self._hashing),
            composer,
            Gathering(self.database, settings, self.tracing),
            self.playground,
            self.limits,
            self._make_deliveries(settings, log),
            self.bus,
            self._tasks,
            self.metrics,
            self.tracing,
            log,
        )
        self.intake = Intake(
            self._hashing,
            self.communities,
            self.limits,
            self.cache,
            self._contents,
            self.interactions,
            self._worker,
            self._tasks,
            self.metrics,
            self.numbers,
            self.tracing,
            log,
            settings.gather_seconds,
        )

    def _make_deliveries(self, settings: Settings, log: Log) -> Deliveries:
        self.router = HttpRouter(settings) if settings.router_api_url else DevRouter()
        return Deliveries(
            settings,
            self.interactions,
            self.communities,
            self._contents,
            self._leases,
            self.router,
            self._hashing,
            self.bus,
            self.metrics,
            self.numbers,
            self.tracing,
            log,
        )

    async def open(self) -> None:
        """Raises DatabaseUnavailable or MigrationError."""
        self.tracing.open()
        await self.open_database()
        await self.changes.open(self._tasks)
        await self.chains.open()
        self.cache.open()
        self._leases.open(self._renewing)
        self._worker.open()
        self._retention.open(self._tasks)
        self.ledger.open(self._tasks)
        self.keys.open(self._tasks)
        self.rates.open(self._tasks)
        self.numbers.open(self._tasks)
        self.instances.open(self._tasks)
        self.live.open(self._tasks)
        self.alerts.open(self._tasks)
        self.readings.open(self._tasks)
        self._tasks.spawn(self._forget_again(), "forget again")
        first = self.chains.default[0]
        message = f"answers with {first.link.provider.name}, model {first.model}"
        self.log.system("service.started", message, version=self.settings.module_version, result="SUCCESS")

    async def open_database(self) -> None:
        """As much as a command needs. Raises DatabaseUnavailable or MigrationError."""
        await self.database.open()
        await self._hashing.open()

    async def _forget_again(self) -> None:
        """What a restore did not come to."""
        with contextlib.suppress(DatabaseUnavailable):
            await self.privacy.forget_again("restore")

    def _state(self) -> dict[str, Any]:
        """What this instance says of itself to those who look after it."""
        breakers = {choice.link.provider.name: choice.link.breaker.state for choice in self.chains.default}
        return {"stopping": self.intake.closed, "under_way": len(self._leases.held), "breakers": breakers}

    async def drain(self) -> None:
        """Stop accepting, give what runs `DRAIN_TIMEOUT` to end, hand the rest back to the journal."""
        self.intake.closed = True
        await self.instances.sign()
        await self._tasks.drain(self.settings.drain_timeout)
        handed_back = await self._leases.hand_back()
        self.log.system("service.drained", f"{handed_back} interactions were handed back", result="SUCCESS")

    async def close(self) -> None:
        """Close in reverse order, each step bounded; first what requests that were under way have still begun."""
        await self._tasks.drain(0.1)
        await self._renewing.drain(0.1)
        await self._leases.hand_back()
        parts = (
            self.instances,
            self.changes,
            self._jwts,
            self.oidc,
            self.router,
            self.chains,
            self.valkey,
            self.database,
        )
        flushes = self.ledger.flush, self.numbers.flush, self.keys.note_used, self.bus.flush, self.tracing.close
        for close in (*flushes, *(part.close for part in parts)):
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await close()
            except TimeoutError:
                self.log.error("service.close", f"{close.__qualname__} did not end within {CLOSE_SECONDS:g} s")
        self.log.system("service.stopped", "everything is closed", result="SUCCESS")

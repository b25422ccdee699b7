"""All services of one instance, made from the settings and opened and closed in order."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from config import Settings
from services.ai_service import AIService, make_providers
from services.cache_manager import CacheManager
from services.communities import Communities
from services.database import Database
from services.deliveries import Deliveries
from services.gateway import Gateway
from services.health import HealthService
from services.intake import Intake
from services.interactions import Interactions
from services.keys import Keys
from services.leases import Leases
from services.ledger import Ledger
from services.logs import Log
from services.metrics import Metrics
from services.retention import Retention
from services.router_service import DevRouter, HttpRouter
from services.tasks import Tasks
from services.webhooks import signing_key
from services.worker import Worker

CLOSE_SECONDS = 5.0


class Sidecast:
    """What the routes reach the services by."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.settings = settings
        self.log = log
        self.metrics = Metrics()
        self.keys = Keys(settings)
        self.intake_keys = [signing_key(secret.get_secret_value()) for secret in settings.intake_secret]
        self.database = Database(settings.database_url, log)
        self.cache = CacheManager(settings, log)
        self.ledger = Ledger(self.database, log)
        self.ai = AIService(make_providers(settings), settings, self.ledger, self.metrics, log)
        self.router = HttpRouter(settings) if settings.router_api_url else DevRouter()
        self._tasks = tasks = Tasks(log)
        self.interactions = Interactions(self.database, tasks, uuid4(), settings.lease_seconds)
        self.gateway = Gateway(self.ai, tasks, log)
        self._renewing = Tasks(log)  # apart, since leases are renewed while the rest is drained
        self._leases = Leases(self.interactions, settings.lease_seconds, log)
        deliveries = Deliveries(settings, self.interactions, self._leases, self.router, self.metrics, log)
        self._worker = worker = Worker(
            settings, self.interactions, self._leases, self.cache, self.ai, deliveries, tasks, self.metrics, log
        )
        communities = Communities(self.database, settings.auto_register)
        self.intake = Intake(settings, communities, self.interactions, worker, tasks, self.metrics, log)
        self._retention = Retention(self.interactions, settings.journal_retention, log)
        self.health = HealthService(self.database, self.cache, self.ai, self.router)

    async def open(self) -> None:
        """Raises DatabaseUnavailable or MigrationError."""
        await self.database.open()
        await self.ai.open()
        self._leases.open(self._renewing)
        self._worker.open()
        self._retention.open(self._tasks)
        self.ledger.open(self._tasks)
        provider = self.ai.providers[0]
        message = f"answers with {provider.name}, model {provider.model}"
        self.log.system("service.started", message, version=self.settings.module_version, result="SUCCESS")

    async def drain(self) -> None:
        """Stop accepting, give what runs `DRAIN_TIMEOUT` to end, hand the rest back to the journal."""
        self.intake.closed = True
        await self._tasks.drain(self.settings.drain_timeout)
        handed_back = await self._leases.hand_back()
        self.log.system("service.drained", f"{handed_back} interactions were handed back", result="SUCCESS")

    async def close(self) -> None:
        """Close in reverse order, each step bounded; first what requests that were under way have still begun."""
        await self._tasks.drain(0.1)
        await self._renewing.drain(0.1)
        await self._leases.hand_back()
        for close in (self.ledger.flush, self.router.close, self.ai.close, self.cache.close, self.database.close):
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await close()
            except TimeoutError:
                self.log.error("service.close", f"{close.__qualname__} did not end within {CLOSE_SECONDS:g} s")
        self.log.system("service.stopped", "everything is closed", result="SUCCESS")

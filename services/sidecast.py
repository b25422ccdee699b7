"""All services of one instance, made from the settings and opened and closed in order."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from config import Settings
from services.ai_service import AIService, make_providers
from services.cache_manager import CacheManager
from services.communities import Communities
from services.database import Database
from services.health import HealthService
from services.intake import Intake
from services.interactions import Interactions
from services.keys import Keys
from services.logs import Log
from services.metrics import Metrics
from services.router_service import DevRouter, HttpRouter, RouterService
from services.worker import Worker

CLOSE_SECONDS = 5.0


class Sidecast:
    """What the routes reach the services by."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.settings = settings
        self.log = log
        self.metrics = Metrics()
        self.keys = Keys(settings)
        self.database = Database(settings.database_url, log)
        self.cache = CacheManager(settings, log)
        self.ai = AIService(make_providers(settings), self.metrics, log)
        self.router = HttpRouter(settings) if settings.router_api_url else DevRouter()
        self.interactions = Interactions(self.database, uuid4(), settings.lease_seconds)
        delivery = RouterService(settings, self.router, log)
        self.worker = Worker(settings, self.interactions, self.cache, self.ai, delivery, self.metrics, log)
        communities = Communities(self.database, settings.auto_register)
        self.intake = Intake(settings, communities, self.interactions, self.worker, self.metrics, log)
        self.health = HealthService(self.database, self.cache, self.ai, self.router)

    async def open(self) -> None:
        """Raises DatabaseUnavailable or MigrationError."""
        await self.database.open()
        await self.ai.open()
        self.worker.open()
        provider = self.ai.providers[0]
        message = f"answers with {provider.name}, model {provider.model}"
        self.log.system("service.started", message, version=self.settings.module_version, result="SUCCESS")

    async def close(self) -> None:
        """Stop accepting, drain, then close in reverse order; each step is bounded."""
        self.intake.closed = True
        await self.worker.close(self.settings.drain_timeout)
        for close in (self.router.close, self.ai.close, self.cache.close, self.database.close):
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await close()
            except TimeoutError:
                self.log.error("service.close", f"{close.__qualname__} did not end within {CLOSE_SECONDS:g} s")
        self.log.system("service.stopped", "everything is closed", result="SUCCESS")

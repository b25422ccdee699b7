"""Structured logs in five levels: system, audit, error, info, debug.

Every line has `timestamp`, `level`, `module`, `action` (a dotted event) and `message`, and where they apply `user`
(a keyed hash), `community`, `result`, `execution_time` (ms) and `request_id`. No message text and no key is ever
handed to a logger. On a terminal lines are for reading, elsewhere they are JSON.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import orjson
import structlog
from structlog.contextvars import merge_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from config import Settings

# `system` and `audit` stand above every threshold that LOG_LEVEL can set.
AUDIT = logging.CRITICAL + 1
SYSTEM = logging.CRITICAL + 2
LEVEL_NAMES = {logging.DEBUG: "debug", logging.INFO: "info", logging.ERROR: "error", AUDIT: "audit", SYSTEM: "system"}
MAX_FILE_BYTES = 10_000_000
OWN = "sidecast"


class Log(structlog.BoundLoggerBase):
    """A logger whose methods are the five levels: `log.error("delivery.failed", "why", result="FAILED", …)`."""

    def system(self, action: str, message: str, **fields: Any) -> None:
        self._write(SYSTEM, action, message, fields)

    def audit(self, action: str, message: str, **fields: Any) -> None:
        self._write(AUDIT, action, message, fields)

    def error(self, action: str, message: str, **fields: Any) -> None:
        self._write(logging.ERROR, action, message, fields)

    def info(self, action: str, message: str, **fields: Any) -> None:
        self._write(logging.INFO, action, message, fields)

    def debug(self, action: str, message: str, **fields: Any) -> None:
        self._write(logging.DEBUG, action, message, fields)

    def _write(self, level: int, action: str, message: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            [line], _ = self._process_event("log", message, {"action": action, "number": level, **fields})
            self._logger.log(level, line)


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Renders what libraries log; a line of ours is rendered already."""

    def format(self, record: logging.LogRecord) -> str:
        return str(record.msg) if record.name == OWN else super().format(record)


def open_log(settings: Settings, stream: TextIO | None = None) -> Log:
    """Set up logging for this process and return its logger; libraries' own warnings come out the same way.

    Lines go to the standard output, or to another stream where that is what a command prints its result to.
    """
    stream = stream or sys.stdout
    console = settings.log_format == "console" or (settings.log_format == "auto" and stream.isatty())
    shared: list[Processor] = [merge_contextvars, _name_level, structlog.processors.TimeStamper("iso", key="timestamp")]
    rendering: list[Processor] = [_trace, *_renderers(console)]
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    formatter = _Formatter(foreign_pre_chain=[_adopt_foreign, *shared], processors=[remove_meta, *rendering])
    handlers = _handlers(settings, stream)
    for handler in handlers:
        handler.setFormatter(formatter)
    # Nothing of these is in a line; not to collect them makes each cheaper (docs.python.org/3/howto/logging.html).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(handlers=handlers, level=logging.WARNING, force=True)
    logger = logging.getLogger(OWN)
    logger.setLevel(settings.log_level)
    return Log(logger, [*shared, *rendering], {"module": settings.module_name})


def _renderers(console: bool) -> list[Processor]:
    if console:
        return [structlog.dev.ConsoleRenderer(event_key="message")]
    return [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer(_dumps)]


def _dumps(line: EventDict, default: Callable[[Any], Any]) -> str:
    return orjson.dumps(line, default, orjson.OPT_NON_STR_KEYS).decode()


def _handlers(settings: Settings, stream: TextIO) -> list[logging.Handler]:
    handlers: list[logging.Handler] = [logging.StreamHandler(stream)]
    if settings.log_dir:
        folder = Path(settings.log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{settings.module_name}.log"
        handlers.append(logging.handlers.RotatingFileHandler(path, maxBytes=MAX_FILE_BYTES, backupCount=5))
    if settings.enable_syslog:
        address = "/dev/log" if Path("/dev/log").exists() else ("localhost", 514)
        handlers.append(logging.handlers.SysLogHandler(address))
    return handlers


def _trace(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Where an exception came from. Its own words are left out, since they may repeat what a user wrote or a key."""
    error = line.pop("exc_info", None)
    error = sys.exc_info()[1] if error is True else error[1] if isinstance(error, tuple) else error
    parts: list[str] = []
    while isinstance(error, BaseException):
        parts.append(
            "".join(traceback.format_tb(error.__traceback__)) + f"{type(error).__module__}.{type(error).__name__}"
        )
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if parts:
        line["exception"] = "\ncaused by\n".join(parts)
    return line


def _name_level(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    number = line.pop("number", logging.ERROR)
    line["level"] = LEVEL_NAMES.get(number, "error")
    return line


def _adopt_foreign(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Give a library's own log line the fields of ours."""
    record: logging.LogRecord = line["_record"]
    line["number"] = min(record.levelno, logging.ERROR) // 10 * 10
    line["module"] = record.name
    line["action"] = "library.message"
    return line

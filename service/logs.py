"""Structured logs on standard error."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog

from flowkeep.handlers.context import LOGGER
from service.config import Config
from service.engine.handlers.attempt import CURRENT


def configure(config: Config) -> None:
    """Send what is logged, by us and by libraries, to standard error in the form that the settings name.

    Where several processes serve, each line says by its process id which one it is of.
    """
    level = logging.getLevelNamesMapping()[config.log_level.upper()]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if config.log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # rich's would show local variables
        )
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _of_attempt,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([_process(os.getpid())] if config.processes > 1 else []),
    ]
    tail = [structlog.processors.format_exc_info] if config.log_format == "json" else []
    structlog.configure(
        processors=[*shared, *tail, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # In one write with its end, whatever PYTHONUNBUFFERED says: several processes may share standard error.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=[*shared, *tail]))
    handler.addFilter(_tells_no_metadata)
    for name in ("mcp", "client"):  # the library of MCP repeats what servers say; what matters of it we log ourselves
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger(LOGGER).setLevel(level)
    # Libraries speak up only when something is wrong: their INFO lines may hold what callers sent.
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _tells_no_metadata(record: logging.LogRecord) -> bool:
    """Whether a line is not gRPC's on metadata that is not UTF-8, which repeats it: it may be a token."""
    return not (record.name.startswith("grpc") and str(record.msg).startswith("Invalid encoding"))


def _of_attempt(_: Any, __: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say which attempt a line comes from, its handler's own lines among them."""
    if (attempt := CURRENT.get(None)) is not None:
        for name, value in attempt.facts.items():
            entry.setdefault(name, value)
        entry.setdefault("org", attempt.org)
    return entry


def _process(pid: int) -> Any:
    def add(_: Any, __: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
        entry["pid"] = pid
        return entry

    return add

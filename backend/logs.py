"""Log lines for people or machines, every one with what it is about, none with a secret.

Modules log through `logging` as ever; structlog adds what is bound, removes secrets and writes the line.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Protocol

import structlog
from pydantic import SecretStr

REDACTED = "[redacted]"

# httpx logs every URL it asks for, query and all; alembic and celery every time they have nothing to say.
_CHATTY = ("httpx", "alembic", "celery.worker.strategy", "celery.app.trace", "celery.beat")

# Shorter secrets are known by their place alone: as plain text they would blacken innocent words.
_SHORTEST_KNOWN = 12
_URL_PASSWORD = re.compile(r"(?<=://)([^\s:/?#@]*):[^\s/]+@")
_QUERY = re.compile(r"(?i)([?&](?:[\w-]*token|[\w-]*signature|[\w-]*credential|sig|key|api_key)=)[^&\s'\"]+")
_SCHEME = re.compile(r"(?i)\b(bearer|basic|token)\s+(?=[\w.+/~-]*\d)[\w.+/~-]{8,}=*")
_HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]*(?:secret|token|key))"
    r"(['\"]?\s*[:=,]\s*b?['\"]?)[^'\"\r\n,]+"
)
_SECRET_NAME = re.compile(r"(?i)(authorization|cookie|secret|password|passwd|token|api_?key)$")


class Configured(Protocol):
    """What logging wants of the settings."""

    @property
    def log_level(self) -> str: ...
    @property
    def log_format(self) -> str: ...
    @property
    def database_url(self) -> str: ...
    @property
    def broker_url(self) -> str: ...
    @property
    def label_studio_token(self) -> SecretStr: ...
    @property
    def api_token(self) -> SecretStr: ...
    @property
    def webhook_secret(self) -> SecretStr: ...


def set_up(settings: Configured) -> None:
    """One line an event on stderr, of our own loggers and of everybody else's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(settings))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*_described(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


@contextmanager
def bound(**values: Any) -> Iterator[None]:
    """Every line inside carries the values, such as round=3; a thread started inside does not inherit them."""
    with structlog.contextvars.bound_contextvars(**values):
        yield


def _formatter(settings: Configured) -> logging.Formatter:
    as_json = settings.log_format == "json"
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_described(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # No renderer that shows the values of variables: secrets are among them.
            structlog.processors.format_exc_info,
            Redaction(_known_secrets(settings)),
            structlog.processors.JSONRenderer(sort_keys=False, default=str) if as_json else _as_text,
        ],
    )


def _described() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _as_text(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> str:
    """`time LEVEL logger: what happened key=value`, and a trace below when there is one."""
    start = f"{line.pop('timestamp')} {str(line.pop('level')).upper()} {line.pop('logger', 'root')}"
    event, trace, stack = line.pop("event"), line.pop("exception", None), line.pop("stack", None)
    values = "".join(f" {name}={value}" for name, value in line.items())
    return "\n".join(part for part in (f"{start}: {event}{values}", stack, trace) if part)


class Redaction:
    """A structlog processor that removes secrets: known ones wherever they stand, others by the place they stand in."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        longest_first = sorted({secret for secret in known if len(secret) >= _SHORTEST_KNOWN}, key=len, reverse=True)
        self._known = re.compile("|".join(re.escape(secret) for secret in longest_first)) if longest_first else None

    def __call__(self, _logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {name: self._clean(value, name) for name, value in line.items()}

    def _clean(self, value: Any, name: object = "") -> Any:
        if isinstance(name, str) and _SECRET_NAME.search(name):
            return REDACTED
        if isinstance(value, Mapping):
            return {each: self._clean(one, each) for each, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(one) for one in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._text(str(value))

    def _text(self, text: str) -> str:
        if self._known:
            text = self._known.sub(REDACTED, text)
        text = _URL_PASSWORD.sub(rf"\1:{REDACTED}@", text)
        text = _HEADER.sub(rf"\1\2{REDACTED}", text)
        text = _SCHEME.sub(rf"\1 {REDACTED}", text)
        return _QUERY.sub(rf"\1{REDACTED}", text)


def _known_secrets(settings: Configured) -> list[str]:
    secrets = [settings.label_studio_token, settings.api_token, settings.webhook_secret]
    urls = (settings.database_url, settings.broker_url)
    found = [match[1] for url in urls for match in re.finditer(r"://[^\s:/?#@]*:([^\s/]+)@", url)]
    return [secret.get_secret_value() for secret in secrets] + found

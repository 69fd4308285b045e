"""What every journey needs in its hand. Entry points build one; tests build one with their own parts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import strategies
from backend import broker
from backend.errors import BadSettings
from backend.files import Files
from backend.label_studio import image_hosts
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_hosts import Outside
from backend.serving import Serving
from backend.settings import Settings
from backend.store import Store
from backend.tables import Lane

log = logging.getLogger(__name__)

Enqueue = Callable[..., None]


@dataclass(frozen=True)
class Context:
    """The parts of a running Wardround.

    `enqueue(name, *args, lane=…)` is only ever a nudge: the database is the truth. Without a lane it goes where Label
    Studio is talked to.
    """

    settings: Settings
    store: Store
    files: Files
    label_studio: LabelStudioClient
    serving: Serving
    enqueue: Enqueue
    now: Callable[[], datetime]

    def close(self) -> None:
        self.label_studio.close()
        self.store.close()


def build(settings: Settings, *, migrate: bool = True) -> Context:
    """A context from settings; brings the schema to its head first."""
    settings.require("label_studio_url", "label_studio_token")
    _require_strategy(settings.strategy)
    store = Store(settings.database_url)
    if migrate:
        store.migrate()
    files = Files(settings.data_dir / "files", max_image_pixels=settings.max_image_pixels, url=settings.files_url)
    return Context(
        settings=settings,
        store=store,
        files=files,
        label_studio=LabelStudioClient(
            settings.label_studio_url,
            settings.label_studio_token.get_secret_value(),
            outside=_outside(settings),
        ),
        serving=Serving(
            store, files, settings.device, settings.backbone_weights, settings.backbone_tokenizer, settings.precision
        ),
        enqueue=_sender(settings),
        now=lambda: datetime.now(UTC),
    )


def _outside(settings: Settings) -> Outside:
    try:
        return Outside(image_hosts.parse(settings.image_hosts, settings.image_networks))
    except ValueError as error:
        raise BadSettings(f"WARDROUND_IMAGE_HOSTS: {error}") from None


def _require_strategy(name: str) -> None:
    """Better said now than inside the first round."""
    try:
        strategies.get(name)
    except strategies.StrategyError as error:
        raise BadSettings(f"WARDROUND_STRATEGY: {error}") from None


# Whoever takes a message so late would find the same by looking, as the next tick has somebody do.
_NUDGE_EXPIRES_SECONDS = 300
_PRUNE_SECONDS = 3600.0


def queue_of(lane: Lane) -> str:
    """The Celery queue that carries a lane's messages."""
    return f"wardround-{lane.value}"


def celery_config(settings: Settings) -> dict[str, Any]:
    """Celery's configuration, the same for sender, worker and beat."""
    config: dict[str, Any] = {
        # Early acknowledgement on purpose: a lost message is found again by the reconciler, and no broker
        # hands a long round to a second worker because a timeout passed.
        "task_acks_late": False,
        "task_ignore_result": True,
        "task_default_queue": queue_of(Lane.label_studio),
        "task_create_missing_queues": True,
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": False,
        "broker_connection_retry_on_startup": True,
        "beat_schedule": {
            name: {
                "task": f"wardround.{name}",
                "schedule": seconds,
                # Ticks that nobody was there to take are worth nothing.
                "options": {"expires": seconds, "queue": queue_of(Lane.label_studio)},
            }
            for name, seconds in (
                ("tick", settings.tick_seconds),
                ("reconcile", settings.reconcile_seconds),
                ("prune", _PRUNE_SECONDS),
            )
        },
    }
    if settings.broker_folder is None:
        return config | {
            "broker_url": settings.broker_url,
            "broker_transport_options": _transport_options(settings.broker_url),
        }
    broker.register()
    return config | {
        "broker_url": f"{broker.SCHEME}://localhost",
        "broker_transport_options": broker.transport_options(settings.broker_folder),
    }


def _transport_options(broker_url: str) -> dict[str, Any]:
    if broker_url.startswith("amqp"):
        return {"confirm_publish": True}  # without it a broker that is killed loses what it had accepted
    return {"visibility_timeout": 43_200}  # seconds; no message may come back while its round still runs


# Label Studio gives a webhook one second, and kombu would try for six to reach a broker that is down.
_ONE_ATTEMPT = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}


def _sender(settings: Settings) -> Enqueue:
    from celery import Celery
    from celery.exceptions import OperationalError

    app = Celery("wardround", set_as_current=False)
    config = celery_config(settings)
    app.conf.update(config | {"broker_transport_options": config["broker_transport_options"] | _ONE_ATTEMPT})

    def enqueue(name: str, *args: Any, lane: Lane = Lane.label_studio) -> None:
        try:
            app.send_task(
                f"wardround.{name}", args=args, retry=False, queue=queue_of(lane), expires=_NUDGE_EXPIRES_SECONDS
            )
        except (OperationalError, OSError, *app.connection_for_write().channel_errors) as error:
            # Nothing is lost: beat's next reconciliation finds what this message would have said.
            log.warning("the broker took no message %s%s: %s", name, args, error)

    return enqueue

"""Every knob of the service, read from the environment (prefix `WARDROUND_`). Built only by entry points."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.errors import BadSettings

LANES = ("label-studio", "training", "scoring")


class Settings(BaseSettings):
    """One field a setting; units stand in the names, the help texts in `description`."""

    model_config = SettingsConfigDict(env_prefix="WARDROUND_", frozen=True, extra="forbid")

    data_dir: Path = Field(Path("wardround-data"), description="Folder of the database, images, masks, checkpoints.")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the data folder.")
    broker_url: str = Field("", description="Celery broker URL; empty: the embedded file broker in the data folder.")

    label_studio_url: str = Field("", description="Where Label Studio answers, for example https://labels.example.org")
    label_studio_token: SecretStr = Field(SecretStr(""), description="Personal access token (or legacy token).")
    public_url: str = Field("http://127.0.0.1:9090", description="Where Label Studio reaches this API.")
    api_token: SecretStr = Field(SecretStr(""), description="Secret of the API: basic auth password or bearer token.")
    webhook_secret: SecretStr = Field(SecretStr(""), description="Secret that Label Studio's webhook must show.")
    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(9090, ge=1, le=65535, description="Port the API listens on.")

    backbone: Literal["tiny", "unimedclip", "biomedclip", "clip", "pubmedclip"] = Field(
        "tiny", description="CLIP backbone of new projects: tiny, unimedclip, biomedclip, clip or pubmedclip."
    )
    backbone_weights: str = Field("", description="Its weights: a file or hf-hub:owner/name; empty: where published.")
    backbone_tokenizer: str = Field("", description="Folder or hub id of its BERT vocabulary; empty: where published.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of predictions: fp32, bf16, or auto: bf16 on a GPU."
    )
    strategy: str = Field("hybrid", description="Query strategy that ranks the pool.")
    annotations_per_round: int = Field(20, ge=1, description="New annotations that open a round.")
    debounce_seconds: float = Field(10.0, ge=0, description="They open it once none has come for so long.")
    schedule: str = Field("", description="Cron expression that opens rounds when there is news; empty: never.")
    time_zone: str = Field("UTC", description="Time zone of the schedule, for example Europe/Zurich.")
    failure_pause_seconds: float = Field(900.0, ge=0, description="After a failed round none opens by itself so long.")
    held_out_share: float = Field(0.2, gt=0, lt=1, description="Share of a new project's groups kept for evaluation.")
    min_held_out: int = Field(8, ge=1, description="Held-out images with annotations before any version is promoted.")
    consensus: Literal["latest", "majority", "staple"] = Field(
        "latest", description="Mask of a task that several people annotated: latest, majority or staple."
    )
    random_share: float = Field(0.1, ge=0, lt=1, description="Share of the queue served at random, as the control.")
    n_draws: int = Field(4, ge=1, le=256, description="Stochastic forward passes per image, to rank the pool.")
    max_draws: int = Field(30, ge=1, le=256, description="Such passes where the next annotations are decided.")
    speck_share: float = Field(
        0.0001, ge=0, lt=1, description="Predicted pieces and holes below this share of an image are cleaned up."
    )
    triage: bool = Field(True, description="Hide pre-annotations whose bound on Dice is too low.")
    triage_level: float = Field(0.9, gt=0, lt=1, description="How often a bound on Dice, from held-out images, holds.")
    accept_dice: float = Field(0.9, ge=0, le=1, description="From this bound on: look, and accept.")
    redraw_dice: float = Field(0.5, ge=0, le=1, description="Below this bound nothing is shown; at most ACCEPT_DICE.")
    train_max_steps: int = Field(600, ge=1, description="Optimiser steps of a round at most.")
    train_time_limit_seconds: float = Field(600.0, gt=0, description="Training time of a round at most.")
    promotion_margin: float = Field(0.02, ge=0, description="Mean held-out Dice a candidate may lose by, at most.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    threads: int = Field(0, ge=0, description="CPU threads of a training process; 0: torch's own choice.")

    lanes: str = Field("label-studio,training,scoring", description="Kinds of work that a worker takes.")
    shard_size: int = Field(64, ge=1, description="Tasks that a scoring process takes at a time.")
    api_workers: int = Field(1, ge=1, description="Processes of the API.")
    tick_seconds: float = Field(10.0, gt=0, description="How often the database is asked what is due or stalled.")
    reconcile_seconds: float = Field(60.0, gt=0, description="How often Label Studio is asked for what webhooks lost.")
    lease_seconds: float = Field(120.0, gt=0, description="A round without a heartbeat for so long is taken over.")
    max_attempts: int = Field(3, ge=1, description="Crashes of one step of a round before the round fails.")
    files_url: str = Field("", description="Store that machines share, such as s3://bucket/wardround; empty: none.")
    image_cache_bytes: int = Field(20_000_000_000, ge=0, description="Images kept on disk at most; 0: no limit.")
    keep_versions: int = Field(5, ge=1, description="Checkpoints kept beside the serving one and its parents.")
    min_free_disk_bytes: int = Field(1_000_000_000, ge=0, description="With less free disk no round goes on.")
    max_image_bytes: int = Field(64_000_000, ge=1, description="Larger image files are refused.")
    image_hosts: str = Field(
        "", description="Hosts besides Label Studio that images may come from: names or addresses, :port if unusual."
    )
    image_networks: str = Field(
        "", description="Networks that are not public in which these hosts may lie, such as 10.0.0.0/8; empty: none."
    )
    max_image_pixels: int = Field(64_000_000, ge=1, description="Images with more pixels are refused undecoded.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people (text) or machines (json).")
    metrics_port: int = Field(0, ge=0, le=65535, description="Port of a worker's Prometheus metrics; 0: none.")

    @field_validator("label_studio_url", "public_url")
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("schedule")
    @classmethod
    def _a_cron_expression(cls, value: str) -> str:
        return cron_expression(value)

    @field_validator("time_zone")
    @classmethod
    def _a_time_zone(cls, value: str) -> str:
        return time_zone(value)

    @field_validator("lanes")
    @classmethod
    def _known_lanes(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",") if name.strip()]
        unknown = sorted(set(names) - set(LANES))
        if unknown or not names:
            raise ValueError(f"must name some of {', '.join(LANES)}")
        return ",".join(dict.fromkeys(names))

    @field_validator("redraw_dice")
    @classmethod
    def _below_accept(cls, value: float, info: ValidationInfo) -> float:
        if value > info.data.get("accept_dice", 1.0):
            raise ValueError("must not be above WARDROUND_ACCEPT_DICE")
        return value

    @field_validator("image_networks")
    @classmethod
    def _networks(cls, value: str) -> str:
        for entry in filter(None, (each.strip() for each in value.split(","))):
            ip_network(entry)  # its ValueError names the entry
        return value

    @field_validator("log_level")
    @classmethod
    def _a_level(cls, value: str) -> str:
        if value.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    def model_post_init(self, _context: Any) -> None:
        folder = self.data_dir.expanduser().resolve()
        object.__setattr__(self, "data_dir", folder)
        if not self.database_url:
            object.__setattr__(self, "database_url", f"sqlite:///{folder / 'wardround.db'}")

    @property
    def broker_folder(self) -> Path | None:
        """Folder of the embedded broker, or None when `broker_url` names a real one."""
        return None if self.broker_url else self.data_dir / "broker"

    def require(self, *names: str) -> None:
        """Raise BadSettings for the named settings that are empty."""
        empty = [name for name in names if not _text(getattr(self, name))]
        if empty:
            wanted = ", ".join(f"WARDROUND_{name.upper()}" for name in empty)
            raise BadSettings(f"set {wanted} in the environment; .env.example explains each")


def cron_expression(text: str) -> str:
    """The expression as it is ("" for never); ValueError says what a cron expression looks like."""
    if not text.strip():
        return ""
    try:
        CronSim(text, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(
            f"{text!r} is no cron expression ({error}); '0 2 * * 1-5' is two in the morning on weekdays"
        ) from None
    return text.strip()


def time_zone(name: str) -> str:
    """The name as it is; ValueError when there is no such time zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}; give one such as Europe/Zurich or UTC") from None
    return name


def load() -> Settings:
    """Settings from the environment; BadSettings names every unusable one."""
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(f"WARDROUND_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors() if e["loc"])
        raise BadSettings(f"unusable settings: {problems}") from None


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

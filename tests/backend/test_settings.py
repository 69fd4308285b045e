"""Settings: defaults that run, errors that name the variable, secrets that are never shown."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr, ValidationError

import strategies
from backend import context, logs
from backend.errors import BadSettings
from backend.settings import Settings, load

SECRETS = ("label_studio_token", "api_token", "webhook_secret")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WARDROUND_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_without_any_variable_everything_is_embedded_in_one_folder(tmp_path: Path) -> None:
    settings = load()
    assert settings.data_dir == tmp_path / "wardround-data"
    assert settings.database_url == f"sqlite:///{tmp_path / 'wardround-data' / 'wardround.db'}"
    assert settings.broker_folder == tmp_path / "wardround-data" / "broker"
    assert (settings.api_host, settings.backbone, settings.strategy) == ("127.0.0.1", "tiny", strategies.DEFAULT)
    assert not (tmp_path / "wardround-data").exists(), "reading settings makes no folders"


def test_no_secret_has_a_default() -> None:
    settings = load()
    assert {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr} == set(SECRETS)
    for name in SECRETS:
        with pytest.raises(BadSettings, match=f"WARDROUND_{name.upper()}"):
            settings.require(name)


def test_what_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_API_TOKEN", "set")
    with pytest.raises(BadSettings) as error:
        load().require("label_studio_url", "label_studio_token", "api_token")
    assert "WARDROUND_LABEL_STUDIO_URL, WARDROUND_LABEL_STUDIO_TOKEN" in str(error.value)
    assert "WARDROUND_API_TOKEN" not in str(error.value)


def test_a_path_of_the_shell_and_a_database_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WARDROUND_DATA_DIR", "~/data")
    assert load().data_dir == tmp_path / "home" / "data"
    monkeypatch.setenv("WARDROUND_DATABASE_URL", "postgresql+psycopg://u@h/d")
    monkeypatch.setenv("WARDROUND_BROKER_URL", "redis://h/0")
    assert load().database_url == "postgresql+psycopg://u@h/d"
    assert load().broker_folder is None


def test_urls_lose_their_last_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_LABEL_STUDIO_URL", "https://labels.example.org/ls//")
    assert load().label_studio_url == "https://labels.example.org/ls"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_PORT", "http"), ("API_PORT", "0"), ("API_PORT", "70000"), ("ANNOTATIONS_PER_ROUND", "0"),
        ("SCHEDULE", "every night"), ("TIME_ZONE", "Nowhere/Land"),
        ("LANES", "training,teleport"), ("LANES", ","),
        ("HELD_OUT_SHARE", "0"), ("HELD_OUT_SHARE", "1"), ("RANDOM_SHARE", "1"),
        ("RANDOM_SHARE", "-0.1"), ("N_DRAWS", "0"), ("N_DRAWS", "2.5"), ("TRAIN_TIME_LIMIT_SECONDS", "0"),
        ("LEASE_SECONDS", "soon"), ("RECONCILE_SECONDS", "0"), ("MAX_IMAGE_BYTES", ""), ("LOG_LEVEL", "LOUD"),
        ("SPECK_SHARE", "1"), ("SPECK_SHARE", "-0.1"), ("IMAGE_NETWORKS", "10.0.0.1/8"), ("IMAGE_NETWORKS", "pacs"),
    ],
)  # fmt: skip
def test_an_unusable_value_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"WARDROUND_{name}", value)
    with pytest.raises(BadSettings, match=rf"WARDROUND_{name}\b") as error:
        load()
    assert "\n" not in str(error.value)


def test_all_unusable_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_API_PORT", "x")
    monkeypatch.setenv("WARDROUND_N_DRAWS", "y")
    with pytest.raises(BadSettings, match=r"WARDROUND_API_PORT.*WARDROUND_N_DRAWS"):
        load()


@pytest.mark.parametrize("level", ["debug", "INFO", "Warning", "ERROR"])
def test_log_levels_are_read_in_any_case(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setenv("WARDROUND_LOG_LEVEL", level)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.set_up(load())
        assert root.level == getattr(logging, level.upper())
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])


def test_secrets_are_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(f"WARDROUND_{name.upper()}", f"hidden-{name}")
    settings = load()
    assert settings.api_token.get_secret_value() == "hidden-api_token"
    for shown in (repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()):
        assert "hidden" not in shown


def test_an_error_beside_a_secret_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_API_TOKEN", "hidden")
    monkeypatch.setenv("WARDROUND_API_PORT", "x")
    with pytest.raises(BadSettings) as error:
        load()
    assert "hidden" not in str(error.value)
    assert error.value.__cause__ is None


def test_settings_do_not_change_underway() -> None:
    with pytest.raises(ValidationError):
        load().api_port = 1  # type: ignore[misc]


def test_every_setting_is_explained_and_spans_of_time_carry_their_unit() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if any(word in name for word in ("time_limit", "lease", "reconcile", "tick", "debounce", "pause")):
            assert name.endswith("_seconds"), name
        if any(word in name for word in ("cache", "free_disk", "max_image_b")):
            assert name.endswith("_bytes"), name


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strategy": "enthropy"}, r"WARDROUND_STRATEGY.*enthropy.*badge, bald.*entropy.*random"),
        ({"image_hosts": "https://images.example.org"}, r"WARDROUND_IMAGE_HOSTS.*https.*images\.example\.org or"),
    ],
)
def test_what_no_type_can_refuse_is_said_when_a_process_starts(
    tmp_path: Path, wrong: dict[str, str], said: str
) -> None:
    settings = Settings(
        data_dir=tmp_path,
        label_studio_url="http://label-studio.test",
        label_studio_token=SecretStr("a-token"),
        **wrong,  # type: ignore[arg-type]
    )
    with pytest.raises(BadSettings, match=said):
        context.build(settings)


def test_every_backbone_there_is_can_be_asked_for_and_no_other() -> None:
    from model import backbones

    assert get_args(Settings.model_fields["backbone"].annotation) == backbones.names()
    with pytest.raises(ValidationError, match="biomedclip"):
        Settings.model_validate({"backbone": "resnet"})

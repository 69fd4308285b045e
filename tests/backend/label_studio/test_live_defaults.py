"""A Label Studio as it comes out of its box, but for the one guard of two that people find and lift."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backend import connect as connecting
from backend import doctor
from backend.context import Context
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.errors import LabelStudioRefused
from demo.label_studio import LabelStudioServer
from tests.backend.label_studio.live import new_project
from tests.backend.label_studio.product import running

_OURS = ("USE_DEFAULT_BANNED_SUBNETS", "USER_ADDITIONAL_BANNED_SUBNETS", "TASK_LOCK_TTL")


class _OutOfTheBox(LabelStudioServer):
    """Local addresses are banned and locks live for a day, as nobody has said anything else."""

    def _environment(self) -> dict[str, str]:
        given = super()._environment()
        kept = {name: value for name, value in given.items() if name.removeprefix("LABEL_STUDIO_") not in _OURS}
        return kept | {"LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "false"}


@pytest.fixture(scope="module")
def box(label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """A second server on a copy of the first one's folder: it starts in seconds."""
    label_studio.pat()
    folder, database = tmp_path_factory.mktemp("box") / "label-studio", Path("data", "label_studio.sqlite3")
    shutil.copytree(label_studio.state_dir, folder, ignore=shutil.ignore_patterns("*.sqlite3*", "*.log"))
    with (
        closing(sqlite3.connect(label_studio.state_dir / database)) as there,
        closing(sqlite3.connect(folder / database)) as here,
    ):
        there.backup(here)
    with _OutOfTheBox(folder) as server:
        yield server


@pytest.fixture(scope="module")
def ctx(box: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    folder = tmp_path_factory.mktemp("wardround")
    with LabelStudioClient(box.url, box.pat()) as client, running(client, box.url, box.pat(), folder) as ctx:
        yield ctx


def test_a_half_created_model_server_is_said_with_what_it_is_for_want_of(ctx: Context, box: LabelStudioServer) -> None:
    with box.client() as person:
        project_id = new_project(person)
    with pytest.raises(LabelStudioRefused, match="reserved network address"):
        connecting.connect(ctx, project_id, {})
    assert len(ctx.label_studio.ml_backends(project_id)) == 1, "Label Studio refused, and made it all the same"
    assert ctx.label_studio.webhooks(project_id) == []

    found = doctor.fix(ctx, project_id)
    said = {finding.code: finding for finding in found.findings}
    assert set(said) == {"address-blocked", "lock-ttl", "webhook-missing"}
    assert "for webhooks" in said["address-blocked"].message
    assert "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS=false" in said["address-blocked"].cure
    assert "24 hours" in said["lock-ttl"].message
    assert "reserved network address" in found.failed["webhook-missing"]

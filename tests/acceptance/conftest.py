"""One running product for all acceptance tests: Label Studio, the API, a worker, beat, a project of phantoms."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from demo.label_studio import LabelStudioServer
from tests.acceptance import journey
from tests.acceptance.journey import Journey
from tests.acceptance.product import ROOT, Running


@pytest.fixture(scope="package")
def running(label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The product on a connected project; its first queue is published, nobody has annotated anything."""
    with closing(Running(label_studio, tmp_path_factory.mktemp("acceptance"))) as running:
        journey.start(running)
        yield running


@pytest.fixture(scope="package")
def travelled(running: Running) -> Journey:
    """The product after its first round."""
    return journey.travel(running)


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots go: kept for whoever looks at a test run, never committed."""
    folder = Path(os.environ.get("WARDROUND_ARTIFACTS", ROOT / "artifacts")) / "acceptance"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

"""Which version answers: loaded once, changed by a promotion, and asked for by nobody who can do without."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from backend.errors import DamagedFile, MissingFile
from backend.serving import Serving
from backend.store import predictions
from backend.tables import ModelVersion
from model import ModelConfig, Segmenter
from tests.backend.conftest import World
from tests.backend.fakes import picture
from tests.backend.web import add_version

PROJECT = 1
ROOT = Path(__file__).resolve().parents[2]
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    Segmenter.create(ModelConfig(backbone="tiny"), seed=3).save(path, {"card": "of a test"})
    return path


class Counting(Serving):
    """Counts what is really read, slowly enough for threads to collide."""

    def __init__(self, world: World) -> None:
        super().__init__(world.ctx.store, world.ctx.files, "cpu")
        self.read: list[int] = []

    def _read(self, version: ModelVersion) -> Segmenter:
        self.read.append(version.id)
        time.sleep(0.02)
        return object()  # type: ignore[return-value]


def serve(world: World, version: ModelVersion) -> None:
    with world.ctx.store.begin() as s:
        predictions.serve(s, PROJECT, version.id)


def test_no_version_yet_is_an_ordinary_answer(world: World) -> None:
    assert world.ctx.serving.version(PROJECT) is None
    assert world.ctx.serving.current(PROJECT) is None


@on_sqlite
def test_the_weights_that_serve_are_those_of_the_checkpoint(world: World, checkpoint: Path) -> None:
    version = add_version(world, sha256=world.ctx.files.put_checkpoint(checkpoint))
    served = world.ctx.serving.current(PROJECT)
    assert served is not None
    assert served.version.id == version.id
    expected = Segmenter.load(checkpoint).segment(picture(1)[0], "a disc", n_draws=0)
    assert np.array_equal(
        served.segmenter.segment(picture(1)[0], "a disc", n_draws=0).probability, expected.probability
    )


def test_a_version_is_read_once_and_the_next_one_after_its_promotion(world: World) -> None:
    serving = Counting(world)
    first, second = add_version(world, 1), add_version(world, 2, serving=False)
    seen = [serving.current(PROJECT) for _ in range(3)]
    assert serving.read == [first.id]
    assert all(served is seen[0] for served in seen)
    serve(world, second)
    after = serving.current(PROJECT)
    assert after is not None and after.version.id == second.id
    assert serving.read == [first.id, second.id]
    serve(world, first)
    back = serving.current(PROJECT)
    assert back is not None and back.version.id == first.id


@on_sqlite
def test_threads_that_ask_at_once_share_one_reading(world: World) -> None:
    serving = Counting(world)
    version = add_version(world)
    seen: list[object] = []
    threads = [threading.Thread(target=lambda: seen.append(serving.current(PROJECT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert serving.read == [version.id]
    assert len(seen) == 8 and all(served is seen[0] for served in seen)


@on_sqlite
def test_during_promotions_no_thread_sees_weights_of_another_version(world: World) -> None:
    serving = Counting(world)
    versions = [add_version(world, 1), add_version(world, 2, serving=False)]
    wrong: list[object] = []

    def ask(version: ModelVersion) -> None:
        for _ in range(5):
            served = serving.load(version)
            if served.version.id != version.id:
                wrong.append(served)

    threads = [threading.Thread(target=ask, args=(version,)) for version in versions * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@on_sqlite
def test_weights_that_cannot_be_read_are_named_and_tried_again(world: World, checkpoint: Path) -> None:
    sha256 = world.ctx.files.put_checkpoint(checkpoint)
    add_version(world, sha256=sha256)
    place = world.ctx.files.path("checkpoints", sha256)
    for content, error in ((b"damaged", DamagedFile), (None, MissingFile)):
        place.unlink()
        if content is not None:
            place.write_bytes(content)
        with pytest.raises(error, match=sha256):
            world.ctx.serving.current(PROJECT)
        if content is None:
            place.write_bytes(checkpoint.read_bytes())
    assert world.ctx.serving.current(PROJECT) is not None, "the backup was restored"


def test_auto_is_a_device_that_is_there(world: World) -> None:
    import torch

    auto = Serving(world.ctx.store, world.ctx.files, "auto").device
    assert auto == ("cuda" if torch.cuda.is_available() else "cpu")
    assert Serving(world.ctx.store, world.ctx.files, "cuda:1").device == "cuda:1"


WITHOUT_TORCH = """
import sys
from fastapi.testclient import TestClient
from backend import context, settings
from backend.app import create_app
client = TestClient(create_app(context.build(settings.load())))
client.auth = ("wardround", "token")
brush = '<BrushLabels name="b" toName="i"><Label value="L"/></BrushLabels>'
config = '<View><Image name="i" value="$image"/>' + brush + '</View>'
task = {"id": 1, "data": {"image": "/data/1.png"}}
project = {"id": 1, "label_config": config}
for method, path, body in (
    ("GET", "/health", None),
    ("POST", "/setup", {"project": "1.5"}),
    ("GET", "/versions", None),
    ("POST", "/predict", {"project": "1.5", "label_config": config, "tasks": [task], "params": {}}),
    ("POST", "/webhook", {"action": "TASKS_CREATED", "tasks": [task], "project": project}),
):
    answer = client.request(method, path, json=body)
    assert answer.status_code in (200, 201, 404), answer.text
heavy = sorted({"torch", "open_clip", "label_studio_sdk"} & set(sys.modules))
assert not heavy, heavy
"""


def test_what_label_studio_waits_for_loads_no_model(tmp_path: Path) -> None:
    environment = {
        "PATH": os.defpath, "HOME": str(tmp_path), "WARDROUND_DATA_DIR": str(tmp_path), "WARDROUND_API_TOKEN": "token",
        "WARDROUND_LABEL_STUDIO_URL": "http://127.0.0.1:9", "WARDROUND_LABEL_STUDIO_TOKEN": "token",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr

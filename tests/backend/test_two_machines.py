"""Two machines, one pool: workers with folders of their own share files through a store and a rescoring through rows.

Each "machine" is a worker process with its own data folder; nothing is shared but PostgreSQL, Redis and the store.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from pydantic import SecretStr

from backend import context, rounds
from backend.files import Files
from backend.serving import Serving
from backend.settings import Settings
from backend.store import Store, predictions, shards
from backend.store import rounds as rows
from backend.tables import Lane, RoundStatus, Shard, Verdict
from model import ModelConfig
from tests.backend.fakes import LABEL_CONFIG, png
from tests.backend.rows import NOW, a_round, project, task, version
from tests.backend.test_brokers import NOBODY, purge

ROOT = Path(__file__).resolve().parents[2]
N_TASKS = 24
MORE_TASKS = 8
N_DRAWS = 30
DEADLINE_SECONDS = 400


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
def test_two_machines_score_one_pool_and_no_task_twice(store: Store, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    first, second = (machine(store, redis_url, tmp_path, name) for name in ("first", "second"))
    purge(first)
    round_id, version_id = a_round_that_rescores(store, first)
    workers = [Machine(settings) for settings in (first, second)]
    n_tasks = N_TASKS
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while status(store, round_id) is RoundStatus.decided:
            assert time.monotonic() < deadline, "\n".join(worker.log() for worker in workers)
            # The pool grows until both have had a part in it: no machine can be through before the other has started.
            if n_missing(store, version_id) < N_TASKS - MORE_TASKS and 0 in scored_by(tmp_path).values():
                add_tasks(store, first, range(n_tasks + 1, n_tasks + MORE_TASKS + 1))
                n_tasks += MORE_TASKS
            time.sleep(0.1)
    finally:
        for worker in workers:
            worker.stop()
        purge(first)
    with store.read() as s:
        assert predictions.tasks_without(s, 1, version_id) == []
        assert all(shard.done for shard in shards.of_round(s, round_id))
    scored = scored_by(tmp_path)
    assert sum(scored.values()) == n_tasks, scored
    assert min(scored.values()) > 0, f"one machine did all the work: {scored}"


def scored_by(tmp_path: Path) -> dict[str, int]:
    """Who scored what: each machine fetches to its own folder the images of the tasks it scores, and only those."""
    return {name: len(list((tmp_path / name / "files" / "images").rglob("*/*"))) for name in ("first", "second")}


def n_missing(store: Store, version_id: int) -> int:
    with store.read() as s:
        return len(predictions.tasks_without(s, 1, version_id))


def machine(store: Store, broker: str, tmp_path: Path, name: str) -> Settings:
    (tmp_path / name).mkdir()
    return Settings(
        data_dir=tmp_path / name,
        files_url=f"file://{tmp_path / 'shared'}",
        database_url=store.url.render_as_string(hide_password=False),
        broker_url=broker,
        label_studio_url=NOBODY,
        label_studio_token=SecretStr("a-token"),
        lanes=Lane.scoring.value,
        shard_size=2,
        n_draws=N_DRAWS,
        max_draws=N_DRAWS,
        threads=1,
        device="cpu",
    )


def a_round_that_rescores(store: Store, settings: Settings) -> tuple[int, int]:
    """A promoted version in the shared store, images there as well, and the round's shards cut; both are called."""
    outside = settings.data_dir.parent / "outside"
    outside.mkdir()
    files = Files(outside, max_image_pixels=10**6, url=settings.files_url)
    segmenter = Serving(store, files, "cpu").create(ModelConfig(backbone="tiny"), seed=0)
    segmenter.save(outside / "version.safetensors", {})
    checkpoint = files.put_checkpoint(outside / "version.safetensors")
    with store.begin() as s:
        s.add(project(label_config=LABEL_CONFIG, prompts={"Lesion": "a bright disc"}))
        s.flush()
    add_tasks(store, settings, range(1, N_TASKS + 1))
    with store.begin() as s:
        s.add(trained := version(checkpoint_sha256=checkpoint))
        s.flush()
        decided = a_round(status=RoundStatus.decided, verdict=Verdict.promoted, candidate_id=trained.id)
        s.add(decided)
        s.flush()
        shards.write(s, decided.id, list(range(1, N_TASKS + 1)), settings.shard_size)
        ids = decided.id, trained.id
    ctx = context.build(settings)
    try:
        assert rounds.resume_unclaimed(ctx) == [ids[0]]
    finally:
        ctx.close()
    assert Counter(shard.done for shard in found(store, ids[0])) == {False: N_TASKS // settings.shard_size}
    return ids


def add_tasks(store: Store, settings: Settings, numbers: range) -> None:
    """Tasks whose images lie in the shared store, and in neither machine's own folder."""
    outside = settings.data_dir.parent / "outside"
    files = Files(outside, max_image_pixels=10**6, url=settings.files_url)
    with store.begin() as s:
        s.add_all(task(id=number, image_sha256=files.put_image(png(number)), created_at=NOW) for number in numbers)


def found(store: Store, round_id: int) -> list[Shard]:
    with store.read() as s:
        return list(shards.of_round(s, round_id))


def status(store: Store, round_id: int) -> RoundStatus:
    with store.read() as s:
        return rows.get(s, round_id).status


class Machine:
    """`wardround worker --lanes scoring` with a data folder of its own."""

    def __init__(self, settings: Settings) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WARDROUND_")}
        for name in Settings.model_fields:
            value = getattr(settings, name)
            shown = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            if shown:
                environment[f"WARDROUND_{name.upper()}"] = shown
        self._log = settings.data_dir / "worker.log"
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "backend.cli", "worker"]
            self._process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

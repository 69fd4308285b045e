"""A project with stored predictions, ready to be published: no model takes part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import orjson

from backend.store import predictions
from backend.store import rounds as rows
from backend.tables import ModelVersion, Round, RoundStatus, Trigger, Verdict
from tests.backend.conftest import World

REGION = {
    "id": "abc", "from_name": "brush", "to_name": "image", "type": "brushlabels", "original_width": 48,
    "original_height": 48, "image_rotation": 0,
    "value": {"format": "rle", "rle": [0, 0, 9, 0], "brushlabels": ["Lesion"]},
}  # fmt: skip


def predict(world: World, task_ids: Sequence[int], regions: Sequence[object] = (REGION,)) -> ModelVersion:
    """A model version whose predictions of the tasks are stored, scored in no order of ids."""
    rng = np.random.default_rng(len(task_ids))
    now, painted = world.ctx.now(), orjson.dumps(list(regions)).decode()
    with world.ctx.store.begin() as s:
        version = predictions.add_version(
            s, world.label_studio.project_id, parent_id=None, checkpoint_sha256="0" * 64, card={}, now=now
        )
        for task_id, score in zip(task_ids, rng.permutation(len(task_ids)), strict=True):
            row = {
                "task_id": task_id, "model_version_id": version.id, "regions_json": painted,
                "score": float(score), "embedding": np.ones(4, "<f4").tobytes(), "created_at": now,
            }  # fmt: skip
            predictions.add(s, [row])
        return version


def ready(world: World, version: ModelVersion) -> int:
    """A round that has come as far as publishing the version; returns its id."""
    with world.ctx.store.begin() as s:
        last = rows.latest(s, world.label_studio.project_id)
        row: Round = rows.open_round(
            s, world.label_studio.project_id, trigger=Trigger.request, strategy=world.ctx.settings.strategy,
            seed=last.number + 1 if last else 0, now=world.ctx.now(), status=RoundStatus.rescored,
            verdict=Verdict.promoted, candidate_id=version.id,
        )  # fmt: skip
    return row.id


def end_lease(world: World, round_id: int) -> None:
    """As if nobody had given a sign of life for a whole lease, or a handed back round had rested."""
    with world.ctx.store.begin() as s:
        rows.get(s, round_id).lease_until = 0.0


def sent_twice(world: World) -> dict[tuple[str, int], int]:
    """Predictions that were sent more than once under one name, ever: name and task, and how often."""
    sent = Counter((item["model_version"], item["task"]) for item in world.label_studio.imported)
    return {each: times for each, times in sent.items() if times > 1}

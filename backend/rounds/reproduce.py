"""Train a version again from what the database and the files say of it, and compare."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.context import Context
from backend.errors import NotFound, RoundError
from backend.rounds import lineage
from backend.rounds.train import data_sha256, speakable
from backend.store import predictions, rounds
from backend.tables import ModelVersion, Role, Round, RoundItem

if TYPE_CHECKING:
    from model import Example, Progress, Segmenter


@dataclass(frozen=True)
class Reproduction:
    """What came out: whether the training set and the weights are the same, and what differs in what computed."""

    round_id: int
    version: int
    same_training_set: bool
    same_weights: bool
    code_differs: list[str]


def reproduce(ctx: Context, round_id: int, on_progress: Callable[[Progress], None] | None = None) -> Reproduction:
    """Train a round's version again, into nothing. Equal weights are promised on the same CPU, code and threads.

    Raises NotFound, RoundError for a round that trained nothing or whose version was trained before lineage was kept,
    MissingFile where an image, a mask or the parent's checkpoint is gone.
    """
    with ctx.store.read() as s:
        row = rounds.get(s, round_id)
        items = list(rounds.items(s, round_id, Role.train))
        groups = rounds.groups(s, items)
        version = predictions.version(s, row.candidate_id) if row.candidate_id else None
        parent = predictions.version(s, version.parent_id) if version and version.parent_id else None
    card = _card(row, version)
    if version is None:
        raise NotFound(f"round {round_id} trained no version")
    if version.pruned_at or (parent and parent.pruned_at):
        raise RoundError(
            f"the checkpoint of version {version.number} or of its parent was removed to make room; there is nothing "
            "to begin from or to compare with"
        )
    start = _start(ctx, card, parent)
    items, _ = speakable(start, items)
    examples = [_example(ctx, item, groups[item.task_id]) for item in items]
    trained = _train(start, card, examples, on_progress)
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.safetensors"
        trained.save(again, {})
        same = lineage.weights_digest(again) == lineage.weights_digest(ctx.files.checkpoint(version.checkpoint_sha256))
    now = lineage.code_version()
    return Reproduction(
        round_id=round_id,
        version=version.number,
        same_training_set=data_sha256(items) == card["data_sha256"],
        same_weights=same,
        code_differs=sorted(name for name in now if now[name] != card["code"].get(name)),
    )


def _card(row: Round, version: ModelVersion | None) -> dict[str, Any]:
    if version is None:
        raise RoundError(f"round {row.id} trained nothing: there is nothing to reproduce")
    if "code" not in version.card:
        raise RoundError(f"version {version.number} was trained before enough was written down to train it again")
    return version.card


def _example(ctx: Context, item: RoundItem, group: str) -> Example:
    from model import Example

    image, mask = ctx.files.path("images", item.image_sha256), ctx.files.path("masks", item.mask_sha256)
    return Example(image=image, mask=mask, prompt=item.prompt, group=group)


def _start(ctx: Context, card: dict[str, Any], parent: ModelVersion | None) -> Segmenter:
    from model import ModelConfig

    if parent is not None:
        return ctx.serving.load(parent).segmenter
    return ctx.serving.create(ModelConfig.from_dict(card["begun_from"]), seed=card["begun_with_seed"])


def _train(
    start: Segmenter, card: dict[str, Any], examples: list[Example], on_progress: Callable[[Progress], None] | None
) -> Segmenter:
    import torch

    from model import TrainConfig, fine_tune

    torch.set_num_threads(card["threads"])
    config = TrainConfig.from_dict(card["train_config"])
    return fine_tune(start, examples, config, on_progress=on_progress, clock=lineage.replayed(card["clock"]))

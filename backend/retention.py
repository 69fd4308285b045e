"""JOURNEY: make room. Only what can be made or fetched again is removed, and what was, the database says first.

A process killed anywhere in here leaves no more than files of versions that are marked already; the next one removes
them. Several machines may do it at once: each looks after its own folder, all of them after the store they share.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from backend.context import Context
from backend.files import MARKED_EVERY_SECONDS
from backend.store import projects, retention
from backend.tables import FINISHED, ModelVersion, Round, RoundStatus, Verdict

log = logging.getLogger(__name__)

_IN_USE_SECONDS = 3600.0  # whoever has asked for an image so lately may be about to open it
_PREDICTIONS_AT_ONCE = 1000  # a transaction must not keep the others waiting
_WORK = re.compile(r"round-(\d+)")


@dataclass(frozen=True)
class Pruned:
    """How much was removed: images of this machine and their bytes, checkpoints, predictions."""

    images: int
    image_bytes: int
    checkpoints: int
    predictions: int


def prune(ctx: Context) -> Pruned:
    """Remove what is no longer needed. StoreUnreachable when the shared store does not answer; the rest is done then.

    What a machine has only for itself goes first, so that a store that is down keeps no disk full.
    """
    mark(ctx)
    predictions = _delete_predictions(ctx)
    _remove_works(ctx)
    ctx.files.remove_leftovers(ctx.now().timestamp())
    images, image_bytes = _evict_images(ctx)
    pruned = Pruned(images, image_bytes, _remove_checkpoints(ctx), predictions)
    log.info("removed %s", pruned)
    return pruned


def kept(versions: Sequence[ModelVersion], rounds: Sequence[Round], keep_versions: int) -> set[int]:
    """Ids of the versions of a project whose checkpoints stay.

    The serving one, the newest `keep_versions` that ever served, the parent of each of these, and whatever an
    unfinished round compares.
    """
    served_ids = {row.candidate_id for row in rounds if _has_served(row)}
    serving = [version for version in versions if version.serving]
    served = sorted((version for version in versions if version.id in served_ids), key=lambda one: -one.number)
    named = {version.id: version.parent_id for version in [*serving, *served[:keep_versions]]}
    needed = {used for row in rounds if row.status not in FINISHED for used in (row.candidate_id, row.incumbent_id)}
    return {found for found in (*named, *named.values(), *needed) if found is not None}


def _has_served(row: Round) -> bool:
    # The version serves from the publication on: a round that failed before it has promoted nothing.
    return row.status is RoundStatus.done and row.verdict in (Verdict.promoted, Verdict.restored)


def mark(ctx: Context) -> None:
    """Say in the database which versions have no checkpoint any more; files and predictions follow."""
    with ctx.store.read() as s:
        project_ids = [project.id for project in projects.every(s)]
    for project_id in project_ids:
        for version in _prunable(ctx, project_id):
            _mark(ctx, version)


def _prunable(ctx: Context, project_id: int) -> list[ModelVersion]:
    with ctx.store.read() as s:
        rounds = retention.rounds_of(s, project_id)
        versions = retention.versions_of(s, project_id)
    keep = kept(versions, rounds, ctx.settings.keep_versions)
    return [version for version in versions if version.pruned_at is None and version.id not in keep]


def _mark(ctx: Context, version: ModelVersion) -> None:
    """Mark one version unless it is needed again by now: a person may be bringing it back this moment."""
    with ctx.store.begin() as s:
        retention.lock_version(s, version.id)
        # Rounds first: one that ends in between has made its version serve when the versions are read.
        rounds = retention.rounds_of(s, version.project_id)
        versions = retention.versions_of(s, version.project_id)
        if version.id not in kept(versions, rounds, ctx.settings.keep_versions):
            retention.mark_pruned(s, version.id, ctx.now())


def _delete_predictions(ctx: Context) -> int:
    deleted = 0
    while True:
        with ctx.store.begin() as s:
            now_deleted = retention.delete_pruned_predictions(s, _PREDICTIONS_AT_ONCE)
        deleted += now_deleted
        if now_deleted < _PREDICTIONS_AT_ONCE:
            return deleted


def _remove_works(ctx: Context) -> None:
    by_id = {int(match[1]): name for name in ctx.files.works() if (match := _WORK.fullmatch(name))}
    with ctx.store.read() as s:
        over = retention.finished(s, sorted(by_id))
    for round_id in sorted(over):
        ctx.files.remove_work(by_id[round_id])


def _evict_images(ctx: Context) -> tuple[int, int]:
    """Bring the images of this machine under the bound, the longest unused first; returns how many, and their bytes."""
    bound = ctx.settings.image_cache_bytes
    images = ctx.files.cached_images()
    excess = sum(image.size for image in images) - bound
    if not bound or excess <= 0:
        return 0, 0
    with ctx.store.read() as s:
        needed = retention.needed_images(s)
    # What is written down of a use may be that much too early.
    idle_since = ctx.now().timestamp() - _IN_USE_SECONDS - MARKED_EVERY_SECONDS
    idle = [image for image in images if image.sha256 not in needed and image.used_at < idle_since]
    count = freed = 0
    for image in sorted(idle, key=lambda one: (one.used_at, one.sha256)):
        if freed >= excess:
            break
        if ctx.files.evict_image(image):
            count, freed = count + 1, freed + image.size
    if freed < excess:
        log.warning("images take %s bytes more than WARDROUND_IMAGE_CACHE_BYTES: all are in use", excess - freed)
    return count, freed


def _remove_checkpoints(ctx: Context) -> int:
    """Remove the files of pruned versions, those that an earlier, killed process has left included."""
    with ctx.store.read() as s:
        pruned = retention.pruned_checkpoints(s)
    here = ctx.files.checkpoints() & pruned
    for sha256 in sorted(here):
        ctx.files.remove_checkpoint(sha256)
    there = ctx.files.shared_checkpoints() & pruned
    for sha256 in sorted(there):
        ctx.files.remove_shared_checkpoint(sha256)
    return len(here | there)

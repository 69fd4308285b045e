"""What must hold whatever happened: asked of the database, the files and Label Studio, in words when it does not."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from sqlalchemy import select

from backend.files import Files
from backend.label_studio.masks import masks_of
from backend.label_studio.payloads import parse_label_config
from backend.store import Store
from backend.tables import Annotation, Mask, ModelVersion, Project, Query, Round, RoundStatus, Trigger, Verdict
from tests.backend.fakes import SIDE

if TYPE_CHECKING:
    from tests.faults.cluster import Cluster


def violations(cluster: Cluster) -> list[str]:
    """Every invariant that does not hold, of a cluster that is quiet."""
    rows = cluster.rounds()
    return [
        *lost_annotations(cluster),
        *_rounds(rows, cluster.watch.most_unfinished),
        *_versions(cluster.store, rows),
        *_queue(cluster, rows),
    ]


def alive(store: Store) -> Sequence[Annotation]:
    with store.read() as s:
        return s.scalars(select(Annotation).where(Annotation.deleted_at.is_(None)).order_by(Annotation.id)).all()


def lost_annotations(cluster: Cluster) -> list[str]:
    """Annotations that differ between Label Studio and us: absent, of an older state, or with another mask."""
    there, here = cluster.server.annotations(), {row.id: row for row in alive(cluster.store)}
    found = [f"annotation {one} of Label Studio is not in the database" for one in sorted(set(there) - set(here))]
    found += [f"annotation {one} is not in Label Studio any more" for one in sorted(set(here) - set(there))]
    config = parse_label_config(cluster.server.state.label_config)
    files = Files(cluster.settings.data_dir / "files", max_image_pixels=cluster.settings.max_image_pixels)
    stored = _masks(cluster.store)
    for one in sorted(set(here) & set(there)):
        if here[one].updated_at != there[one].updated_at:
            found.append(f"annotation {one} is of an older state")
            continue
        for label, painted in masks_of(there[one].regions, config, (SIDE, SIDE)).items():
            sha256 = stored.get((one, label))
            if sha256 is None or not _same(files.path("masks", sha256).read_bytes(), painted):
                found.append(f"the mask of {label} of annotation {one} is not what was painted")
    return found


def _masks(store: Store) -> dict[tuple[int, str], str]:
    with store.read() as s:
        return {(row.annotation_id, row.label): row.sha256 for row in s.scalars(select(Mask))}


def _same(content: bytes, painted: np.ndarray) -> bool:
    return bool(np.array_equal(np.asarray(Image.open(io.BytesIO(content)), dtype=bool), painted))


def doubled_rounds(rows: Sequence[Round], most_unfinished: int) -> int:
    doubled = len(rows) - len({row.number for row in rows})
    return doubled + max(0, most_unfinished - 1)


def _rounds(rows: Sequence[Round], most_unfinished: int) -> list[str]:
    found = []
    numbers = [row.number for row in rows]
    if numbers != list(range(len(rows))):
        found.append(f"the rounds' numbers are {numbers}")
    if most_unfinished > 1:
        found.append(f"{most_unfinished} rounds were unfinished at the same time")
    found += [f"round {row.number} failed: {row.error}" for row in rows if row.status is RoundStatus.failed]
    return found + [f"round {row.number} is {row.status} and still claimed" for row in rows if row.claim]


def versions(store: Store) -> Sequence[ModelVersion]:
    with store.read() as s:
        return s.scalars(select(ModelVersion).order_by(ModelVersion.number)).all()


def _versions(store: Store, rows: Sequence[Round]) -> list[str]:
    there = versions(store)
    found = []
    trained = [row.candidate_id for row in rows if row.candidate_id and row.trigger is not Trigger.rollback]
    found += [f"{n} rounds share candidate {one}" for one, n in Counter(trained).items() if n > 1]
    if orphans := sorted({one.id for one in there} - set(trained)):
        found.append(f"model versions {orphans} belong to no round: some round made more than one candidate")
    serving = [one.number for one in there if one.serving]
    promoted = any(row.verdict is Verdict.promoted and row.status is RoundStatus.done for row in rows)
    if len(serving) != promoted:
        found.append(f"versions {serving} serve" if serving else "a version was promoted, but none serves")
    return found


def _queue(cluster: Cluster, rows: Sequence[Round]) -> list[str]:
    """What Label Studio serves is what the last published round ranked."""
    state = cluster.server.state
    done = [row for row in rows if row.status is RoundStatus.done]
    if not done:
        return ["no round was published"]
    with cluster.store.read() as s:
        project = s.get_one(Project, state.project_id)
        queue = s.scalars(select(Query.task_id).where(Query.round_id == done[-1].id).order_by(Query.rank)).all()
    answered = {one.task_id for one in cluster.server.annotations().values()}
    expected, served = [one for one in queue if one not in answered], cluster.server.served_order()
    found = []
    if project.published_version != state.settings["model_version"]:
        found.append(f"we published {project.published_version}, Label Studio has {state.settings['model_version']}")
    if set(served) != set(expected) or served != expected:
        found.append(f"round {done[-1].number} ranked {expected}, Label Studio serves {served}")
    if doubled := cluster.server.doubled():
        found.append(f"{doubled} tasks have two predictions under {state.settings['model_version']}")
    return found

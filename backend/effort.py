"""JOURNEY: what annotations cost, and what their pre-annotations were worth. Worked out after the fact, never while an
annotator waits; what was compared once is compared again only when the annotation changes.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from backend.context import Context
from backend.errors import DamagedFile, MissingFile
from backend.label_studio.errors import BadMask, LabelStudioRefused, MaskSizeMismatch, UnsupportedLabelConfig
from backend.label_studio.masks import masks_of
from backend.label_studio.payloads import parse_label_config
from backend.store import efforts, predictions, projects, publications
from backend.store.efforts import Line
from backend.tables import Annotation, Project, Round
from evidence.triage import verdict
from model import read_mask
from model.errors import ModelError

log = logging.getLogger(__name__)

By = Literal["round", "label", "annotator", "verdict"]
Masks = Mapping[str, NDArray[np.bool_]]
Regions = Sequence[Mapping[str, Any]]

_AT_ONCE = 200  # of a pull: each asks Label Studio once, and others wait for the lane
_BATCH = 20  # stored in one transaction
# What a round publishes under (`rounds.publish_queue`): round, then model version, 0 where there was no model yet.
_OUR_NAME = re.compile(r"wardround-r[\d.]+-v(\d+)(-\d+)?")


@dataclass(frozen=True)
class Start:
    """What an annotation started from: in whose queue, by which version, and the regions that were drawn on the image.

    `known` False: it had a pre-annotation, and nobody has it any more. Without one, `regions` is None.
    """

    round_id: int | None
    model_version_id: int | None = None
    regions: Regions | None = None
    known: bool = True


def measure(ctx: Context, project_id: int, limit: int = _AT_ONCE) -> int:
    """Compare annotations with what they started from, up to `limit` of those that wait; returns how many.

    Raises LabelStudioUnreachable, LabelStudioUnauthorised; what was compared by then is stored.
    """
    with ctx.store.read() as s:
        project = projects.get(s, project_id)
        due = efforts.due(s, project_id, limit)
    for start in range(0, len(due), _BATCH):
        rows = [_row(ctx, project, annotation, masks) for annotation, masks in due[start : start + _BATCH]]
        with ctx.store.begin() as s:
            efforts.save(s, rows)
    return len(due)


def compare(before: Masks, after: Masks) -> dict[str, float]:
    """Dice of two answers to one image, by label; a label that is empty in both is absent.

    before, after: label → (H, W) bool, image frame. Symmetric; 1 for each label exactly where both are the same.
    Raises MaskSizeMismatch.
    """
    shapes = {mask.shape for mask in (*before.values(), *after.values())}
    if len(shapes) > 1:
        raise MaskSizeMismatch(f"masks of one image have one size, not {sorted(shapes)}")
    found: dict[str, float] = {}
    for label in sorted({*before, *after}):
        one, other = before.get(label), after.get(label)
        total = sum(int(mask.sum()) for mask in (one, other) if mask is not None)
        both = 0 if one is None or other is None else int((one & other).sum())
        if total:
            found[label] = 2 * both / total
    return found


def summary(ctx: Context, project_id: int) -> dict[str, Any]:
    """The ledger of a project added up: in all, by round, by label, by annotator (Label Studio's user id), by verdict
    of triage."""
    with ctx.store.read() as s:
        projects.get(s, project_id)
        lines = efforts.ledger(s, project_id)
        waiting = efforts.count_due(s, project_id)
    return {
        "project_id": project_id,
        "waiting": waiting,
        "total": figures(lines),
        "by_round": _grouped(lines, "round", lambda line: line.round),
        "by_label": _grouped(_by_label(lines), "label", lambda line: line.labels[0]),
        "by_annotator": _grouped(lines, "annotator", lambda line: line.annotator),
        "by_verdict": _grouped(lines, "verdict", _verdict),
    }


def rows_by(found: Mapping[str, Any], by: By) -> list[dict[str, Any]]:
    """The rows of a summary that are grouped in one way."""
    rows: list[dict[str, Any]] = found[f"by_{by}"]
    return rows


def columns(by: By) -> tuple[str, ...]:
    """The keys of such a row, in the order in which people read them."""
    return by, *figures([])


def as_csv(rows: Sequence[Mapping[str, Any]], by: By) -> str:
    """Rows of a summary with a header, for spreadsheets; empty where nothing can be said."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(by), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def figures(lines: Sequence[Line]) -> dict[str, Any]:
    """Figures of some annotations, with and without a pre-annotation; None where nothing can be said.

    Seconds are medians of the lead time: somebody who goes for lunch with a task open must not decide them.
    `share_accepted` is of those that could be compared, `dice` the mean over annotations and labels.
    """
    started = [line for line in lines if line.dice is not None]
    verdicts = [line.accepted for line in started if line.accepted is not None]
    values = [value for line in started for value in (line.dice or {}).values()]
    return {
        "n": len(lines),
        "n_with": len(started),
        "n_compared": len(verdicts),
        "share_with": len(started) / len(lines) if lines else None,
        "share_accepted": fmean(verdicts) if verdicts else None,
        "seconds_with": _median_seconds(started),
        "seconds_without": _median_seconds([line for line in lines if line.dice is None]),
        "dice": fmean(values) if values else None,
    }


def _verdict(line: Line) -> str | None:
    """What triage said of the pre-annotation before anybody saw it; None where it said nothing."""
    terms = line.triage or {}
    if line.dice_bound is None or "redraw_dice" not in terms:
        return None
    return verdict(line.dice_bound, terms["accept_dice"], terms["redraw_dice"]).value


def _median_seconds(lines: Iterable[Line]) -> float | None:
    seconds = [line.lead_time_seconds for line in lines if line.lead_time_seconds is not None]
    return median(seconds) if seconds else None


def _grouped(lines: Iterable[Line], name: By, key: Callable[[Line], Any]) -> list[dict[str, Any]]:
    groups: dict[Hashable, list[Line]] = {}
    for line in lines:
        groups.setdefault(key(line), []).append(line)
    # What belongs to no round, or to nobody that is known, comes last.
    ordered = sorted(groups, key=lambda value: (value is None, value if value is not None else 0))
    return [{name: value} | figures(groups[value]) for value in ordered]


def _by_label(lines: Iterable[Line]) -> list[Line]:
    """A line for each label of each annotation: the whole annotation's lead time, and the one label's Dice.

    A label is accepted where its own mask was, whatever became of the others.
    """
    found: list[Line] = []
    for line in lines:
        if line.accepted is None:
            found += [replace(line, labels=(label,)) for label in line.labels]
        else:
            compared = (line.dice or {}).items()
            found += [
                replace(line, labels=(label,), accepted=value == 1.0, dice={label: value}) for label, value in compared
            ]
    return found


def _row(ctx: Context, project: Project, annotation: Annotation, masks: Mapping[str, str]) -> dict[str, Any]:
    start = _start(ctx, project, annotation)
    accepted, dice = _compared(ctx, project, annotation, start, masks)
    return {
        "annotation_id": annotation.id,
        "updated_at": annotation.updated_at,
        "round_id": start.round_id,
        "model_version_id": start.model_version_id,
        "accepted": accepted,
        "dice": dice,
        "measured_at": ctx.now(),
    }


def _compared(
    ctx: Context, project: Project, annotation: Annotation, start: Start, masks: Mapping[str, str]
) -> tuple[bool | None, dict[str, float] | None]:
    if not start.known:
        return None, {}
    if start.regions is None:
        return None, None
    try:
        before = masks_of(start.regions, parse_label_config(project.label_config))
        answer = {label: _mask(ctx, sha256) for label, sha256 in masks.items()}
        dice = compare(before, answer)
    except (BadMask, UnsupportedLabelConfig, MissingFile, DamagedFile, ModelError) as error:
        log.warning("annotation %s cannot be compared with its pre-annotation: %s", annotation.id, error)
        return None, {}
    return all(value == 1.0 for value in dice.values()), dice


def _mask(ctx: Context, sha256: str) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = read_mask(ctx.files.path("masks", sha256), ctx.files.max_image_pixels)
    return mask


def _start(ctx: Context, project: Project, annotation: Annotation) -> Start:
    """What the annotation started from, as Label Studio says, or as far as we know what it served at the time."""
    with ctx.store.read() as s:
        moment, task_id = annotation.created_at or annotation.received_at, annotation.task_id
        served = efforts.served(s, task_id, moment) if task_id else None
    if annotation.parent_prediction is None:
        if not _has_predicted_region(ctx, annotation.id):
            return Start(served.id if served else None)
    elif (parent := _prediction(ctx, annotation.parent_prediction)) is not None:
        return _from(ctx, project, annotation, served, str(parent.get("model_version")), parent.get("result") or [])
    # Label Studio has forgotten the prediction: older publications are deleted.
    if served is None:
        return Start(None, known=False)
    return _from(ctx, project, annotation, served, served.published_version or "", None)


def _prediction(ctx: Context, prediction_id: int) -> dict[str, Any] | None:
    try:
        return ctx.label_studio.prediction(prediction_id)
    except LabelStudioRefused as error:
        log.debug("prediction %s is not to be had: %s", prediction_id, error)
        return None


def _has_predicted_region(ctx: Context, annotation_id: int) -> bool:
    """Whether a region came from a prediction: one begun as a draft is submitted without its parent."""
    try:
        result = ctx.label_studio.annotation(annotation_id).get("result") or []
    except LabelStudioRefused as error:
        log.debug("annotation %s is not to be had: %s", annotation_id, error)
        return False
    return any(str(region.get("origin", "")).startswith("prediction") for region in result)


def _from(
    ctx: Context, project: Project, annotation: Annotation, served: Round | None, name: str, regions: Regions | None
) -> Start:
    """The start named by what was published; `regions` None: as we have stored them."""
    ours = _OUR_NAME.fullmatch(name)
    with ctx.store.read() as s:
        round_ = efforts.publication(s, project.id, name) or served
        version = efforts.version_id(s, project.id, int(ours[1])) if ours else None
        task_ids = [annotation.task_id] if annotation.task_id else []
        stored = predictions.of_tasks(s, version, task_ids) if version else {}
        hidden = bool(round_ and publications.hidden(s, round_.id, task_ids))
    row = next(iter(stored.values()), None)
    round_id = round_.id if round_ else None
    if hidden and not regions:
        return Start(round_id)  # judged worse than none: nobody saw anything
    if regions is None and row is not None:
        regions = orjson.loads(row.regions_json)
    if regions is None:
        # Without a model there was nothing to see; else it was pruned.
        return Start(round_id, version, known=version is None)
    if not regions and row is None:
        return Start(round_id)  # a place in the queue without a prediction: nobody saw anything
    return Start(round_id, version, regions)

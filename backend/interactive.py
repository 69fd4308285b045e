"""JOURNEY: a person draws a box, points or strokes with a smart tool and is shown at once what the model means there.

Nothing is stored: a suggestion that is accepted comes back as part of the annotation.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from backend import predictions, prompts
from backend.context import Context
from backend.label_studio.cleaning import Mask
from backend.label_studio.errors import BadMask, BadPayload
from backend.label_studio.masks import masks_of
from backend.label_studio.payloads import LabelConfig, PredictRequest, parse_label_config, regions
from backend.label_studio.smart import Gesture, gestures
from backend.label_studio.suggesting import Asked, Probability, crop_of, suggested, within
from backend.serving import Served
from backend.store import predictions as rows
from backend.store import projects
from backend.tables import ModelVersion, Project
from backend.tables import Task as TaskRow
from model.errors import PromptTooLong

if TYPE_CHECKING:
    from model import ImageFeatures

log = logging.getLogger(__name__)

_SCORE = 1.0  # of a suggestion nobody reads one, but every answer has one


def answer(ctx: Context, request: PredictRequest) -> bytes:
    """The body of `/predict` for a smart tool: one result, whose regions become suggestions.

    Without a serving version, for a task that is not known yet or whose image is broken, it is empty. Raises what
    `smart.gestures` refuses, BadMask for a stroke that cannot be read, and BadPayload unless it is about one task.
    """
    config = parse_label_config(request.label_config)
    done = gestures(request.context or {}, config)
    if len(request.tasks) != 1:
        raise BadPayload(f"a smart tool asks about one task, not {len(request.tasks)}")
    with ctx.store.read() as s:
        project = projects.get(s, request.project_id)
        version = rows.serving(s, project.id)
        task = projects.tasks(s, [request.tasks[0].id]).get(request.tasks[0].id)
    if task is None or task.project_id != project.id:
        log.info("task %s is not known yet; the next reconciliation brings it", request.tasks[0].id)
        found: list[dict[str, Any]] = []
    else:
        found = _suggestions(ctx, request, config, project, task, version, done) if version and done else []
    name = project.published_version or predictions.UNPUBLISHED
    return orjson.dumps({"results": [{"result": found, "score": _SCORE, "model_version": name}]})


@dataclass(frozen=True)
class _Sight:
    """One image as the serving version sees it. What is dear is remembered, so a second look costs next to nothing."""

    ctx: Context
    served: Served
    image_sha256: str

    @property
    def size(self) -> tuple[int, int]:
        return self.ctx.files.image_size(self.image_sha256)

    def whole(self, prompt: str) -> Probability:
        """Of the whole image, (H, W)."""
        key = ("whole", self.image_sha256, prompt)
        return self.served.recent.get(key, lambda: self._seen(self._features(), prompt))

    def near(self, box: Mask, prompt: str) -> Probability:
        """Of a box and what is around it, (H, W), looked at from nearer; 0 where nobody looked."""
        crop = crop_of(box)
        key = ("crop", self.image_sha256, prompt, *((side.start, side.stop) for side in crop))
        probability = np.zeros(box.shape, np.float32)
        probability[crop] = self.served.recent.get(key, lambda: self._cropped(crop, prompt))
        return probability

    def _cropped(self, crop: tuple[slice, slice], prompt: str) -> Probability:
        from model import encode

        return self._seen(encode(self.served.segmenter, np.ascontiguousarray(self._image()[crop])), prompt)

    def _seen(self, features: ImageFeatures, prompt: str) -> Probability:
        from model import segment_features

        return segment_features(self.served.segmenter, features, {"": prompt})[""].probability

    def _features(self) -> ImageFeatures:
        from model import encode

        key = ("features", self.image_sha256)
        return self.served.recent.get(key, lambda: encode(self.served.segmenter, self._image()))

    def _image(self) -> np.ndarray:
        return self.served.recent.get(("image", self.image_sha256), lambda: self.ctx.files.image(self.image_sha256))


def _suggestions(
    ctx: Context,
    request: PredictRequest,
    config: LabelConfig,
    project: Project,
    task: TaskRow,
    version: ModelVersion,
    done: Sequence[Gesture],
) -> list[dict[str, Any]]:
    image_sha256 = predictions.image_of(ctx, task)
    if image_sha256 is None:
        return []
    sight = _Sight(ctx, ctx.serving.load(version), image_sha256)
    masks = {}
    for label in dict.fromkeys(gesture.label for gesture in done):
        try:
            masks[label] = _mask(sight, request, config, label, done, prompts.prompt_for(project, task, label))
        except PromptTooLong as error:
            log.warning("no suggestion of %s: %s", label, error)
    named = "\0".join(gesture.id for gesture in done)
    return [region | {"id": _id(region, named)} for region in regions(config, masks, {})]


def _mask(
    sight: _Sight, request: PredictRequest, config: LabelConfig, label: str, done: Sequence[Gesture], prompt: str
) -> Mask:
    size = sight.size
    ours = [gesture for gesture in done if gesture.label == label]
    boxes = [gesture.mask(*size) for gesture in ours if gesture.kind == "rectangle" and gesture.positive]
    asked = Asked(
        found=[within(sight.near(box, prompt), box) for box in boxes],
        points=[gesture.place(*size) for gesture in ours if gesture.kind == "keypoint" and gesture.positive],
        strokes=[gesture.mask(*size) for gesture in ours if gesture.kind == "brush" and gesture.positive],
        not_points=[gesture.place(*size) for gesture in ours if gesture.kind == "keypoint" and not gesture.positive],
        not_strokes=[gesture.mask(*size) for gesture in ours if gesture.kind != "keypoint" and not gesture.positive],
    )
    there = None if asked.names_something else _drawn(request, config, label, size)
    if there is None and (asked.points or asked.strokes or not asked.found):
        return suggested(asked, sight.whole(prompt))
    return suggested(asked, np.zeros(size, np.float32), there)


def _drawn(request: PredictRequest, config: LabelConfig, label: str, size: tuple[int, int]) -> Mask | None:
    """What the person has of a label already, as far as Label Studio told us."""
    for drawn in request.drawn:
        try:
            mask = masks_of(drawn, config, size).get(label)
        except BadMask as error:
            log.warning("something drawn cannot be read and is left out: %s", error)
            continue
        if mask is not None:
            return mask
    return None


def _id(region: dict[str, Any], named: str) -> str:
    """An id of its own: the editor holds no two regions of one id, and a pre-annotation may be the same mask."""
    return hashlib.sha256(f"{region['id']}\0{named}".encode()).hexdigest()[:10]

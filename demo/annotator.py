"""A scripted annotator: does through Label Studio's API what a person does in its editor.

Takes the next task from the label stream, looks at the pre-annotation that came with it, and submits the true mask with
the pre-annotation as its parent. Only the lead time is made up: it grows with how much had to be corrected.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from demo.data import true_mask
from demo.errors import DemoError
from demo.project import FROM_NAME, LABEL, TO_NAME, DemoProject

# Simulated: a glance at a mask that is right, and what drawing a whole one costs on top.
GLANCE_SECONDS = 4.0
DRAWING_SECONDS = 40.0


@dataclass(frozen=True)
class Answer:
    """One submitted annotation. `agreement` is the Dice of the pre-annotation with the truth; None without one."""

    task_id: int
    annotation_id: int
    parent_prediction: int | None
    agreement: float | None
    lead_time_seconds: float


class Annotator:
    """Works through the label stream of one project."""

    def __init__(self, http: httpx.Client, project: DemoProject) -> None:
        self._http = http
        self._project = project

    def next_task(self) -> dict[str, Any] | None:
        """The task Label Studio serves now, with its pre-annotation; None when nothing is left to do."""
        response = self._http.get(f"/api/projects/{self._project.id}/next")
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        return _checked(response)

    def answer(self, task: dict[str, Any]) -> Answer:
        """Submit the true mask for a task taken with next_task()."""
        truth = true_mask(self._project.pairs[task["id"]])
        prediction = _pre_annotation(task)
        agreement = None if prediction is None else dice(_drawn(prediction, truth.shape), truth)
        seconds = lead_time_seconds(agreement)
        body = {
            "result": regions(truth),
            "was_cancelled": False,
            "lead_time": seconds,
            "parent_prediction": prediction and prediction["id"],
        }
        query = {"project": self._project.id}
        stored = _checked(self._http.post(f"/api/tasks/{task['id']}/annotations", params=query, json=body))
        return Answer(task["id"], stored["id"], stored.get("parent_prediction"), agreement, seconds)

    def work(self, n: int, on_answer: Callable[[Answer], None] | None = None) -> list[Answer]:
        """Annotate the next `n` tasks, fewer when the project has no more."""
        answers: list[Answer] = []
        while len(answers) < n and (task := self.next_task()) is not None:
            answers.append(self.answer(task))
            if on_answer is not None:
                on_answer(answers[-1])
        return answers


def regions(mask: np.ndarray) -> list[dict[str, Any]]:
    """The brush region the editor would send for a mask (H, W) bool; none for an empty one."""
    if not mask.any():
        return []
    height, width = mask.shape
    # The editor shows alpha: 255 is opaque, 1 would be invisible.
    from label_studio_sdk.converter.brush import mask2rle  # here: it loads scikit-learn, which sets the environment

    rle = mask2rle(mask.astype(np.uint8) * 255)
    return [
        {
            "id": "drawn",
            "from_name": FROM_NAME,
            "to_name": TO_NAME,
            "type": "brushlabels",
            "origin": "manual",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": [int(number) for number in rle], "brushlabels": [LABEL]},
        }
    ]


def lead_time_seconds(agreement: float | None) -> float:
    """Simulated: the less of the pre-annotation can stay, the longer it takes."""
    return round(GLANCE_SECONDS + DRAWING_SECONDS * (1.0 - (agreement or 0.0)), 1)


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of two boolean masks of one shape, in [0, 1]; 1 when both are empty."""
    total = int(mask.sum() + truth.sum())
    return 1.0 if total == 0 else 2.0 * int((mask & truth).sum()) / total


def _pre_annotation(task: dict[str, Any]) -> dict[str, Any] | None:
    predictions = task.get("predictions") or []
    return predictions[0] if predictions else None


def _drawn(prediction: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    from label_studio_sdk.converter.brush import decode_rle

    mask = np.zeros(shape, dtype=bool)
    for region in prediction["result"]:
        flat = np.asarray(decode_rle(region["value"]["rle"]), dtype=np.uint8)
        if flat.size != 4 * mask.size:
            raise DemoError(f"the pre-annotation {prediction['id']} is not as large as its image {shape}")
        mask |= flat.reshape(*shape, 4)[..., 3] > 0
    return mask


def _checked(response: httpx.Response) -> dict[str, Any]:
    if response.is_success:
        found: dict[str, Any] = response.json()
        return found
    raise DemoError(f"Label Studio refused the annotator: {response.status_code} {json.dumps(response.text[:300])}")

"""A Label Studio in memory, for laws that need thousands of calls or faults at will. The live tests keep it honest."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from PIL import Image

from backend.label_studio.client import TaskWithAnnotations
from backend.label_studio.errors import LabelStudioRefused, LabelStudioUnreachable
from backend.label_studio.label_config import parse_label_config
from backend.label_studio.payloads import Annotation, Task, regions

LABEL_CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="brush" toName="image"><Label value="Lesion"/></BrushLabels></View>'
)
START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
SIDE = 48


@dataclass
class FakeLabelStudio:
    """One project, its tasks, annotations and predictions; the methods of LabelStudioClient that journeys use."""

    project_id: int = 1
    label_config: str = LABEL_CONFIG
    images: dict[str, bytes] = field(default_factory=dict)
    task_rows: dict[int, Task] = field(default_factory=dict)
    annotations: dict[int, Annotation] = field(default_factory=dict)
    touched: dict[int, datetime] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    imported: list[dict[str, Any]] = field(default_factory=list)  # every one there ever was: its place is its id - 1
    settings: dict[str, Any] = field(default_factory=lambda: {"model_version": "", "sampling": "Sequential sampling"})
    down: bool = False
    shuffled: bool = False
    fetched: list[str] = field(default_factory=list)
    clock: datetime = START

    def tick(self) -> datetime:
        self.clock += timedelta(seconds=1)
        return self.clock

    # ------------------------------------------------------------------------------- what people do in it

    def add_task(self, task_id: int, *, group: str | None = None, content: bytes | None = None) -> Task:
        url = f"/data/upload/{self.project_id}/{task_id}.png"
        self.images[url] = png(task_id) if content is None else content
        data = {"image": url} | ({"group": group} if group else {})
        self.task_rows[task_id] = Task(task_id, self.project_id, data, url)
        self.touched[task_id] = self.tick()
        return self.task_rows[task_id]

    def annotate(
        self, annotation_id: int, task_id: int, *, mask: np.ndarray | None = None, skipped: bool = False, **changed: Any
    ) -> Annotation:
        """Create an annotation, or update the one with that id. Without a mask: the true one."""
        config = parse_label_config(self.label_config)
        known = self.annotations.get(annotation_id)
        painted = {label: true_mask(task_id) if mask is None else mask for label in config.labels}
        now = self.tick()
        fields: dict[str, Any] = {
            "id": annotation_id,
            "task_id": task_id,
            "project_id": self.project_id,
            "completed_by": 7,
            "lead_time_seconds": 12.5,
            "created_at": known.created_at if known else now,
            "updated_at": now,
            "skipped": skipped,
            "parent_prediction": None,
            "regions": [] if skipped else regions(config, painted, {}),
        }
        self.annotations[annotation_id] = Annotation(**(fields | changed))
        self.touched[task_id] = now
        return self.annotations[annotation_id]

    def delete_annotation(self, annotation_id: int) -> None:
        self.touched[self.annotations.pop(annotation_id).task_id] = self.tick()

    # ----------------------------------------------------------------------------- what journeys call on it

    def project(self, project_id: int) -> dict[str, Any]:
        self._answer()
        fields = {"title": "fake", "label_config": self.label_config, "task_number": len(self.task_rows)}
        return {"id": project_id} | fields | self.settings

    def update_project(self, project_id: int, **fields: Any) -> dict[str, Any]:
        self._answer()
        self.settings |= fields
        return self.project(project_id)

    def tasks(self, project_id: int, updated_after: datetime | None = None) -> Iterator[TaskWithAnnotations]:
        self._answer()
        for task_id, task in self.task_rows.items():
            if updated_after is None or self.touched[task_id] > updated_after:
                found = [one for one in self.annotations.values() if one.task_id == task_id]
                yield TaskWithAnnotations(task, found, self.touched[task_id], bool(found))

    def task_ids(self, project_id: int) -> set[int]:
        self._answer()
        return set(self.task_rows)

    def import_predictions(self, project_id: int, items: Iterable[Mapping[str, Any]]) -> int:
        self._answer()
        new = [dict(item) for item in items]
        self.predictions += new
        self.imported += new
        return len(new)

    def import_encoded(self, project_id: int, items: Sequence[bytes]) -> int:
        return self.import_predictions(project_id, [json.loads(item) for item in items])

    def tasks_with(self, project_id: int, version: str) -> set[int]:
        self._answer()
        return {item["task"] for item in self.predictions if version in item["model_version"]}

    def prediction_ids(self, project_id: int, version: str, tasks: int) -> list[int]:
        self._answer()
        first = sorted(self.tasks_with(project_id, version))[:tasks]
        there = [item for item in self.predictions if item["model_version"] == version and item["task"] in first]
        return [next(n for n, one in enumerate(self.imported, start=1) if one is item) for item in there]

    def task_predictions(self, task_id: int, version: str) -> list[int]:
        self._answer()
        there = [item for item in self.predictions if item["task"] == task_id and item["model_version"] == version]
        return [next(n for n, one in enumerate(self.imported, start=1) if one is item) for item in there]

    def delete_prediction(self, prediction_id: int) -> None:
        self._answer()
        self.predictions = [item for item in self.predictions if item is not self.imported[prediction_id - 1]]

    def served_page(self, project_id: int, page: int, size: int) -> tuple[list[int], int]:
        order = self.served_order(project_id)
        return order[(page - 1) * size : page * size], len(order)

    def model_versions(self, project_id: int) -> dict[str, int]:
        self._answer()
        counts: dict[str, int] = defaultdict(int)
        for item in self.predictions:
            counts[item["model_version"]] += 1
        return dict(counts)

    def delete_model_version(self, project_id: int, version: str) -> None:
        self._answer()
        self.predictions = [item for item in self.predictions if item["model_version"] != version]

    def prediction_id(self, task_id: int) -> int:
        """The id of the pre-annotation that a person sees now."""
        return max(
            number
            for number, item in enumerate(self.imported, start=1)
            if item["task"] == task_id and item["model_version"] == self.settings["model_version"]
        )

    def prediction(self, prediction_id: int) -> dict[str, Any]:
        self._answer()
        found = self.imported[prediction_id - 1]
        if not any(item is found for item in self.predictions):
            raise LabelStudioRefused("Label Studio answered 404", 404)
        return found | {"id": prediction_id}

    def annotation(self, annotation_id: int) -> dict[str, Any]:
        self._answer()
        if annotation_id not in self.annotations:
            raise LabelStudioRefused("Label Studio answered 404", 404)
        return {"id": annotation_id, "result": self.annotations[annotation_id].regions}

    def unserved_tasks(self, project_id: int) -> list[int]:
        answered = {one.task_id for one in self.annotations.values()}
        return sorted(set(self.task_rows) - answered - set(self.served_order(project_id)))

    def served_order(self, project_id: int) -> list[int]:
        self._answer()
        answered = {one.task_id for one in self.annotations.values()}
        current = [
            item
            for item in self.predictions
            if item["model_version"] == self.settings["model_version"] and item["task"] not in answered
        ]
        order = [item["task"] for item in sorted(current, key=lambda item: item["score"])]
        return order[::-1] if self.shuffled else order

    def fetch_image(self, image_url: str, max_bytes: int, task_id: int | None = None) -> bytes:
        self._answer()
        self.fetched.append(image_url)
        if image_url not in self.images:
            raise LabelStudioRefused(f"Label Studio answered 404 for {image_url}", 404)
        return self.images[image_url]

    def close(self) -> None:
        pass

    def _answer(self) -> None:
        if self.down:
            raise LabelStudioUnreachable("nobody answers")


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy grey square with a bright disc: image (SIDE, SIDE) uint8 and the disc's mask."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    centre, radius = rng.uniform(14, SIDE - 14, 2), rng.uniform(6, 12)
    mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
    image = rng.normal(80, 12, (SIDE, SIDE)) + 90 * mask
    return image.clip(0, 255).astype(np.uint8), mask


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)[0]).save(buffer, format="PNG")
    return buffer.getvalue()


def true_mask(task_id: int) -> np.ndarray:
    return picture(task_id)[1]

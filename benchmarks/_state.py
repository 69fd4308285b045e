"""A state folder to measure on: two projects, images with masks, stored predictions, a round to run."""

import json
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from backend.files import Files
from backend.label_studio.masks import encode
from backend.label_studio.payloads import parse_label_config, regions
from backend.store import Store, annotations, predictions, projects, rounds
from backend.tables import Project, Trigger

SIDE_PX = 512
ANNOTATED, TRAINING = 1, 2  # projects: one that annotators work in, one that trains meanwhile
N_TASKS = 40
STORED_BYTES = 20_000  # of a stored prediction, about
LABEL_CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="brush" toName="image"><Label value="Lesion"/></BrushLabels></View>'
)


def blob(rng: np.random.Generator, ragged_px: float) -> np.ndarray:
    """A ragged mask, (SIDE_PX, SIDE_PX) bool: noise smoothed over `ragged_px` pixels, around a disc."""
    noise = Image.fromarray(rng.integers(0, 255, (SIDE_PX, SIDE_PX), dtype=np.uint8))
    smooth = np.asarray(noise.filter(ImageFilter.GaussianBlur(ragged_px))).astype(float)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    centre, radius = rng.uniform(200, 312, 2), rng.uniform(90, 140)
    distance = np.hypot(rows - centre[0], columns - centre[1])
    return (radius - distance) / radius + (smooth - smooth.mean()) / (4 * smooth.std()) > 0


def mask_of_size(rng: np.random.Generator, wanted_bytes: int) -> np.ndarray:
    """A mask whose JSON code is about as long as wanted: the less it is smoothed, the longer."""
    candidates = [blob(rng, ragged_px) for ragged_px in (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)]
    return min(candidates, key=lambda mask: abs(len(json.dumps(encode(mask))) - wanted_bytes))


def picture(mask: np.ndarray, rng: np.random.Generator) -> bytes:
    """A speckled grey PNG, brighter inside the mask."""
    speckle = rng.rayleigh(40, mask.shape) * (1 + mask)
    buffer = BytesIO()
    Image.fromarray(speckle.clip(0, 255).astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def fill(folder: Path, rng: np.random.Generator) -> int:
    """Two projects with images on disk, one of them predicted, the other annotated; returns the round to run."""
    store = Store(f"sqlite:///{folder / 'wardround.db'}")
    store.migrate()
    files = Files(folder / "files", max_image_pixels=64_000_000)
    now = datetime.now(UTC)
    with store.begin() as s:
        for project_id in (ANNOTATED, TRAINING):
            projects.save(s, _project(project_id, now))
    masks = [mask_of_size(rng, STORED_BYTES) for _ in range(N_TASKS)]
    images = [files.put_image(picture(mask, rng)) for mask in masks]
    with store.begin() as s:
        for number in range(N_TASKS):
            for project_id in (ANNOTATED, TRAINING):
                projects.add_tasks(s, [_task(project_id, number, images[number], now)])
        version = predictions.add_version(
            s, ANNOTATED, parent_id=None, checkpoint_sha256="0" * 64, card={}, now=now
        )  # its weights are never read: every prediction asked for is stored
        predictions.serve(s, ANNOTATED, version.id)
        predictions.add(s, [_prediction(number, masks[number], version.id, now) for number in range(N_TASKS)])
        for number, mask in enumerate(masks):
            annotations.upsert(s, _annotation(number, now), {"Lesion": files.put_mask(mask)})
        opened = rounds.open_round(s, TRAINING, trigger=Trigger.request, strategy="random", seed=0, now=now)
    size = sum(len(json.dumps(encode(mask))) for mask in masks) / N_TASKS
    print(f"{N_TASKS} stored predictions of {size / 1000:.0f} kB on images of {SIDE_PX} x {SIDE_PX} px")
    store.close()
    return opened.id


def _project(project_id: int, now: datetime) -> Project:
    return Project(
        id=project_id, title="benchmark", label_config=LABEL_CONFIG, prompts={"Lesion": "a bright lesion"},
        group_field="group", prompt_field="prompt", published_version="wardround-r1-v1", connected_at=now,
    )  # fmt: skip


def task_id(project_id: int, number: int) -> int:
    return project_id * 1000 + number


def _task(project_id: int, number: int, image_sha256: str, now: datetime) -> dict[str, Any]:
    return {
        "id": task_id(project_id, number), "project_id": project_id, "image_url": f"/data/upload/{number}.png",
        "group_key": str(number), "held_out": False, "image_sha256": image_sha256, "created_at": now,
    }  # fmt: skip


def _prediction(number: int, mask: np.ndarray, version_id: int, now: datetime) -> dict[str, Any]:
    painted = regions(parse_label_config(LABEL_CONFIG), {"Lesion": mask}, {"Lesion": 0.9})
    return {
        "task_id": task_id(ANNOTATED, number), "model_version_id": version_id, "regions_json": json.dumps(painted),
        "score": 0.5, "embedding": np.zeros(64, dtype="<f4").tobytes(), "created_at": now,
    }  # fmt: skip


def _annotation(number: int, now: datetime) -> dict[str, Any]:
    return {
        "id": 1_000_000 + number, "project_id": TRAINING, "task_id": task_id(TRAINING, number), "skipped": False,
        "created_at": now, "updated_at": now, "received_at": now,
    }  # fmt: skip

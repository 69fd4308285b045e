"""The Label Studio project of the demo: made, filled and looked at through Label Studio's own API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any

import httpx

from demo.errors import DemoError
from simulation.dataset import Pair

LABEL = "Lesion"
LABEL_CONFIG = f"""
<View>
  <Image name="image" value="$image" zoom="true" zoomControl="true"/>
  <BrushLabels name="mask" toName="image"><Label value="{LABEL}" background="#e8590c"/></BrushLabels>
</View>
""".strip()
FROM_NAME, TO_NAME = "mask", "image"
_UPLOADS_AT_A_TIME = 40


@dataclass(frozen=True)
class DemoProject:
    """A project and, for each of its tasks, the pair whose image it shows."""

    id: int
    pairs: dict[int, Pair]


def create(
    http: httpx.Client, title: str, pairs: Sequence[Pair], on_progress: Callable[[int], None] | None = None
) -> DemoProject:
    """Make the project and one task per pair. The files go first, so that a task can also carry its group."""
    project = _answer(http.post("/api/projects/", json={"title": title, "label_config": LABEL_CONFIG}))["id"]
    urls: dict[str, str] = {}
    remaining = iter(pairs)
    while batch := list(islice(remaining, _UPLOADS_AT_A_TIME)):
        urls |= _upload(http, project, batch)
        if on_progress is not None:
            on_progress(len(urls))
    tasks = [{"data": {"image": urls[pair.id], "case": pair.id, "group": pair.group}} for pair in pairs]
    _answer(http.post(f"/api/projects/{project}/import", json=tasks))
    return DemoProject(project, _pairs_by_task(http, project, {pair.id: pair for pair in pairs}))


def _upload(http: httpx.Client, project: int, batch: Sequence[Pair]) -> dict[str, str]:
    """Pair id → the URL Label Studio serves the image under."""
    names = {f"{i:03d}{pair.image.suffix}": pair for i, pair in enumerate(batch)}
    with ExitStack() as open_files:
        parts = [(name, (name, open_files.enter_context(pair.image.open("rb")))) for name, pair in names.items()]
        query = {"commit_to_project": "false"}
        answer = _answer(http.post(f"/api/projects/{project}/import", params=query, files=parts))
    query = {"ids": str(answer["file_upload_ids"])}
    uploads = [row["file"] for row in _answer(http.get(f"/api/projects/{project}/file-uploads", params=query))]
    # Label Studio puts a random prefix and a dash before each name.
    urls = {names[file.rpartition("-")[2]].id: f"/data/{file}" for file in uploads}
    if len(urls) != len(batch):
        raise DemoError(f"Label Studio kept {len(urls)} of {len(batch)} uploaded images")
    return urls


def _pairs_by_task(http: httpx.Client, project: int, by_case: dict[str, Pair]) -> dict[int, Pair]:
    found: dict[int, Pair] = {}
    page = 1
    while len(found) < len(by_case):
        query = {"project": project, "page": page, "page_size": 500}
        tasks = _answer(http.get("/api/tasks", params=query))["tasks"]
        if not tasks:
            raise DemoError(f"Label Studio made {len(found)} tasks for {len(by_case)} images")
        found |= {task["id"]: by_case[task["data"]["case"]] for task in tasks}
        page += 1
    return found


def _answer(response: httpx.Response) -> Any:
    if response.is_success:
        return response.json()
    request = response.request
    raise DemoError(
        f"Label Studio answered {response.status_code} to {request.method} {request.url}: {response.text[:300]}"
    )

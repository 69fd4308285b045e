"""Label Studio's editor as a person sees it: pixels for eyes, mouse and buttons for hands."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, ViewportSize

from demo.label_studio import LabelStudioServer
from simulation.dataset import Pair

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WINDOW: ViewportSize = {"width": 1400, "height": 1000}
_TIMEOUT_MS = 180_000
# The phantoms are grey: red is ahead of blue only where the label's orange lies over them.
_TINT = 50
_IMAGE = "img[alt=image]"


class Editor:
    """One browser window, logged in to Label Studio."""

    def __init__(self, page: Page, server: LabelStudioServer, project: int) -> None:
        self.page = page
        self._url = f"{server.url}/projects/{project}/data"
        page.set_default_timeout(_TIMEOUT_MS)
        page.goto(f"{server.url}/user/login")
        page.fill("input[name=email]", server.username)
        page.fill("input[name=password]", server.password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "/user/login" not in url)

    def label_all_tasks(self) -> dict[str, Any]:
        """Open the project and press “Label All Tasks”; returns the task that Label Studio serves."""
        self.page.goto(self._url)
        return self._next_task_after("button:has-text('Label All Tasks')")

    def submit(self) -> dict[str, Any]:
        """Press “Submit”; returns the next task that Label Studio serves."""
        return self._next_task_after("button:has-text('Submit')[name=submit]")

    def _next_task_after(self, button: str) -> dict[str, Any]:
        with self.page.expect_response(lambda response: "id=next_task" in response.url) as answer:
            self.page.click(button)
        task: dict[str, Any] = answer.value.json()
        return task

    def look(self) -> np.ndarray:
        """(h, w, 3) uint8: the image as it is on the screen, with what is drawn over it."""
        self.page.wait_for_selector(_IMAGE)
        with Image.open(io.BytesIO(self.page.screenshot(clip=self._box()))) as image:
            return np.asarray(image.convert("RGB"))

    def drawn(self, shape: tuple[int, int]) -> np.ndarray:
        """(H, W) bool, image frame of that shape: where the label's colour is seen."""
        seen = self.look().astype(np.int16)
        tinted = Image.fromarray(((seen[..., 0] - seen[..., 2]) > _TINT).astype(np.uint8) * 255)
        return np.asarray(tinted.resize(shape[::-1], Image.Resampling.BOX)) >= 128

    def shows(self, pairs: dict[int, Pair]) -> int:
        """The task whose image is on the screen, by its pixels."""
        seen = Image.fromarray(self.look()).getchannel("G")
        likeness = {task_id: _likeness(seen, pair.image) for task_id, pair in pairs.items()}
        return max(likeness, key=lambda task_id: likeness[task_id])

    def paint(self, points: Sequence[tuple[int, int]], shape: tuple[int, int]) -> None:
        """Choose the label and drag the brush along (row, column) points of an image of that shape."""
        self.page.keyboard.press("1")
        box = self._box()
        at = [
            (box["x"] + (c + 0.5) * box["width"] / shape[1], box["y"] + (r + 0.5) * box["height"] / shape[0])
            for r, c in points
        ]
        self.page.mouse.move(*at[0])
        self.page.mouse.down()
        for x, y in at[1:]:
            self.page.mouse.move(x, y, steps=10)
        self.page.mouse.up()

    def keep(self, path: Path) -> None:
        """A screenshot of the whole window."""
        self.page.screenshot(path=path)

    def _box(self) -> Any:
        return self.page.locator(_IMAGE).bounding_box()


def _likeness(seen: Image.Image, path: Path) -> float:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"), dtype=np.float64)
    again = np.asarray(seen.resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.BOX), dtype=np.float64)
    return float(np.corrcoef(pixels.ravel(), again.ravel())[0, 1])

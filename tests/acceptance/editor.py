"""Label Studio's editor as a person sees it: pixels for eyes, mouse and buttons for hands."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
_REGION = "[class*=outliner-item]"
_SMART = ".lsf-tool_smart"
_ROW = ".lsf-table-row"
# As high as all rows of a project of the tests: the Data Manager draws only those that are in sight.
_TALL: ViewportSize = {"width": 1400, "height": 2200}
# The labels of the project of the tests have these keys, in the order of its controls.
_BRUSH_KEY, _BOX_KEY, _POINT_KEY = "1", "2", "3"


class Editor:
    """One browser window, logged in to Label Studio.

    Places on the image are (row, column) in pixels of its own, `shape` is the image's (H, W).
    """

    def __init__(
        self, page: Page, server: LabelStudioServer, project: int, user: tuple[str, str] | None = None
    ) -> None:
        """user: e-mail address and password of somebody else than the first user."""
        email, password = user or (server.username, server.password)
        self.page = page
        self._url = f"{server.url}/projects/{project}/data"
        page.set_default_timeout(_TIMEOUT_MS)
        page.goto(f"{server.url}/user/login")
        page.fill("input[name=email]", email)
        page.fill("input[name=password]", password)
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
        """Choose the label and drag the brush along points."""
        self.page.keyboard.press(_BRUSH_KEY)
        self._drag(points, shape)

    def discard_all(self) -> None:
        """Delete every region, one after the other, as a person would who starts anew."""
        while self.page.locator(_REGION).count():
            self.page.locator(_REGION).first.click()
            self.page.keyboard.press("Backspace")

    def box(self, points: Sequence[tuple[int, int]], shape: tuple[int, int]) -> list[dict[str, Any]]:
        """Drag the smart rectangle from one point to another; returns the regions that are suggested."""
        self._take("rectangle-tool", _BOX_KEY)
        with self._suggested() as found:
            self._drag(points, shape)
        return found

    def point(self, place: tuple[int, int], shape: tuple[int, int], *, rule_out: bool = False) -> list[dict[str, Any]]:
        """Click with the smart key point, or Alt and click; returns the regions that are suggested."""
        self._take("key-point-tool", _POINT_KEY)
        if rule_out:
            self.page.keyboard.down("Alt")
        with self._suggested() as found:
            self.page.mouse.click(*self._on_screen(place, shape))
        self.page.keyboard.up("Alt")
        return found

    def accept(self) -> None:
        """Take over what is suggested."""
        self.page.click("[data-testid=bottombar-accept-suggestions-button]")
        self.page.wait_for_selector("[data-testid=bottombar-accept-suggestions-button]", state="detached")

    def open_tab(self, title: str) -> list[int]:
        """Open a tab of the Data Manager; returns the tasks it lists, from top to bottom."""
        self.page.set_viewport_size(_TALL)
        self.page.goto(self._url)
        with self.page.expect_response(lambda response: "/api/tasks?" in response.url) as listed:
            self.page.click(f".lsf-tabs-dm__item:has-text({title!r})")
        n_tasks = len(listed.value.json()["tasks"])
        self.page.locator(_ROW).nth(n_tasks - 1).wait_for()
        return [int(row.split()[0]) for row in self.page.locator(_ROW).all_inner_texts()]

    def open_row(self, position: int) -> None:
        """Open a task of the tab that is open."""
        self.page.set_viewport_size(WINDOW)
        self.page.locator(_ROW).nth(position).click()

    def keep(self, path: Path) -> None:
        """A screenshot of the whole window."""
        self.page.screenshot(path=path)

    def _take(self, tool: str, key: str) -> None:
        """Switch Auto-Annotation on, take a smart tool and choose its label: each use leaves it unchosen."""
        self.page.locator("[data-testid=bottombar-auto-annotation-toggle]").check(force=True)
        self.page.hover(_SMART)
        self.page.click(f"{_SMART}[aria-label={tool}]")
        self.page.keyboard.press(key)

    @contextmanager
    def _suggested(self) -> Iterator[list[dict[str, Any]]]:
        """What comes to be suggested by what is done inside, once the editor shows it."""
        found: list[dict[str, Any]] = []
        with self.page.expect_response(lambda response: "interactive-annotating" in response.url) as answer:
            yield found
        found += answer.value.json()["data"]["result"]
        self.page.wait_for_selector("[data-testid=bottombar-accept-suggestions-button]")

    def _drag(self, points: Sequence[tuple[int, int]], shape: tuple[int, int]) -> None:
        at = [self._on_screen(place, shape) for place in points]
        self.page.mouse.move(*at[0])
        self.page.mouse.down()
        for x, y in at[1:]:
            self.page.mouse.move(x, y, steps=10)
        self.page.mouse.up()

    def _on_screen(self, place: tuple[int, int], shape: tuple[int, int]) -> tuple[float, float]:
        box = self._box()
        row, column = place
        return (
            box["x"] + (column + 0.5) * box["width"] / shape[1],
            box["y"] + (row + 0.5) * box["height"] / shape[0],
        )

    def _box(self) -> Any:
        return self.page.locator(_IMAGE).bounding_box()


def _likeness(seen: Image.Image, path: Path) -> float:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"), dtype=np.float64)
    again = np.asarray(seen.resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.BOX), dtype=np.float64)
    return float(np.corrcoef(pixels.ravel(), again.ravel())[0, 1])

"""Images of tasks that lie in a folder of this machine, found by what Label Studio calls them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from backend.errors import ImageNotInFolder
from backend.label_studio.errors import ImageTooLarge

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of an upload
_STORED = re.compile(r"(?:s3|gs|azure-blob)://(.*)", re.DOTALL)


class ImageFolder:
    """In place of a LabelStudioClient for whoever only fetches images: nothing is asked of any server."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ImageNotInFolder(f"there is no folder {folder}; name the one that holds the images of the tasks")
        self._folder = folder.resolve()
        self._taken: dict[Path, str] = {}

    def fetch_image(self, image_url: str, max_bytes: int, task_id: int | None = None) -> bytes:
        """The bytes of a task's image. Raises ImageNotInFolder, ImageTooLarge."""
        path = self.find(image_url)
        if path is None:
            raise ImageNotInFolder(f"the image {image_url} of task {task_id} is not in {self._folder}")
        if path.stat().st_size > max_bytes:
            raise ImageTooLarge(f"{path} has more than {max_bytes} bytes; shrink it or raise the limit")
        return path.read_bytes()

    def find(self, image_url: str) -> Path | None:
        """Where the image lies; nothing outside the folder is ever found, by whatever name or link.

        Its path below the folder counts, as much of its end as there is; then its name as it was before the upload.
        Raises ImageNotInFolder where several files could be the image, or one file several images.
        """
        path = next((path for path in map(self._inside, self._candidates(image_url)) if path is not None), None)
        if path is not None and self._taken.setdefault(path, image_url) != image_url:
            raise ImageNotInFolder(
                f"{path} could be {self._taken[path]} as well as {image_url}; give each its full name, as in the URL"
            )
        return path

    def _candidates(self, image_url: str) -> Iterator[Path]:
        parts = _parts(image_url)
        if not parts or ".." in parts:
            return
        for start in range(len(parts)):
            yield self._folder.joinpath(*parts[start:])
        name = _UPLOADED.sub("", parts[-1], count=1)
        yield self._folder / name
        renamed = self._renamed.get(name, [])
        if len(renamed) > 1:
            raise ImageNotInFolder(
                f"{', '.join(each.name for each in renamed)} in {self._folder} could each be {image_url}; give that "
                "image its full name, as in the URL"
            )
        yield from renamed

    def _inside(self, path: Path) -> Path | None:
        try:
            found = path.resolve(strict=True)
            return found if found.is_relative_to(self._folder) and found.is_file() else None
        except (OSError, ValueError, RuntimeError):  # not there, no name at all, a circle of links
            return None

    @cached_property
    def _renamed(self) -> dict[str, list[Path]]:
        """Files of the folder by what Label Studio makes of their names: no blanks, no brackets."""
        found: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(self._folder.iterdir()):
            found[re.sub(r"[^-\w.]", "", path.name.strip().replace(" ", "_"))].append(path)
        return found


def _parts(image_url: str) -> list[str]:
    """The path of an image from where it is served, folder by folder."""
    stored = _STORED.fullmatch(image_url)
    try:
        path = stored[1] if stored else _served(image_url)
    except ValueError:  # it is not a URL
        return []
    return [part for part in re.split(r"[/\\]", path) if part not in ("", ".")]


def _served(image_url: str) -> str:
    address = urlsplit(image_url)
    local = parse_qs(address.query).get("d", [])  # /data/local-files/?d=folder/name.png
    return local[0] if local and "local-files" in address.path else unquote(address.path)

"""Fetching the image of a task: from the configured Label Studio only, and never more bytes than allowed.

Whoever can create a task chooses its image URL. Without these rules that person could make the service fetch from its
own network, or hand its token to a stranger.
"""

import re
from urllib.parse import unquote

import httpx

from backend.label_studio.connection import Connection
from backend.label_studio.errors import (
    ForbiddenImageUrl,
    ImageMissing,
    ImageTooLarge,
    LabelStudioRefused,
    LabelStudioUnreachable,
)

# Where Label Studio serves images: uploads and local files, proxied cloud storage, its own samples
_IMAGE_PATHS = ("/data/", "/storage-data/", "/tasks/", "/static/")
_MAX_REDIRECTS = 3
# Label Studio 1.23 answers 500 for an upload it has no record of
_MISSING_STATUSES = (404, 410, 500)


def fetch_image(connection: Connection, image_url: str, max_bytes: int) -> bytes:
    """The bytes behind ``image_url``, relative to Label Studio or absolute on its origin.

    Raises ForbiddenImageUrl, ImageMissing, ImageTooLarge, LabelStudioRefused, LabelStudioUnauthorised,
    LabelStudioUnreachable.
    """
    try:
        return _follow(connection, image_url, max_bytes)
    except LabelStudioRefused as error:
        if error.status not in _MISSING_STATUSES:
            raise
        raise ImageMissing(
            f"Label Studio has no image there ({error}); import it again, or delete its task", error.status
        ) from error


def _follow(connection: Connection, image_url: str, max_bytes: int) -> bytes:
    url = image_address(connection, image_url)
    for _ in range(_MAX_REDIRECTS + 1):
        with connection.opened(connection.get(url)) as response:
            if response.next_request is None:
                return _read_bounded(response, max_bytes)
            url = image_address(connection, str(response.next_request.url))
    raise LabelStudioRefused(f"more than {_MAX_REDIRECTS} redirects for one image", response.status_code)


def image_address(connection: Connection, image_url: str) -> httpx.URL:
    """Where ``image_url`` is on the configured Label Studio. Raises ForbiddenImageUrl."""
    if not image_url:
        raise _forbidden(connection, "the task has no image URL under the key of the label config")
    if re.search(r"[\x00-\x20\x7f\\]", image_url):
        raise _forbidden(connection, "it has blanks, control characters or backslashes")
    if not re.match(r"(https?:/)?/[^/]", image_url, re.IGNORECASE):
        raise _forbidden(connection, "it is neither http(s)://... nor /...")
    try:
        url = connection.base.join(image_url)
    except httpx.InvalidURL:
        raise _forbidden(connection, "it is not a URL") from None
    if url.userinfo or (url.scheme, url.host, url.port) != _origin(connection.base):
        raise _forbidden(connection, "it is on another server")
    if not _serves_images(connection.base, url):
        raise _forbidden(connection, f"its path is not one of {', '.join(_IMAGE_PATHS)}")
    return url.copy_with(fragment=None)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _serves_images(base: httpx.URL, url: httpx.URL) -> bool:
    path = unquote(url.path)
    inside = path.removeprefix(base.path.rstrip("/"))
    return ".." not in path.split("/") and inside.startswith(_IMAGE_PATHS)


def _forbidden(connection: Connection, reason: str) -> ForbiddenImageUrl:
    return ForbiddenImageUrl(
        f"image not fetched: {reason}. Only images served by {connection.base} are; upload them there, and start "
        "Label Studio with LABEL_STUDIO_HOST set to that URL"
    )


def _read_bounded(response: httpx.Response, max_bytes: int) -> bytes:
    if response.status_code != 200:
        raise LabelStudioRefused(f"the image was answered {response.status_code}", response.status_code)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise LabelStudioRefused("the image was sent compressed though asked for as it is", response.status_code)
    announced = response.headers.get("Content-Length", "")
    image = bytearray()
    try:
        if announced.isdecimal() and int(announced) > max_bytes:
            raise _too_large(max_bytes)
        for chunk in response.iter_bytes():
            image += chunk
            if len(image) > max_bytes:
                raise _too_large(max_bytes)
    except httpx.RequestError as error:
        raise LabelStudioUnreachable(f"the image broke off ({type(error).__name__}); try again") from error
    return bytes(image)


def _too_large(max_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"the image has more than {max_bytes} bytes; shrink it or raise the limit")

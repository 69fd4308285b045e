"""Fetching the image of a task: from Label Studio or from a host that the settings name, never more than allowed.

Whoever can create a task chooses its image URL. Without these rules that person could make the service fetch from its
own network, or hand its token to a stranger. Files of cloud storages (s3://, gs://, azure-blob://) are asked of Label
Studio, which has the keys to them: it sends the file, or, where the storage is set to, redirects to the storage.
"""

import base64
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from backend.label_studio.image_hosts import Outside

# Where Label Studio serves images: uploads and local files, proxied cloud storage, its own samples
_IMAGE_PATHS = ("/data/", "/storage-data/", "/tasks/", "/static/")
_STORED = re.compile(r"(s3|gs|azure-blob)://[^\x00-\x1f\x7f]+")
_RESOLVED = re.compile(r"/tasks/\d+/resolve/\?fileuri=([A-Za-z0-9_-]+=*)$")
_MAX_REDIRECTS = 3
_MAX_SECONDS = 300.0  # of one image: a host could send it drop by drop
# Label Studio 1.23 answers 500 for an upload it has no record of
_MISSING_STATUSES = (404, 410, 500)


def fetch_image(
    connection: Connection, outside: Outside, image_url: str, max_bytes: int, task_id: int | None = None
) -> bytes:
    """The bytes behind ``image_url``: relative to Label Studio, absolute there or on a listed host, or in a storage.

    A file in a storage is found through the task that names it. Raises ForbiddenImageUrl, ImageMissing, ImageTooLarge,
    LabelStudioRefused, LabelStudioUnauthorised, LabelStudioUnreachable.
    """
    if task_id is not None and _STORED.fullmatch(image_url):
        image_url = str(connection.url(f"/tasks/{task_id}/resolve/?fileuri={_coded(image_url)}"))
    try:
        return _follow(connection, outside, image_url, max_bytes)
    except LabelStudioRefused as error:
        if error.status not in _MISSING_STATUSES:
            raise
        raise ImageMissing(f"there is no image ({error}); import it again, or delete its task", error.status) from error


def as_stored(image_url: str) -> str:
    """A URL as the task's data holds it: Label Studio resolves those of storages in some answers and not in others."""
    resolved = _RESOLVED.search(image_url)
    if resolved is None:
        return image_url
    try:
        stored = base64.urlsafe_b64decode(resolved[1]).decode()
    except ValueError:
        return image_url
    return stored if _STORED.fullmatch(stored) else image_url


def _coded(stored: str) -> str:
    return base64.urlsafe_b64encode(stored.encode()).decode()


def _follow(connection: Connection, outside: Outside, image_url: str, max_bytes: int) -> bytes:
    target = image_url
    for _ in range(_MAX_REDIRECTS + 1):
        with _opened(connection, outside, target) as response:
            if response.next_request is None:
                return _read_bounded(response, max_bytes)
            status = response.status_code
            # Relative to the name that was asked for: behind it an address answered, and to others it says nothing
            listed = _is_listed(outside, target)
            target = _joined(target, response.headers["Location"]) if listed else str(response.next_request.url)
    raise LabelStudioRefused(f"more than {_MAX_REDIRECTS} redirects for one image", status)


def _joined(image_url: str, location: str) -> str:
    try:
        return str(httpx.URL(image_url).join(location))
    except httpx.InvalidURL:
        raise LabelStudioRefused("an image was redirected to something that is not a URL", 302) from None


@contextmanager
def _opened(connection: Connection, outside: Outside, image_url: str) -> Iterator[httpx.Response]:
    if not _is_listed(outside, image_url):
        with connection.opened(connection.get(image_address(connection, image_url))) as response:
            yield response
        return
    with outside.opened(httpx.URL(image_url)) as response:
        if response.status_code >= 500:
            raise LabelStudioUnreachable(f"the image host {httpx.URL(image_url).host} answered {response.status_code}")
        if response.status_code >= 400:
            name = f"the image host {httpx.URL(image_url).host} answered {response.status_code}"
            raise LabelStudioRefused(f"{name}; see that images there need no sign-in", response.status_code)
        yield response


def _is_listed(outside: Outside, image_url: str) -> bool:
    if not re.match(r"https?://[^/]", image_url, re.IGNORECASE) or re.search(r"[\x00-\x20\x7f\\]", image_url):
        return False
    try:
        return outside.allowed.names(httpx.URL(image_url))
    except httpx.InvalidURL:
        return False


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
    # Some proxies take a backslash for a slash, and drop what follows a semicolon.
    return ".." not in re.split(r"[/\\;]", path) and inside.startswith(_IMAGE_PATHS)


def _forbidden(connection: Connection, reason: str) -> ForbiddenImageUrl:
    return ForbiddenImageUrl(
        f"image not fetched: {reason}. Only images served by {connection.base} are, and those of the hosts in "
        "WARDROUND_IMAGE_HOSTS; upload them there, and start Label Studio with LABEL_STUDIO_HOST set to that URL"
    )


def _read_bounded(response: httpx.Response, max_bytes: int) -> bytes:
    if response.status_code != 200:
        raise LabelStudioRefused(f"the image was answered {response.status_code}", response.status_code)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise LabelStudioRefused("the image was sent compressed though asked for as it is", response.status_code)
    announced = response.headers.get("Content-Length", "")
    image = bytearray()
    started = time.monotonic()
    try:
        if announced.isdecimal() and int(announced) > max_bytes:
            raise _too_large(max_bytes)
        for chunk in response.iter_bytes():
            image += chunk
            if len(image) > max_bytes:
                raise _too_large(max_bytes)
            if time.monotonic() - started > _MAX_SECONDS:
                raise LabelStudioUnreachable(f"the image took more than {_MAX_SECONDS:g} seconds; try again")
    except httpx.RequestError as error:
        raise LabelStudioUnreachable(f"the image broke off ({type(error).__name__}); try again") from error
    return bytes(image)


def _too_large(max_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"the image has more than {max_bytes} bytes; shrink it or raise the limit")

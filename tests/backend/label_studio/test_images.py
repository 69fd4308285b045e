"""Images come from the configured Label Studio, bounded, or not at all."""

import gzip

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.connection import Connection
from backend.label_studio.errors import (
    ForbiddenImageUrl,
    ImageMissing,
    ImageTooLarge,
    LabelStudioError,
    LabelStudioRefused,
    LabelStudioUnreachable,
)
from backend.label_studio.images import image_address

URL = "http://label-studio.test:8080"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
PNG = b"\x89PNG" + bytes(range(256)) * 10


def fetch(image_url, answer, max_bytes=10_000, url=URL):
    with LabelStudioClient(url, TOKEN, transport=httpx.MockTransport(answer)) as client:
        return client.fetch_image(image_url, max_bytes)


@pytest.mark.parametrize(
    ("image_url", "asked"),
    [
        ("/data/upload/1/a.png", f"{URL}/data/upload/1/a.png"),
        (f"{URL}/data/local-files/?d=imgs/a.png", f"{URL}/data/local-files/?d=imgs/a.png"),
        ("HTTP://Label-Studio.TEST:8080/data/upload/1/a.png", f"{URL}/data/upload/1/a.png"),
        ("/data/upload/1/a%20b.png#top", f"{URL}/data/upload/1/a%20b.png"),
        ("/data/upload/1/é.png", f"{URL}/data/upload/1/%C3%A9.png"),
        ("/tasks/4/resolve/?fileuri=czM6Ly8=", f"{URL}/tasks/4/resolve/?fileuri=czM6Ly8="),
    ],
)
def test_an_image_of_this_label_studio_is_fetched_with_the_token(image_url, asked):
    seen = []

    def server(request):
        seen.append(request)
        return httpx.Response(200, content=PNG)

    assert fetch(image_url, server) == PNG
    assert [str(request.url) for request in seen] == [asked]
    assert seen[0].headers["Authorization"] == f"Token {TOKEN}"


@pytest.mark.parametrize(
    ("base", "image_url"),
    [
        ("http://host.test", "http://host.test:80/data/a.png"),
        ("https://host.test:443", "https://host.test/data/a.png"),
        ("https://host.test/tools/ls", "/tools/ls/data/a.png"),
        ("https://host.test/tools/ls", "/data/a.png"),
        ("http://[::1]:8080", "http://[::1]:8080/data/a.png"),
    ],
)
def test_the_same_origin_written_differently_is_the_same(base, image_url):
    assert fetch(image_url, lambda request: httpx.Response(200, content=PNG), url=base) == PNG


HOSTILE = [
    "",
    " /data/a.png",
    "data/a.png",
    "//evil.test/data/a.png",
    "///evil.test/data/a.png",
    "/\\evil.test/data/a.png",
    "\\\\evil.test\\data\\a.png",
    "/data/a.png\r\nX-Evil: 1",
    "/\t/evil.test/data/a.png",
    "http://evil.test/data/a.png",
    "http://evil.test:8080/data/a.png",
    "http://label-studio.test/data/a.png",
    "http://label-studio.test:8081/data/a.png",
    "http://label-studio.test:99999/data/a.png",
    "https://label-studio.test:8080/data/a.png",
    "http://label-studio.test.evil.test:8080/data/a.png",
    "http://label-studio.test:8080@evil.test/data/a.png",
    "http://evil.test@label-studio.test:8080/data/a.png",
    "http://user:pass@label-studio.test:8080/data/a.png",
    "http://@label-studio.test:8080@evil.test/data/a.png",
    "http:/\\evil.test/data/a.png",
    "http:/data/a.png",
    "http:data/a.png",
    "http:///data/a.png",
    "http://evil.test#@label-studio.test:8080/data/a.png",
    "http://evil.test?@label-studio.test:8080/data/a.png",
    "http://label-studio.test:8080\\@evil.test/data/a.png",
    "file:///etc/passwd",
    "ftp://label-studio.test:8080/data/a.png",
    "gopher://label-studio.test:8080/data/a.png",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "s3://bucket/a.png",
    "http://[::1/data/a.png",
    "http://169.254.169.254/latest/meta-data/",
    "/api/projects/1/",
    "/user/account",
    "/data/../api/projects/1/",
    "/data/%2e%2e/api/projects/1/",
    "/data/..%2fapi/projects/1/",
    "/database",
]


def never(request):
    raise AssertionError(f"asked {request.url}")


@pytest.mark.parametrize("image_url", HOSTILE)
def test_anything_else_is_refused_before_a_request_is_made(image_url):
    with pytest.raises(ForbiddenImageUrl):
        fetch(image_url, never)


SEPARATORS = st.text("/\\@:?#%[].\t ", max_size=4)
PARTS = st.tuples(
    st.sampled_from(["http:", "https:", "", "/", "\\"]),
    st.one_of(st.just("//"), SEPARATORS),
    st.sampled_from(["label-studio.test:8080", "label-studio.test", "evil.test", "127.0.0.1"]),
    st.one_of(st.just(""), SEPARATORS),
    st.sampled_from(["evil.test", "label-studio.test:8080", ""]),
    st.sampled_from(["/data/a.png", "/api/x", "data/"]),
)


@settings(max_examples=500)
@given(PARTS)
def test_no_mixture_leaves_the_origin_or_the_image_paths(parts):
    connection = Connection(URL, TOKEN, 1, transport=httpx.MockTransport(never))
    try:
        url = image_address(connection, "".join(parts))
    except ForbiddenImageUrl:
        return
    assert (url.scheme, url.netloc) == ("http", b"label-studio.test:8080")
    assert url.path.startswith(("/data/", "/storage-data/", "/tasks/", "/static/"))


def redirecting(*locations):
    """A server that redirects from one location to the next, then gives the image; it remembers whom it saw."""
    seen = []

    def server(request):
        seen.append(str(request.url))
        if len(seen) <= len(locations):
            return httpx.Response(302, headers={"Location": locations[len(seen) - 1]})
        return httpx.Response(200, content=PNG)

    return server, seen


def test_a_redirect_within_the_origin_is_followed():
    server, seen = redirecting("/data/upload/b.png", f"{URL}/data/c.png")
    assert fetch("/data/a.png", server) == PNG
    assert seen == [f"{URL}/data/{name}" for name in ("a.png", "upload/b.png", "c.png")]


@pytest.mark.parametrize("location", HOSTILE)
def test_a_redirect_never_carries_the_token_elsewhere(location):
    location = location.encode("ascii", "ignore").decode().replace("\r\n", "")
    server, seen = redirecting(location)
    try:
        fetch("/data/a.png", server)
    except LabelStudioError:
        assert len(seen) == 1
    assert all(url.startswith(f"{URL}/data/") for url in seen)


@pytest.mark.parametrize("location", ["http://evil.test/a.png", "//evil.test/data/a.png", "/api/projects/1/"])
def test_a_redirect_elsewhere_is_refused(location):
    with pytest.raises(ForbiddenImageUrl):
        fetch("/data/a.png", redirecting(location)[0])


def test_redirects_end():
    server, seen = redirecting(*["/data/a.png"] * 50)
    with pytest.raises(LabelStudioRefused, match="redirects"):
        fetch("/data/a.png", server)
    assert len(seen) == 4


class Endless(httpx.SyncByteStream):
    """A body far longer than any limit here; counts what was taken."""

    def __init__(self):
        self.taken = 0

    def __iter__(self):
        for _ in range(1000):
            self.taken += 1000
            yield bytes(1000)


def test_an_endless_image_is_cut_at_the_limit():
    body = Endless()
    with pytest.raises(ImageTooLarge, match="10000 bytes"):
        fetch("/data/a.png", lambda request: httpx.Response(200, stream=body))
    assert body.taken <= 12_000


def test_an_image_announced_too_large_is_not_read():
    body = Endless()
    headers = {"Content-Length": "10001"}
    with pytest.raises(ImageTooLarge):
        fetch("/data/a.png", lambda request: httpx.Response(200, headers=headers, stream=body))
    assert body.taken == 0


def test_the_limit_itself_is_allowed():
    assert fetch("/data/a.png", lambda request: httpx.Response(200, content=PNG), max_bytes=len(PNG)) == PNG
    with pytest.raises(ImageTooLarge):
        fetch("/data/a.png", lambda request: httpx.Response(200, content=PNG), max_bytes=len(PNG) - 1)


def test_a_compressed_image_could_swell_and_is_refused():
    def server(request):
        assert request.headers["Accept-Encoding"] == "identity"
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=gzip.compress(bytes(10**6)))

    with pytest.raises(LabelStudioRefused, match="compressed"):
        fetch("/data/a.png", server)


@pytest.mark.parametrize("status", [404, 410, 500])
def test_an_image_that_is_gone_will_not_come_back(status):
    seen = []

    def server(request):
        seen.append(request)
        return httpx.Response(status)

    with pytest.raises(ImageMissing, match="import it again") as caught:
        fetch("/data/a.png", server)
    assert not caught.value.retryable
    assert len(seen) == 1


def test_an_image_that_is_forbidden_is_not_called_missing():
    with pytest.raises(LabelStudioRefused) as caught:
        fetch("/data/a.png", lambda request: httpx.Response(403))
    assert not isinstance(caught.value, ImageMissing)


def test_an_image_that_breaks_off_can_be_tried_again():
    class Broken(httpx.SyncByteStream):
        def __iter__(self):
            yield b"abc"
            raise httpx.ReadError("gone")

    with pytest.raises(LabelStudioUnreachable) as caught:
        fetch("/data/a.png", lambda request: httpx.Response(200, stream=Broken()))
    assert caught.value.retryable

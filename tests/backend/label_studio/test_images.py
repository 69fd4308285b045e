"""Images come from the configured Label Studio, bounded, or not at all."""

import base64
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
from backend.label_studio.image_hosts import Outside, parse
from backend.label_studio.images import as_stored, image_address

URL = "http://label-studio.test:8080"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
PNG = b"\x89PNG" + bytes(range(256)) * 10


def fetch(image_url, answer, max_bytes=10_000, url=URL, task_id=None):
    with LabelStudioClient(url, TOKEN, transport=httpx.MockTransport(answer)) as client:
        return client.fetch_image(image_url, max_bytes, task_id)


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
    "http://[::ffff:169.254.169.254]/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/latest/meta-data/",
    "http://0251.0376.0251.0376/latest/meta-data/",
    "http://127.1:8080/data/a.png",
    "http://label-studio.test%2eevil.test:8080/data/a.png",
    "http://label-studio.test%3a8080%40evil.test/data/a.png",
    "/api/projects/1/",
    "/user/account",
    "/data/../api/projects/1/",
    "/data/%2e%2e/api/projects/1/",
    "/data/..%2fapi/projects/1/",
    "/data/..%5capi/projects/1/",
    "/data/..;/api/projects/1/",
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


# ------------------------------------------------------------------------------------------------------ cloud storages


@pytest.mark.parametrize("base", [URL, "https://host.test/tools/ls"])
def test_a_file_in_a_storage_is_asked_of_label_studio_through_its_task(base):
    seen = []

    def server(request):
        seen.append(request)
        return httpx.Response(200, content=PNG)

    assert fetch("s3://scans/a b/é.png", server, url=base, task_id=12) == PNG
    coded = base64.urlsafe_b64encode("s3://scans/a b/é.png".encode()).decode()
    assert str(seen[0].url) == f"{base}/tasks/12/resolve/?fileuri={coded}"
    assert seen[0].headers["Authorization"] == f"Token {TOKEN}"


@pytest.mark.parametrize("stored", ["s3://scans/a b/é.png", "gs://x/y.png", "azure-blob://c/y.png"])
@pytest.mark.parametrize("host", ["", URL, "https://labels.example.org/tools/ls"])
def test_a_url_that_label_studio_resolved_is_read_as_it_is_stored(stored, host):
    coded = base64.urlsafe_b64encode(stored.encode()).decode()
    assert as_stored(f"{host}/tasks/12/resolve/?fileuri={coded}") == stored
    assert as_stored(stored) == stored


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/data/upload/1/a.png",
        "/tasks/12/resolve/?fileuri=%%%",
        "/tasks/12/resolve/?fileuri=_w==",
        "/tasks/12/resolve/?fileuri=" + base64.urlsafe_b64encode(b"file:///etc/passwd").decode(),
        "/tasks/12/resolve/?fileuri=" + base64.urlsafe_b64encode(b"http://evil.test/a.png").decode(),
    ],
)
def test_any_other_url_stays_what_it_is(url):
    assert as_stored(url) == url


@pytest.mark.parametrize("url", [url for url in HOSTILE if not url.startswith("s3://")])
def test_a_task_opens_no_other_door(url):
    with pytest.raises(ForbiddenImageUrl):
        fetch(url, never, task_id=12)


# ------------------------------------------------------------------------------------------------------- listed hosts

PUBLIC = "93.184.215.14"


class World:
    """Label Studio, hosts outside it, and a DNS that answers as it is told; remembers who was asked for what."""

    def __init__(self, hosts="images.example.org", networks="", addresses=(PUBLIC,), answer=None):
        self.asked_label_studio, self.asked_outside, self.looked_up = [], [], []
        self.addresses = addresses
        self.answer = answer or (lambda request: httpx.Response(200, content=PNG))
        self.outside = Outside(parse(hosts, networks), httpx.MockTransport(self._outside), self._look_up)

    def fetch(self, url, label_studio=None, max_bytes=10_000):
        self.label_studio = label_studio or (lambda request: httpx.Response(200, content=PNG))
        transport = httpx.MockTransport(self._label_studio)
        with LabelStudioClient(URL, TOKEN, transport=transport, outside=self.outside) as client:
            return client.fetch_image(url, max_bytes, 12)

    def _label_studio(self, request):
        self.asked_label_studio.append(request)
        return self.label_studio(request)

    def _outside(self, request):
        self.asked_outside.append(request)
        return self.answer(request)

    def _look_up(self, host, port):
        self.looked_up.append((host, port))
        return self.addresses


def test_a_listed_host_is_asked_at_the_address_that_was_judged_and_without_the_token():
    world = World()
    assert world.fetch("https://images.example.org/scans/a.png?size=full#top") == PNG
    [request] = world.asked_outside
    assert str(request.url) == f"https://{PUBLIC}/scans/a.png?size=full"
    assert request.headers["Host"] == "images.example.org"
    assert request.extensions["sni_hostname"] == "images.example.org"
    assert not {"authorization", "cookie"} & set(request.headers)
    assert world.looked_up == [("images.example.org", 443)]
    assert world.asked_label_studio == []


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.test/a.png",
        "http://images.example.org:8080/a.png",
        "http://images.example.org.evil.test/a.png",
        "http://sub.images.example.org/a.png",
        "http://images.example.org./a.png",
        "http://user:pass@images.example.org/a.png",
        "http://images.example.org@evil.test/a.png",
        "http://images.example.org\\@evil.test/a.png",
        "http://evil.test\\@images.example.org/a.png",
        "http://images.example.org /a.png",
        "//images.example.org/a.png",
        "ftp://images.example.org/a.png",
        "http:images.example.org/a.png",
        f"http://{PUBLIC}/a.png",
    ],
)
def test_what_is_not_listed_word_for_word_is_never_asked(url):
    world = World()
    with pytest.raises(ForbiddenImageUrl):
        world.fetch(url, never)
    assert world.asked_outside == []


def test_without_the_setting_no_host_is_listed():
    world = World(hosts="")
    with pytest.raises(ForbiddenImageUrl, match="WARDROUND_IMAGE_HOSTS"):
        world.fetch("https://images.example.org/a.png", never)


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        ("images.example.org:8042", "http://images.example.org:8042/a.png"),
        ("other.test, images.example.org", "HTTP://Images.Example.ORG/a.png"),
        ("images.example.org:443", "https://images.example.org/a.png"),
        ("images.example.org:80", "http://images.example.org:80/a.png"),
        ("bücher.example", "https://bücher.example/a.png"),
    ],
)
def test_ports_and_spellings_of_a_listed_host(hosts, url):
    assert World(hosts=hosts).fetch(url) == PNG


INSIDE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.17.0.2",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "0.0.0.0",  # noqa: S104 - nobody listens here
    "255.255.255.255",
    "224.0.0.1",
    "::1",
    "::",
    "fe80::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "64:ff9b::7f00:1",
]


@pytest.mark.parametrize("address", INSIDE)
def test_a_listed_name_that_leads_into_our_own_network_is_refused_at_the_time_of_asking(address):
    world = World()
    assert world.fetch("http://images.example.org/a.png") == PNG
    world.addresses = (address,)  # the name leads elsewhere now
    with pytest.raises(ForbiddenImageUrl, match="WARDROUND_IMAGE_NETWORKS"):
        world.fetch("http://images.example.org/a.png", never)
    assert len(world.asked_outside) == 1


def test_of_several_addresses_only_allowed_ones_are_asked_and_the_next_one_if_one_is_down():
    world = World(addresses=("10.1.2.3", PUBLIC, "93.184.215.15"))

    def answer(request):
        if request.url.host == PUBLIC:
            raise httpx.ConnectError("down")
        return httpx.Response(200, content=PNG)

    world.answer = answer
    assert world.fetch("http://images.example.org/a.png") == PNG
    assert [request.url.host for request in world.asked_outside] == [PUBLIC, "93.184.215.15"]


@pytest.mark.parametrize(
    ("hosts", "networks", "url", "address"),
    [
        ("pacs.internal:8042", "10.0.0.0/8", "http://pacs.internal:8042/a.png", "10.1.2.3"),
        ("pacs.internal", "192.168.0.0/16, fd00::/8", "https://pacs.internal/a.png", "fd12::1"),
        ("10.1.2.3:8042", "", "http://10.1.2.3:8042/a.png", "10.1.2.3"),
        ("[::1]:8042", "", "http://[::1]:8042/a.png", "::1"),
    ],
)
def test_a_host_in_our_own_network_is_asked_where_it_is_meant(hosts, networks, url, address):
    assert World(hosts=hosts, networks=networks, addresses=(address,)).fetch(url) == PNG


@pytest.mark.parametrize("address", ["10.255.0.1", "169.254.169.254", "127.0.0.1"])
def test_a_listed_network_opens_no_other(address):
    world = World(hosts="pacs.internal", networks="10.0.0.0/16", addresses=(address,))
    with pytest.raises(ForbiddenImageUrl):
        world.fetch("http://pacs.internal/a.png")


def test_redirects_from_label_studio_to_a_listed_host_and_on_are_followed_without_the_token():
    world = World(hosts="bucket.s3.example.org, images.example.org")
    world.answer = lambda request: (
        httpx.Response(302, headers={"Location": "//images.example.org/b.png"})
        if request.headers["Host"] == "bucket.s3.example.org"
        else httpx.Response(302, headers={"Location": "/c.png"})
        if request.url.path == "/b.png"
        else httpx.Response(200, content=PNG)
    )
    presigned = "https://bucket.s3.example.org/a.png?X-Amz-Signature=1"
    assert world.fetch("s3://bucket/a.png", lambda r: httpx.Response(303, headers={"Location": presigned})) == PNG
    hosts = [(request.headers["Host"], request.url.path) for request in world.asked_outside]
    assert hosts == [
        ("bucket.s3.example.org", "/a.png"),
        ("images.example.org", "/b.png"),
        ("images.example.org", "/c.png"),
    ]
    assert all("authorization" not in request.headers for request in world.asked_outside)


@pytest.mark.parametrize(
    "location", ["http://evil.test/a.png", "//169.254.169.254/latest/", f"{URL}/api/projects/1/", "http://[::1/a"]
)
def test_a_listed_host_may_not_redirect_where_nobody_may_ask(location):
    world = World(answer=lambda request: httpx.Response(302, headers={"Location": location}))
    with pytest.raises(LabelStudioError):
        world.fetch("http://images.example.org/a.png", never)
    assert len(world.asked_outside) == 1


def test_redirects_between_listed_hosts_end():
    world = World(answer=lambda request: httpx.Response(302, headers={"Location": "/again.png"}))
    with pytest.raises(LabelStudioRefused, match="redirects"):
        world.fetch("http://images.example.org/a.png", never)
    assert len(world.asked_outside) == 4


def test_cookies_of_one_image_do_not_go_along_to_the_next():
    cookie = {"Set-Cookie": "who=me; Path=/"}
    world = World(answer=lambda request: httpx.Response(200, headers=cookie, content=PNG))
    transport = httpx.MockTransport(never)
    with LabelStudioClient(URL, TOKEN, transport=transport, outside=world.outside) as client:
        for _ in range(2):
            client.fetch_image("http://images.example.org/a.png", 10_000)
    assert all("cookie" not in request.headers for request in world.asked_outside)


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [(404, ImageMissing, False), (403, LabelStudioRefused, False), (500, LabelStudioUnreachable, True)],
)
def test_what_a_listed_host_answers_is_told_apart(status, kind, retryable):
    world = World(answer=lambda request: httpx.Response(status))
    with pytest.raises(kind, match=r"images\.example\.org") as caught:
        world.fetch("http://images.example.org/a.png")
    assert caught.value.retryable is retryable


def test_a_listed_host_that_is_away_or_unknown_can_be_tried_again():
    def down(request):
        raise httpx.ConnectError("down")

    for world in (World(answer=down), World(addresses=())):
        with pytest.raises(LabelStudioUnreachable, match=r"images\.example\.org") as caught:
            world.fetch("http://images.example.org/a.png")
        assert caught.value.retryable


def test_an_image_from_a_listed_host_is_bounded_as_well():
    body = Endless()
    world = World(answer=lambda request: httpx.Response(200, stream=body))
    with pytest.raises(ImageTooLarge):
        world.fetch("http://images.example.org/a.png")
    assert body.taken <= 12_000


@pytest.mark.parametrize("hosts", ["http://a.test", "a.test/x", "*.a.test", "a@b", "a.test:x", "a.test?x"])
def test_a_setting_that_names_no_host_is_told_so(hosts):
    with pytest.raises(ValueError, match="host"):
        parse(hosts, "")


def test_a_setting_that_names_no_network_is_told_so():
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        parse("", "10.0.0.1/8")

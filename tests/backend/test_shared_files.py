"""One store, several machines: a file is on both sides, whole, or not there yet; a store that is away loses nothing."""

from __future__ import annotations

import errno
import hashlib
import importlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from backend.errors import BadSettings, DamagedFile, DiskFull, MissingFile, StoreUnreachable
from backend.files import Files, ImageGone, Kind
from backend.files.bucket import answering
from tests.backend.fakes import SIDE, png

KINDS: tuple[Kind, ...] = ("images", "masks", "checkpoints")
_numbers = itertools.count()


class Killed(BaseException):
    """A process that ends without a word."""


class Share:
    """A folder that machines mount."""

    def __init__(self, tmp_path: Path, scheme: str = "file") -> None:
        self.tmp_path = tmp_path
        self.root = tmp_path / "share"
        self.root.mkdir()
        self.url = f"{scheme}://{self.root}"

    def machine(self, name: str) -> Files:
        return Files(self.tmp_path / name, max_image_pixels=SIDE * SIDE, url=self.url)

    def everything(self) -> dict[str, bytes]:
        """What the store holds: key -> bytes."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in found}

    def write(self, key: str, content: bytes) -> None:
        (self.root / key).write_bytes(content)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Not mounted; what stands in its place is no folder."""
        there = self.root.rename(self.root.with_name("away"))
        if not self.url.startswith("file"):
            self.root.write_bytes(b"")
        yield
        self.root.unlink(missing_ok=True)
        there.rename(self.root)


class Bucket(Share):
    """A bucket of an S3, with our files under a prefix."""

    def __init__(self, tmp_path: Path, server: list[ThreadedMotoServer]) -> None:
        self.tmp_path = tmp_path
        self.server = server
        self.name = f"bucket-{next(_numbers)}"
        self.url = f"s3://{self.name}/some/prefix/"
        self.client: Any = importlib.import_module("boto3").client("s3")  # it has no types
        self.client.create_bucket(Bucket=self.name)

    def everything(self) -> dict[str, bytes]:
        listed = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        objects = {one["Key"]: self.client.get_object(Bucket=self.name, Key=one["Key"]) for one in listed}
        return {key.removeprefix("some/prefix/"): found["Body"].read() for key, found in objects.items()}

    def write(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"some/prefix/{key}", Body=content)

    @contextmanager
    def away(self) -> Iterator[None]:
        _, port = self.server[0].get_host_and_port()
        self.server[0].stop()
        yield
        self.server[0] = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self.server[0].start()


@pytest.fixture(scope="module")
def s3() -> Iterator[list[ThreadedMotoServer]]:
    """One running S3; its objects outlive a stop."""
    server = [ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)]
    server[0].start()
    yield server
    server[0].stop()


@pytest.fixture(params=["file", "local", "s3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Share:
    """A mounted folder, the same through fsspec (as any other kind of store), and an S3."""
    if request.param != "s3":
        return Share(tmp_path, request.param)
    server = request.getfixturevalue("s3")
    _, port = server[0].get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "the-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return Bucket(tmp_path, server)


def key_of(kind: Kind, sha256: str) -> str:
    return f"{kind}/{sha256[:2]}/{sha256}"


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_machine_writes_every_machine_reads(shared: Share, kind: Kind) -> None:
    here, there = shared.machine("here"), shared.machine("there")
    sha256 = here.put(kind, b"bytes")
    assert sha256 == hashlib.sha256(b"bytes").hexdigest()
    assert shared.everything() == {key_of(kind, sha256): b"bytes"}
    assert there.has(kind, sha256)
    assert there.path(kind, sha256).read_bytes() == b"bytes"
    assert there.path(kind, sha256).is_relative_to(there.folder)
    assert there.put(kind, b"bytes") == sha256
    assert shared.everything() == {key_of(kind, sha256): b"bytes"}
    assert not there.has(kind, "0" * 64)
    with pytest.raises(MissingFile, match=r"0{64}.*WARDROUND_FILES_URL") as caught:
        there.path(kind, "0" * 64)
    assert caught.value.retryable is (kind == "images"), "only an image can be had again"


def test_images_masks_and_checkpoints_are_fetched_by_whatever_asks_for_them(shared: Share, tmp_path: Path) -> None:
    here, there = shared.machine("here"), shared.machine("there")
    image, mask = here.put_image(png(1)), here.put_mask(np.ones((3, 4), dtype=bool))
    (tmp_path / "candidate").write_bytes(b"weights")
    checkpoint = here.put_checkpoint(tmp_path / "candidate")
    assert there.image_size(image) == (SIDE, SIDE)
    assert there.mask_size(mask) == (3, 4)
    assert there.checkpoint(checkpoint).read_bytes() == b"weights"
    assert np.array_equal(shared.machine("third").image(image), here.image(image))
    assert shared.machine("fourth").put_image(png(1)) == image


def test_what_is_here_is_read_without_the_store(shared: Share) -> None:
    here = shared.machine("here")
    image, checkpoint = here.put_image(png(1)), here.put("checkpoints", b"weights")
    with shared.away():
        assert here.has("images", image)
        assert here.image(image).shape == (SIDE, SIDE, 3)
        assert here.checkpoint(checkpoint).read_bytes() == b"weights"


def test_a_store_that_is_away_says_so_and_nothing_is_lost(shared: Share) -> None:
    here, there = shared.machine("here"), shared.machine("there")
    before = here.put("masks", b"before")
    calls: list[Callable[[], object]] = [
        lambda: here.put("masks", b"meanwhile"),
        lambda: here.put_image(png(2)),
        lambda: there.has("masks", before),
        lambda: there.path("masks", before),
        lambda: there.check("masks", before),
        lambda: there.remove_shared_checkpoint(before),
    ]
    if not shared.url.startswith("local"):  # fsspec lists a folder that it cannot read as an empty one
        calls.append(there.shared_checkpoints)
    with shared.away():
        for call in calls:
            with pytest.raises(StoreUnreachable, match="WARDROUND_FILES_URL") as caught:
                call()
            assert caught.value.retryable
            assert "the-secret" not in str(caught.value)
    assert there.path("masks", before).read_bytes() == b"before"
    meanwhile = here.put("masks", b"meanwhile")
    assert there.path("masks", meanwhile).read_bytes() == b"meanwhile", "here it was already, there not yet"
    assert there.image_size(here.put_image(png(2))) == (SIDE, SIDE)


@pytest.mark.parametrize("shared", ["s3"], indirect=True)
def test_the_store_without_its_bucket_is_away_and_not_empty(shared: Bucket) -> None:
    shared.client.delete_bucket(Bucket=shared.name)
    here = shared.machine("here")
    with pytest.raises(StoreUnreachable, match=shared.name):
        here.path("masks", "0" * 64)
    with pytest.raises(StoreUnreachable, match="bucket does not exist"):
        here.put("masks", b"bytes")


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_changed_in_the_store_never_arrive(shared: Share, kind: Kind) -> None:
    here, there = shared.machine("here"), shared.machine("there")
    sha256 = here.put(kind, png(1))
    shared.write(key_of(kind, sha256), png(1)[:-1])
    with pytest.raises(ImageGone if kind == "images" else DamagedFile, match=sha256):
        there.path(kind, sha256)
    assert not list(there.folder.rglob(f"*{sha256}*"))
    if kind == "images":
        assert there.put_image(png(1)) == sha256, "an image is fetched from Label Studio again"
        assert shared.everything() == {key_of(kind, sha256): png(1)}
    assert here.path(kind, sha256).read_bytes() == png(1)


def test_tampering_with_a_checkpoint_is_noticed_here_and_in_the_store(shared: Share) -> None:
    here = shared.machine("here")
    sha256 = here.put("checkpoints", b"weights")
    place = here.path("checkpoints", sha256)
    place.write_bytes(b"wEights")
    assert here.checkpoint(sha256).read_bytes() == b"weights", "the store has sound ones"
    shared.write(key_of("checkpoints", sha256), b"weighTs")
    assert here.checkpoint(sha256).read_bytes() == b"weights", "this machine has sound ones"
    place.write_bytes(b"wEights")
    with pytest.raises(DamagedFile, match=sha256):
        here.checkpoint(sha256)
    assert shared.everything() == {key_of("checkpoints", sha256): b"weighTs"}, "damage stays for who looks into it"


@pytest.mark.parametrize("content", [b"", b"no image", png(1)[:60]])
def test_a_damaged_image_here_is_replaced_by_the_stores(shared: Share, content: bytes) -> None:
    here = shared.machine("here")
    sha256 = here.put_image(png(1))
    here.path("images", sha256).write_bytes(content)
    assert here.image(sha256).shape == (SIDE, SIDE, 3)
    assert here.path("images", sha256).read_bytes() == png(1)


@pytest.mark.parametrize("shared", ["file", "local"], indirect=True)
def test_nobody_sees_half_a_file_in_the_store(shared: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the moment it has all its bytes, the store has no file of that name; a killed writer leaves none.

    A put of S3 is whole or nothing by itself.
    """
    here, there = shared.machine("here"), shared.machine("there")
    content = os.urandom(100_000)
    sha256 = hashlib.sha256(content).hexdigest()
    seen: list[bool] = []
    local = "os" if shared.url.startswith("file") else "shutil"
    moved = "replace" if local == "os" else "move"
    real = getattr(sys.modules[local], moved)

    def look(source: object, target: object) -> None:
        seen.append(there.has("checkpoints", sha256))
        if len(seen) == 2:
            raise Killed
        real(source, target)

    def put_twice() -> None:
        here.put("checkpoints", b"something else")
        here.put("checkpoints", content)

    with monkeypatch.context() as patched:
        patched.setattr(f"{local}.{moved}", look)
        with pytest.raises(Killed):
            put_twice()
    assert not any(seen)
    assert not there.has("checkpoints", sha256)
    here.put("checkpoints", content)
    assert there.checkpoint(sha256).read_bytes() == content


@pytest.mark.parametrize("shared", ["file"], indirect=True)
def test_a_store_without_room_is_no_store_that_is_away(shared: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    here = shared.machine("here")
    fsync, calls = os.fsync, []

    def fail(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").resolve().is_relative_to(shared.root):
            calls.append(handle)
            raise OSError(errno.ENOSPC, "no space")
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(DiskFull, match="share"):
            here.put("masks", b"bytes")
    assert calls
    assert shared.everything() == {}
    assert shared.machine("there").path("masks", here.put("masks", b"bytes")).read_bytes() == b"bytes"


def test_this_machine_without_room_leaves_nothing_of_what_it_fetched(
    shared: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = shared.machine("here").put("masks", b"bytes")
    there = shared.machine("there")

    def fail(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(DiskFull):
            there.path("masks", sha256)
    assert [path for path in there.folder.rglob("*") if path.is_file()] == []
    assert there.path("masks", sha256).read_bytes() == b"bytes"


def test_many_threads_of_two_machines_share_one_object(shared: Share) -> None:
    machines = [shared.machine("here"), shared.machine("there")]
    threads = [
        threading.Thread(target=lambda files=files: files.path("masks", files.put("masks", b"bytes")))
        for files in machines * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sha256 = hashlib.sha256(b"bytes").hexdigest()
    assert shared.everything() == {key_of("masks", sha256): b"bytes"}
    assert all(files.path("masks", sha256).read_bytes() == b"bytes" for files in machines)


def test_checkpoints_are_listed_and_removed_on_each_side_by_itself(shared: Share) -> None:
    here, there = shared.machine("here"), shared.machine("there")
    assert here.shared_checkpoints() == here.checkpoints() == set()
    names = {here.put("checkpoints", f"weights {number}".encode()) for number in range(3)}
    here.put("masks", b"no checkpoint")
    assert there.shared_checkpoints() == here.checkpoints() == names
    assert there.checkpoints() == set()
    first = min(names)
    for _ in range(2):
        there.remove_shared_checkpoint(first)
        assert here.shared_checkpoints() == names - {first}
        assert here.checkpoints() == names
    for _ in range(2):
        here.remove_checkpoint(first)
        assert here.checkpoints() == names - {first}


@pytest.mark.parametrize("url", ["/shared", "file://shared", "file:", "s3://", "s3:bucket", "nothing://bucket"])
def test_an_unusable_url_is_refused_at_once(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadSettings, match="WARDROUND_FILES_URL"):
        Files(tmp_path, max_image_pixels=1, url=url)


def test_without_s3fs_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "s3fs"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setattr(importlib.import_module("fsspec.registry"), "_registry", {})
    monkeypatch.setattr(importlib.import_module("fsspec.registry"), "registry", {})
    with pytest.raises(BadSettings, match=r"pip install 'wardround\[s3\]'"):
        Files(tmp_path, max_image_pixels=1, url="s3://bucket/prefix")
    assert Files(tmp_path, max_image_pixels=1).put("masks", b"bytes"), "nobody else needs it"


def test_no_error_of_a_store_tells_a_secret() -> None:
    with pytest.raises(StoreUnreachable, match="PermissionError: no entry") as caught, answering():
        raise PermissionError("no entry to sftp://somebody:pass@word@host/folder or https://host/x?signature=hush")
    assert not any(secret in str(caught.value) for secret in ("pass", "word", "hush"))

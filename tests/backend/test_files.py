"""Bytes by their sha256: the same bytes are one file, a file is whole or not there, and damage is noticed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from backend.errors import BadImage, DamagedFile, DiskFull, MissingFile
from backend.files import Files, ImageGone, Kind, writing
from model import ModelError
from tests.backend.fakes import SIDE, png

KINDS: tuple[Kind, ...] = ("images", "masks", "checkpoints")
_EXIF_ORIENTATION = 0x0112


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "files", max_image_pixels=SIDE * SIDE)


def everything(files: Files) -> list[Path]:
    return sorted(path for path in files.folder.rglob("*") if path.is_file())


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(KINDS))
def test_what_was_put_is_found_under_the_name_of_its_bytes(files: Files, content: bytes, kind: Kind) -> None:
    sha256 = files.put(kind, content)
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert files.path(kind, sha256).read_bytes() == content
    assert files.put(kind, content) == sha256


def test_the_same_bytes_twice_are_one_file_and_each_kind_has_its_own(files: Files) -> None:
    for _ in range(2):
        for kind in KINDS:
            files.put(kind, b"bytes")
    assert len(everything(files)) == len(KINDS)
    files.put("masks", b"other bytes")
    assert len(everything(files)) == len(KINDS) + 1


def test_what_is_not_there_is_missing_by_name(files: Files) -> None:
    sha256 = files.put("masks", b"bytes")
    assert not files.has("images", sha256)
    with pytest.raises(MissingFile, match=sha256):
        files.path("images", sha256)


class Killed(BaseException):
    """A process that ends without a word."""


class Full(io.BytesIO):
    """A file on a disk without room."""

    def __init__(self, handle: int, _mode: str) -> None:
        os.close(handle)
        super().__init__()

    def write(self, _content: object) -> int:
        raise OSError(errno.EDQUOT, "quota exceeded")


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize(
    ("error", "heard"),
    [
        (OSError(errno.ENOSPC, "no space"), DiskFull),
        (OSError(errno.EDQUOT, "quota"), DiskFull),
        (OSError(errno.EROFS, "read-only"), OSError),
        (Killed(), Killed),
    ],
)
def test_an_interrupted_write_leaves_the_whole_file_or_nothing_and_can_be_repeated(
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    count: int,
    error: BaseException,
    heard: type[BaseException],
) -> None:
    calls: list[int] = []
    real = getattr(os, moment)

    def fail(*given: object) -> None:
        calls.append(len(calls))
        if calls[-1] == count:
            raise error
        real(*given)

    sha256 = hashlib.sha256(b"bytes").hexdigest()
    with monkeypatch.context() as patched:
        patched.setattr(os, moment, fail)
        with contextlib.suppress(heard):
            files.put("checkpoints", b"bytes")
    assert [path.read_bytes() for path in everything(files)] in ([], [b"bytes"])
    assert files.put("checkpoints", b"bytes") == sha256
    assert files.path("checkpoints", sha256).read_bytes() == b"bytes"


@pytest.mark.parametrize("write", ["put", "put_image"])
def test_without_room_it_says_what_to_do_and_leaves_nothing(
    files: Files, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", Full)
        with pytest.raises(DiskFull, match=r"no room left in .*free some space; the round goes on by itself") as caught:
            files.put("images", png(1)) if write == "put" else files.put_image(png(1))
    assert caught.value.retryable
    assert everything(files) == []
    assert files.image(files.put_image(png(1))).shape == (SIDE, SIDE, 3)


def test_no_room_for_a_folder_of_work_is_no_room(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(DiskFull):
        files.work("round-1")
    with pytest.raises(DiskFull), writing(files.folder):
        fail()


def test_less_room_than_asked_for_is_said_with_both_figures(files: Files) -> None:
    free = files.free_bytes()
    assert free > 0
    files.require_room(0)
    with pytest.raises(DiskFull, match=f"{10**18:,}"):
        files.require_room(10**18)


def test_what_a_killed_process_left_half_written_is_removed_a_day_later(files: Files) -> None:
    sha256 = files.put("masks", b"bytes")
    left = [files.path("masks", sha256).with_name(".new-abc"), files.folder / ".image-abc"]
    for path in left:
        path.write_bytes(b"ha")
    files.remove_leftovers(time.time())
    assert all(path.exists() for path in left)
    files.remove_leftovers(time.time() + 2 * 86_400)
    assert everything(files) == [files.path("masks", sha256)]


def test_a_name_appears_with_its_whole_content(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"x" * 100_000
    seen: list[bool] = []
    named: list[bool] = []
    fsync = os.fsync

    def look(handle: int) -> None:
        there = files.has("images", hashlib.sha256(content).hexdigest())
        fsync(handle)
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            named.append(there)
            return
        seen.append(there)
        assert os.fstat(handle).st_size == len(content), "the bytes were on their way to the disk only later"

    monkeypatch.setattr(os, "fsync", look)
    files.put("images", content)
    assert seen == [False]
    assert named[-1], "the name was on its way to the disk only later"


def test_many_threads_putting_the_same_bytes_leave_one_file(files: Files) -> None:
    threads = [threading.Thread(target=files.put, args=("masks", b"bytes")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (only,) = everything(files)
    assert only.read_bytes() == b"bytes"


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"X" + b[1:], lambda b: b"", lambda b: b + b"\0"])
def test_a_damaged_checkpoint_is_noticed(files: Files, tmp_path: Path, damage: object) -> None:
    source = tmp_path / "candidate"
    source.write_bytes(b"weights" * 1000)
    sha256 = files.put_checkpoint(source)
    assert files.checkpoint(sha256).read_bytes() == source.read_bytes()
    files.path("checkpoints", sha256).write_bytes(damage(source.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DamagedFile, match=sha256):
        files.checkpoint(sha256)
    files.path("checkpoints", sha256).unlink()
    with pytest.raises(MissingFile, match="backup"):
        files.checkpoint(sha256)


@pytest.mark.parametrize("damage", [lambda b: b[:-40], lambda b: b"X" + b[1:], lambda b: b""])
@pytest.mark.parametrize("ask", ["image", "image_size"])
def test_a_damaged_image_that_cannot_be_read_makes_way_for_a_sound_one(
    files: Files, damage: Callable[[bytes], bytes], ask: str
) -> None:
    sha256 = files.put_image(png(1))
    files.path("images", sha256).write_bytes(damage(png(1)))
    if ask == "image_size" and len(damage(png(1))) > 100 and damage(png(1)).startswith(b"\x89PNG"):
        assert files.image_size(sha256) == (SIDE, SIDE), "the header is whole, and nothing else is asked for"
        return
    with pytest.raises(ImageGone, match=sha256) as caught:
        getattr(files, ask)(sha256)
    assert caught.value.retryable
    assert not files.has("images", sha256)
    assert files.put_image(png(1)) == sha256
    assert files.image_size(sha256) == (SIDE, SIDE)


def test_a_sound_image_that_may_not_be_read_stays(files: Files) -> None:
    sha256 = files.put_image(png(1))
    files.max_image_pixels = 1
    with pytest.raises(ModelError, match="1"):
        files.image(sha256)
    assert files.has("images", sha256)


def test_a_damaged_mask_stays_and_is_named(files: Files) -> None:
    sha256 = files.put_mask(np.ones((3, 4), dtype=bool))
    files.path("masks", sha256).write_bytes(b"no mask")
    with pytest.raises(DamagedFile, match=sha256):
        files.mask_size(sha256)
    assert files.has("masks", sha256)
    assert files.put_mask(np.ones((3, 4), dtype=bool)) == sha256
    assert files.mask_size(sha256) == (3, 4), "writing the same bytes again heals"


@pytest.mark.parametrize("use", ["path", "has", "image", "image_size", "put_image"])
def test_using_an_image_is_written_down_once_an_hour(files: Files, use: str) -> None:
    sha256 = files.put_image(png(1))
    place = files.path("images", sha256)
    calls: dict[str, Callable[[], object]] = {
        "path": lambda: files.path("images", sha256),
        "has": lambda: files.has("images", sha256),
        "image": lambda: files.image(sha256),
        "image_size": lambda: files.image_size(sha256),
        "put_image": lambda: files.put_image(png(1)),
    }
    for seconds, noted in ((7200, True), (600, False)):
        before = time.time() - seconds
        os.utime(place, (before, before))
        calls[use]()
        (image,) = files.cached_images()
        assert (image.used_at > before + 1) is noted


def test_an_image_used_since_it_was_listed_is_not_evicted(files: Files) -> None:
    sha256 = files.put_image(png(1))
    place = files.path("images", sha256)
    os.utime(place, (0, 0))
    (image,) = files.cached_images()
    assert files.has("images", sha256)
    assert not files.evict_image(image)
    assert place.exists()
    (image,) = files.cached_images()
    assert (image.sha256, image.size) == (sha256, len(png(1)))
    assert files.evict_image(image)
    assert not files.evict_image(image)
    with pytest.raises(ImageGone):
        files.path("images", sha256)


def test_masks_come_back_as_they_were_and_equal_masks_are_one(files: Files) -> None:
    mask = np.random.default_rng(0).random((7, 13)) > 0.5
    sha256 = files.put_mask(mask)
    assert files.put_mask(mask.copy()) == sha256
    assert files.put_mask(~mask) != sha256
    assert files.mask_size(sha256) == (7, 13)
    with Image.open(files.path("masks", sha256)) as image:
        assert np.array_equal(np.asarray(image), mask)


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", png(1)[:60], png(1)[:-30]]
)
def test_what_is_no_whole_image_is_refused_and_leaves_nothing(files: Files, content: bytes) -> None:
    with pytest.raises(BadImage, match="the image"):
        files.put_image(content)
    assert everything(files) == []


def test_an_image_with_more_pixels_than_allowed_is_refused(files: Files) -> None:
    assert files.image_size(files.put_image(png(1))) == (SIDE, SIDE)
    buffer = io.BytesIO()
    Image.new("L", (SIDE + 1, SIDE)).save(buffer, format="PNG")
    with pytest.raises(BadImage, match=str(SIDE + 1)):
        files.put_image(buffer.getvalue())


def test_a_known_image_is_not_decoded_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = files.put_image(png(1))
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded again"))
    assert files.put_image(png(1)) == sha256


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_natural_size_is_the_one_a_browser_shows(files: Files, orientation: int, kind: str) -> None:
    """A camera that was held upright stores a lying image and says so; the annotator paints on the upright one."""
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, format=kind, exif=exif)
    sha256 = files.put_image(buffer.getvalue())
    height, width = (30, 20) if orientation >= 5 else (20, 30)
    assert files.image(sha256).shape == (height, width, 3)
    assert files.image_size(sha256) == (height, width)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [None, 6])
def test_asking_for_the_size_decodes_nothing(
    files: Files, monkeypatch: pytest.MonkeyPatch, kind: str, orientation: int | None
) -> None:
    exif = Image.Exif()
    if orientation:
        exif[_EXIF_ORIENTATION] = orientation
    buffer = io.BytesIO()
    Image.new("L", (30, 20)).save(buffer, format=kind, exif=exif)
    sha256 = files.put_image(buffer.getvalue())
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("pixels were decoded"))
    assert files.image_size(sha256) == ((30, 20) if orientation else (20, 30))


def test_work_in_progress_has_a_folder_of_its_own(files: Files) -> None:
    (files.work("round-1") / "state").write_bytes(b"half")
    assert files.work("round-1") == files.work("round-1")
    assert (files.work("round-1") / "state").read_bytes() == b"half"
    assert not (files.work("round-2") / "state").exists()

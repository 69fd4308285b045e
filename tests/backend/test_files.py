"""Bytes by their sha256: the same bytes are one file, a file is whole or not there, and damage is noticed."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from backend.errors import BadImage, DamagedFile, MissingFile
from backend.files import Files, Kind
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


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space"), Killed()], ids=["disk full", "killed"])
def test_an_interrupted_write_leaves_nothing_and_can_be_repeated(
    files: Files, monkeypatch: pytest.MonkeyPatch, moment: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    sha256 = hashlib.sha256(b"bytes").hexdigest()
    with monkeypatch.context() as patched:
        patched.setattr(os, moment, fail)
        with pytest.raises(type(error)):
            files.put("checkpoints", b"bytes")
    assert not files.has("checkpoints", sha256)
    assert everything(files) == []
    assert files.put("checkpoints", b"bytes") == sha256
    assert files.path("checkpoints", sha256).read_bytes() == b"bytes"


def test_a_name_appears_with_its_whole_content(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"x" * 100_000
    seen: list[bool] = []
    fsync = os.fsync

    def look(handle: int) -> None:
        seen.append(files.has("images", hashlib.sha256(content).hexdigest()))
        fsync(handle)
        assert os.fstat(handle).st_size == len(content), "the bytes were on their way to the disk only later"

    monkeypatch.setattr(os, "fsync", look)
    files.put("images", content)
    assert seen == [False]


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

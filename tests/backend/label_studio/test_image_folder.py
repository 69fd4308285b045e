"""The image of a task is the file that its URL names, never another, and nothing outside the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import ImageNotInFolder
from backend.label_studio.errors import ImageTooLarge
from backend.label_studio.image_folder import ImageFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for name in ("a.png", "0123abcd-b.png", "p1/scan.png", "p2/scan.png", "my scan (2).png", "s%20p.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    (tmp_path / "outside.png").write_bytes(b"outside")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "inner.png").symlink_to(root / "a.png")
    (root / "circle.png").symlink_to(root / "circle.png")
    return root


@pytest.mark.parametrize(
    ("image_url", "name"),
    [
        ("/data/upload/1/a.png", "a.png"),
        ("/data/upload/1/9f2b81c3-a.png", "a.png"),
        ("http://labels.example.org:8080/data/upload/12/9f2b81c3-a.png?x=1#top", "a.png"),
        ("/data/upload/1/0123abcd-b.png", "0123abcd-b.png"),
        ("/data/local-files/?d=scans/p1/scan.png", "p1/scan.png"),
        ("s3://bucket/scans/p2/scan.png", "p2/scan.png"),
        ("gs://bucket/scans/my scan (2).png", "my scan (2).png"),
        ("/data/upload/1/9f2b81c3-my_scan_2.png", "my scan (2).png"),
        ("/data/upload/1/my%20scan%20%282%29.png", "my scan (2).png"),
        ("s3://bucket/s%20p.png", "s%20p.png"),
        ("/data/upload/1/inner.png", "a.png"),
    ],
)
def test_a_file_is_found_by_what_label_studio_calls_it(folder: Path, image_url: str, name: str) -> None:
    found = ImageFolder(folder)
    assert found.find(image_url) == folder / name
    assert found.fetch_image(image_url, 100, 7) == name.encode()


@pytest.mark.parametrize(
    "image_url",
    [
        "", "/", "//", "/data/upload/1/", "/data/upload/1/c.png", "http://[", "/data/upload/1/scan.png", "/data/p1",
        "/data/../outside.png", "/data/%2e%2e/outside.png", "..", "../outside.png", r"..\outside.png",
        "/data/local-files/?d=../outside.png", "s3://../outside.png", "/data/link.png", "/data/circle.png",
        "/data/a.png%00", f"/data/{'a' * 5000}.png", "/data/0123abcd-",
    ],
)  # fmt: skip
def test_nothing_else_is_found(folder: Path, image_url: str) -> None:
    found = ImageFolder(folder)
    assert found.find(image_url) is None
    with pytest.raises(ImageNotInFolder, match="task 7"):
        found.fetch_image(image_url, 100, 7)


def test_an_absolute_path_outside_is_not_followed(folder: Path) -> None:
    assert ImageFolder(folder).find(str(folder.parent / "outside.png")) is None


def test_one_file_is_not_two_images_and_two_files_are_not_one(folder: Path) -> None:
    found = ImageFolder(folder)
    assert found.find("/data/upload/1/11111111-a.png") == found.find("/data/upload/1/11111111-a.png")
    with pytest.raises(ImageNotInFolder, match=r"11111111-a\.png as well as .*22222222-a\.png"):
        found.find("/data/upload/1/22222222-a.png")
    (folder / "my_scan 2.png").touch()
    with pytest.raises(ImageNotInFolder, match="could each be"):
        ImageFolder(folder).find("/data/upload/1/9f2b81c3-my_scan_2.png")


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    with pytest.raises(ImageTooLarge):
        ImageFolder(folder).fetch_image("/data/upload/1/a.png", 4)


@given(st.text(max_size=60) | st.lists(st.sampled_from(["..", ".", "/", "\\", "%2e", "a.png", "?d=", "s3://"])))
def test_whatever_the_url_what_is_found_lies_inside(
    tmp_path_factory: pytest.TempPathFactory, image_url: str | list[str]
) -> None:
    root = tmp_path_factory.mktemp("any", numbered=True)
    (root / "images").mkdir()
    for path in (root / "a.png", root / "images" / "a.png"):
        path.touch()
    found = ImageFolder(root / "images").find("".join(image_url))
    assert found in (None, root / "images" / "a.png")

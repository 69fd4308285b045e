"""Files are checked before they are decoded, and every refusal names the file."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from model import BadExample, Example, ImageTooLarge, UnreadableImage, read_image, read_mask
from model.data import load_pairs


def png_announcing(width, height):
    """A PNG whose header promises a size its data does not hold: decoding it would fail, or fill the memory."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("side", [30_000, 9_000, 8_001])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_huge_image_is_refused_by_its_header(tmp_path, monkeypatch, side, read):
    path = tmp_path / "huge.png"
    path.write_bytes(png_announcing(side, side))
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge, match=r"huge\.png"):
        read(path)


def test_the_limit_is_the_callers(tmp_path):
    path = tmp_path / "image.png"
    Image.new("RGB", (20, 10)).save(path)
    assert read_image(path, max_pixels=200).shape == (10, 20, 3)
    with pytest.raises(ImageTooLarge, match="20 x 10"):
        read_image(path, max_pixels=199)


def test_a_truncated_jpeg_is_unreadable(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UnreadableImage, match=r"cut\.jpg.*truncated") as caught:
        read_image(path)
    assert caught.value.path == path


@pytest.mark.parametrize("content", [b"", b"not an image", png_announcing(10, 10)])
def test_what_is_no_image_is_unreadable(tmp_path, content):
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"odd\.png"):
        read_image(path)


def test_a_missing_file_and_a_folder_are_unreadable(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(UnreadableImage, match=path.name):
            read_image(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_usual_pixel_format_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    if mode == "I;16":
        Image.fromarray(np.full((5, 7), 200 << 8 | 17, np.uint16)).save(path)
    else:
        Image.new("L", (7, 5), 200).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (5, 7, 3) and image.dtype == np.uint8
    assert (image == (255 if mode == "1" else 200)).all() or mode == "1"


def test_a_float_image_is_refused(tmp_path):
    path = tmp_path / "float.tif"
    Image.new("F", (4, 4)).save(path)
    with pytest.raises(UnreadableImage, match="8 or 16 bits"):
        read_image(path)


def test_an_image_stands_as_a_browser_shows_it(tmp_path):
    path = tmp_path / "turned.jpg"
    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # turn a quarter to the right
    image.save(path, exif=exif)
    assert read_image(path).shape == (40, 20, 3)


@pytest.mark.parametrize("foreground", [255, 1, 128])
def test_a_mask_is_read_from_0_255_and_0_1_files(tmp_path, foreground):
    path = tmp_path / "mask.png"
    truth = np.arange(20).reshape(4, 5) % 3 == 0
    Image.fromarray((truth * foreground).astype(np.uint8)).save(path)
    np.testing.assert_array_equal(read_mask(path), truth)


def test_an_empty_mask_and_a_one_bit_mask(tmp_path):
    path = tmp_path / "mask.png"
    Image.new("L", (5, 4)).save(path)
    assert not read_mask(path).any() and read_mask(path).shape == (4, 5)
    Image.new("1", (5, 4), 1).save(path)
    assert read_mask(path).all()


def test_all_bad_examples_are_named_at_once(tmp_path, examples):
    Image.new("L", (3, 3)).save(tmp_path / "small-mask.png")
    bad = [
        Example(tmp_path / "gone.png", examples[0].mask, "a disc", "g"),
        Example(examples[0].image, tmp_path / "small-mask.png", "a disc", "g"),
    ]
    with pytest.raises(BadExample, match=r"gone\.png.*small-mask\.png") as caught:
        load_pairs([examples[1], *bad], lambda image, mask: None)
    assert caught.value.paths == (bad[0].image, bad[1].mask)
    assert caught.value.path == bad[0].image

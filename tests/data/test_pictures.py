"""Pictures mean the same as in transformers, only allowed formats are opened, and their size is bounded."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image
from transformers.image_utils import load_image

from madtp_cli.data.image_sources import FORMATS, ImageFile
from madtp_cli.data.pixels import decode, without_pillow_warnings
from madtp_cli.errors import DataError, UsageError

NOISE = np.random.RandomState(0).randint(0, 256, (24, 37, 4), np.uint8)


def pictures() -> dict[str, Image.Image]:
    """Return an image of each mode that Pillow can save."""
    rgb, grey = Image.fromarray(NOISE[..., :3]), Image.fromarray(NOISE[..., 0])
    palette = rgb.quantize(16)
    transparent = palette.copy()
    transparent.info["transparency"] = bytes(range(0, 256, 16))
    return {
        "rgb.png": rgb,
        "rgb.jpg": rgb,
        "grey.jpg": grey,
        "cmyk.jpg": rgb.convert("CMYK"),
        "cmyk.tif": rgb.convert("CMYK"),
        "lab.tif": rgb,
        "bits.png": grey.convert("1"),
        "rgba.png": Image.fromarray(NOISE),
        "rgba.webp": Image.fromarray(NOISE),
        "la.png": Image.fromarray(NOISE).convert("LA"),
        "palette.png": palette,
        "palette.gif": palette,
        "palette.bmp": palette,
        "transparent.png": transparent,
        "rgb.ppm": rgb,
        "rgb.jp2": rgb,
    }


@pytest.mark.parametrize("name", pictures())
def test_every_mode_is_read_as_transformers_reads_it(tmp_path, name):
    """A model sees at test time what it saw in training with transformers."""
    pictures()[name].save(tmp_path / name)
    with without_pillow_warnings(), Image.open(tmp_path / name) as image:
        ours, theirs = decode(ImageFile(tmp_path / name)), load_image(image)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_pictures_are_turned_upright(tmp_path, orientation, suffix):
    """A telephone stores how it was held, and not the turned picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE[..., :3]).save(tmp_path / f"1.{suffix}", exif=exif)
    image = decode(ImageFile(tmp_path / f"1.{suffix}"))
    assert image.size == ((37, 24) if orientation < 5 else (24, 37))
    with Image.open(tmp_path / f"1.{suffix}") as stored:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(load_image(stored)))


@pytest.mark.parametrize("name", ["1.png", "1.tif", "1.pgm"])
def test_grey_with_16_bits_is_the_same_picture_as_with_8_bits(tmp_path, name):
    """Pillow alone makes every value above 255 white."""
    grey = NOISE[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / name)
    expected = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(np.asarray(decode(ImageFile(tmp_path / name))), expected)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_without_a_known_range_are_refused(tmp_path, dtype):
    """Which value is white cannot be guessed."""
    Image.fromarray(NOISE[..., 0].astype(dtype)).save(tmp_path / "1.tif")
    with pytest.raises(DataError, match=r"1\.tif cannot be decoded: its .* values have no known range"):
        decode(ImageFile(tmp_path / "1.tif"))


@pytest.mark.parametrize("name", ["1.jpg", "1.eps", "1.png"])
def test_postscript_never_reaches_ghostscript(tmp_path, monkeypatch, name):
    """A PostScript file is a program."""
    Image.fromarray(NOISE[..., :3]).save(tmp_path / "1.eps")
    (tmp_path / "1.eps").rename(tmp_path / name)
    monkeypatch.setattr(
        EpsImagePlugin, "Ghostscript", lambda *arguments, **more: pytest.fail("Ghostscript was started")
    )
    monkeypatch.setattr(subprocess, "check_call", lambda *arguments, **more: pytest.fail("a program was started"))
    with pytest.raises(DataError, match="does not know its format as one of JPEG, PNG"):
        decode(ImageFile(tmp_path / name))


@pytest.mark.parametrize("kind", ["PCX", "TGA", "ICO", "PDF", "SGI"])
def test_other_formats_of_pillow_are_not_opened(tmp_path, kind):
    """Each decoder is a risk, and no data set has pictures in these formats."""
    assert kind not in FORMATS
    Image.fromarray(NOISE[..., :3]).save(tmp_path / "1.jpg", kind)
    with pytest.raises(DataError, match="does not know its format"):
        decode(ImageFile(tmp_path / "1.jpg"))


def test_a_photograph_of_24_megapixels_is_used(tmp_path):
    """An ordinary camera takes such pictures."""
    Image.new("RGB", (6000, 4000), (1, 2, 3)).save(tmp_path / "1.jpg")
    assert decode(ImageFile(tmp_path / "1.jpg")).size == (6000, 4000)


def claiming(width: int, height: int) -> bytes:
    """Return a PNG file that claims a size."""
    stream = io.BytesIO()
    Image.new("L", (width, 1) if height == 1 else (1, 1)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("size", "limit"),
    [((20_000, 20_000), "IMAGE_PIXELS"), ((20_000, 1), "ASPECT_RATIO"), ((65_000, 30), "ASPECT_RATIO")],
)
def test_a_picture_that_would_fill_the_memory_is_refused_with_the_limit(tmp_path, monkeypatch, size, limit):
    """CLIP resizes the shorter side to 224, so a line of 20,000 pixels would become a gigapixel."""
    (tmp_path / "1.png").write_bytes(claiming(*size))
    monkeypatch.delenv(f"MADTP_LIMIT_{limit}", raising=False)
    with pytest.raises(DataError, match=f"the limit MADTP_LIMIT_{limit} is") as caught:
        decode(ImageFile(tmp_path / "1.png"))
    assert len(str(caught.value).splitlines()) == 2


def test_the_user_can_raise_a_limit(tmp_path, monkeypatch):
    """A limit without a way around it would exclude correct data."""
    Image.new("L", (3_000, 1)).save(tmp_path / "1.png")
    monkeypatch.setenv("MADTP_LIMIT_ASPECT_RATIO", "3000")
    assert decode(ImageFile(tmp_path / "1.png")).size == (3_000, 1)
    monkeypatch.setenv("MADTP_LIMIT_ASPECT_RATIO", "many")
    with pytest.raises(UsageError, match="MADTP_LIMIT_ASPECT_RATIO is 'many'"):
        decode(ImageFile(tmp_path / "1.png"))


def test_a_pipe_or_a_device_is_not_opened(tmp_path):
    """Reading it would never end."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name, reason in (("pipe", "a pipe"), ("zero", "a device"), ("loop", "Too many levels of symbolic links")):
        with pytest.raises(DataError, match=rf"{name}\.png cannot be decoded: .*{reason}"):
            decode(ImageFile(tmp_path / f"{name}.png"))


def test_the_warnings_of_pillow_are_not_our_output(tmp_path):
    """They name no file, and the user cannot do anything about them."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x0f\x01\x02\0\xff\0\0\0\xff\0\0\0\x12\x01\x03\0"
    Image.fromarray(NOISE[..., :3]).save(tmp_path / "1.jpg", exif=exif)
    code = (
        "import sys; from pathlib import Path; from madtp_cli.data.pixels import pixel_values;"
        "from madtp_cli.data.image_sources import ImageFile;"
        "pixel_values([ImageFile(Path(sys.argv[1]))], lambda images, return_tensors: {'pixel_values': [[1.0]]})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "1.jpg")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Image.open(tmp_path / "1.jpg") as image:
            image.getexif()
    assert caught, "this file no longer makes Pillow warn"

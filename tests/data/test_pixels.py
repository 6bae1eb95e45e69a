"""From image sources to normalised pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BlipImageProcessorPil

from madtp_cli.data.image_sources import ImageFile
from madtp_cli.data.pixels import decode, pixel_values
from madtp_cli.errors import DataError
from madtp_cli.scenes import generator

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def processor(height: int, width: int) -> BlipImageProcessorPil:
    """Return BLIP's image processor for a size."""
    size = {"height": height, "width": width}
    return BlipImageProcessorPil(size=size, image_mean=MEAN, image_std=STD)


@pytest.fixture
def noise() -> np.ndarray:
    """Four channels of noise, uint8 [40, 57, 4]."""
    return np.random.RandomState(0).randint(0, 256, (40, 57, 4), np.uint8)


def test_every_mode_becomes_rgb(tmp_path, noise):
    """Photo collections also contain grey images, palettes and transparency."""
    palette = Image.fromarray(noise[..., :3]).quantize(16)
    images = {
        "grey.png": (Image.fromarray(noise[..., 0]), np.repeat(noise[..., :1], 3, 2)),
        "palette.png": (palette, np.asarray(palette.convert("RGB"))),
        "transparent.png": (Image.fromarray(noise), noise[..., :3]),
    }
    for name, (image, expected) in images.items():
        image.save(tmp_path / name)
        np.testing.assert_array_equal(np.asarray(decode(ImageFile(tmp_path / name))), expected)


def test_images_of_any_size_make_one_batch(tmp_path, noise):
    """They are resized to the size of the checkpoint without keeping the aspect ratio, as BLIP was trained."""
    for number, shape in enumerate([(40, 57), (9, 8)]):
        Image.fromarray(noise[: shape[0], : shape[1], :3]).save(tmp_path / f"{number}.png")
    values = pixel_values([ImageFile(tmp_path / "0.png"), ImageFile(tmp_path / "1.png")], processor(12, 18))
    assert values.shape == (2, 3, 12, 18)
    assert values.dtype == torch.float32


def test_a_scene_is_normalised_by_the_formula():
    """(level / 255 - mean) / standard deviation, channels first."""
    scene = next(generator.pairs("val", 1)).left
    expected = (torch.from_numpy(scene.render()).double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    values = pixel_values([scene], processor(96, 96))
    torch.testing.assert_close(values[0], expected.permute(2, 0, 1).float(), rtol=0, atol=1e-6)


def test_images_that_cannot_be_decoded_are_named(tmp_path, noise):
    """Incomplete, damaged or empty files, and files that are not images."""
    for name in ("whole.png", "whole.jpg"):
        Image.fromarray(noise[..., :3]).save(tmp_path / name)
    whole, photo = (tmp_path / "whole.png").read_bytes(), (tmp_path / "whole.jpg").read_bytes()
    contents = {
        "cut.png": whole[: len(whole) // 2],
        "cut.jpg": photo[: len(photo) // 2],
        "header.png": whole[:20],
        "swapped.png": whole[:60] + bytes(range(200)) + whole[260:],
        "empty.png": b"",
        "page.png": b"<html>404</html>",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} cannot be decoded: .") as caught:
            decode(ImageFile(tmp_path / name))
        assert len(str(caught.value).splitlines()) == 2
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match=r"folder\.png cannot be decoded: Is a directory"):
        decode(ImageFile(tmp_path / "folder.png"))

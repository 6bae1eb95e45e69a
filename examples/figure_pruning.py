"""Draw which patches each pruning block keeps, for one test pair of the built-in scenes.

    python examples/figure_pruning.py [--gflops-budget 0.2] [--sample 37] [--output docs/images/pruning.png]

The script compresses examples/blip.pt without fine-tuning (about two minutes on two cores) and writes the scenes to
build/figure. A second run uses both again. Kept patches are shown clear and pruned patches are shown pale. The script
needs matplotlib, which the extra `bench` installs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import madtp_cli

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "figure"
#: Pruned patches are mixed with white; this share of the picture remains.
PALE = 0.18


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the model and the scenes, run one pair and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gflops-budget", default="0.2")
    parser.add_argument("--sample", type=int, default=37, help="number of the test pair")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "pruning.png")
    options = parser.parse_args(arguments)
    checkpoint, scenes = prepare(options.gflops_budget, options.sample + 1)
    model, processor = madtp_cli.load(checkpoint)
    sample = json.loads((scenes / "annotation" / "nlvr_test.json").read_text("utf-8"))[options.sample]
    images = [Image.open(scenes / "images" / name).convert("RGB") for name in sample["images"]]
    output = run(model, processor, images, sample["sentence"])
    kept = [
        kept_patches(block.positions, len(images)) for block in output.trace["vision"] if block.positions is not None
    ]
    numbers = [number + 1 for number, block in enumerate(output.trace["vision"]) if block.positions is not None]
    answer = "true" if output.logits.argmax() == 1 else "false"
    title = f"“{sample['sentence']}”   label: {sample['label'].lower()}, pruned model: {answer}"
    draw(images, kept, numbers, title, patches_per_side(model), options.output)


def prepare(budget: str, pairs: int) -> tuple[Path, Path]:
    """Return the folder of the pruned model and the folder of the scenes; make what is missing."""
    WORK.mkdir(parents=True, exist_ok=True)
    checkpoint, scenes = WORK / f"blip-{budget}", WORK / f"scenes-{pairs}"
    if not checkpoint.exists():
        madtp("compress", ROOT / "examples" / "blip.pt", "--gflops-budget", budget, "--steps", "0", "--limit", "500",
              "--output", checkpoint)  # fmt: skip
    if not scenes.exists():
        madtp("scenes", scenes, "--task", "nlvr2", "--train", "0", "--val", "0", "--test", str(pairs))
    return checkpoint, scenes


def madtp(*words: str | Path) -> None:
    """Run a madtp command."""
    subprocess.run([sys.executable, "-m", "madtp_cli", *map(str, words), "--quiet"], cwd=ROOT, check=True)


@torch.inference_mode()
def run(model: Any, processor: Any, images: list[Image.Image], sentence: str) -> Any:
    """Run one pair of images and its sentence through the model."""
    pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    words = processor.tokenizer([sentence], return_tensors="pt")
    words["input_ids"][:, 0] = processor.tokenizer.convert_tokens_to_ids("[ENC]")
    return model(pixels[None], words["input_ids"], words["attention_mask"])


def kept_patches(positions: torch.Tensor, images: int) -> list[list[int]]:
    """Split a block's packed token positions by image, and return the patches (0 is the first patch) of each image.

    Position 0 is [CLS], which is the first token of each image and always stays.

    >>> kept_patches(torch.tensor([0, 3, 7, 0, 1]), 2)
    [[2, 6], [0]]
    """
    starts = (positions == 0).nonzero().flatten().tolist()
    if len(starts) != images:
        raise ValueError(f"{len(starts)} images have a [CLS] token; expected {images}")
    parts = positions.tensor_split(starts[1:])
    return [[position - 1 for position in part.tolist() if position > 0] for part in parts]


def patches_per_side(model: Any) -> int:
    """Number of patches along one side of an image."""
    vision = model.config.vision_config
    return vision.image_size // vision.patch_size


def faded(image: Image.Image, kept: list[int], side: int) -> np.ndarray:
    """Return the image with all patches pale except the kept ones, [height, width, 3] from 0 to 1."""
    picture = np.asarray(image, dtype=np.float64) / 255
    mask = np.zeros(side * side, dtype=bool)
    mask[kept] = True
    pixels = np.kron(mask.reshape(side, side), np.ones((image.height // side, image.width // side), dtype=bool))
    return np.where(pixels[..., None], picture, 1 - PALE * (1 - picture))


def draw(
    images: list[Image.Image],
    kept: list[list[list[int]]],
    numbers: list[int],
    title: str,
    side: int,
    output: Path,
) -> None:
    """Write the figure: a row per image, the image itself in the first column, then a column per pruning block."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    columns = len(kept) + 1
    figure, axes = pyplot.subplots(len(images), columns, figsize=(1.75 * columns, 2.25 * len(images) + 0.4))
    figure.suptitle(title, fontsize=11)
    for row, image in enumerate(images):
        axes[row, 0].imshow(image, interpolation="nearest")
        axes[row, 0].set_title(f"{'left' if row == 0 else 'right'} image\n{side * side} patches", fontsize=9)
        for column, (patches, number) in enumerate(zip(kept, numbers, strict=True), start=1):
            axes[row, column].imshow(faded(image, patches[row], side), interpolation="nearest")
            axes[row, column].set_title(f"after block {number}\n{len(patches[row])} patches", fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.tight_layout()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()

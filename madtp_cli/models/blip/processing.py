"""The processor of BLIP models whose text attends to images from its first token on: NLVR2 and VQA.

transformers' BlipProcessor begins a text with [CLS] and gives one image per text. This one begins it with [ENC] and
groups the images. It needs no other file of this package, so that its file works next to the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from transformers import BatchFeature, BlipProcessor
from transformers.image_utils import make_flat_list_of_images

#: The token that a text begins with.
ENCODER = "[ENC]"


class MadtpBlipProcessor(BlipProcessor):
    """Prepares the arguments of a model's forward, `pixel_values`, `input_ids` and `attention_mask`."""

    def __init__(self, image_processor: Any, tokenizer: Any, images_per_text: int = 1) -> None:
        super().__init__(image_processor, tokenizer)
        self.images_per_text = images_per_text

    def __call__(self, images: Any = None, text: Any = None, **settings: Any) -> BatchFeature:
        """Prepare images and texts.

        Args:
            images: One image per text. For pairs: [left, right], or a list of such pairs.
            text: A text or a list of texts.
            settings: Settings of transformers' processors, such as `return_tensors="pt"`. Texts are padded to the
                longest one and cut to the tokenizer's limit, unless a setting says otherwise.

        Returns:
            pixel_values [images, 3, height, width], for pairs [pairs, 2, 3, height, width], left image first;
            input_ids and attention_mask [texts, tokens], the first token [ENC].

        Raises:
            ValueError: The number of images does not fit.
        """
        if images is not None:
            images = make_flat_list_of_images(images)
            self._require_groups(len(images), text)
        if text is not None:
            settings = {"padding": not isinstance(text, str), "truncation": True} | settings
        made = super().__call__(images=images, text=text, **settings)
        if "input_ids" in made:
            self._begin(made["input_ids"])
        if "pixel_values" in made and self.images_per_text > 1:
            made["pixel_values"] = _grouped(made["pixel_values"], self.images_per_text)
        return made

    def _require_groups(self, images: int, text: Any) -> None:
        each = self.images_per_text
        if images % each:
            raise ValueError(f"Each text needs {each} images, but {images} are given. Give images=[left, right].")
        texts = len(text) if isinstance(text, list | tuple) else 1
        if text is not None and (not images or texts % (images // each)):
            raise ValueError(
                f"{texts} texts need {texts * each} images, {each} for each text in the order of the texts, "
                f"but {images} are given."
            )

    def _begin(self, ids: Any) -> None:
        """Write [ENC] in the place of [CLS], in place."""
        begin, usual = self.tokenizer.convert_tokens_to_ids(ENCODER), self.tokenizer.cls_token_id
        if isinstance(ids, Tensor | np.ndarray):
            first = ids[..., 0]
            first[first == usual] = begin
        elif ids and isinstance(ids[0], list):
            for row in ids:
                self._begin(row)
        elif ids and ids[0] == usual:
            ids[0] = begin


def _grouped(values: Any, each: int) -> Any:
    """Return pixel values in groups: [images, ...] becomes [images / each, each, ...]."""
    if isinstance(values, Tensor | np.ndarray):
        return values.reshape(-1, each, *values.shape[1:])
    return [values[start : start + each] for start in range(0, len(values), each)]

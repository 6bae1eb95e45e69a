"""SigLIP for image-text retrieval, on packed tokens. It also classifies images zero-shot and returns features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import SiglipTextModel, SiglipVisionModel
from transformers import initialization as init

from madtp_cli.execution.packed import Packed
from madtp_cli.models.siglip.towers import MadtpSiglipConfig, PrunableSiglip

#: First scale and bias of the logits. Source: SigLIP, arXiv:2303.15343, section 3.2.
FIRST_SCALE, FIRST_BIAS = 10.0, -10.0


class MadtpSiglipForRetrieval(PrunableSiglip):
    """SigLIP that compares images and texts."""

    TEXT_TOKENS = 64

    def __init__(self, config: MadtpSiglipConfig) -> None:
        super().__init__(config)
        self.text_model = SiglipTextModel._from_config(config.text_config)
        self.vision_model = SiglipVisionModel._from_config(config.vision_config)
        self.logit_scale = nn.Parameter(torch.tensor([math.log(FIRST_SCALE)]))
        self.logit_bias = nn.Parameter(torch.tensor([FIRST_BIAS]))
        self.prepare()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise parameters as SigLIP does. transformers initialises the scale and bias of its own class alone."""
        super()._init_weights(module)
        if module is self:
            init.constant_(self.logit_scale, math.log(FIRST_SCALE))
            init.constant_(self.logit_bias, FIRST_BIAS)

    def classify(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Classify images zero-shot: return the probability of each text, such as "a photo of a dog", for each image.

        The result is [images, texts]. Each text is scored by itself, so rows need not sum to one. Source: SigLIP,
        arXiv:2303.15343.
        """
        images, _ = self.embed_images(pixel_values)
        return self._logits(images, self.embed_texts(input_ids, attention_mask)).sigmoid()

    def text_states(self, tokens: Packed) -> Tensor:
        """Return the normalised last token of each text. All tokens are normalised, as in transformers' model."""
        return tokens.replace(self.text_model.final_layer_norm(tokens.data)).last()

    def project_texts(self, states: Tensor) -> Tensor:
        """Return the features of texts, [texts, joint width], not normalised."""
        return self.text_model.head(states)

    def scaled(self, similarities: Tensor) -> Tensor:
        """Return similarities times the logit scale, plus the bias."""
        return self.logit_scale.exp() * similarities + self.logit_bias

    def contrast(self, by_image: Tensor, by_text: Tensor, same: Tensor) -> Tensor:
        """Return the sigmoid loss."""
        return (sigmoid_loss(by_image, same) + sigmoid_loss(by_text, same)) / 2


def sigmoid_loss(logits: Tensor, same: Tensor) -> Tensor:
    """Return the sigmoid loss of a batch: each pair of an image and a text is classified as match or not.

    Args:
        logits: [pairs, all pairs].
        same: Whether two pairs have the same image, bool [pairs, all pairs]; they then match each other.

    Source: SigLIP, arXiv:2303.15343, equation 1.
    """
    signs = 2 * same.to(logits.dtype) - 1
    return -functional.logsigmoid(signs * logits).sum(-1).mean()


MODEL = MadtpSiglipForRetrieval

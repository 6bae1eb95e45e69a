"""CLIP for image-text retrieval, on packed tokens. It also classifies images zero-shot and returns features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPVisionModel
from transformers import initialization as init

from madtp_cli.execution.packed import Packed
from madtp_cli.models.clip.towers import MadtpClipConfig, PrunableClip

#: Maximum logit scale of the contrastive loss. Source: CLIP, arXiv:2103.00020, section 2.5.
MAX_LOGIT_SCALE = 100.0


class MadtpClipForRetrieval(PrunableClip):
    """CLIP that compares images and texts."""

    TEXT_TOKENS = 77

    def __init__(self, config: MadtpClipConfig) -> None:
        super().__init__(config)
        self.text_model = CLIPTextModel._from_config(config.text_config)
        self.vision_model = CLIPVisionModel._from_config(config.vision_config)
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        text_width, bias = config.text_config.hidden_size, config.text_projection_bias
        self.text_projection = nn.Linear(text_width, config.projection_dim, bias=bias)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
        self.prepare()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise parameters as CLIP does. transformers initialises the projections only for its own classes."""
        super()._init_weights(module)
        if module is self:
            for projection in (self.visual_projection, self.text_projection):
                init.normal_(projection.weight, std=projection.in_features**-0.5)
            init.constant_(self.logit_scale, self.config.logit_scale_init_value)

    def classify(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Classify images zero-shot: return the probability of each text, such as "a photo of a dog", for each image.

        The result is [images, texts]; rows sum to one. Source: CLIP, arXiv:2103.00020, section 3.1.
        """
        images, _ = self.embed_images(pixel_values)
        return self._logits(images, self.embed_texts(input_ids, attention_mask)).softmax(-1)

    def text_states(self, tokens: Packed) -> Tensor:
        """Return the normalised end-of-text token of each text."""
        return self.text_model.final_layer_norm(tokens.last())

    def project_images(self, states: Tensor) -> Tensor:
        """Return the features of images, [images, joint width], not normalised."""
        return self.visual_projection(states)

    def project_texts(self, states: Tensor) -> Tensor:
        """Return the features of texts, [texts, joint width], not normalised."""
        return self.text_projection(states)

    def scaled(self, similarities: Tensor) -> Tensor:
        """Return similarities times the logit scale."""
        return self.logit_scale.exp() * similarities

    def contrast(self, by_image: Tensor, by_text: Tensor, same: Tensor) -> Tensor:
        """Return the contrastive loss with a limited logit scale."""
        return contrastive_loss(self._limit_scale(by_image), self._limit_scale(by_text), same)

    def _limit_scale(self, logits: Tensor) -> Tensor:
        """Limit the scale of the logits to `MAX_LOGIT_SCALE`. A larger scale keeps its gradient, so it can decrease."""
        return logits * (MAX_LOGIT_SCALE / self.logit_scale.detach().exp()).clamp(max=1)


def contrastive_loss(by_image: Tensor, by_text: Tensor, same: Tensor) -> Tensor:
    """Return the mean of the image-to-text and text-to-image cross entropy of a batch's similarities.

    Args:
        by_image: Scaled similarities of each image with the texts of all pairs, [pairs, all pairs].
        by_text: Scaled similarities of each text with the images of all pairs, [pairs, all pairs].
        same: Whether two pairs have the same image, bool [pairs, all pairs]; they then match each other.

    Source: CLIP, arXiv:2103.00020. Several matches share the target, as in BLIP, arXiv:2201.12086.
    """
    target = same.float() / same.float().sum(1, keepdim=True)
    return (functional.cross_entropy(by_image, target) + functional.cross_entropy(by_text, target)) / 2


MODEL = MadtpClipForRetrieval

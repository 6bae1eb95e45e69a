"""CLIP's image encoder alone, with or without the projection of its features."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import CLIPVisionModel
from transformers import initialization as init

from madtp_cli.models.clip.towers import MadtpClipConfig, PrunableClip
from madtp_cli.models.image_encoder import ImageEncoder


class MadtpClipForEmbedding(ImageEncoder, PrunableClip):
    """CLIP that embeds images. Its tensors are those of the image tower of the model for retrieval."""

    config_class = MadtpClipConfig

    def __init__(self, config: MadtpClipConfig) -> None:
        super().__init__(config)
        self.vision_model = CLIPVisionModel._from_config(config.vision_config)
        if config.image_projection:
            self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        self.prepare()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise parameters as CLIP does. transformers initialises the projection only for its own classes."""
        super()._init_weights(module)
        if module is self and self.config.image_projection:
            init.normal_(self.visual_projection.weight, std=self.visual_projection.in_features**-0.5)

    def project_images(self, states: Tensor) -> Tensor:
        """Return the features of images, [images, width], not normalised."""
        return self.visual_projection(states) if self.config.image_projection else states


MODEL = MadtpClipForEmbedding

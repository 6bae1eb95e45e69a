"""SigLIP's image encoder alone."""

from __future__ import annotations

from transformers import SiglipVisionModel

from madtp_cli.models.image_encoder import ImageEncoder
from madtp_cli.models.siglip.towers import MadtpSiglipConfig, PrunableSiglip


class MadtpSiglipForEmbedding(ImageEncoder, PrunableSiglip):
    """SigLIP that embeds images. Its tensors are those of the image tower of the model for retrieval."""

    config_class = MadtpSiglipConfig

    def __init__(self, config: MadtpSiglipConfig) -> None:
        super().__init__(config)
        self.vision_model = SiglipVisionModel._from_config(config.vision_config)
        self.prepare()
        self.post_init()


MODEL = MadtpSiglipForEmbedding

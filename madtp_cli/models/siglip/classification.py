"""SigLIP for zero-shot classification: the image tower runs for each image, the text tower once for the classes."""

from __future__ import annotations

from madtp_cli.models.image_classifier import ImageClassifier
from madtp_cli.models.siglip.retrieval import MadtpSiglipForRetrieval
from madtp_cli.models.siglip.towers import MadtpSiglipConfig


class MadtpSiglipForClassification(ImageClassifier, MadtpSiglipForRetrieval):
    """SigLIP that compares images with the texts of classes; its tensors are those of the model for retrieval."""

    config_class = MadtpSiglipConfig


MODEL = MadtpSiglipForClassification

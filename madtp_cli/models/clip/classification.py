"""CLIP for zero-shot classification: the image tower runs for each image, the text tower once for the classes."""

from __future__ import annotations

from madtp_cli.models.clip.retrieval import MadtpClipForRetrieval
from madtp_cli.models.clip.towers import MadtpClipConfig
from madtp_cli.models.image_classifier import ImageClassifier


class MadtpClipForClassification(ImageClassifier, MadtpClipForRetrieval):
    """CLIP that compares images with the texts of classes; its tensors are those of the model for retrieval."""

    config_class = MadtpClipConfig


MODEL = MadtpClipForClassification

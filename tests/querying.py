"""A small BLIP-2 for retrieval whose sizes all differ; its images and captions are those of `tests.retrieving`."""

from __future__ import annotations

from madtp_cli.models.blip2.retrieval import MadtpBlip2ForImageTextRetrieval
from madtp_cli.models.blip2.towers import MadtpBlip2Config
from tests.drawing import draw


def dense() -> MadtpBlip2ForImageTextRetrieval:
    """Return the model: vision 3 x 48 with 37 tokens, Q-Former 3 x 32 with 5 queries, embeddings of width 20."""
    vision = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=3,
                  image_size=48, patch_size=8)  # fmt: skip
    text = dict(hidden_size=32, intermediate_size=72, num_hidden_layers=3, num_attention_heads=2, vocab_size=70,
                max_position_embeddings=16)  # fmt: skip
    config = MadtpBlip2Config(vision_config=vision, text_config=text, num_query_tokens=5, image_text_hidden_size=20)
    model = MadtpBlip2ForImageTextRetrieval(config).eval()
    draw(model, seed=1)
    return model

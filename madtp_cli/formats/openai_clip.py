"""OpenAI's CLIP: recognised, so that it can be refused with a reason."""

from __future__ import annotations

from madtp_cli.formats import Recognised, Source, Told

NAME = "OpenAI CLIP"
ADVICE = "This version compresses BLIP for NLVR2 only."


def recognise(source: Source, told: Told) -> Recognised | None:
    """A TorchScript archive, or a state dict with CLIP's keys; MADTP's files, which have more, are not ours."""
    if "space_dict" in source.weights:
        return None
    if source.container == "torchscript":
        return Recognised(
            "TorchScript archive",
            "unknown",
            refusal=f"a TorchScript archive, as OpenAI's CLIP comes in. {ADVICE}",
        )
    if any(key.startswith("visual.layer1.") for key in source.weights):
        return Recognised(
            NAME, "image-text matching", refusal="a ResNet CLIP; it has no tokens to prune. Use a ViT model."
        )
    if "visual.conv1.weight" in source.weights and "visual.proj" in source.weights:
        return Recognised(NAME, "image-text matching", refusal=f"an OpenAI CLIP. {ADVICE}")
    return None

"""Other forms of the dictionary (MAG): the text, or a prior, says which atoms count for an image, after an alignment.

In `--method madtp` a patch is as important as its attention from the atom that attends most to it. In these forms each
atom has a weight, and a patch is as important as the weighted sum of its attention from all atoms. `mag_ablation`
measures them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.compression import compress_model
from madtp_cli.evaluation import batching, run
from madtp_cli.evaluation.compute import Batch, inputs_of
from madtp_cli.evaluation.session import Session
from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.methods import BlockInputs
from madtp_cli.models.prunable import Prunable
from madtp_cli.pruning import importance, mag

#: Divides the logits of a word before the softmax over the atoms, as the default method does for patches.
TEMPERATURE = 0.2
#: Batches of training texts from which the prior is computed.
PRIOR_BATCHES = 16
#: Steps and learning rate of the alignment before the pruning, and a threshold scale that prunes nothing.
ALIGNMENT_STEPS, ALIGNMENT_RATE, WHOLE = 120, 1e-3, 1e-6
#: Temperature of the contrastive loss.
CONTRAST_TEMPERATURE = 0.07


def contrastive_loss(first: Tensor, second: Tensor) -> Tensor:
    """Replace `mag.alignment_loss`: the pooled features of an image are nearest to those of its own text.

    Args:
        first: Pooled features of the images, [samples, atoms, width].
        second: The same of the texts.
    """
    images, texts = (functional.normalize(part.float().flatten(1), dim=-1) for part in (first, second))
    logits = images @ texts.T / CONTRAST_TEMPERATURE
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def word_profile(model: Prunable, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return how much each atom matches the words of each text, [texts, atoms]; the weights of a text sum to one.

    Args:
        model: A BLIP with a dictionary.
        input_ids: [texts, tokens].
        attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
    """
    encoder: Any = model.text_encoder
    logits = encoder.embeddings(input_ids) @ _dictionary(model).folded("text")
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    mask = mask.float()[:, :, None]
    by_word = (logits.float() / TEMPERATURE).softmax(-1)
    return (by_word * mask).sum(1) / mask.sum(1).clamp_min(1)


def _dictionary(model: Prunable) -> mag.AlignmentDictionary:
    if model.madtp is None:
        raise ValueError("guidance needs a model with a dictionary")
    return model.madtp


class Guidance:
    """Weights the atoms by the words of the sample, or by the mean over the training texts.

    Args:
        session: The dense model and its training data.
        by_text: Whether a sample's own text counts. Otherwise all samples have the same weights, the prior; this also
            works where the image is encoded without a text.
    """

    def __init__(self, session: Session, *, by_text: bool) -> None:
        self.session, self.by_text = session, by_text
        self.tower, self.weights = "", torch.zeros(0)
        #: Training texts, padded to one length, and their mask; the prior is computed from them.
        self.texts: tuple[Tensor, Tensor] | None = None

    def patches(self, stack: ExitStack) -> None:
        """Enter all changes of the method."""
        model: Any = type(self.session.model)
        stack.enter_context(mock.patch.object(BlockPruner, "_inputs", self._remember_tower(BlockPruner._inputs)))
        stack.enter_context(mock.patch.object(importance, "dictionary_score", self._score))
        if self.by_text:
            stack.enter_context(mock.patch.object(model, "forward", self._read_text(model.forward)))
        else:
            stack.enter_context(mock.patch.object(model, "encode_images", self._read_prior(model.encode_images)))

    def _training_texts(self) -> tuple[Tensor, Tensor]:
        """Return the texts of some training batches and their mask, [texts, tokens]."""
        if self.texts is None:
            batches = itertools.islice(_training_batches(self.session, PRIOR_BATCHES), PRIOR_BATCHES)
            texts = [_texts(batch) for batch in batches]
            longest = max(ids.shape[1] for ids, _ in texts)
            padded = [[functional.pad(part, (0, longest - part.shape[1])) for part in pair] for pair in texts]
            self.texts = torch.cat([ids for ids, _ in padded]), torch.cat([mask for _, mask in padded])
        return self.texts

    def _remember_tower(self, inputs: Any) -> Any:
        guidance = self

        def remembering(pruner: BlockPruner, *args: Any, **options: Any) -> BlockInputs:
            guidance.tower = pruner.tower
            found: BlockInputs = inputs(pruner, *args, **options)
            return found

        return remembering

    def _score(self, attention: Tensor, mask: Tensor) -> Tensor:
        """Replace `importance.dictionary_score` for images."""
        if self.tower != "vision":
            return importance.normalise(attention.amax(-1), mask)
        # The first images of all samples come first.
        weights = self.weights.repeat(len(attention) // len(self.weights), 1)
        return importance.normalise((attention * weights[:, None]).sum(-1), mask)

    def _read_text(self, forward: Any) -> Any:
        guidance = self

        def reading(model: Prunable, *args: Any, **inputs: Any) -> Any:
            if model.madtp is not None:
                mask = inputs.get("attention_mask")
                with torch.no_grad():
                    profile = word_profile(model, inputs["input_ids"], mask)
                guidance.weights = profile.unflatten(0, (len(inputs["pixel_values"]), -1)).mean(1)
            return forward(model, *args, **inputs)

        return reading

    def _read_prior(self, encode_images: Any) -> Any:
        guidance = self

        def reading(model: Prunable, *args: Any, **options: Any) -> Any:
            if model.madtp is not None:
                with torch.no_grad():
                    guidance.weights = word_profile(model, *guidance._training_texts()).mean(0, keepdim=True)
            return encode_images(model, *args, **options)

        return reading


def align(session: Session, student: Prunable) -> None:
    """Train the dictionary and its projections alone, on the tokens of the dense model.

    Args:
        session: The training data and the compute config.
        student: The model before it is pruned; its dictionary is changed.
    """
    scale = student.pruning.threshold_scale if student.pruning else 0.0
    run.set_threshold_scale(student, WHOLE)
    parameters = list(_dictionary(student).parameters())
    optimizer = torch.optim.AdamW(parameters, lr=ALIGNMENT_RATE)
    student.train()
    for batch in itertools.islice(_training_batches(session, ALIGNMENT_STEPS), ALIGNMENT_STEPS):
        loss = student(**inputs_of(batch)).alignment
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
    student.eval()
    student.zero_grad(set_to_none=True)
    run.set_threshold_scale(student, scale)


def _training_batches(session: Session, number: int) -> Iterator[Batch]:
    """Return batches of as many training samples as this number of batches has."""
    return batching.training_batches(session, number * session.settings.batch_size)


def _texts(batch: Batch) -> tuple[Tensor, Tensor]:
    mask = batch.get("attention_mask")
    return batch["input_ids"], torch.ones_like(batch["input_ids"]) if mask is None else mask


@contextmanager
def form(
    session: Session, *, by_text: bool | None = None, aligned: bool = False, contrastive: bool = False
) -> Iterator[None]:
    """Change the method until the context ends.

    Args:
        session: The dense model and its data.
        by_text: Whether atoms are weighted by each sample's text (True) or by a prior (False); None for no weights.
        aligned: Whether the dictionary is first trained alone.
        contrastive: Whether the alignment loss compares each sample with the others of its batch.
    """
    guidance = None if by_text is None else Guidance(session, by_text=by_text)
    original = compress_model.prunable_student

    def prepared(model: Prunable, method: str) -> Prunable:
        student = original(model, method)
        if aligned:
            align(session, student)
        return student

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(compress_model, "prunable_student", prepared))
        if contrastive:
            stack.enter_context(mock.patch.object(mag, "alignment_loss", contrastive_loss))
        if guidance is not None:
            guidance.patches(stack)
        yield

"""Beam search as BLIP was released with it, on top of transformers' beam search.

The released code used transformers 4.15, which scores a finished text by its summed log-probability divided by the
number of its tokens, the prompt included and the final [SEP] excluded, to the power of the length penalty. transformers
5 divides by the number of tokens after the prompt, so that captions with a prompt come out differently. The two also
differ in when a search ends and in how texts without [SEP] are scored at the maximum length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import BlipTextLMHeadModel


class OriginalBeamSearch(BlipTextLMHeadModel):
    """BLIP's decoder with the scores and the end of the original beam search. Greedy search is as in transformers."""

    #: Tokens that end a text, [ends]; and each sample's best continuation of the last step. Set during a beam search.
    _ends: Tensor
    _best: Tensor

    def _beam_search(self, input_ids: Tensor, *args: Any, generation_config: Any, **settings: Any) -> Any:
        self._ends = generation_config._eos_token_tensor
        return super()._beam_search(input_ids, *args, generation_config=generation_config, **settings)

    def _update_finished_beams(
        self,
        *,
        topk_log_probs: Tensor,
        topk_running_sequences: Tensor,
        top_num_beam_mask: Tensor,
        next_token_hits_stopping_criteria: Tensor,
        **state: Any,
    ) -> tuple[Tensor, ...]:
        """Add the texts that end in this step; at the maximum length, add the best unfinished texts of a search too."""
        length, penalty = state.pop("cur_len"), state.pop("length_penalty")
        ended = torch.isin(topk_running_sequences[:, :, length], self._ends)
        self._best = topk_log_probs.amax(1, keepdim=True)
        constant = {"topk_running_sequences": topk_running_sequences, "cur_len": length, "length_penalty": 0.0}
        found = super()._update_finished_beams(
            topk_log_probs=topk_log_probs / length**penalty,
            next_token_hits_stopping_criteria=next_token_hits_stopping_criteria & ended,
            top_num_beam_mask=top_num_beam_mask,
            **constant,
            **state,
        )
        unfinished = next_token_hits_stopping_criteria & ~ended
        if not unfinished.any():
            return found
        names = ("sequences", "beam_scores", "beam_indices", "is_sent_finished")
        state |= dict(zip(names, found, strict=True))
        searching = state.pop("is_early_stop_heuristic_unsatisfied") & ~self._is_done(
            state["beam_scores"], state["is_sent_finished"], length, penalty, state["early_stopping"]
        )
        return super()._update_finished_beams(
            topk_log_probs=topk_log_probs / (length + 1) ** penalty,
            next_token_hits_stopping_criteria=unfinished & ((~ended).cumsum(1) <= state["num_beams"]),
            top_num_beam_mask=torch.ones_like(top_num_beam_mask),
            is_early_stop_heuristic_unsatisfied=searching,
            **constant,
            **state | {"early_stopping": False},
        )

    def _check_early_stop_heuristic(  # transformers' is static, but it is called on the object
        self,
        *,
        is_early_stop_heuristic_unsatisfied: Tensor,
        beam_scores: Tensor,
        is_sent_finished: Tensor,
        cur_len: int,
        early_stopping: bool | str,
        length_penalty: float,
        **_: Any,
    ) -> Tensor:
        """Return the samples whose search goes on, [samples, 1]."""
        done = self._is_done(beam_scores, is_sent_finished, cur_len - 1, length_penalty, early_stopping)
        return is_early_stop_heuristic_unsatisfied & ~done

    def _is_done(
        self, scores: Tensor, finished: Tensor, length: int, penalty: float, early_stopping: bool | str
    ) -> Tensor:
        """Return whether enough texts are finished and the best continuation would score no better, [samples, 1]."""
        no_better = scores.amin(1, keepdim=True) >= self._best / length**penalty
        return finished.all(1, keepdim=True) & (no_better | (early_stopping is True))

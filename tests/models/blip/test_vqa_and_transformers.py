"""BLIP for VQA compared with the class of transformers, and where the two differ on purpose."""

from __future__ import annotations

import pytest
import torch
from transformers import BlipForQuestionAnswering

from madtp_cli.models.blip.vqa import MadtpBlipForQuestionAnswering
from tests.decoding import attached, collate, questions, up_to_sep, vqa


def _stock(model: MadtpBlipForQuestionAnswering) -> BlipForQuestionAnswering:
    stock = BlipForQuestionAnswering(model.config).eval()
    stock.load_state_dict(model.state_dict())
    return stock


def test_state_dict_keys_are_those_of_transformers() -> None:
    """Files of either can be read by the other."""
    model = vqa(hidden_size=32, num_attention_heads=2)
    stock, own = BlipForQuestionAnswering(model.config).state_dict(), model.state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in stock.items()}
    added = attached(model, 0.4).state_dict().keys() - own.keys()
    assert added == {"madtp.dictionary", "madtp.projections.vision.weight", "madtp.projections.text.weight"}


@pytest.mark.parametrize("beams", [1, 3])
def test_a_generated_answer_equals_that_of_transformers(beams) -> None:
    """Without padding and with equally wide towers, transformers' code is right."""
    model = vqa(hidden_size=32, num_attention_heads=2)
    stock = _stock(model)
    for sample in questions()[::2]:
        inputs = {name: sample[name] for name in ("input_ids", "pixel_values", "attention_mask")}
        expected = stock.generate(**inputs, num_beams=beams, max_length=7)
        assert model.generate(**inputs, num_beams=beams, max_length=7).tolist() == expected.tolist()


def test_transformers_decoder_attends_to_padding_of_questions() -> None:
    """We work around this fault. If transformers repairs it, our notes about it are out of date."""
    model = vqa(hidden_size=32, num_attention_heads=2)
    stock, each = _stock(model), questions()
    padded = collate(each)
    inputs = {name: padded[name] for name in ("input_ids", "pixel_values", "attention_mask")}
    alone = [stock.generate(**{name: sample[name] for name in inputs}, num_beams=1, max_length=6) for sample in each]
    together = stock.generate(**inputs, num_beams=1, max_length=6)
    assert any(up_to_sep(one[0]) != up_to_sep(row) for one, row in zip(alone, together, strict=True))
    ours = model.generate(**inputs, num_beams=1, max_length=6)
    assert all(up_to_sep(one[0]) == up_to_sep(row) for one, row in zip(alone, ours, strict=True))


def test_transformers_decoder_ignores_the_mask_of_its_memory() -> None:
    """The result is bitwise equal without the mask. Our cross-attention applies the mask."""
    model = vqa(hidden_size=32, num_attention_heads=2)
    words, memory = torch.tensor([[68, 7, 9]]), torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(5))
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    logits = {}
    for name, decoder in (("stock", _stock(model).text_decoder), ("ours", model.text_decoder)):
        with torch.no_grad():
            logits[name] = [
                decoder(words, encoder_hidden_states=states, encoder_attention_mask=applied).logits
                for states, applied in ((memory, None), (memory, mask), (memory[:, :3], None))
            ]
    whole, masked, cut = logits["stock"]
    assert torch.equal(whole, masked)
    assert not torch.allclose(whole, cut, atol=0.1)
    torch.testing.assert_close(logits["ours"][1], cut, rtol=0, atol=1e-5)

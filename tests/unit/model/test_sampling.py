"""Drawing a token: every number that is allowed gives a token, and the right one."""

import math
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mudd_interp.model.bridge import BridgeModel
from mudd_interp.model.pieces import TextPieces
from mudd_interp.model.sampling import Sampling
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.parity.test_neox import neox

DEFAULT: dict[str, Any] = {
    "top_k": None,
    "top_p": None,
    "temperature": 1.0,
    "freq_penalty": 0.0,
    "repetition_penalty": 1.0,
}
QUIET: dict[str, Any] = {"verbose": False, "stop_at_eos": False}
TOKENS = torch.tensor([[1, 1, 3], [0, 2, 0]])


def sampling(**changed: Any) -> Sampling:
    return Sampling(**{**DEFAULT, **changed})


def logits(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    drawn = torch.randn(2, 7, generator=torch.Generator().manual_seed(4))
    return (9 * drawn).to(dtype)


@pytest.fixture(scope="module", params=["ours", "baseline"])
def halved(request: pytest.FixtureRequest) -> Any:
    if request.param == "ours":
        return random_model(FAMILY["MUDDFormer"]).half()
    return BridgeModel.from_module(neox(parallel=True)).to(torch.float16)


@pytest.mark.parametrize("temperature", [1e-4, 1e-40, 1e-310])
def test_the_lower_the_temperature_the_greedier(halved: Any, temperature: float):
    tokens = random_tokens(random_model(FAMILY["MUDDFormer"]).config)
    greedy = halved.generate(tokens, 8, **QUIET, do_sample=False)
    assert torch.equal(halved.generate(tokens, 8, **QUIET, temperature=temperature), greedy)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "changed",
    [
        {"temperature": 5e-324},
        {"temperature": 1e-30, "freq_penalty": 1e300},
        {"top_k": 1},
        {"top_p": 5e-324},
        {"top_p": 1e-9},
    ],
    ids=str,
)
def test_an_extreme_choice_is_the_greedy_one(dtype: torch.dtype, changed: dict[str, Any]):
    given = logits(dtype)
    greedy = given.argmax(-1)
    unseen = torch.full_like(TOKENS, int(given.sum(0).argmin()))  # penalties change nothing
    assert torch.equal(sampling(**changed).draw(given, unseen), greedy)
    assert torch.equal(sampling(**changed).greedy().draw(given, unseen), greedy)


@pytest.mark.parametrize(
    "changed", [{"top_k": 7}, {"top_k": 10**9}, {"top_p": 1.0}, {"top_p": 1}], ids=str
)
def test_a_choice_among_all_is_no_choice(changed: dict[str, Any]):
    given = torch.full((2000, 7), 5.0)
    tokens = torch.zeros(2000, 1, dtype=torch.int64)
    torch.manual_seed(0)
    expected = sampling().draw(given, tokens)
    torch.manual_seed(0)
    assert torch.equal(sampling(**changed).draw(given, tokens), expected)
    assert set(expected.tolist()) == set(range(7))


def test_draws_follow_the_softmax_in_half_precision():
    given = torch.tensor([[0.0, 2.0, -math.inf, 1.0]], dtype=torch.float16).expand(20000, 4)
    torch.manual_seed(1)
    drawn = sampling(temperature=0.5).draw(given, torch.zeros(20000, 1, dtype=torch.int64))
    shares = torch.bincount(drawn, minlength=4) / 20000
    expected = (given[0].float() / 0.5).softmax(-1)
    # three standard deviations of a share of one half
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.011)
    assert shares[2] == 0


@pytest.mark.parametrize("name", ["freq_penalty", "repetition_penalty"])
@pytest.mark.parametrize("size", [1e-310, 1e-40, 1e38, 1e300])
def test_a_penalty_of_any_size_gives_a_token(name: str, size: float):
    for given in (logits(), logits(torch.float16), logits(torch.float64), torch.zeros(2, 7)):
        assert (sampling(**{name: size}).draw(given, TOKENS) < 7).all()
    everything = torch.arange(7).expand(2, 7)
    assert (sampling(**{name: size}).draw(logits(), everything) < 7).all()


def test_a_great_penalty_leaves_what_did_not_occur():
    given = torch.zeros(2, 4)
    seen = torch.tensor([[0, 1, 2, 2], [3, 1, 0, 0]])
    assert sampling(freq_penalty=1e300).draw(given, seen).tolist() == [3, 2]
    positive = given + 1
    penalised = sampling(repetition_penalty=1e300).greedy().draw(positive, seen)
    assert penalised.tolist() == [3, 2]


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize(
    ("row", "found"),
    [([1.0, math.nan], "nan"), ([1.0, math.inf], "inf"), ([-math.inf] * 2, "-inf")],
)
def test_logits_that_leave_no_choice_are_refused_in_words(greedy: bool, row: Any, found: str):
    how = sampling(temperature=0.0 if greedy else 1.0)
    with pytest.raises(ValueError, match=f"for row 1: its largest logit is {found}"):
        how.draw(torch.tensor([[0.0, 1.0], row]), TOKENS[:, :1])


@pytest.mark.parametrize(
    "changed",
    [
        {"temperature": None},
        {"temperature": "1"},
        {"temperature": -math.inf},
        {"temperature": math.inf},
        {"top_p": "0.5"},
        {"top_p": math.nan},
        {"top_p": -0.1},
        {"top_k": 2.5},
        {"top_k": -1},
        {"freq_penalty": None},
        {"freq_penalty": math.nan},
        {"repetition_penalty": math.inf},
        {"repetition_penalty": -1.0},
        {"repetition_penalty": "2"},
    ],
    ids=str,
)
def test_a_number_that_means_nothing_is_refused_by_name(changed: dict[str, Any]):
    with pytest.raises(ValueError, match=f"{next(iter(changed))} must be"):
        sampling(**changed)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_character_waits_for_all_of_its_bytes():
    tokenizer = byte_tokenizer()
    ids = torch.tensor([tokenizer("aé").input_ids])
    assert ids.shape[1] == 3
    pieces = TextPieces(tokenizer)
    assert [pieces.next(ids[:, :n]) for n in (1, 2, 3)] == ["a", "", "é"]
    cut_off = TextPieces(tokenizer)
    assert [cut_off.next(ids[:, :2]), cut_off.next(ids[:, :2], last=True)] == ["a", "\ufffd"]

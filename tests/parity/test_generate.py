"""``generate`` of both model classes is TransformerBridge's: arguments, draws, results."""

import inspect
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast, StoppingCriteria

from mudd_interp.model import HookedMUDDTransformer, MUDDActivationCache
from mudd_interp.model.bridge import BridgeModel
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.parity.test_neox import CONTEXT, TOLERANCE, VOCAB, Pair

END = 100
QUIET: dict[str, Any] = {"verbose": False, "stop_at_eos": False}
GREEDY: dict[str, Any] = {**QUIET, "do_sample": False}


def characters_tokenizer() -> PreTrainedTokenizerFast:
    """Printable characters, a space ("Ġ"), five pairs, and one token that ends a text."""
    pairs = [("t", "h"), ("o", "n"), ("a", "n"), ("e", "r"), ("r", "e")]
    singles = [chr(code) for code in range(33, 127)]
    names = [*singles, "Ġ", *(first + second for first, second in pairs), "<|endoftext|>"]
    assert len(names) == END + 1 == VOCAB
    vocabulary = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = names[END]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=end
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("tokenizer")  # the bridge takes loaded tokenizers only
    characters_tokenizer().save_pretrained(folder)
    pair = Pair("llama", PreTrainedTokenizerFast.from_pretrained(folder))
    pair.tokens = pair.tokens[:, :5]
    return pair


@pytest.fixture(params=["ours", "baseline"])
def model(request: pytest.FixtureRequest, pair: Pair) -> Any:
    return getattr(pair, request.param)


class SevenTokens(StoppingCriteria):
    def __repr__(self) -> str:
        return "SevenTokens()"  # in the name of a test, which must be the same in every process

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        assert scores.shape == (len(input_ids), VOCAB)
        return torch.full((len(input_ids),), input_ids.shape[1] >= 7)


def drawn(model: Any, given: Any, **arguments: Any) -> Any:
    torch.manual_seed(3)
    return model.generate(given, **{"verbose": False, **arguments})


@pytest.mark.parametrize("method", ["generate", "generate_stream"])
@pytest.mark.parametrize("kind", [HookedMUDDTransformer, BridgeModel])
def test_arguments_are_those_of_the_bridge_in_name_order_and_default(kind: type, method: str):
    def arguments(method: Any) -> list[tuple[Any, ...]]:
        parameters = inspect.signature(method).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters]

    assert arguments(getattr(kind, method)) == arguments(getattr(TransformerBridge, method))


@pytest.mark.parametrize(
    "arguments",
    [
        {"do_sample": False},
        {"do_sample": False, "use_past_kv_cache": False},
        {"do_sample": False, "freq_penalty": 9.0},
        {"do_sample": False, "repetition_penalty": 3.0},
        {"temperature": 0.0},
        {},
        {"top_k": 3},
        {"top_k": 10**6, "temperature": 0.5},
        {"top_p": 0.5},
        {"freq_penalty": 2.0, "repetition_penalty": 1.5},
        {"stopping_criteria": SevenTokens()},
        {"stopping_criteria": [SevenTokens()], "stop_strings": ["q", ""]},
    ],
    ids=str,
)
def test_draws_the_tokens_that_the_bridge_draws(pair: Pair, model: Any, arguments: Any):
    arguments = {"max_new_tokens": 12, "stop_at_eos": False, **arguments}
    expected = drawn(pair.baseline.bridge, pair.tokens, **arguments)
    assert torch.equal(drawn(model, pair.tokens, **arguments), expected)


@pytest.mark.parametrize("by", ["eos_token_id", "stop_strings"])
def test_a_row_that_ends_is_filled_up_as_by_the_bridge(pair: Pair, model: Any, by: str):
    token = int(pair.ours.generate(pair.tokens, 1, **GREEDY)[0, -1])
    arguments: dict[str, Any] = {"do_sample": False, "max_new_tokens": 6, "stop_at_eos": False}
    if by == "eos_token_id":
        arguments |= {by: token, "stop_at_eos": True}
    else:
        arguments |= {by: pair.ours.to_string(token)}
    expected = drawn(pair.baseline.bridge, pair.tokens, **arguments)
    assert expected[0, 5:].tolist() == [token] + 5 * [token if by == "eos_token_id" else END]
    assert expected[1, -1] not in (END, token)
    assert torch.equal(drawn(model, pair.tokens, **arguments), expected)


@pytest.mark.parametrize("given", ["ids", "on a", ["on a"], ["on a", "er i"]], ids=str)
@pytest.mark.parametrize("return_type", ["input", "str", "tokens", None])
def test_returns_text_or_ids_as_the_bridge_does(pair: Pair, model: Any, given: Any, return_type):
    if given == "ids":  # with an end-of-text token, which is not text
        given = torch.cat((torch.full_like(pair.tokens[:, :1], END), pair.tokens), dim=1)
    arguments: dict[str, Any] = {**GREEDY, "return_type": return_type, "prepend_bos": False}
    expected = pair.baseline.bridge.generate(given, 3, **arguments)
    found = model.generate(given, 3, **arguments)
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


def test_logits_cache_and_input_tokens_come_as_from_the_bridge(pair: Pair, model: Any):
    arguments: dict[str, Any] = {
        **GREEDY,
        "repetition_penalty": 2.0,  # not in the logits
        "output_logits": True,
        "return_cache": True,
        "return_input_tokens": True,
        "names_filter": "blocks.1.hook_resid_post",
        "device": "cpu",
    }
    theirs, kept, read = pair.baseline.bridge.generate(pair.tokens[:1], 3, **arguments)
    output, cache, tokens = model.generate(pair.tokens[:1], 3, **arguments)
    assert type(output) is type(theirs)
    assert torch.equal(output.sequences, theirs.sequences)
    assert torch.equal(tokens, read)
    assert isinstance(output.logits, tuple)
    torch.testing.assert_close(output.logits, theirs.logits, rtol=0, atol=TOLERANCE)
    assert isinstance(cache, MUDDActivationCache)
    assert list(cache) == ["blocks.1.hook_resid_post"]
    torch.testing.assert_close(cache["resid_post", 1], kept["resid_post", 1], rtol=0, atol=1e-5)
    assert len(model.generate(pair.tokens, 3, **GREEDY, return_cache=True)) == 2


def test_no_new_token_gives_the_prompt_back(pair: Pair, model: Any):
    assert model.generate("on a", 0, **QUIET) == "on a"
    assert model.generate(pair.tokens, 0, **QUIET, output_logits=True).logits == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be an integer from 0, got -1"),
        ({"max_new_tokens": CONTEXT - 4}, "ask for at most 43"),
        ({"return_type": "text"}, "return_type must be 'input', 'str', 'tokens' or None"),
        ({"temperature": -1.0}, "temperature must be a finite number from 0, got -1.0"),
        ({"temperature": float("nan")}, "temperature must be a finite number from 0, got nan"),
        ({"top_k": 0}, "top_k must be an integer from 1, got 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, got 1.5"),
        ({"top_k": 2, "top_p": 0.5}, "top_k and top_p exclude each other"),
        ({"freq_penalty": -1.0}, "freq_penalty must be a finite number from 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be finite and above 0"),
        (
            {"eos_token_id": VOCAB},
            f"eos_token_id must be an id of the vocabulary, 0 to {VOCAB - 1}",
        ),
        ({"padding_side": "left"}, "takes no padding_side here .batches are never padded"),
        ({"attention_mask": torch.ones(2, 5)}, "takes no attention_mask here"),
        ({"pixel_values": torch.ones(1)}, "takes no pixel_values here"),
        ({"forced_bos_token_id": 0}, "takes no forced_bos_token_id here"),
        ({"stopping_criteria": 7}, "stopping_criteria must be one of transformers'"),
        ({"return_cache": True, "names_filter": "hook_embd"}, "did you mean `hook_embed`"),
        ({"max_tokens": 3}, "no argument `max_tokens`; did you mean `max_new_tokens`"),
    ],
    ids=str,
)
def test_a_bad_argument_is_refused_before_anything_runs(
    pair: Pair, model: Any, arguments: Any, message: str
):
    runs: list[Any] = []
    with (
        model.hooks([("hook_embed", lambda x, hook: runs.append(hook))]),
        pytest.raises(ValueError, match=message),
    ):
        model.generate(pair.tokens, **{"verbose": False, **arguments})
    assert not runs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "stop_at_eos needs an end-of-text token"),
        ({**QUIET, "return_type": "str"}, "without a tokenizer"),
        ({**QUIET, "stop_strings": "q"}, "stop_strings needs the vocabulary of a tokenizer"),
        ({**QUIET, "stopping_criteria": SevenTokens()}, "filled up with a padding token"),
    ],
)
def test_what_needs_a_tokenizer_says_so_where_there_is_none(
    pair: Pair, model: Any, arguments: Any, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(model, "tokenizer", None)
    with pytest.raises(ValueError, match=message):
        model.generate(pair.tokens, **arguments)


@pytest.mark.parametrize("name", ["MUDDFormer as released", "MUDDPythia", "PrePostDANorm, Eq. 10"])
def test_keeping_keys_and_values_changes_nothing(name: str):
    model = random_model(FAMILY[name])
    tokens = random_tokens(model.config)
    kept, again = (
        model.generate(tokens, 12, **GREEDY, output_logits=True, use_past_kv_cache=use)
        for use in (True, False)
    )
    assert torch.equal(kept.sequences, again.sequences)
    # float64: sums in another order, nothing else
    torch.testing.assert_close(kept.logits, again.logits, rtol=0, atol=1e-10)


def test_hooks_see_the_prompt_once_and_then_each_new_token_alone(pair: Pair, model: Any):
    for use, lengths in ((True, [5, 1, 1]), (False, [5, 6, 7])):
        seen: list[int] = []
        with model.hooks([("hook_embed", lambda x, hook, seen=seen: seen.append(x.shape[1]))]):
            model.generate(pair.tokens, 3, **GREEDY, use_past_kv_cache=use)
        assert seen == lengths


def test_greedy_takes_the_first_of_equal_logits():
    model = random_model(FAMILY["MUDDFormer"])
    with torch.no_grad():
        model.unembed.W_U.zero_()
    assert (model.generate(random_tokens(model.config), 3, **GREEDY)[:, -3:] == 0).all()


@pytest.mark.parametrize("edit", ["cut mlp 1 @0", "cut head 1.1 @3"])
def test_an_edit_of_a_position_means_that_of_the_sequence(model: Any, pair: Pair, edit: str):
    with model.edited(edit):
        cached, whole = (
            model.generate(pair.tokens[:1], 6, use_past_kv_cache=kept, **GREEDY)
            for kept in (True, False)
        )
    assert torch.equal(cached, whole)


def test_weights_are_shuffled_over_the_whole_sequence():
    model = random_model(FAMILY["MUDDFormer"])
    tokens = random_tokens(model.config)[:1, :5]
    with model.edited("shuffle * *<-*"):
        cached, whole = (
            model.generate(tokens, 4, use_past_kv_cache=kept, **GREEDY) for kept in (True, False)
        )
    assert torch.equal(cached, whole)


@pytest.mark.slow
@pytest.mark.parametrize("given", ["ids", "on a", ["on a", "er i"]], ids=str)
@pytest.mark.parametrize("size", [1, 4, 7, 100])
@pytest.mark.parametrize("return_type", ["input", "tokens", "str"])
def test_a_stream_comes_in_the_pieces_of_the_bridge(
    pair: Pair, model: Any, given: Any, size: int, return_type: str
):
    given = pair.tokens if given == "ids" else given
    arguments: dict[str, Any] = {
        "max_new_tokens": 9,
        "max_tokens_per_yield": size,
        "return_type": return_type,
        "prepend_bos": False,
        **GREEDY,
    }
    expected = list(pair.baseline.bridge.generate_stream(given, **arguments))
    found = list(model.generate_stream(given, **arguments))
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs) if isinstance(theirs, torch.Tensor) else ours == theirs
    del arguments["max_tokens_per_yield"]
    whole = model.generate(given, **arguments)
    if isinstance(whole, str):
        assert "".join(found) == whole
    elif isinstance(whole, list):
        assert ["".join(row) for row in zip(*found, strict=True)] == whole
    else:
        assert torch.equal(torch.cat(found, dim=1), whole)


def test_a_stream_ends_with_its_rows_and_is_refused_at_the_call(pair: Pair, model: Any):
    token = int(model.generate(pair.tokens[:1], 1, **GREEDY)[0, -1])
    stream = model.generate_stream(
        pair.tokens[:1], 9, 1, eos_token_id=token, do_sample=False, verbose=False
    )
    assert torch.cat(list(stream), dim=1).shape == (1, 6)
    with pytest.raises(ValueError, match="max_tokens_per_yield must be an integer from 1, got 0"):
        model.generate_stream(pair.tokens, max_tokens_per_yield=0, stop_at_eos=False)
    with pytest.raises(ValueError, match="generate_stream takes no padding_side here"):
        model.generate_stream(pair.tokens, padding_side="left")
    with pytest.raises(ValueError, match="ask for at most"):
        model.generate_stream(pair.tokens, CONTEXT, stop_at_eos=False)
    assert torch.equal(
        torch.cat(list(model.generate_stream(pair.tokens, 0, **QUIET)), dim=1), pair.tokens
    )


@pytest.mark.parametrize("known", [True, False])
def test_each_of_several_tokens_ends_a_row(
    pair: Pair, model: Any, known: bool, monkeypatch: pytest.MonkeyPatch
):
    if not known:
        for each in (model, pair.baseline.bridge):
            monkeypatch.setattr(each, "tokenizer", None)
    first, second = (int(token) for token in model.generate(pair.tokens, 1, **GREEDY)[:, -1])
    assert first != second
    arguments: dict[str, Any] = {"do_sample": False, "verbose": False, "max_new_tokens": 5}
    arguments["eos_token_id"] = [first, second]
    expected = pair.baseline.bridge.generate(pair.tokens, **arguments)
    found = model.generate(pair.tokens, **arguments)
    assert torch.equal(found, expected)
    assert found.shape == (2, 6)
    one = model.generate(pair.tokens, **{**arguments, "eos_token_id": [first]})
    assert one.shape[1] > 6
    assert (one[0, 6:] == first).all()
    with pytest.raises(ValueError, match="eos_token_id must be an id of the vocabulary"):
        model.generate(pair.tokens, **{**arguments, "eos_token_id": [first, VOCAB]})

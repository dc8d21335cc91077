"""What a model is given to read: text, ids, and what it refuses."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from mudd_interp.model.bridge import BridgeModel
from tests.parity.family import FAMILY, letters_tokenizer, random_model

MODEL = random_model(FAMILY["MUDDFormer"])
N_CTX, D_VOCAB = MODEL.cfg.n_ctx, MODEL.cfg.d_vocab

BAD: dict[str, tuple[Any, str]] = {
    "no token": (torch.zeros(1, 0, dtype=torch.int64), "the prompt is empty"),
    "a token too many": (
        torch.zeros(1, N_CTX + 1, dtype=torch.int64),
        rf"{N_CTX + 1} tokens do not fit the context of {N_CTX}",
    ),
    "an id too large": (
        torch.tensor([[0, D_VOCAB]]),
        rf"token id {D_VOCAB} is outside the vocabulary of {D_VOCAB} \(ids 0 to {D_VOCAB - 1}\)",
    ),
    "a negative id": (torch.tensor([[0, -1]]), "token id -1 is outside the vocabulary"),
    "ids of three axes": (torch.zeros(1, 1, 1).int(), r"shape \[batch pos\], got \[1, 1, 1\]"),
    "text without a tokenizer": ("def", "came without a tokenizer: pass token ids"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("call", ["forward", "run_with_cache", "generate"])
def test_bad_tokens_are_refused_before_anything_runs(case: str, call: str):
    tokens, words = BAD[case]
    arguments = {"generate": {"max_new_tokens": 1, "stop_at_eos": False}}.get(call, {})
    fired: list[str] = []
    with (
        MODEL.hooks(fwd_hooks=[("hook_embed", lambda _, hook: fired.append(hook.name))]),
        pytest.raises(ValueError, match=words),
    ):
        getattr(MODEL, call)(tokens, **arguments)
    assert not fired


ROW = np.array([1, 2, 3])
FORMS = ([1, 2, 3], (1, 2, 3), [[1, 2, 3]], ROW, ROW[None].astype("u2"), [*ROW])


@pytest.mark.parametrize("ids", FORMS, ids=repr)
def test_ids_may_come_in_any_form(ids: Any):
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(MODEL(ids), MODEL(tokens))
    assert torch.equal(MODEL.run_with_cache(ids)[0], MODEL.run_with_cache(tokens)[0])
    new = MODEL.generate(ids, 2, do_sample=False, stop_at_eos=False, verbose=False)
    assert new.shape == (1, 5)
    assert new[:, :3].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([], "the prompt is empty"),
        ([1.0], "must be integers, got "),
        ([True], "must be integers, got "),
        ([[1, 2], [3]], "differ in length or depth"),
        (None, "must be integers, got "),
        ([["a"]], "must be integers, got "),
    ],
    ids=repr,
)
def test_what_is_no_ids_is_refused(ids: Any, words: str):
    with pytest.raises(ValueError, match=words):
        MODEL(ids)


def test_int32_is_int64():
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(MODEL(tokens.int()), MODEL(tokens))


# --- TransformerLens' calls, of our models and of baselines -------------------------------------


def baseline() -> BridgeModel:
    config = GPTNeoXConfig(
        vocab_size=D_VOCAB,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=N_CTX,
    )
    return BridgeModel.from_module(GPTNeoXForCausalLM(config))


@pytest.fixture(params=["MUDDFormer", "baseline"])
def model(request: pytest.FixtureRequest) -> Any:
    made = random_model(FAMILY["MUDDFormer"]) if request.param == "MUDDFormer" else baseline()
    made.set_tokenizer(letters_tokenizer())
    return made


def test_the_arguments_of_to_tokens(model: Any):
    assert model.to_tokens("a b", move_to_device=False).tolist() == [[1, 2]]
    assert model.to_tokens("a b", prepend_bos=True).tolist() == [[0, 1, 2]]
    assert model.to_tokens(["a b", "c d"]).tolist() == [[1, 2], [3, 4]]
    assert model.to_tokens(("a b",)).tolist() == [[1, 2]]
    assert model.to_tokens([1, 2]).tolist() == model.to_tokens(np.array([[1, 2]])).tolist()
    long = " ".join("ab" * N_CTX)
    assert model.to_tokens(long).shape == (1, 2 * N_CTX)  # never cut silently
    cut = model.to_tokens(long, prepend_bos=True, truncate=True)
    assert cut.tolist() == [[0, *([1, 2] * N_CTX)[: N_CTX - 1]]]
    assert model.to_tokens(["a " * N_CTX, "a " * (N_CTX + 1)], truncate=True).shape == (2, N_CTX)


def test_what_is_no_id_is_refused(model: Any):
    for given, kind in ((torch.zeros(1, 1), "float32"), ([True], "a bool"), (None, "a NoneType")):
        with pytest.raises(ValueError, match=f"token ids must be integers, got {kind}"):
            model.to_tokens(given)
    with pytest.raises(ValueError, match="expected a list of texts, got int among them"):
        model.to_tokens(["a", 1])


@pytest.mark.parametrize("call", ["to_tokens", "to_str_tokens"])
@pytest.mark.parametrize("text", ["a b", ["a b", "c d"]])
def test_padding_is_refused_with_what_to_do(model: Any, call: str, text: Any):
    message = r"takes no padding_side here \(batches are never padded\): leave it out"
    with pytest.raises(ValueError, match=message):
        getattr(model, call)(text, padding_side="left")
    with pytest.raises(ValueError, match=message):
        model.get_token_position("a", "a b", padding_side="left")
    with pytest.raises(ValueError, match=r"set_tokenizer takes no default_padding_side here"):
        model.set_tokenizer(letters_tokenizer(), default_padding_side="left")
    with pytest.raises(ValueError, match=r"texts have \[1, 2\] tokens: batches are never padded"):
        model.to_tokens(["a", "a b"])


def test_the_text_of_tokens(model: Any):
    assert model.to_str_tokens("a b") == ["a", "b"]
    assert model.to_str_tokens("a b", prepend_bos=True) == ["<|endoftext|>", "a", "b"]
    assert model.to_str_tokens(["a b", "c"]) == [["a", "b"], ["c"]]
    assert model.to_str_tokens(["a"]) == [["a"]]
    forms = ([1, 2], [[1, 2]], np.array([1, 2]), torch.tensor([[1, 2]]).int(), range(1, 3))
    for ids in forms:
        assert model.to_str_tokens(ids) == ["a", "b"]
    assert model.to_string([1, 2]) == model.to_string(np.array([1, 2], "u1")) == "a b"
    assert model.to_string([[1, 2], [3, 4]]) == ["a b", "c d"]
    assert model.to_string(1) == "a"
    for token in (1, np.int64(1), torch.tensor([1]), [1]):
        assert model.to_single_str_token(token) == "a"
    with pytest.raises(ValueError, match=r"expected one prompt, got ids of shape \[2, 2\]"):
        model.to_str_tokens([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="expected one token id, got 2"):
        model.to_single_str_token([1, 2])
    with pytest.raises(ValueError, match=r"expected ids \[pos\] or \[batch pos\]"):
        model.to_string(torch.zeros(1, 1, 1).int())


def test_the_position_of_a_token(model: Any):
    assert model.get_token_position("b", "a b c b") == 1
    assert model.get_token_position("b", "a b c b", mode="last") == 3
    assert model.get_token_position("b", "a b", prepend_bos=True) == 2
    for ids in ([1, 2], torch.tensor([[1, 2]]), np.array([1, 2])):
        assert model.get_token_position(2, ids) == 1
        assert model.get_token_position(torch.tensor(2), ids) == 1
    with pytest.raises(ValueError, match="the token 'c' does not occur in the prompt"):
        model.get_token_position("c", "a b")
    with pytest.raises(ValueError, match="mode must be 'first' or 'last', got 'middle'"):
        model.get_token_position("a", "a b", mode="middle")
    with pytest.raises(ValueError, match="expected one prompt"):
        model.get_token_position("a", ["a b", "b a"])


def test_directions_take_ids_in_any_form(model: Any):
    expected = model.tokens_to_residual_directions(torch.tensor([1, 2]))
    constant = model.logit_constant(torch.tensor([1, 2]))
    for ids in ([1, 2], (1, 2), np.array([1, 2]), torch.tensor([1, 2]).short()):
        assert torch.equal(model.tokens_to_residual_directions(ids), expected)
        assert torch.equal(model.logit_constant(ids), constant)
    assert torch.equal(model.tokens_to_residual_directions("a"), expected[0])
    for outside in (-1, D_VOCAB):
        with pytest.raises(ValueError, match=f"token id {outside} is outside the vocabulary"):
            model.tokens_to_residual_directions(outside)


def test_the_tokenizer_can_be_set(model: Any):
    other = letters_tokenizer()
    model.set_tokenizer(other)
    assert model.tokenizer is other
    model.tokenizer = None
    with pytest.raises(ValueError, match="came without a tokenizer"):
        model.to_tokens("a")
    with pytest.raises(ValueError, match="expected a Hugging Face tokenizer or None, got str"):
        model.tokenizer = "gpt2"
    with pytest.raises(ValueError, match=r"got Tokenizer: .*PreTrainedTokenizerFast"):
        model.set_tokenizer(other.backend_tokenizer)
    assert model.tokenizer is None

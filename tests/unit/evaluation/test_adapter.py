"""The adapter, and the traps of lm-evaluation-harness that it has to get round."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import get_model
from torch import Tensor

from mudd_interp.analysis import dense_weights
from mudd_interp.axes import stream_input
from mudd_interp.data import take
from mudd_interp.edits import edited
from mudd_interp.encoding import decode
from mudd_interp.evaluation.adapter import PREFIXES, HookedLM
from mudd_interp.evaluation.tasks import held_out, local_task
from mudd_interp.training.evaluate import file_losses
from mudd_interp.training.packing import rows
from mudd_interp.training.validation import ValidationPack
from tests.bundled import load

CODE = "def area(width, height):\n    return width * height\n\n\nprint(area(2, 3))\n"
END = 0  # the id of <|endoftext|>


def adapter(name: str = "mudd-tiny", **options: Any) -> HookedLM:
    return HookedLM(load(name), **options)


def ask(kind: Any, *arguments: object) -> Instance:
    return Instance(kind, {}, arguments, 0)


def pairs(*given: tuple[str, str]) -> list[Instance]:
    return [ask("loglikelihood", *pair) for pair in given]


def literal(model: Any, before: list[int], after: list[int]) -> float:
    """The log-probability of a continuation, one token after the other, by the definition."""
    total = 0.0
    for index, token in enumerate(after):
        seen = torch.tensor([before + after[:index]])
        with torch.no_grad():
            total += model(seen)[0, -1].log_softmax(-1)[token].item()
    return total


PAIRS = (
    ("def area(width, height):\n    return width *", " height"),
    ("def area(width, height):\n    return width *", " width"),
    ("import", " numpy as np"),
    ("def area(width, height):\n    return", " width * height"),
)


@pytest.mark.parametrize("name", ["mudd-tiny", "tfm-tiny"])
def test_log_probabilities_are_those_of_the_definition(name: str):
    lm = adapter(name)
    found = lm.loglikelihood(pairs(*PAIRS))
    for (context, continuation), (total, greedy) in zip(PAIRS, found, strict=True):
        before, after = lm.tok_encode(context), lm.tok_encode(continuation)
        assert total == pytest.approx(literal(lm.model, before, after), abs=1e-4)
        whole = lm.model(torch.tensor([before + after]))[0, len(before) - 1 : -1].argmax(-1)
        assert greedy == (whole.tolist() == after)


# --- Trap 1: the cut across a merge ---------------------------------------------------------------


def test_a_continuation_that_the_tokenizer_swallows_is_refused():
    """The harness's own cut leaves nothing of it: a careless adapter scores that 0, and greedy."""
    lm = adapter()
    assert TemplateLM._encode_pair(lm, "pri", "nt")[1] == []
    for pair in (("pri", "nt"), ("print", "")):
        with pytest.raises(ValueError, match="no token of its own"):
            lm.loglikelihood(pairs(pair))


def test_a_continuation_that_loses_tokens_to_its_context_is_counted():
    lm = adapter()
    assert len(lm.tok_encode("pri")) + len(lm.tok_encode("nt(x)")) > len(lm.tok_encode("print(x)"))
    lm.loglikelihood(pairs(("pri", "nt(x)"), ("print", "(x)")))
    assert (lm.counts.requests, lm.counts.merged) == (2, 1)


# --- Trap 2: white space at the end of a context --------------------------------------------------


def test_white_space_at_the_end_of_a_context_goes_to_the_continuation():
    """All of it, line ends and indent too: so our items end their contexts before it."""
    lm = adapter()
    before, after = lm._encode_pair("x =\n    ", "width")
    assert decode(lm.tokenizer, before) == "x ="
    assert decode(lm.tokenizer, after) == "\n    width"


# --- Trap 3: what stands before the first token ---------------------------------------------------


def test_the_prefix_is_a_parameter_and_never_doubled():
    texts = {prefix: adapter(prefix=prefix) for prefix in PREFIXES}
    seen: dict[str, list[list[int]]] = {}
    for prefix, lm in texts.items():
        seen[prefix] = []
        run = lm.logits
        lm.logits = lambda t, kept=seen[prefix], run=run: kept.extend(t.tolist()) or run(t)  # pyright: ignore
        lm.loglikelihood(pairs(("import", " numpy")))
    (bare,), (document,), (always,) = (seen[p] for p in ("never", "document", "always"))
    assert END not in bare
    assert document == bare
    assert always == [END, *bare]
    asked = [(None, [END, 5], [6])]
    assert texts["always"]._loglikelihood_tokens(asked) == adapter()._loglikelihood_tokens(asked)


def test_an_empty_context_is_the_prefix_and_without_one_it_is_refused():
    lm = adapter()
    (total, _) = lm.loglikelihood(pairs(("", "import")))[0]
    assert total == pytest.approx(literal(lm.model, [END], lm.tok_encode("import")), abs=1e-5)
    with pytest.raises(ValueError, match="continuation of nothing"):
        adapter(prefix="never").loglikelihood(pairs(("", "import")))


def test_a_text_that_spells_the_separator_means_these_characters():
    assert END not in adapter().tok_encode('END = "<|endoftext|>"')


# --- Trap 4: rolling windows ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def some() -> ValidationPack:
    pack = held_out()
    return ValidationPack(pack.tokens[:12], pack.origins[:12])


def rolled(lm: HookedLM, texts: list[str]) -> list[float]:
    return lm.loglikelihood_rolling([ask("loglikelihood_rolling", text) for text in texts])


@pytest.mark.parametrize("name", ["mudd-tiny", "tfm-tiny"])
def test_rolling_bits_per_byte_are_those_of_our_own_evaluation(name: str, some: ValidationPack):
    lm = adapter(name, prefix="never")
    texts = [decode(lm.tokenizer, ids) for ids in some.tokens.tolist()]
    bits = -sum(rolled(lm, texts)) / math.log(2)
    own = float(file_losses(lm.logits, some).totals.sum()) / math.log(2)
    size = sum(len(text.encode()) for text in texts)
    assert bits / size == pytest.approx(own / size, abs=1e-6)


@pytest.mark.parametrize("length", [256, 64])
def test_disjoint_windows_are_the_rows_of_training(some: ValidationPack, length: int):
    """Whole windows are ``packing.rows``: each token predicted once, from its own window."""
    lm = adapter(max_length=length)
    ids = [token for row in some.tokens[:4].tolist() for token in row]
    stream = torch.tensor([END, *ids])
    cut = torch.from_numpy(rows(stream.numpy().astype("<u2"), length).astype("int64"))
    logits = lm.logits(cut[:, :-1]).flatten(0, 1)
    expected = F.cross_entropy(logits, cut[:, 1:].flatten(), reduction="sum").item()
    windows = lm.windows(ids)
    assert [token for _, after in windows for token in after] == ids
    found = -sum(score for score, _ in lm._scores(windows))
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_last_window_is_moved_back_and_predicts_what_is_left():
    lm = adapter(max_length=8)
    windows = lm.windows(list(range(1, 12)))
    assert windows[0] == ([END], list(range(1, 9)))
    before, after = windows[1]
    assert after == [9, 10, 11]
    assert len(before) + len(after) - 1 == 8  # a full window of input
    assert before[-1] == 8


def test_bits_depend_on_the_window(some: ValidationPack):
    texts = [decode(load("mudd-tiny").tokenizer, ids) for ids in some.tokens[:4].tolist()]
    short, whole = (sum(rolled(adapter(max_length=n), texts)) for n in (32, 256))
    assert short < whole - 10  # nats: less context, worse predictions
    bare = sum(rolled(adapter(prefix="never"), texts))
    assert bare > whole  # one token of each is not predicted


# --- Trap 5: what does not fit --------------------------------------------------------------------


def test_a_context_that_is_too_long_is_refused_unless_it_may_lose_its_beginning():
    lm = adapter(max_length=16)
    long = (CODE * 2, " width")
    with pytest.raises(ValueError, match=r"mudd-tiny reads 16.*--truncate"):
        lm.loglikelihood(pairs(long))
    cut = adapter(max_length=16, truncate=True)
    (total, _) = cut.loglikelihood(pairs(long))[0]
    before, after = cut._encode_pair(*long)
    kept = before[-(16 + 1 - len(after)) :]
    assert total == pytest.approx(literal(cut.model, kept, after), abs=1e-5)
    assert cut.counts.truncated == 1
    with pytest.raises(ValueError, match="mudd-tiny reads 16"):
        cut.loglikelihood(pairs(("x", CODE)))


# --- Trap 6: batches, and the space between context and answer ------------------------------------


def test_the_batch_size_moves_nothing_in_float32():
    """Rows are of one length, so nothing is padded; what is left is rounding."""
    found = [adapter(batch_size=n).loglikelihood(pairs(*PAIRS)) for n in (1, 9)]
    for (one, greedy), (nine, also) in zip(*found, strict=True):
        assert one == pytest.approx(nine, abs=2e-5)
        assert greedy == also


def test_an_edit_that_moves_weights_between_tokens_sees_no_padding():
    edits = "shuffle v *<-*"
    lm = adapter(edits=edits, batch_size=9)
    found = lm.loglikelihood(pairs(*PAIRS))
    for (context, continuation), (total, _) in zip(PAIRS, found, strict=True):
        before, after = lm._encode_pair(context, continuation)
        with edited(lm.model, edits), torch.no_grad():
            logits = lm.model(torch.tensor([before + after[:-1]]))[0, -len(after) :]
        picked = logits.log_softmax(-1).gather(1, torch.tensor(after)[:, None]).sum().item()
        assert total == pytest.approx(picked, abs=1e-5)


@pytest.mark.parametrize("name", ["identifier_cloze", "closing_bracket", "lambada_code"])
def test_nothing_is_put_between_a_context_and_its_answer(name: str):
    """The harness's delimiter is one space where a task does not say otherwise."""
    task = local_task(name)
    doc = task.test_docs()[0]
    context: Any = task.doc_to_text(doc)
    asked: Any = task.construct_requests(doc, context, metadata=(name, 0, 1))
    asked = asked if isinstance(asked, list) else [asked]
    assert [each.args[1] for each in asked] == doc["choices"]
    assert {each.args[0] for each in asked} == {doc["context"]}


# --- Passes that are shared, edits, hooks, decoding, names ----------------------------------------


def test_choices_of_one_token_share_a_pass():
    lm, passes = adapter(), list[int]()
    run = lm.logits
    lm.logits = lambda tokens: passes.append(len(tokens)) or run(tokens)  # pyright: ignore
    lm.loglikelihood(pairs(*((CODE + "area", sign) for sign in (")", "]", "}", ":"))))
    assert passes == [1]


def test_edits_and_hooks_change_scores_and_are_gone_afterwards():
    plain, cut = adapter(), adapter(edits="cut v *<-*")
    before = plain.loglikelihood(pairs(*PAIRS))
    after = cut.loglikelihood(pairs(*PAIRS))
    with edited(plain.model, "cut v *<-*"):
        hooked = plain.loglikelihood(pairs(*PAIRS))
    assert all(abs(a - b) > 0.01 for (a, _), (b, _) in zip(before, after, strict=True))
    assert hooked == after
    assert plain.loglikelihood(pairs(*PAIRS)) == before

    def nothing(tensor: Tensor, hook: object) -> Tensor:
        return tensor * 0

    with plain.model.hooks([(stream_input(5, "v"), nothing)]):
        assert plain.loglikelihood(pairs(*PAIRS)) != before


def test_mean_weights_come_from_the_bundled_text_unless_given(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def means(model: Any, batches: Any) -> Any:
        asked.append(batches.description)
        return dense_weights(model, take(batches, 2))

    monkeypatch.setattr("mudd_interp.evaluation.adapter.dense_weights", means)
    lm = adapter(edits="mean v *<-*")
    assert asked == ["bundled validation pack (Python source)"]
    assert lm.loglikelihood(pairs(*PAIRS)) != adapter().loglikelihood(pairs(*PAIRS))


def test_greedy_decoding_stops_where_it_is_told():
    lm = adapter()
    how = {"until": ["\n"], "max_gen_toks": 12}
    context = "import numpy as np\nimport"
    found = lm.generate_until([ask("generate_until", context, how)])[0]
    ids = lm.tok_encode(context)
    for _ in range(12):
        ids.append(int(lm.model(torch.tensor([ids]))[0, -1].argmax()))
    written = decode(lm.tokenizer, ids)[len(context) :]
    assert found == written.partition("\n")[0]
    assert found
    with pytest.raises(ValueError, match="sample"):
        lm.generate_until([ask("generate_until", "x", {"do_sample": True, "temperature": 0.7})])


def test_the_harness_knows_it_by_name():
    """After the import; the harness has no discovery of its own before the version after this."""
    options = "model=tfm-tiny,prefix=never,max_length=64"
    lm = get_model("mudd-interp").create_from_arg_string(options, {"batch_size": 2})
    assert isinstance(lm, HookedLM)
    assert (lm.model.info.name, lm.prefix, lm.max_length, lm.batch_size) == (
        "tfm-tiny",
        "never",
        64,
        2,
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prefix": "documents"}, "did you mean `document`"),
        ({"max_length": 300}, "2..256"),
        ({"batch_size": "auto"}, "whole number"),
        ({"edits": "cut v 50<-2"}, "50"),
        ({"edits": "cut v 5<2"}, "expected an edit"),
    ],
)
def test_bad_options_are_refused_at_once(options: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        adapter(**options)


def test_a_model_without_tokenizer_is_refused(monkeypatch: pytest.MonkeyPatch):
    model = load("tfm-tiny")
    monkeypatch.setattr(model, "_tokenizer", None)
    with pytest.raises(ValueError, match="without a tokenizer"):
        HookedLM(model)


def test_a_chat_template_is_none_of_a_base_models():
    with pytest.raises(NotImplementedError):
        adapter().apply_chat_template([{"role": "user", "content": "x"}])

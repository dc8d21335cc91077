"""The analyses of contributions are complete and exact, for every backbone."""

from typing import Any

import numpy as np
import pytest
import torch

from mudd_interp import axes
from mudd_interp.analysis import (
    composition,
    composition_table,
    direct_logit_attribution,
    head_inputs,
    logit_lens,
    path_coefficients,
    routes,
    stream_decomposition,
)
from mudd_interp.analysis.composition import InputStream
from mudd_interp.axes import Stream
from mudd_interp.protocol import DecomposableModel
from tests.identities.errors import EXACT, MODELS, TOKENS, model_of
from tests.identities.test_decompositions import FLOAT32_NORM
from tests.parity.family import FAMILY, random_model

SEQUENCE = TOKENS[:1]


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name: str) -> Any:
    return model_of(name)


@pytest.fixture(scope="module")
def tolerance(name: str) -> float:
    return FLOAT32_NORM if name == "bridge: Llama" else EXACT


def has_biases(model: Any) -> bool:
    """Whether norms and projections of the model add anything."""
    return model.cfg.normalization_type == "LN"


def test_every_model_can_be_decomposed(model: Any):
    assert isinstance(model, DecomposableModel)


def test_three_divisions_sum_to_the_models_difference_of_logits(model: Any, tolerance: float):
    found = direct_logit_attribution(model, SEQUENCE, answer=5, against=7, position=4)
    with torch.no_grad():
        logits = model(SEQUENCE)[0, 4]
    expected = float(logits[5] - logits[7])
    close = pytest.approx(expected, rel=tolerance, abs=tolerance)
    ends = found.embed + found.constant
    assert found.attn.sum() + found.mlp.sum() + ends == close
    assert found.heads.sum() + found.attn_bias.sum() + found.mlp.sum() + ends == close
    assert found.sources.sum() + found.constant == close
    assert found.components.to_numpy().sum() == close
    assert found.frame["contribution"].to_numpy().sum() == close
    divisions: Any = found.divisions
    sums = divisions.groupby("division")["contribution"].sum()
    assert sums.to_dict() == {"components": close, "heads": close, "sources": close}
    for name, table in divisions.groupby("division"):
        expected_rows = found.division(name)
        assert table.drop(columns="division").reset_index(drop=True).equals(expected_rows)


def test_streams_and_heads_are_complete(model: Any):
    assert path_coefficients(model, SEQUENCE).completeness_error <= EXACT
    streams: list[tuple[int, Stream]] = [(2, "v"), (1, "q"), (3, "r")]
    for layer, stream in streams:
        found = stream_decomposition(model, SEQUENCE, layer, stream)
        assert found.completeness_error <= EXACT
        np.testing.assert_allclose(found.share.sum(0), 1, rtol=0, atol=EXACT)
        one = pytest.approx(1, abs=EXACT)
        assert [found.frame_at(2)["share"].to_numpy().sum()] == [one]
        assert [found.heads_at(2)["share"].to_numpy().sum()] == [one]
        divisions: Any = found.divisions_at(2).groupby("division")["share"].sum()
        assert divisions.to_dict() == {"components": one, "heads": one}
        if not has_biases(model):
            of_attention = found.share[1::2]
            np.testing.assert_allclose(found.head_share.sum(1), of_attention, rtol=0, atol=EXACT)
    assert composition(model, SEQUENCE, (0, 1), (2, 0), "k").completeness_error <= EXACT


def test_all_that_a_head_reads_was_written_by_a_component_or_is_a_bias(
    model: Any, tolerance: float
):
    """Shares of the whole stream are one where nothing is added on the way to the head."""
    for stream in ("q", "k", "v"):
        found = composition(model, SEQUENCE, (0, 1), (2, 0), stream)
        embeds = stream == "v" and axes.value_embed(2) in model.hook_dict
        added = has_biases(model) or embeds
        assert bool((np.abs(found.constant) > tolerance).any()) == added


def test_the_parts_of_a_heads_inputs_sum_to_one_and_its_heads_are_those_of_the_table(
    model: Any, tolerance: float
):
    found = head_inputs(model, [SEQUENCE], layer=2, head=1)
    assert found.error.max() <= tolerance
    frame = found.frame.set_index(["stream", "component"])
    shared = model.cfg.n_heads // model.blocks[0].attn.W_K.shape[0]
    readers: dict[InputStream, int] = {"q": 1, "k": 1 // shared, "v": 1 // shared}
    close: Any = {"rel": tolerance, "abs": tolerance}
    for stream, reader in readers.items():
        assert frame.loc[stream, "total"].sum() == pytest.approx(1, abs=tolerance)
        table = composition_table(model, SEQUENCE, stream)
        for layer, head in np.ndindex(2, model.cfg.n_heads):
            row = frame.loc[(stream, f"head {layer}.{head}")]
            assert row["direct"] == pytest.approx(table.direct[layer, head, 2, reader], **close)
            assert row["total"] == pytest.approx(table.total[layer, head, 2, reader], **close)


def test_the_first_layer_reads_the_embedding_and_nothing_else():
    model = random_model(FAMILY["MUDDFormer"])
    frame = head_inputs(model, [SEQUENCE], layer=0, head=1).frame
    assert frame["component"].tolist() == ["embed", "constant"] * 3
    np.testing.assert_allclose(frame["direct"], [1, 0] * 3, atol=EXACT)


def test_inputs_of_heads_merge():
    model = random_model(FAMILY["MUDDPythia"])
    parts = [head_inputs(model, [TOKENS[i : i + 1]], 2, 0) for i in range(2)]
    whole = head_inputs(model, [TOKENS], 2, 0)
    np.testing.assert_array_equal(parts[0].merge(parts[1]).total, whole.total)
    assert (whole.frame["total_low"] <= whole.frame["total_high"]).to_numpy().all()


def test_an_edited_model_is_decomposed_as_it_ran():
    model = random_model(FAMILY["MUDDFormer"])
    before = direct_logit_attribution(model, SEQUENCE, answer=5)
    with model.edited("cut v 1<-0; cut r 2<-1"):
        after = direct_logit_attribution(model, SEQUENCE, answer=5)
        assert path_coefficients(model, SEQUENCE).completeness_error <= EXACT
    assert after.completeness_error <= EXACT
    assert abs(after.logit - before.logit) > 1e-3
    assert (before.sources[1] != 0, after.sources[1]) == (True, 0)
    assert direct_logit_attribution(model, SEQUENCE, answer=5).logit == before.logit


def test_the_lens_ends_in_the_models_own_answer(model: Any, tolerance: float):
    found = logit_lens(model, SEQUENCE)
    assert found.completeness_error <= tolerance
    last = len(found.kinds) - 1
    assert (found.kinds[last], found.depths[last]) == ("r", 3)
    assert found.answer_rank[last].tolist() == [1] * SEQUENCE.shape[1]
    assert (found.first_lead("r") >= 0).all()


def test_a_share_of_a_heads_value_is_what_its_removal_takes_away():
    """Taking a head's output out of a value stream changes the value by its share, norm frozen."""
    model = random_model(FAMILY["MUDDPythia, sequential"])
    found = composition(model, SEQUENCE, (0, 1), (2, 0), "v")
    with torch.no_grad():
        _, cache = model.run_with_cache(SEQUENCE)
        wrote = cache.stack_head_results(2, stream="v", apply_ln=True)[1, 0]  # block 0, head 1
        weight = model.blocks[2].get_parameter("attn.W_V")[0]
        value = cache["v", 2][0, :, 0]
        without = value - (wrote * model.norm_gain(2, "v")) @ weight
        left = (without * value).sum(-1) / value.square().sum(-1)
    np.testing.assert_allclose(found.total, 1 - left, rtol=0, atol=EXACT)


def test_routes_need_weights_that_are_numbers():
    model = random_model(FAMILY["PrePostDANorm, Eq. 10"])
    with pytest.raises(ValueError, match="PrePostDANorm each is a vector"):
        routes(model, SEQUENCE, source=0)


REFUSED: dict[str, tuple[Any, str]] = {
    "source": (lambda m: routes(m, SEQUENCE, source=3, layer=2), r"0\.\.2 .*got 3"),
    "k": (lambda m: routes(m, SEQUENCE, source=0, k=0), "at least 1, got 0"),
    "layer": (lambda m: stream_decomposition(m, SEQUENCE, layer=9), r"0\.\.3 .*got 9"),
    "order": (lambda m: composition(m, SEQUENCE, (2, 0), (2, 1)), "in an earlier layer"),
    "reader": (lambda m: head_inputs(m, [SEQUENCE], 2, 2), r"no head 2 in layer 2"),
    "head": (lambda m: composition(m, SEQUENCE, (0, 5), (2, 1)), r"no head 5 in layer 0"),
    "token": (lambda m: direct_logit_attribution(m, SEQUENCE, answer=99), r"0\.\.28, got 99"),
    "text": (lambda m: direct_logit_attribution(m, SEQUENCE, answer="the"), "no tokenizer"),
    "position": (lambda m: direct_logit_attribution(m, SEQUENCE, position=7), r"0\.\.6, got 7"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_exist_is_refused(case: str):
    call, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        call(random_model(FAMILY["MUDDFormer"]))

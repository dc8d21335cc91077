"""Numbers that are not finite are named where they begin; no result or figure is made of them."""

import numpy as np
import pytest
import torch

import mudd_interp as mi
from mudd_interp.analysis.finite import freeze
from mudd_interp.catalog import FIGURES
from mudd_interp.model import HookedMUDDTransformer
from tests.parity.family import FAMILY, letters_tokenizer, random_model, random_tokens

LOUD = 6  # the token "f"
TOKENS = torch.tensor([[1, 2, 3, 4, 5], [1, 2, LOUD, 4, 5]])


@pytest.fixture
def model() -> HookedMUDDTransformer:
    """In float16, with an embedding that fits and what is added to it beyond 65,504."""
    model = random_model(FAMILY["MUDDFormer"])
    model.tokenizer = letters_tokenizer()
    with torch.no_grad():
        model.embed.W_E[LOUD] = 6e4
    return model.to(torch.float16)


CORPUS = {
    "layer_similarity": mi.analysis.layer_similarity,
    "similarity_matrix": mi.analysis.similarity_matrix,
    "stream_norms": mi.analysis.stream_norms,
    "dense_weights": mi.analysis.dense_weights,
    "weight_distribution": mi.analysis.weight_distribution,
    "head_activity": lambda m, b: mi.analysis.head_activity(m, b, sink_token_ids=[]),
    "head_entropy": mi.analysis.head_entropy,
    "edge_sizes": mi.analysis.edge_sizes,
    "edge_attribution": mi.analysis.edge_attribution,
    "ablation_sweep": lambda m, b: mi.analysis.ablation_sweep(m, b, ["cut v 0<-0"]),
    "in_context_loss": lambda m, b: mi.analysis.in_context_loss(m, b, early=1, late=3, reach=0),
    "compare_losses": lambda m, b: mi.analysis.compare_losses(m, m, b),
    "sink_sensitivity": lambda m, b: mi.analysis.sink_sensitivity(m, b, sink_token_ids=[]),
    "static_vs_dynamic": mi.analysis.static_vs_dynamic,
    "activations": lambda m, b: list(mi.analysis.activations(m, b, "blocks.1.hook_resid_post")),
    "head_inputs": lambda m, b: mi.analysis.head_inputs(m, b, layer=1, head=0),
}
SEQUENCE = {
    "predictions": mi.analysis.predictions,
    "token_weights": mi.analysis.token_weights,
    "path_coefficients": mi.analysis.path_coefficients,
    "direct_logit_attribution": mi.analysis.direct_logit_attribution,
    "stream_decomposition": mi.analysis.stream_decomposition,
    "routes": lambda m, t: mi.analysis.routes(m, t, source=0),
    "logit_lens": mi.analysis.logit_lens,
    "composition_table": lambda m, t: mi.analysis.composition_table(m, t, "v"),
}
AT = r"position 2 of sequence {} of its batch: float16 ends at 65,504.*bfloat16 or float32"


@pytest.mark.parametrize("name", CORPUS)
def test_an_overflow_ends_an_analysis_of_a_corpus(model: HookedMUDDTransformer, name: str):
    calm = TOKENS[:1]
    CORPUS[name](model, [calm])
    sequence = 0 if name == "head_inputs" else 1  # which runs sequence by sequence
    with pytest.raises(ValueError, match="holds infinity at " + AT.format(sequence)):
        CORPUS[name](model, [calm, TOKENS])
    assert not model.list_hooks()


@pytest.mark.parametrize("name", SEQUENCE)
def test_an_overflow_ends_an_analysis_of_a_sequence(model: HookedMUDDTransformer, name: str):
    SEQUENCE[name](model, TOKENS[:1])
    with pytest.raises(ValueError, match="holds infinity at " + AT.format(0)):
        SEQUENCE[name](model, TOKENS[1:])


def test_the_block_in_which_it_begins_is_named(model: HookedMUDDTransformer):
    with pytest.raises(ValueError, match=r"^`blocks\.1\.hook_resid_pre` of random weights holds"):
        mi.analysis.layer_similarity(model, [TOKENS])
    model.to(torch.float32)
    mi.analysis.layer_similarity(model, [TOKENS])
    with torch.no_grad():
        model.get_parameter("blocks.1.mlp.W_out")[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"`blocks\.1\.hook_resid_post`.*NaN.*position 0.*check"):
        mi.analysis.layer_similarity(model, [TOKENS])


def test_a_loss_that_is_not_finite_is_no_better_one():
    model = random_model(FAMILY["Transformer++"])
    with torch.no_grad():
        model.unembed.W_U[:] = torch.inf
    tokens = random_tokens(model.config)
    with pytest.raises(ValueError, match=r"LossComparison\.loss_sum is NaN at model 1"):
        mi.analysis.compare_losses(random_model(FAMILY["Transformer++"]), model, [tokens])


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_no_figure_is_drawn_of_it(model: HookedMUDDTransformer, name: str):
    given = {"prompt_ids": [1, 2, LOUD, 4, 5], "corrupted": "a b f d f", "scope": "prompt"}
    other = random_model(FAMILY["Transformer++"]).to(torch.float16)
    other.tokenizer = letters_tokenizer()
    options = {"edits": "cut v 0<-0", "sinks": [], **given}
    try:
        table = mi.draw(name, model=model, baseline=other, **options).frame
    except ValueError:
        return
    assert np.isfinite(table.select_dtypes("number").to_numpy(float)).all()


def test_what_is_absent_and_what_is_impossible_is_meant():
    model = random_model(FAMILY["MUDDFormer"])
    weights = mi.analysis.dense_weights(model, [random_tokens(model.config)])
    assert np.isnan(weights.mean).any()
    freeze(weights, "float32", absent=weights.absent)
    with pytest.raises(
        ValueError, match=r"DenseWeights\.mean is NaN at stream 0, layer 0, source 2"
    ):
        freeze(weights, "float32")

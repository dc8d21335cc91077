"""A front of vectors and a task of classes: what blocks and analyses never learn of."""

import numpy as np
import pytest
import torch

import mudd_interp as mi
from mudd_interp import axes
from mudd_interp.analysis import (
    Analysis,
    DenseWeightsAnalysis,
    HeadActivityAnalysis,
    HeadEntropyAnalysis,
    LayerSimilarityAnalysis,
    LossComparisonAnalysis,
    SimilarityMatrixAnalysis,
    SinkSensitivityAnalysis,
    StreamNormsAnalysis,
    WeightDistributionAnalysis,
    activations,
    composition,
    direct_logit_attribution,
    edge_patch,
    head_scores,
    logit_lens,
    path_coefficients,
    predictions,
    read_weights,
    routes,
    save_activations,
    state_patch,
    stream_decomposition,
    sweep,
    token_weights,
)
from mudd_interp.model.front import TokenFront
from mudd_interp.protocol import (
    DECODER,
    CachedModel,
    DecomposableModel,
    Front,
    HookedModel,
    why_not,
)
from tests.parity import literal
from tests.parity.family import BIDIRECTIONAL, FAMILY, random_model, random_tokens
from tests.unit.vectors import (
    CLASSES,
    READS_ALL,
    READS_ALL_PLAIN,
    VectorFront,
    random_vectors,
    vector_model,
)

# float64 rounding, summed in another order over a few layers.
TOLERANCE = 1e-10

CONFIGS = [READS_ALL, READS_ALL_PLAIN]

FOR_ANY = [
    LayerSimilarityAnalysis(),
    SimilarityMatrixAnalysis(),
    StreamNormsAnalysis(),
    DenseWeightsAnalysis(),
    WeightDistributionAnalysis(),
    HeadEntropyAnalysis(),
    HeadActivityAnalysis(sink_token_ids=[], first_positions=0),
    SinkSensitivityAnalysis(sink_token_ids=[], most_positions=0),
]


@pytest.mark.parametrize("cfg", CONFIGS)
def test_another_front_and_task_agree_with_the_equations(cfg):
    model, vectors = vector_model(cfg), random_vectors()
    output, cache = model.run_with_cache(vectors)
    assert output.shape == (3, CLASSES)
    state = model.state_dict()
    for row, x in enumerate(vectors):
        # To the equations the embedding of position t is row t of a table.
        weights = {
            **state,
            "embed.W_E": x @ state["embed.W_E"],
            "unembed.W_U": torch.eye(cfg.d_model, dtype=torch.float64),
        }
        expected = literal.run(torch.arange(len(x)), weights, cfg)
        found = cache[axes.RESID_FINAL][row]
        torch.testing.assert_close(found, expected["final"], rtol=0, atol=TOLERANCE)
        classes = expected["logits"].mean(0) @ state["unembed.W_C"]
        torch.testing.assert_close(output[row], classes, rtol=0, atol=TOLERANCE)


def test_the_task_scores_its_output_and_says_what_it_lacks():
    model, vectors, target = vector_model(), random_vectors(), torch.tensor([0, 4, 2])
    output, loss = model(vectors, return_type="both", target=target)
    expected = -output.log_softmax(-1)[torch.arange(3), target].mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(ValueError, match="needs the class of each input: give a target"):
        model(vectors, return_type="loss")
    with pytest.raises(ValueError, match=r"expected vectors \[batch pos 6\], got \[2, 3\]"):
        model(torch.tensor([[1, 2, 3], [4, 5, 6]]))


def test_it_is_a_hooked_model_and_no_language_model():
    model = vector_model()
    assert isinstance(model, HookedModel)
    assert isinstance(model, CachedModel)
    assert not isinstance(model, DecomposableModel)
    assert isinstance(model.front, VectorFront)
    assert isinstance(model.front, Front)
    assert model.traits == model.wiring.traits >= {"states", "numbers"}
    assert model.tokenizer is None
    assert not hasattr(model, "generate")
    assert not hasattr(model, "W_U")
    assert model.W_Q.shape == (3, 2, 16, 8)
    assert model.n_params_total == sum(each.numel() for each in model.parameters())
    assert [name for name in model.hook_dict if name.startswith("hook_")] == [
        "hook_embed",
        "hook_resid_final",
    ]


@pytest.mark.parametrize("cfg", CONFIGS)
def test_analyses_that_ask_no_token_run_on_it(cfg):
    model, vectors = vector_model(cfg), random_vectors()
    results = sweep(model, [vectors[:2], vectors[2:]], FOR_ANY)
    one, parts = sweep(model, [vectors], FOR_ANY), results
    for whole, split in zip(one, parts, strict=True):
        assert split.provenance.tokens == 3 * 7
        assert split.provenance.token_digest == whole.provenance.token_digest
        np.testing.assert_allclose(
            split.frame.select_dtypes("number"), whole.frame.select_dtypes("number"), atol=1e-9
        )
    other = sweep(model, [vectors + 1e-6], FOR_ANY[:1])[0]
    assert other.provenance.token_digest != one[0].provenance.token_digest
    entropy = results[5].frame["entropy"]
    assert entropy.between(0, np.log(7)).all()
    # All attention rests somewhere, and nothing is a sink.
    assert (results[6].frame["active"] == 1).all()


@pytest.mark.parametrize("cfg", CONFIGS)
def test_analyses_of_one_input_run_on_it(cfg):
    model, x = vector_model(cfg), random_vectors()[0]
    labels = tuple(f"place {i}" for i in range(7))
    found = [
        token_weights(model, x),
        path_coefficients(model, x),
        stream_decomposition(model, x, layer=2),
        routes(model, x, source=1),
        composition(model, x, from_head=(0, 1), to_head=(2, 0)),
    ]
    for each in found:
        assert each.tokens == labels
        assert each.token_ids.tolist() == list(range(7))
        assert getattr(each, "completeness_error", 0) < 1e-9
    assert read_weights(model, x[None]).completeness.max() < 1e-9
    rows = next(iter(activations(model, [x[None]], axes.resid_post(1))))
    assert rows.shape == (7, cfg.d_model)


def test_analyses_of_tokens_refuse_it_in_one_sentence(tmp_path):
    model, vectors = vector_model(), random_vectors()
    x, pair = vectors[0], (vectors[:1], vectors[1:2])
    calls = {
        "predictions": lambda: predictions(model, x),
        "head_scores": lambda: head_scores(model),
        "save_activations": lambda: save_activations(model, [vectors], "hook_embed", tmp_path),
        "a patch": lambda: state_patch(model, *pair),
        "a patch, which": lambda: edge_patch(model, *pair),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"^{name}.* is not for vectors, because it reads no"):
            call()
    asked = {kind.requires for kind in Analysis.named.values()}
    assert {"tokens", "next_token"} in asked
    for name, kind in Analysis.named.items():
        if kind.requires & {"tokens", "next_token"}:
            given = kind(vector_model()) if kind is LossComparisonAnalysis else kind()
            with pytest.raises(ValueError, match=f"^{name} is not for vectors, because it reads"):
                sweep(model, [vectors], [given])
    with pytest.raises(ValueError, match=r"^head_activity is not for vectors, because it reads"):
        sweep(model, [vectors], ["head_activity"])
    first = HeadActivityAnalysis(sink_token_ids=[], first_positions=2)
    with pytest.raises(ValueError, match=r"head_activity .* because its positions see later ones"):
        sweep(model, [vectors], [first])


def test_a_figure_needs_a_text_that_it_cannot_read():
    with pytest.raises(ValueError, match=r"is not for vectors, because it reads no tokens\.$"):
        mi.draw("layer_similarity", model=vector_model(), prompt_ids=(1, 2, 3))
    with pytest.raises(ValueError, match=r"^next_tokens is not for vectors, because it reads no"):
        mi.draw("next_tokens", model=vector_model(), prompt_ids=(1, 2, 3))


def test_a_model_of_tokens_that_sees_all_predicts_no_next_one():
    cfg = BIDIRECTIONAL["MUDDFormer, bidirectional"]
    model, tokens = random_model(cfg), random_tokens(cfg)
    assert model.traits == {"tokens", *model.wiring.traits}
    assert why_not(model, {"tokens"}) is None
    assert random_model(FAMILY["MUDDFormer"]).traits == {*DECODER, "states", "numbers", "moving"}
    assert isinstance(model.front, TokenFront)
    with pytest.raises(ValueError, match="the loss of the next token is not for random weights"):
        model(tokens, return_type="loss")
    with pytest.raises(ValueError, match="generate is not for random weights, because it does not"):
        model.generate(tokens[:1], stop_at_eos=False)
    with pytest.raises(ValueError, match=r"a cache of keys and values is not .* see later ones"):
        model.new_kv_cache(2, 7)
    for analysis in (logit_lens, direct_logit_attribution, predictions):
        with pytest.raises(ValueError, match=f"{analysis.__name__} is not .* predict the next"):
            analysis(model, tokens[0])
    causal = random_model(FAMILY["MUDDFormer"])
    with pytest.raises(ValueError, match=r"a cache of keys and values is not .* see later ones"):
        model(tokens, past_kv_cache=causal.new_kv_cache(2, 7))
    assert sweep(model, [tokens], ["layer_similarity"])[0].provenance.tokens == tokens.numel()
    with pytest.raises(ValueError, match="compare_losses is not for random weights"):
        sweep(causal, [tokens], [LossComparisonAnalysis(model)])


def test_a_front_of_tokens_reads_ids_and_labels_them():
    model, tokens = random_model(FAMILY["MUDDFormer"]), random_tokens(FAMILY["MUDDFormer"])
    front = model.front
    assert front.positions(tokens) == tokens.shape[1]
    assert torch.equal(front.embed(tokens), model(tokens, stop_at_layer=0))
    assert front.labels(tokens[0]) == tuple(map(str, tokens[0].tolist()))
    assert front.contents(tokens)[1] == tokens[1].numpy().astype("<i8").tobytes()

"""Weight, contribution and cause: first-order estimates, patches, sizes, and a planted circuit."""

from typing import Any

import numpy as np
import pytest
import torch

from mudd_interp import axes
from mudd_interp.analysis import (
    EdgeAttribution,
    InContextLoss,
    Result,
    ablation_sweep,
    edge_attribution,
    edge_patch,
    edge_sizes,
    in_context_loss,
    rank_correlations,
    spearman,
    static_vs_dynamic,
    weight_contribution_cause,
)
from mudd_interp.data import shuffled, token_batches
from mudd_interp.edits import every_edge
from tests.identities.circuits import cancelled_weight
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.analysis.fakes import LogitModel

PAIRS = torch.tensor([[3, 5], [4, 2]])
UNNORMED = ["Transformer++", "MUDDFormer", "MUDDFormer - R dense", "+ Dynamic Dense", "MUDDPythia"]


def test_a_large_weight_that_cancels_is_not_found_causal():
    model = cancelled_weight()
    batches = [random_tokens(model.config, 4, 9)]
    sweep, estimates = ablation_sweep(model, batches), edge_attribution(model, batches)
    table = weight_contribution_cause(edge_sizes(model, batches), sweep, estimates)
    rows: dict[str, Any] = {
        f"{row['stream']} {row['layer']}<-{row['source']}": row for row in table.to_dict("records")
    }
    largest = {
        column: max(rows, key=lambda name: rows[name][column])
        for column in ("weight", "contribution", "kl")
    }
    assert largest == {"weight": "r 1<-2", "contribution": "r 1<-2", "kl": "r 1<-1"}
    assert rows["r 1<-2"]["weight"] == 50.0
    assert abs(rows["r 1<-2"]["estimate"]) < 1e-12
    assert rows["r 1<-1"]["kl"] > 0.1
    # Nothing else is connected to the logits.
    assert max(abs(row["kl"]) for name, row in rows.items() if name != "r 1<-1") < 1e-12


@pytest.mark.parametrize("name", ["+ Multiway Static Dense", "PrePostDANorm, static"])
def test_first_order_is_exact_for_small_weights(name):
    model = random_model(FAMILY[name])
    batches = [random_tokens(model.config, 2, 7)]
    with torch.no_grad():
        dict(model.named_parameters())["dense.1.a"][:, 0] = 1e-5
    edges = [f"cut {stream} 1<-0" for stream in model.wiring.streams]
    exact = ablation_sweep(model, batches, edges).loss_change
    estimates = edge_attribution(model, batches)
    rows = estimates.frame["edits"].isin(edges).to_numpy()
    # The next order is smaller by the weight, 1e-5, times curvatures of order 1 to 100.
    np.testing.assert_allclose(estimates.estimate[rows], exact, rtol=3e-3, atol=1e-10)


def test_estimates_merge_and_leave_no_gradient_behind(tmp_path):
    model = random_model(FAMILY["MUDDFormer - V dense"])
    batches = [random_tokens(model.config, 2, 7), random_tokens(model.config, 1, 4, seed=2)]
    whole = edge_attribution(model, batches)
    assert all(parameter.grad is None for parameter in model.parameters())
    parts = [edge_attribution(model, [tokens]) for tokens in batches]
    parts[0].save(tmp_path / "part")
    merged = EdgeAttribution.load(tmp_path / "part").merge(parts[1])
    np.testing.assert_array_equal(merged.estimate, whole.estimate)
    assert merged.frame["edits"].tolist() == [str(edge) for edge in every_edge(model)]
    model.requires_grad_(False)
    np.testing.assert_allclose(edge_attribution(model, batches).estimate, whole.estimate, rtol=1e-9)


@pytest.mark.parametrize("name", UNNORMED)
def test_patching_a_prompt_into_itself_changes_nothing(name):
    model = random_model(FAMILY[name])
    tokens = random_tokens(model.config)
    patch = edge_patch(model, tokens, tokens, PAIRS)
    np.testing.assert_allclose(patch.edge, patch.clean[None].repeat(len(patch.edge), 0), rtol=1e-9)
    np.testing.assert_array_equal(patch.clean, patch.corrupted)


@pytest.mark.parametrize("name", UNNORMED)
def test_patching_all_that_reaches_the_logits_is_the_corrupted_run(name):
    model = random_model(FAMILY[name])
    clean, corrupted = random_tokens(model.config), random_tokens(model.config, seed=9)
    patch = edge_patch(model, clean, corrupted, PAIRS)
    assert patch.stream_frame["layer"].iloc[-1] == model.cfg.n_layers - 1
    np.testing.assert_allclose(patch.stream[-1], patch.corrupted, rtol=1e-9)
    assert patch.stream_frame["share"].iloc[-1] == pytest.approx(1)
    logits = model(clean).detach().numpy()[:, -1]
    expected = logits[0, 3] - logits[0, 5], logits[1, 4] - logits[1, 2]
    np.testing.assert_allclose(patch.clean, expected)


def test_one_patched_edge_by_its_definition():
    model = random_model(FAMILY["MUDDFormer"])
    prompts = random_tokens(model.config), random_tokens(model.config, seed=9)
    patch = edge_patch(model, *prompts, PAIRS)
    caches = [model.run_with_cache(tokens)[1] for tokens in prompts]
    terms = [
        cache[axes.dense_weights(0, "k")][:, :, 1, None] * cache[axes.source_output(1)]
        for cache in caches
    ]
    hook = (axes.stream_input(1, "k"), lambda x, hook: x + terms[1] - terms[0])
    with model.hooks([hook]):
        last = model(prompts[0])[:, -1].detach()
    expected = last.gather(1, PAIRS).numpy()
    row = patch.provenance.options["edges"].index("cut k 0<-1")
    np.testing.assert_allclose(patch.edge[row], expected[:, 0] - expected[:, 1], rtol=1e-9)


def test_prompts_that_cannot_be_patched_are_refused():
    model = random_model(FAMILY["MUDDFormer"])
    tokens = random_tokens(model.config)
    with pytest.raises(ValueError, match="of one shape"):
        edge_patch(model, tokens, tokens[:, 1:])
    with pytest.raises(ValueError, match="the likeliest token of prompt 0 is"):
        edge_patch(model, tokens, tokens)
    with pytest.raises(ValueError, match=r"two different ids in 0\.\.28"):
        edge_patch(model, tokens, tokens, torch.tensor([[1, 1], [2, 3]]))
    normed = random_model(FAMILY["PrePostDANorm, Eq. 10"])
    with pytest.raises(ValueError, match="its edges add up inside a norm"):
        edge_patch(normed, tokens, tokens, PAIRS)


@pytest.mark.parametrize("name", ["MUDDFormer - V dense", "Transformer++", "PrePostDANorm, R only"])
def test_sizes_are_those_of_the_whole_cache(name):
    model = random_model(FAMILY[name])
    batches = [random_tokens(model.config, 2, 7), random_tokens(model.config, 1, 3, seed=2)]
    found = edge_sizes(model, batches)
    caches = [model.run_with_cache(tokens)[1] for tokens in batches]
    rows: list[Any] = list(found.frame.itertuples())
    for row in rows:
        read = model.wiring.row(row.stream, row.layer)
        weights_hook = model.wiring.gate(read)
        newest = float(row.source == row.layer + 1)
        sums = np.zeros(3)
        for cache in caches:
            x = cache[model.wiring.multiplied(model.wiring.sources[row.source])].norm(dim=-1)
            weights = torch.full_like(x, newest)
            if weights_hook is not None:
                weights = cache[weights_hook][:, :, row.source].abs()
            stream = cache[read.hook].norm(dim=-1)
            sums += [float(each.sum()) for each in (weights, weights * x, stream)]
        expected = sums[0] / 17, sums[1] / 17, sums[1] / sums[2]
        np.testing.assert_allclose((row.weight, row.contribution, row.share), expected, rtol=1e-9)


def test_weights_that_are_static_lose_nothing_by_their_mean():
    model = random_model(FAMILY["+ Multiway Static Dense"])
    batches = token_batches(random_tokens(model.config, 3, 7))
    frame = static_vs_dynamic(model, batches).frame
    assert frame["action"].unique().tolist() == ["mean", "static", "shuffle"]
    assert frame["edits"].tolist()[:8] == [
        "mean * *<-*",
        *(f"mean {stream} *<-*" for stream in "qkvr"),
        *(f"mean * {layer}<-*" for layer in range(3)),
    ]
    assert np.abs(frame["kl"].to_numpy()).max() < 1e-12
    with pytest.raises(ValueError, match="has no dense weights"):
        static_vs_dynamic(random_model(FAMILY["Transformer++"]), batches)


def test_dynamic_weights_lose_by_their_mean():
    model = random_model(FAMILY["MUDDFormer"])
    frame = static_vs_dynamic(model, [random_tokens(model.config, 3, 7)]).frame
    assert frame["kl"].to_numpy().min() > 1e-6


def test_rank_correlations_by_hand():
    model = cancelled_weight()
    batches = [random_tokens(model.config, 4, 9)]
    table = weight_contribution_cause(edge_sizes(model, batches), ablation_sweep(model, batches))
    table = table[table["stream"] == "r"].assign(
        weight=np.arange(5.0), contribution=[0.0, 2.0, 1.0, 3.0, 4.0]
    )
    table = table.assign(loss=[-4.0, 3.0, 2.0, 1.0, 0.0])
    found = rank_correlations(table)
    assert found["stream"].tolist() == ["r", "all"]
    # Spearman's 1 - 6 Σd² / (n (n² - 1)): one swap of neighbours, and ranks that are reversed.
    assert found["weight_contribution"].tolist() == pytest.approx([0.9, 0.9])
    assert found["weight_effect"].tolist() == pytest.approx([-1, -1])


def test_results_of_two_texts_are_not_put_side_by_side():
    model = cancelled_weight()
    first, second = ([random_tokens(model.config, 2, 5, seed=seed)] for seed in (1, 2))
    with pytest.raises(ValueError, match="one model on the same tokens"):
        weight_contribution_cause(edge_sizes(model, first), ablation_sweep(model, second))


def test_equal_values_have_no_rank_correlation():
    equal = np.ones(3)
    assert np.isnan(spearman(equal, equal))


def test_the_loss_by_position_and_the_gain_by_hand(tmp_path):
    # Token t follows with probability 1/2 up to position 5 and with 1/4 beyond, of 4 tokens.
    def logits(tokens):
        share = torch.where(torch.arange(tokens.shape[1]) < 5, 0.5, 0.25).double()
        probabilities = ((1 - share) / 3)[:, None].repeat(1, 4)
        probabilities[:, 0] = share
        return probabilities.log().expand(len(tokens), -1, -1)

    model = LogitModel(logits, d_vocab=4)
    batches = [torch.zeros(2, 12, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.int64)]
    found = in_context_loss(model, batches, early=3, late=9, reach=1)
    expected = [1.0] * 5 + [2.0] * 6
    np.testing.assert_allclose(found.frame["loss"] / np.log(2), expected)
    assert found.frame["sequences"].tolist() == [3, 3, 3, *[2] * 8]
    np.testing.assert_allclose(found.gain, [-np.log(2)] * 2)
    assert found.score == pytest.approx([-np.log(2)] * 3)
    found.save(tmp_path / "loss")
    both = InContextLoss.load(tmp_path / "loss").merge(found)
    assert both.gain.size == 4
    assert isinstance(both, Result)
    with pytest.raises(ValueError, match=r"early \+ reach < late - reach"):
        in_context_loss(model, batches, early=3, late=5, reach=1)


def test_shuffled_text_has_the_same_tokens():
    tokens = torch.arange(24).reshape(4, 6)
    batches = token_batches(tokens, 2)
    first, second = (torch.cat(list(shuffled(batches, seed))) for seed in (0, 1))
    assert not torch.equal(first, tokens)
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(1).values, tokens)
    assert torch.equal(torch.cat(list(shuffled(batches))), first)

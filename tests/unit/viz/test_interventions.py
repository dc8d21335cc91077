"""Figures of interventions: they show the numbers of their results, and refuse other ones."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mudd_interp import viz
from mudd_interp.analysis import (
    ablation_sweep,
    edge_attribution,
    edge_patch,
    edge_sizes,
    in_context_loss,
    state_patch,
    static_vs_dynamic,
)
from tests.parity.family import FAMILY, random_model, random_tokens


@pytest.fixture(scope="module")
def results() -> Any:
    """Sizes, effects, estimates, and the worth of dynamic weights."""
    model = random_model(FAMILY["MUDDFormer - V dense"])
    batches = [random_tokens(model.config, 3, 9)]
    computed = (edge_sizes, ablation_sweep, edge_attribution, static_vs_dynamic)
    return [compute(model, batches) for compute in computed]


def test_effects_stand_where_their_edges_are(results):
    sweep = results[1]
    figure: Any = viz.edge_effects_figure(sweep)
    for trace, stream in zip(figure.data, "qkvr", strict=True):
        rows = sweep.frame[sweep.frame["stream"] == stream]
        z = np.asarray(trace.z)
        assert np.count_nonzero(~np.isnan(z)) == len(rows)
        for layer, source, loss in rows[["layer", "source", "loss"]].to_numpy().tolist():
            assert z[layer, source] == loss


def test_every_edge_is_a_point_and_open_where_the_sign_is_wrong(results):
    sizes, sweep, attribution, _ = results
    figure: Any = viz.first_order_figure(sizes, sweep, attribution)
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in points) == len(sweep.frame)
    right = attribution.frame["estimate"] * sweep.frame["loss"] > 0
    filled = [not symbol.endswith("open") for trace in points for symbol in trace.marker.symbol]
    assert sum(filled) == right.sum()
    assert f"signs agree for {right.mean():.0%}" in figure.layout.meta["definition"]


def test_bars_are_the_changes_of_loss(results):
    sweep = results[3]
    figure: Any = viz.static_dynamic_figure(sweep)
    heights = {(bar.name, x): y for bar in figure.data for x, y in zip(bar.x, bar.y, strict=True)}
    expected = sweep.frame.set_index("edits")["loss"]
    assert heights["mean over the text", "all"] == expected["mean * *<-*"]
    assert heights["static part", "Q"] == expected["static q *<-*"]
    assert heights["mean over the text", "1"] == expected["mean * 1<-*"]


def test_another_sweep_is_refused(results):
    with pytest.raises(ValueError, match="cuts single edges"):
        viz.edge_effects_figure(results[3])
    with pytest.raises(ValueError, match="result of static_vs_dynamic"):
        viz.static_dynamic_figure(results[1])


def test_patched_edges_stand_in_triangles_and_whole_streams_behind_them():
    model = random_model(FAMILY["MUDDFormer"])
    prompts = random_tokens(model.config), random_tokens(model.config, seed=9)
    found = edge_patch(model, *prompts, torch.tensor([[3, 5], [4, 2]]))
    figure: Any = viz.edge_patch_figure(found, ("a", "b"))
    for trace, stream in zip(figure.data, "qkvr", strict=True):
        z, names = np.asarray(trace.z), np.asarray(trace.text)
        for frame in (found.frame, found.stream_frame):
            rows: Any = frame[frame["stream"] == stream]
            for row in rows.to_dict("records"):
                last = pd.isna(row["source"])
                column = -1 if last else row["source"]
                assert z[row["layer"], column] == row["change"]
                edge = "" if last else f"&lt;-{row['source']}"
                assert names[row["layer"], column] == f"{stream} {row['layer']}{edge}"
    assert f"clean {found.clean.mean():.3f}" in figure.layout.meta["definition"]


def test_states_stand_by_layer_and_token_and_all_tokens_behind_them():
    model = random_model(FAMILY["MUDDFormer"])
    prompts = random_tokens(model.config), random_tokens(model.config, seed=9)
    found = state_patch(model, *prompts, torch.tensor([[3, 5], [4, 2]]))
    figure: Any = viz.state_patch_figure(found, ("a", "b"), list("abcdefg"))
    frame: Any = found.frame
    for trace, column in zip(
        figure.data, ("state", "resid_pre", "output", "estimate"), strict=True
    ):
        z = np.asarray(trace.z)
        assert z.shape == (4, 9)
        assert np.isnan(z[:, 7]).all()
        for row in frame.to_dict("records"):
            last = pd.isna(row["position"])
            assert z[row["layer"], -1 if last else row["position"]] == row[column]
    assert f"({found.clean.mean():.3f})" in figure.layout.meta["definition"]
    assert f"estimate {found.agreement:.2f}" in figure.layout.meta["definition"]


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("Transformer++", ["the whole state: the residual stream", "first-order estimate"]),
        ("PrePostDANorm, R only", ["the whole state, X", "stream R alone", "the newest output"]),
    ],
)
def test_maps_that_say_nothing_of_their_own_are_left_out(name: str, titles: list[str]):
    model = random_model(FAMILY[name])
    prompts = random_tokens(model.config), random_tokens(model.config, seed=9)
    found = state_patch(model, *prompts, torch.tensor([[3, 5], [4, 2]]))
    figure: Any = viz.state_patch_figure(found, ("a", "b"), list("abcdefg"))
    for trace, title in zip(figure.data, titles, strict=True):
        assert trace.name.startswith(title)
    assert ("rank correlation" in figure.layout.meta["definition"]) == (name == "Transformer++")


def test_the_curve_says_what_context_gains():
    model = random_model(FAMILY["MUDDFormer"])
    found = in_context_loss(model, [random_tokens(model.config, 2, 20)], 3, 9, 1)
    figure: Any = viz.in_context_figure(found)
    np.testing.assert_array_equal(figure.data[0].y, found.frame["loss"])
    assert f"early − late {found.score[0]:.3f}" in figure.data[0].name
    assert len(figure.layout.shapes) == 2

"""Every figure on a dark page, and every figure in words."""

from html import unescape
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from plotly import graph_objects as go

from mudd_interp import viz
from mudd_interp.analysis import (
    HeadActivityAnalysis,
    SinkSensitivityAnalysis,
    ablation_sweep,
    compare_losses,
    delta_weights,
    direct_logit_attribution,
    edge_attribution,
    edge_patch,
    edge_sizes,
    head_inputs,
    in_context_loss,
    logit_lens,
    path_coefficients,
    predictions,
    routes,
    state_patch,
    static_vs_dynamic,
    stream_decomposition,
    stream_mixing,
    stream_weights,
    sweep,
    token_weights,
)
from mudd_interp.bench.growth import exponents
from mudd_interp.experiments.gaps import ladder_table
from mudd_interp.experiments.scaling import scaling_table
from mudd_interp.experiments.tables import make_tables
from mudd_interp.protocol import ModelInfo
from mudd_interp.viz.appearance import DARK_PAGE, READABLE, contrast
from mudd_interp.viz.theme import STREAM_STYLES
from tests.parity.family import FAMILY, HYPER, random_model, random_tokens
from tests.unit.analysis.fakes import Vocabulary, markov
from tests.unit.viz.seen import vision_figures

ANALYSES = [
    "layer_similarity",
    "similarity_matrix",
    "stream_norms",
    "dense_weights",
    "weight_distribution",
    HeadActivityAnalysis([1, 2]),
    SinkSensitivityAnalysis([1, 2], 4),
    "head_entropy",
]
FIGURES = sorted(name for name in dir(viz) if name.endswith("_figure"))


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """Each figure function of viz, drawn."""
    models, read, written, ways = [], [], [], []
    for family, name in (("MUDDFormer", "mudd <b>1</b>"), ("Transformer++", "plain")):
        model = random_model(FAMILY[family])
        model.info = ModelInfo(name=name)
        models.append(sweep(model, [random_tokens(model.config, 3, 9)], ANALYSES))
        sequence = random_tokens(model.config, 1, 9)
        read.append(token_weights(model, sequence))
        logit = direct_logit_attribution(model, sequence, answer=5)
        stream = stream_decomposition(model, sequence, 2, "v")
        written.append((logit, stream, logit_lens(model, sequence)))
        ways.append((path_coefficients(model, sequence), routes(model, sequence, source=0)))
    results = zip(*models, strict=True)
    similarity, matrix, norms, weights, spread, activity, sinks, entropy = results
    pattern = torch.tensor([[[1.0, 0, 0], [0.25, 0.75, 0], [0.5, 0.375, 0.125]]])
    tokens = ["<a>", " b", "c"]
    grown = pd.DataFrame(
        {"axis": axis, "tokens": 8 * n, "layers": 2 * n, "model": model, "seconds": n, "MB": 3 * n}
        for axis in ("tokens", "layers")
        for model in ("MUDDPythia", "plain twin")
        for n in (1.0, 2.0, 4.0)
    )
    tables = ([[0.75, 0.125, 0.125], [0.5, 0.25, 0.25]], [[0.5, 0.25, 0.25]] * 2)
    both = [
        markov([*table, table[0]], name=name, tokenizer=Vocabulary(*tokens))
        for table, name in zip(tables, ("mudd", "plain"), strict=True)
    ]
    cut = random_model(FAMILY["MUDDFormer"])
    batches = [random_tokens(cut.config, 3, 9)]
    effects, sizes = ablation_sweep(cut, batches), edge_sizes(cut, batches)
    pair = random_tokens(cut.config), random_tokens(cut.config, seed=9)
    patch = edge_patch(cut, *pair, torch.tensor([[3, 5], [4, 2]]))
    state = state_patch(cut, *pair, torch.tensor([[3, 5], [4, 2]]))
    ids = torch.tensor([0, 1, 0, 2])
    seen = [predictions(model, ids, k=3) for model in both]
    losses = compare_losses(both[0], both[1], [ids[None]])
    logits, streams, lenses = zip(*written, strict=True)
    empty = make_tables([])
    hyper = random_model(HYPER["mHC"])
    deltas = [delta_weights(each, batches) for each in (cut, hyper)]
    return {
        "ladder_figure": viz.ladder_figure(ladder_table(empty), "here"),
        "scaling_figure": viz.scaling_figure(scaling_table(empty), "here"),
        "zoo_figure": viz.zoo_figure(ladder_table(empty), "here"),
        "delta_weights_figure": viz.delta_weights_figure(deltas[0], deltas[1]),
        "delta_difference_figure": viz.delta_difference_figure(deltas[0], deltas[1]),
        "stream_mixing_figure": viz.stream_mixing_figure(*[stream_mixing(hyper, batches)] * 2),
        "stream_weights_figure": viz.stream_weights_figure(stream_weights(hyper, pair[0][0])),
        "stream_lens_figure": viz.stream_lens_figure(logit_lens(hyper, pair[0][0]), 3),
        "frozen_live_figure": viz.frozen_live_figure(
            sizes, effects, ablation_sweep(cut, batches, frozen=True)
        ),
        "logit_attribution_figure": viz.logit_attribution_figure(*logits),
        "stream_decomposition_figure": viz.stream_decomposition_figure(streams[0], 3, streams[1]),
        "path_coefficients_figure": viz.path_coefficients_figure(ways[0][0], 3),
        "routes_figure": viz.routes_figure(ways[0][1]),
        "logit_lens_figure": viz.logit_lens_figure(lenses[0], 3, lenses[1]),
        "edit_effects_figure": viz.edit_effects_figure(effects, None, ["<not> done"]),
        "similarity_figure": viz.similarity_figure(*similarity),
        "similarity_difference_figure": viz.similarity_difference_figure(*similarity),
        "similarity_matrix_figure": viz.similarity_matrix_figure(*matrix),
        "similarity_matrix_difference_figure": viz.similarity_matrix_difference_figure(*matrix),
        "norms_figure": viz.norms_figure(*norms),
        "norms_difference_figure": viz.norms_difference_figure(*norms),
        "weights_figure": viz.weights_figure(weights[0]),
        "weights_difference_figure": viz.weights_difference_figure(*weights),
        "token_weights_figure": viz.token_weights_figure(read[0], 3, baseline=read[1]),
        "token_weights_difference_figure": viz.token_weights_difference_figure(read[0], read[1], 3),
        "edge_figure": viz.edge_figure(read[0], "v", 1, 1, position=3, baseline=read[1]),
        "edge_distribution_figure": viz.edge_distribution_figure(
            spread[0], weights[0], "v", 1, 1, baseline=weights[1]
        ),
        "head_activity_figure": viz.head_activity_figure(*activity),
        "head_heatmap_figure": viz.head_heatmap_figure(*activity),
        "activity_difference_figure": viz.activity_difference_figure(*activity),
        "sink_sensitivity_figure": viz.sink_sensitivity_figure(*sinks),
        "growth_figure": viz.growth_figure(grown, exponents(grown), "here"),
        "head_scores_figure": viz.head_scores_figure(*entropy, by="entropy"),
        "head_depth_figure": viz.head_depth_figure(*entropy, by="entropy"),
        "head_inputs_figure": viz.head_inputs_figure(head_inputs(cut, batches, 2, 1), shown=4),
        "attention_figure": viz.attention_figure(pattern, tokens, layer=1, model="m"),
        "edge_effects_figure": viz.edge_effects_figure(effects),
        "edge_patch_figure": viz.edge_patch_figure(patch, ("<a>", " b")),
        "state_patch_figure": viz.state_patch_figure(state, ("<a>", " b"), list("<abcdef")),
        "causes_figure": viz.causes_figure(sizes, effects),
        "first_order_figure": viz.first_order_figure(
            sizes, effects, edge_attribution(cut, batches)
        ),
        "static_dynamic_figure": viz.static_dynamic_figure(static_vs_dynamic(cut, batches)),
        "in_context_figure": viz.in_context_figure(
            *(in_context_loss(model, [ids[None]]) for model in both)
        ),
        "loss_strip_figure": viz.loss_strip_figure(*seen),
        "loss_lines_figure": viz.loss_lines_figure(*seen),
        "loss_comparison_figure": viz.loss_comparison_figure(losses),
        "next_tokens_figure": viz.next_tokens_figure(seen[0], 0, seen[1]),
        **vision_figures(),
        "pattern_figure": viz.pattern_figure(pattern[0], tokens, layer=1, head=7, model="m"),
    }


def colours(value, key=""):
    """Every colour of a figure's JSON, with the name it stands under; not those on cells."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("template", "textfont"):
                yield from colours(inner, name)
    elif isinstance(value, list | tuple | np.ndarray):
        for inner in value:
            yield from colours(inner, key)
    elif key.endswith("color") and isinstance(value, str):
        yield key, value


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_everything_on_a_dark_page_can_be_read(figures, name):
    found = list(colours(viz.dark(figures[name]).to_plotly_json()))
    assert ("paper_bgcolor", DARK_PAGE) in found
    for key, colour in found:
        if key.endswith("bgcolor"):
            assert colour == DARK_PAGE
        else:
            assert contrast(colour, DARK_PAGE) >= READABLE, key


@pytest.mark.parametrize("name", FIGURES)
def test_only_appearance_changes(figures, name):
    figure = figures[name]
    before = figure.to_json()
    copy: Any = viz.dark(figure)
    assert figure.to_json() == before
    assert copy.layout.template != figure.layout.template
    assert copy.layout.title.text == figure.layout.title.text
    assert copy.layout.coloraxis == figure.layout.coloraxis
    for trace, original in zip(copy.data, figure.data, strict=True):
        for part in ("x", "y", "z", "text", "name", "colorscale", "opacity"):
            if part in original:
                np.testing.assert_array_equal(trace[part], original[part])


def test_dark_lines_become_light_and_keep_their_hue(figures):
    copy: Any = viz.dark(figures["similarity_figure"])
    by_stream = dict(zip("qkvr", copy.data, strict=False))
    assert by_stream["v"].line.color == by_stream["v"].marker.color == "#D9D9D9"  # of #262626
    assert copy.layout.font.color == "#DDDDDD"  # of #222222
    assert copy.layout.title.subtitle.font.color == "#AAAAAA"  # of #555555
    assert by_stream["r"].line.color == STREAM_STYLES["r"].colour  # light enough as it is
    assert len({trace.line.color for trace in copy.data}) == 5


def test_bars_become_light_and_texts_on_cells_stay(figures):
    bars: Any = figures["activity_difference_figure"]
    copy: Any = viz.dark(bars)
    lighter = {"#4C6A92": "#6D8BB3", "#C8641B": "#C8641B"}
    assert list(copy.data[0].marker.color) == [lighter[c] for c in bars.data[0].marker.color]
    ranks: Any = figures["head_scores_figure"].data[1]
    on_dark: Any = viz.dark(figures["head_scores_figure"]).data[1]
    assert list(on_dark.textfont.color) == list(ranks.textfont.color)


def test_contrast_by_hand():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#FFFFFF", "#000000") == pytest.approx(21)
    assert contrast("#abcdef", "#ABCDEF") == 1
    # (1.05) / (0.2126 + 0.05): pure red has the luminance 0.2126.
    assert contrast("#FF0000", "#FFFFFF") == pytest.approx(1.05 / 0.2626)


def test_colours_in_another_notation_are_named():
    figure = go.Figure(go.Scatter(y=[1], line={"color": "navy"}))
    with pytest.raises(ValueError, match="expected a colour as #RRGGBB, got 'navy'"):
        viz.dark(figure)


def y_title(figure, trace):
    axis = "" if trace.type == "heatmap" else (trace.yaxis or "y")[1:]
    return figure.layout[f"yaxis{axis}"].title.text


def first_numbers(figure):
    """What the first trace shows, and those on the same scale."""
    traces = [trace for trace in figure.data if trace.hoverinfo != "skip"]
    for trace in traces:
        if y_title(figure, trace) != y_title(figure, traces[0]):
            continue
        if trace.type != "heatmap":
            drawn, scale = trace.x if "orientation" in trace and trace.orientation else trace.y, ""
        else:
            drawn, scale = trace.z, trace.coloraxis
        first = traces[0].coloraxis if traces[0].type == "heatmap" else ""
        if scale == first:
            yield from np.ravel(np.asarray(drawn, dtype=float))


@pytest.mark.parametrize("name", FIGURES)
def test_the_words_give_title_and_ends(figures, name):
    figure = figures[name]
    words = viz.alt_text(figure)
    assert words.startswith(unescape(figure.layout.title.text) + ": ")
    drawn = list(first_numbers(figure))
    low, high = (f"{end:.3g}".replace("-", "−") for end in (np.nanmin(drawn), np.nanmax(drawn)))
    assert f": from {low} (" in words
    assert f") to {high} (" in words
    assert "&lt;" not in words
    assert "<sub>" not in words
    assert "\n" not in words


@pytest.mark.parametrize(
    ("name", "drawn", "quantity"),
    [
        ("similarity_figure", "5 curves", "Mean cosine similarity"),
        ("norms_figure", "5 curves", "Mean L2 norm, units of the residual stream (log scale)"),
        ("similarity_matrix_figure", "5 heat maps", "Mean cosine"),
        ("similarity_matrix_difference_figure", "4 heat maps", "Difference"),
        ("weights_figure", "8 heat maps", "Weight × norm"),
        ("token_weights_figure", "4 heat maps", "Weight"),
        ("token_weights_difference_figure", "4 heat maps", "Difference"),
        ("edge_distribution_figure", "1 set of bars", "Share of tokens"),
        ("head_activity_figure", "2 sets of points and 2 curves", "Active share of tokens"),
        (
            "activity_difference_figure",
            "1 set of bars",
            "Difference of active shares, mean over heads",
        ),
        ("edge_effects_figure", "4 heat maps", "Nats"),
        ("state_patch_figure", "4 heat maps", "Share recovered"),
        ("first_order_figure", "4 sets of points", "|exact change of loss|, nats (log scale)"),
        ("static_dynamic_figure", "6 sets of bars", "Change of loss, nats per token"),
        ("in_context_figure", "2 curves", "Mean loss, nats"),
        ("sink_sensitivity_figure", "4 curves", "Active share of tokens"),
        ("head_scores_figure", "2 heat maps and 2 curves", "Nats"),
        ("attention_figure", "1 heat map", "Probability"),
        ("loss_lines_figure", "2 curves", "Loss, nats"),
        ("next_tokens_figure", "2 sets of bars", "Probability"),
    ],
)
def test_the_words_say_what_is_drawn(figures, name, drawn, quantity):
    assert f": {drawn}. {quantity}: from " in viz.alt_text(figures[name])


def test_the_words_say_where_the_ends_are(figures):
    figure: Any = go.Figure(figures["weights_figure"])
    for trace in figure.data:
        trace.z = np.zeros((3, 4))
    figure.data[2].z = [[0, 0, 0, 0], [0, 0, -7, 0], [0, 0, 0, 0]]
    figure.data[7].z = [[0, 0, 0, 0], [0, 0, 0, 0], [1234, 0, 0, 0]]
    assert viz.alt_text(figure) == (
        "Dense weights of mudd <b>1</b>, rectified: 8 heat maps. Weight × norm: "
        "from −7 (V · value, mean, layer i 1, source Xj 2) "
        "to 1.23e+03 (R · residual, std, layer i 2, source Xj 0)."
    )


def test_the_words_name_tokens_as_they_are(figures):
    assert viz.alt_text(figures["attention_figure"]) == (
        "Attention maps of layer 1: 1 heat map. Probability: "
        "from 0.125 (head 0, query 2 c, key 2 c) to 1 (head 0, query 0 <a>, key 0 <a>)."
    )


def test_the_words_keep_two_scales_apart(figures):
    # The models give 1/8 and 1/4 to what came at 1, and 1/2 both to what came at 2.
    one = "1 ·b, mudd: 2.0794, plain: 1.3863, mudd − plain: +0.6931"
    two = "2 <a>, mudd: 0.6931, plain: 0.6931, mudd − plain: +0.0000"
    assert viz.alt_text(figures["loss_strip_figure"]) == (
        f"Loss of each token: 2 heat maps. Loss, nats: from 0.693 ({two}) to 2.08 ({one}); "
        f"mudd − plain, nats: from 0 ({two}) to 0.693 ({one})."
    )


def test_the_words_name_the_likeliest_token(figures):
    words = viz.alt_text(figures["next_tokens_figure"])
    assert words.endswith(" to 0.75 (<a>).")


def test_pooled_maps_have_ends_without_a_place():
    pattern = torch.eye(600)[None]
    figure = viz.attention_figure(pattern, ["a"] * 600, layer=1, model="m")
    assert viz.alt_text(figure).endswith("Probability: from 0 to 1.")


def test_a_figure_needs_neither_numbers_nor_title():
    trace = go.Scatter(y=[], mode="markers")
    assert viz.alt_text(go.Figure(trace, {"title": "Nothing"})) == "Nothing: 1 set of points."
    assert viz.alt_text(go.Figure([trace, trace])) == "2 sets of points."

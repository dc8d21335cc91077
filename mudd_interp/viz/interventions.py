"""Figures of interventions: what edges carry, and what cutting them does."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mudd_interp.analysis import (
    AblationSweep,
    EdgeAttribution,
    EdgePatch,
    EdgeSizes,
    InContextLoss,
    rank_correlations,
    weight_contribution_cause,
)
from mudd_interp.analysis.causes import Effect
from mudd_interp.axes import STREAMS, Stream
from mudd_interp.viz.theme import (
    BASELINE,
    MUDD,
    STREAM_STYLES,
    escape,
    finish,
    shown,
    source_line,
    stream_title,
)
from mudd_interp.viz.triangles import MARGIN, height, scale, scale_end, triangles

EFFECTS: dict[Effect, str] = {
    "loss": "loss with the edge cut − loss without, nats per token",
    "kl": "KL(unedited ‖ edge cut) of the next token, nats",
}
_ACTIONS = {
    "mean": ("mean over the text", "#4C6A92"),
    "static": ("static part", "#148F8B"),
    "shuffle": ("shuffled over positions (control)", "#C8641B"),
}
LOG_AXIS: dict[str, Any] = {"type": "log", "exponentformat": "power", "dtick": 1}
LEGEND_BELOW = {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"}


def edge_effects_figure(sweep: AblationSweep, effect: Effect = "loss") -> go.Figure:
    """A triangle for each stream: what cutting each edge does.

    Args:
        sweep: A sweep in which single edges were cut; its other edits are left out.
        effect: Which effect to draw.

    Raises:
        ValueError: If no single edge was cut.
    """
    frame = single_edges(sweep)
    streams: list[Stream] = [s for s in STREAMS if s in set(frame["stream"])]
    end, stated = scale_end(frame[[effect]].to_numpy(), None)
    low, high = frame[[f"{effect}_low", f"{effect}_high"]].to_numpy().T
    unsure = np.mean(low * high <= 0)
    sure = "" if np.isnan(low).any() else f"; of {unsure:.0%} the 95% interval holds 0"
    name = "change of loss" if effect == "loss" else "KL"
    return finish(
        triangles(frame.rename(columns={effect: name}), streams, [name], of=sweep.provenance),
        f"What cutting each edge of {sweep.provenance.model} does",
        f"{EFFECTS[effect]}; loss without edits {sweep.loss:.4f}; colours end at ±{end:.3g} "
        f"({stated}){sure}",
        source_line([sweep.provenance]),
        coloraxis=scale(end, "nats"),
        margin=MARGIN,
        height=height(streams, [name]),
    )


def single_edges(sweep: AblationSweep) -> pd.DataFrame:
    """The rows of a sweep for which a single edge was cut at all tokens."""
    alone = [
        len(group) == 1
        and str(group[0]).startswith("cut ")
        and group[0].part == "edge"
        and "*" not in str(group[0])
        and group[0].positions is None
        for group in sweep.edits
    ]
    if not any(alone):
        raise ValueError("expected a sweep that cuts single edges, as ablation_sweep does.")
    frame: Any = sweep.frame[alone]
    return frame.astype({"layer": int, "source": int})


def causes_figure(sizes: EdgeSizes, sweep: AblationSweep, effect: Effect = "kl") -> go.Figure:
    """Weight against contribution, and contribution against effect, a point for each edge.

    Args:
        sizes: Weights and contributions.
        sweep: What cutting each edge does, for the same model on the same tokens.
        effect: Which effect; its magnitude is drawn.

    Raises:
        ValueError: As for :func:`mudd_interp.analysis.weight_contribution_cause`.
    """
    table: Any = weight_contribution_cause(sizes, sweep)
    ranks: Any = rank_correlations(table, effect).set_index("stream")
    panels = (
        ("weight", "contribution", "weight_contribution"),
        ("contribution", effect, "contribution_effect"),
    )
    overall = [ranks["weight_contribution"]["all"], ranks["contribution_effect"]["all"]]
    figure = make_subplots(
        rows=1,
        cols=2,
        horizontal_spacing=0.11,
        subplot_titles=[
            f"weight and contribution: ρ = {overall[0]:.2f}",
            f"contribution and cause: ρ = {overall[1]:.2f}",
        ],
    )
    figure.update_annotations(font_size=12.5)
    for column, (x, y, correlation) in enumerate(panels, start=1):
        for stream in dict.fromkeys(table["stream"]):
            rows = table[table["stream"] == stream]
            name = f"{stream_title(stream)} (ρ = {ranks['contribution_effect'][stream]:.2f})"
            hover = f"ρ of the stream {ranks[correlation][stream]:.2f}"
            trace = edge_points(rows, rows[x], rows[y].abs(), stream, name, hover)
            figure.add_trace(trace.update(showlegend=column == 2), row=1, col=column)
    titles = {
        "weight": "mean |weight|",
        "contribution": "mean ‖weight × X<sub>source</sub>‖",
        "loss": "|change of loss|, nats",
        "kl": "KL, nats",
    }
    for column, (x, y, _) in enumerate(panels, start=1):
        figure.update_xaxes(title=f"{titles[x]} (log scale)", **LOG_AXIS, col=column)
        figure.update_yaxes(title=f"{titles[y]} (log scale)", **LOG_AXIS, col=column)
    return finish(
        figure,
        f"Weight, contribution and cause: every edge of {sweep.provenance.model}",
        f"cause: {EFFECTS[effect]}; ρ: Spearman's rank correlation, −1..1, in the legend that of "
        "contribution and cause",
        source_line([sweep.provenance]),
        legend=LEGEND_BELOW,
        margin={"l": 80, "r": 40, "t": 120, "b": 110},
    )


def first_order_figure(
    sizes: EdgeSizes, sweep: AblationSweep, attribution: EdgeAttribution
) -> go.Figure:
    """The first-order estimate of each edge against the exact effect on the loss.

    Args:
        sizes: Of the edges.
        sweep: The exact effects.
        attribution: The estimates.

    Raises:
        ValueError: As for :func:`mudd_interp.analysis.weight_contribution_cause`.
    """
    table: Any = weight_contribution_cause(sizes, sweep, attribution)
    ranks: Any = rank_correlations(table).set_index("stream")["first_order_exact"]
    figure = go.Figure()
    for stream in dict.fromkeys(table["stream"]):
        rows = table[table["stream"] == stream]
        agree = rows["estimate"] * rows["loss"] > 0
        agree = agree.sort_values(ascending=False, kind="stable")  # the first one is in the legend
        rows = rows.loc[agree.index]
        name = f"{stream_title(stream)} (ρ = {ranks[stream]:.2f})"
        trace = edge_points(rows, rows["estimate"].abs(), rows["loss"].abs(), stream, name, "")
        symbol = STREAM_STYLES[stream].symbol
        symbols = [symbol if same else f"{symbol}-open" for same in agree]
        figure.add_trace(trace.update(marker_symbol=symbols))
    figure.add_trace(equal_line(table[["estimate", "loss"]].abs().to_numpy()))
    same = float((table["estimate"] * table["loss"] > 0).mean())
    return finish(
        figure,
        f"First-order estimate and exact effect of each edge: ρ = {ranks['all']:.2f}",
        "magnitude of the change of loss when an edge is cut, nats per token; estimate: −weight × "
        f"gradient, from one backward pass; signs agree for {same:.0%} of the edges (filled); "
        "ρ: Spearman's, of the signed values",
        source_line([sweep.provenance]),
        xaxis={"title": "|estimate|, nats (log scale)", **LOG_AXIS},
        yaxis={"title": "|exact change of loss|, nats (log scale)", **LOG_AXIS},
        legend=LEGEND_BELOW,
        margin={"l": 80, "r": 40, "t": 115, "b": 110},
    )


def edge_patch_figure(result: EdgePatch, answers: tuple[str, str]) -> go.Figure:
    """A triangle for each stream: the effect of each edge carrying what the corrupted run has.

    The last column of a triangle is the whole stream of each aggregation.

    Args:
        result: Of a clean and a corrupted prompt.
        answers: The texts of the two tokens whose logits are compared.
    """
    frame: Any = result.frame
    whole: Any = result.stream_frame
    streams: list[Stream] = [s for s in STREAMS if s in set(frame["stream"])]
    end, stated = scale_end(frame[["change"]].to_numpy(), None)
    table = frame.astype({"layer": int, "source": int})
    figure = triangles(table, streams, ["change"], of=result.provenance)
    for trace, stream in zip(figure.data, streams, strict=True):
        _add_whole(trace, whole[whole["stream"] == stream], stream)
    n_sources = 1 + int(frame["source"].max())
    ticks: Any = [*range(0, n_sources, 2), n_sources + 1]
    names = result.provenance.sources or range(n_sources)
    figure.update_xaxes(tickvals=ticks, ticktext=[*(str(names[j]) for j in ticks[:-1]), "all"])
    first, second = (shown(answer) for answer in answers)
    clean, corrupted = float(result.clean.mean()), float(result.corrupted.mean())
    return finish(
        figure,
        f"What each edge of {result.provenance.model} carries of a difference between prompts",
        f"change of logit “{first}” − logit “{second}” at the last token when an edge of the clean "
        f"run carries weight × source of the corrupted one, in logits; clean {clean:.3f}, "
        f"corrupted {corrupted:.3f}; all: the whole stream; colours end at ±{end:.3g} ({stated})",
        source_line([result.provenance]),
        coloraxis=scale(end, "logits"),
        margin=MARGIN,
        height=height(streams, ["change"]),
    )


def _add_whole(triangle: Any, rows: Any, stream: Stream) -> None:
    """Add a column of whole streams after a triangle, with a gap between them."""
    n_layers, n_sources = np.shape(triangle.z)
    z = np.full((n_layers, n_sources + 2), np.nan)
    z[:, :n_sources] = triangle.z
    z[rows["layer"].to_numpy(int), -1] = rows["change"]
    names = [
        [*(f"{stream} {layer}<-{source}" for source in range(n_sources)), "", f"{stream} {layer}"]
        for layer in range(n_layers)
    ]
    text = [[escape(name) for name in row] for row in names]
    triangle.update(z=z, text=text, hovertemplate="%{text}: %{z:+.4g} logits<extra></extra>")


def equal_line(values: Any) -> go.Scatter:
    """Where two magnitudes are equal, over the range of these that a logarithmic axis can show."""
    shown = values[values > 0]
    ends = [float(shown.min()), float(shown.max())] if len(shown) else [1.0, 1.0]
    return go.Scatter(
        x=ends,
        y=ends,
        mode="lines",
        line={"color": "#999999", "dash": "dot", "width": 1},
        name="equal",
        hoverinfo="skip",
    )


def edge_points(
    rows: pd.DataFrame, x: Any, y: Any, stream: Stream, name: str, note: str
) -> go.Scatter:
    """A point for each edge of a stream."""
    style = STREAM_STYLES[stream]
    names = [
        f"{stream} {layer}<-{source}"
        for layer, source in rows[["layer", "source"]].itertuples(index=False)
    ]
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        marker={"color": style.colour, "symbol": style.symbol, "size": 7, "opacity": 0.75},
        text=[escape(name) for name in names],
        name=name,
        legendgroup=stream,
        hovertemplate="%{text}<br>%{x:.3g}, %{y:.3g}<br>" + note + "<extra></extra>",
    )


def static_dynamic_figure(sweep: AblationSweep) -> go.Figure:
    """Bars of how much loss dynamic weights save: all of them, by stream, and by layer.

    Args:
        sweep: The result of :func:`mudd_interp.analysis.static_vs_dynamic`.

    Raises:
        ValueError: If it is the result of another sweep.
    """
    frame: Any = sweep.frame
    whole = frame[frame["source"].isna() & frame["action"].isin(list(_ACTIONS))]
    if whole.empty:
        raise ValueError("expected the result of static_vs_dynamic, got another sweep.")
    figure = make_subplots(
        rows=1,
        cols=2,
        column_widths=[0.36, 0.64],
        horizontal_spacing=0.09,
        subplot_titles=["all aggregations", "one aggregation, all streams"],
    )
    figure.update_annotations(font_size=12.5)
    rows_of = sweep.provenance.rows
    for action, (name, colour) in _ACTIONS.items():
        rows = whole[whole["action"] == action]
        for column, part in enumerate(
            (rows[rows["layer"].isna()], rows[rows["layer"].notna()]), start=1
        ):
            labels = (
                ["all" if s is None else str(s).upper() for s in part["stream"]]
                if column == 1
                else [rows_of[int(i)] if rows_of else str(i) for i in part["layer"]]
            )
            bar = _bars(part, labels, name, colour).update(showlegend=column == 1)
            figure.add_trace(bar, row=1, col=column)
    for column, name in enumerate(("stream", "read by" if rows_of else "layer i"), start=1):
        figure.update_xaxes(type="category", title=name, showgrid=False, col=column)
    title = "change of loss, nats per token"
    figure.update_yaxes(title=title, zeroline=True, zerolinecolor="#999999")
    return finish(
        figure,
        f"What the dynamic weights of {sweep.provenance.model} are worth",
        "loss with weights that do not depend on the token − loss without edits "
        f"({sweep.loss:.4f}), nats per token; bars with 95% intervals (bootstrap over sequences)",
        source_line([sweep.provenance]),
        barmode="group",
        legend=LEGEND_BELOW,
        margin={"l": 80, "r": 40, "t": 120, "b": 110},
    )


def _bars(rows: pd.DataFrame, labels: Sequence[str], name: str, colour: str) -> go.Bar:
    return go.Bar(
        x=labels,
        y=rows["loss"],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": rows["loss_high"] - rows["loss"],
            "arrayminus": rows["loss"] - rows["loss_low"],
            "thickness": 1.2,
            "width": 3,
            "color": "#555555",
        },
        marker={"color": colour},
        name=name,
        legendgroup=name,
        hovertemplate="%{x}: %{y:+.4f} nats<extra>" + name + "</extra>",
    )


def in_context_figure(result: InContextLoss, baseline: InContextLoss | None = None) -> go.Figure:
    """Mean loss by position, a curve for each model, with the stretches that are compared.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.

    Raises:
        ValueError: If no token was predicted.
    """
    given = [(result, MUDD, ""), (baseline, BASELINE, " (baseline)")]
    figure, shown = go.Figure(), [each for each, _, _ in given if each is not None]
    for each, style, suffix in given:
        if each is None:
            continue
        if each.frame.empty:
            raise ValueError("a loss needs at least two tokens: the second is predicted.")
        mean, low, high = each.score
        score = "" if np.isnan(mean) else f": early − late {mean:.3f} [{low:.3f}, {high:.3f}]"
        name = f"{escape(each.provenance.model)}{suffix}{score}"
        frame = each.frame
        trace = style.trace(
            x=frame["position"],
            y=frame["loss"],
            name=name,
            hovertemplate="position %{x}: %{y:.4f} nats<extra></extra>",
        )
        trace.update(mode="lines", line_width=1.6)
        figure.add_trace(trace)
    options = result.provenance.options
    early, late, reach = options["early"], options["late"], options["reach"]
    if result.gain.size:
        for at in (early, late):
            figure.add_vrect(
                at - reach, at + reach, fillcolor="#999999", opacity=0.15, line_width=0
            )
    return finish(
        figure,
        "Loss by position in the sequence",
        f"mean over sequences of −log p, nats; early: positions {early} ± {reach}, late: {late} ± "
        f"{reach}; early − late with its 95% interval (bootstrap over sequences)",
        source_line([each.provenance for each in shown]),
        xaxis={"title": "position of the predicted token"},
        yaxis={"title": "mean loss, nats", "rangemode": "tozero"},
        legend=LEGEND_BELOW,
        showlegend=True,
        margin={"l": 70, "r": 40, "t": 105, "b": 95},
    )

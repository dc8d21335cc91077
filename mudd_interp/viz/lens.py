"""What each output would predict, token by token: the logit lens as a map with words in it."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mudd_interp.analysis import LogitLens, check_same_tokens
from mudd_interp.analysis.inputs import check_position
from mudd_interp.analysis.lens import Kind
from mudd_interp.viz.theme import (
    HEIGHT,
    MONOSPACE,
    UNSIGNED,
    WIDTH,
    colorbar,
    escape,
    finish,
    source_line,
    stream_title,
    token_ticks,
    visible,
)

SHOWN = 12
"""How many positions are drawn at most, so that the tokens in the cells can be read."""

_ROW = 26  # pixels
_LEADS = "#FF4A1C"


def logit_lens_figure(
    result: LogitLens, position: int, baseline: LogitLens | None = None, kind: Kind = "x"
) -> go.Figure:
    """The likeliest next token of every output X_j (or of one stream), depth by position.

    Colour is its probability, 0..1. A red frame is where the model's final answer first leads.
    The last positions up to the chosen one are shown.

    Args:
        result: Of the model in question.
        position: The last position to show.
        baseline: Of the Transformer beside it, on the same tokens.
        kind: ``"x"`` for the outputs, or a stream; a baseline with one stream shows that one, r.

    Raises:
        ValueError: If the sequence has no such position, the two models split it differently, or
            there is no such stream.
    """
    check_position(position, len(result.tokens))
    results = [result] if baseline is None else [result, baseline]
    for each in results[1:]:
        check_same_tokens(result, each)
    positions = range(max(0, position + 1 - SHOWN), position + 1)
    figure = make_subplots(
        rows=1,
        cols=len(results),
        subplot_titles=[escape(each.provenance.model) for each in results],
        horizontal_spacing=0.06,
    )
    for column, each in enumerate(results, start=1):
        own: Kind = kind if kind in each.kinds else "r"
        _add_map(figure, each, own, positions, column)
    texts = [result.tokens[t] for t in positions]
    figure.update_xaxes(title="token", **token_ticks(positions, texts))
    depth, named = _words(result, kind)
    figure.update_yaxes(title=depth, col=1)
    rows = max(len(each.rows(kind if kind in each.kinds else "r")) for each in results)
    return finish(
        figure,
        f"Logit lens: what {named} would predict",
        "the likeliest next token through the final norm and the unembedding, and its probability, "
        "0..1; red frame: where the model's own answer first leads",
        source_line([each.provenance for each in results]),
        width=WIDTH if baseline is None else int(1.4 * WIDTH),
        height=max(HEIGHT, _ROW * rows + 260),
        coloraxis={
            "colorscale": UNSIGNED,
            "cmin": 0,
            "cmax": 1,
            "colorbar": colorbar("probability"),
        },
        margin={"l": 75, "r": 30, "t": 125, "b": 110},
    )


def _words(result: LogitLens, kind: Kind) -> tuple[str, str]:
    """What the axis and the title call the rows."""
    if kind != "x":
        return f"{stream_title(kind)} of block", f"stream {kind.upper()} of every block"
    if result.provenance.rows:
        return "all that was written before block", "all that was written before every block"
    return "output X<sub>j</sub>", "every output X_j"


def _add_map(
    figure: go.Figure, result: LogitLens, kind: Kind, positions: Sequence[int], column: int
) -> None:
    rows, columns = result.rows(kind), np.array(positions)
    depths = np.array(result.depths)[rows]
    if kind == "x" and not result.provenance.rows:
        # The last aggregate on top: with dense connections it is not one of the X_j.
        rows, depths = np.append(rows, len(result.kinds) - 1), np.append(depths, len(depths))
    tokens = [[result.top_tokens[row][t] for t in positions] for row in rows]
    probability = result.top_probability[np.ix_(rows, columns)]
    figure.add_trace(
        go.Heatmap(
            z=probability,
            x=columns,
            y=depths,
            coloraxis="coloraxis",
            xgap=1,
            ygap=1,
            text=[[visible(token, 40) for token in row] for row in tokens],
            customdata=result.answer_probability[np.ix_(rows, columns)],
            hovertemplate="position %{x}, depth %{y}: %{text}<br>probability %{z:.3f}<br>"
            "of the final answer %{customdata:.3f}<extra></extra>",
            name=escape(result.provenance.model),
        ),
        row=1,
        col=column,
    )
    x, y = np.meshgrid(columns, depths)
    figure.add_trace(
        go.Scatter(
            x=x.ravel(),
            y=y.ravel(),
            mode="text",
            text=[visible(token, 6) for row in tokens for token in row],
            textfont={
                "family": MONOSPACE,
                "size": 9.5,
                "color": np.where(probability.ravel() > 0.6, "#000000", "#FFFFFF").tolist(),
            },
            hoverinfo="skip",
            showlegend=False,
        ),
        row=1,
        col=column,
    )
    leads = (result.answer_rank[np.ix_(rows, columns)] == 1).argmax(0)
    for t, depth in zip(columns.tolist(), depths[leads].tolist(), strict=True):
        figure.add_shape(
            type="rect",
            x0=t - 0.5,
            x1=t + 0.5,
            y0=depth - 0.5,
            y1=depth + 0.5,
            line={"color": _LEADS, "width": 2.5},
            row=1,
            col=column,
        )
    final = {int(depths[-1]): "final"} if kind == "x" else {}
    shown_depths = range(0, int(depths[-1]) + 1, -(-len(depths) // 34))
    figure.update_yaxes(
        showgrid=False,
        zeroline=False,
        range=[depths[0] - 0.5, depths[-1] + 0.5],
        tickmode="array",
        tickvals=list(shown_depths),
        ticktext=[final.get(depth, str(depth)) for depth in shown_depths],
        col=column,
    )

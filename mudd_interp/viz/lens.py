"""What each output would predict, token by token: the logit lens as a map with words in it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mudd_interp.analysis import LogitLens, check_same_tokens
from mudd_interp.analysis.inputs import check_position
from mudd_interp.analysis.lens import Kind
from mudd_interp.axes import Stream
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
    maps = [
        _Map(each, kind if kind in each.kinds else "r", each.provenance.model) for each in results
    ]
    depth, named = _words(result, kind)
    return _drawn(maps, positions, depth, f"Logit lens: what {named} would predict", _WHAT)


def stream_lens_figure(result: LogitLens, position: int) -> go.Figure:
    """The logit lens of each stream that hyper-connections carry: a map for each.

    Args:
        result: Of the model in question.
        position: The last position to show.

    Raises:
        ValueError: If the sequence has no such position, or no row is of a single stream.
    """
    check_position(position, len(result.tokens))
    if not result.carried:
        raise ValueError(
            f"{result.provenance.model} has no lens of single streams: it has no "
            "hyper-connections, or its head reads with the p of its last FFN."
        )
    positions = range(max(0, position + 1 - SHOWN), position + 1)
    maps = [_Map(result, kind, f"stream {kind[1:]}") for kind in result.carried]
    return _drawn(
        maps,
        positions,
        "in front of block",
        f"Logit lens of each stream of {result.provenance.model}",
        f"{_WHAT}, of one stream alone; which stream is which is a matter of names: compare no two "
        "models by it",
    )


_WHAT = (
    "the likeliest next token through the final norm and the unembedding, and its probability, "
    "0..1; red frame: where the model's own answer first leads"
)


class _Map(NamedTuple):
    """Rows of one kind, and their title."""

    result: LogitLens
    kind: Kind
    title: str


def _drawn(
    maps: Sequence[_Map], positions: Sequence[int], depth: str, title: str, what: str
) -> go.Figure:
    across = min(2, len(maps))
    down = -(-len(maps) // across)
    figure = make_subplots(
        rows=down,
        cols=across,
        subplot_titles=[escape(each.title) for each in maps],
        horizontal_spacing=0.06,
        vertical_spacing=0.28 / down,
    )
    for number, each in enumerate(maps):
        row, column = divmod(number, across)
        _add_map(figure, each, positions, {"row": row + 1, "col": column + 1})
    results = list(dict.fromkeys(each.result for each in maps))
    texts = [results[0].tokens[t] for t in positions]
    figure.update_xaxes(title="token", **token_ticks(positions, texts))
    figure.update_yaxes(title=depth, col=1)
    rows = max(len(each.result.rows(each.kind)) for each in maps)
    return finish(
        figure,
        title,
        what,
        source_line([each.provenance for each in results]),
        width=WIDTH if across == 1 else int(1.4 * WIDTH),
        height=down * (max(HEIGHT, _ROW * rows + 260) - 100) + 100,
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
        return (
            f"{stream_title(cast(Stream, kind))} of block",
            f"stream {kind.upper()} of every block",
        )
    if result.provenance.rows:
        return "all that was written before block", "all that was written before every block"
    return "output X<sub>j</sub>", "every output X_j"


def _add_map(figure: go.Figure, of: _Map, positions: Sequence[int], place: dict[str, Any]) -> None:
    result, kind, _ = of
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
            name=escape(of.title),
        ),
        **place,
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
        **place,
    )
    leading = result.answer_rank[np.ix_(rows, columns)] == 1
    leads = zip(columns.tolist(), depths[leading.argmax(0)].tolist(), strict=True)
    for t, depth in (each for each, led in zip(leads, leading.any(0), strict=True) if led):
        figure.add_shape(
            type="rect",
            x0=t - 0.5,
            x1=t + 0.5,
            y0=depth - 0.5,
            y1=depth + 0.5,
            line={"color": _LEADS, "width": 2.5},
            **place,
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
        **place,
    )

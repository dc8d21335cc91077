"""What a clean state, put back into a corrupted run, recovers: a map of layers and tokens."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64
from plotly.subplots import make_subplots

from mudd_interp.analysis import StatePatch
from mudd_interp.viz.theme import (
    HEIGHT,
    finish,
    integer_ticks,
    shown,
    source_line,
    token_names,
    token_ticks,
)
from mudd_interp.viz.triangles import scale

_TICKS = 40  # the most tokens that are written out

_PANELS = {
    0: "the whole state, X<sub>0</sub>..X<sub>l</sub>",
    2: "stream R alone (hook_resid_pre)",
    1: "the newest output alone, X<sub>l</sub>",
    3: "first-order estimate of the whole state",
}
"""Titles of the rows of ``StatePatch.recovered``, in the order in which they are drawn."""


def state_patch_figure(
    result: StatePatch, answers: tuple[str, str], tokens: Sequence[str]
) -> go.Figure:
    """A map for each part of the state that is put back: layers from the bottom up, by token.

    The last column is all tokens together. Where the stream is the whole state, as in a plain
    Transformer, there is one map and its estimate.

    Args:
        result: Of a clean and a corrupted prompt.
        answers: The texts of the two tokens whose logits are compared.
        tokens: The tokens of the clean prompt.
    """
    recovered = result.recovered
    titles = _titles(recovered)
    columns = min(2, len(titles))
    figure = make_subplots(
        rows=-(-len(titles) // columns),
        cols=columns,
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=list(titles.values()),
        horizontal_spacing=0.03,
        vertical_spacing=0.09,
    )
    for i, (row, title) in enumerate(titles.items()):
        trace = _map(recovered[row], tokens, title)
        figure.add_trace(trace, row=1 + i // columns, col=1 + i % columns)
    _label(figure, -(-len(titles) // columns), recovered.shape[1], tokens)
    first, second = (shown(answer) for answer in answers)
    clean, corrupted = float(result.clean.mean()), float(result.corrupted.mean())
    agreement = result.agreement
    estimate = "" if np.isnan(agreement) else f"; rank correlation of the estimate {agreement:.2f}"
    return finish(
        figure,
        f"Where {result.provenance.model} holds what differs between two prompts",
        f"share of the difference in logit “{first}” − logit “{second}” that comes back when what "
        f"enters block l ({recovered.shape[1] - 1}: the final norm) is that of the clean run; 0 as "
        f"corrupted ({corrupted:.3f} logits), 1 as clean ({clean:.3f}); colours end at ±1"
        f"{estimate}",
        source_line([result.provenance]),
        coloraxis=scale(1.0, "share recovered"),
        margin={"l": 75, "r": 30, "t": 115, "b": 110},
        height=HEIGHT + (260 if len(titles) > 2 else 0),
    )


def _titles(recovered: Float64[np.ndarray, "restored layer place"]) -> dict[int, str]:
    """The maps that are drawn, by row: none that is empty or, by design, the same as another."""
    titles = {row: title for row, title in _PANELS.items() if not np.isnan(recovered[row]).all()}
    if np.allclose(recovered[1:3], recovered[0], equal_nan=True):
        titles = {row: title for row, title in titles.items() if row not in (1, 2)}
        titles[0] = "the whole state: the residual stream"
    return titles or {0: _PANELS[0]}


def _label(figure: go.Figure, rows: int, layers: int, tokens: Sequence[str]) -> None:
    step = -(-len(tokens) // _TICKS)
    places = [*range(0, len(tokens), step), len(tokens) + 1]
    texts = [*tokens[::step], "all"]
    figure.update_annotations(font_size=12.5)
    figure.update_xaxes(**token_ticks(places, texts))
    figure.update_yaxes(showgrid=False, **integer_ticks(layers, 14))
    figure.update_xaxes(title="token put back", row=rows)
    figure.update_yaxes(title="layer l", col=1)


def _map(
    shares: Float64[np.ndarray, "layer place"], tokens: Sequence[str], title: str
) -> go.Heatmap:
    """One map, with its last column set apart from those of the tokens."""
    z = np.insert(shares, -1, np.nan, axis=1)
    places = [*token_names(range(len(tokens)), tokens), "", "all tokens"]
    return go.Heatmap(
        z=z,
        coloraxis="coloraxis",
        text=[[f"layer {layer}, {place}" for place in places] for layer in range(len(z))],
        hovertemplate="%{text}: %{z:+.3f}<extra></extra>",
        hoverongaps=False,
        name=title,
    )

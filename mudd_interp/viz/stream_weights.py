"""W divided by the stream of the residual that it passes through: a triangle for each."""

import plotly.graph_objects as go

from mudd_interp.analysis import StreamWeights
from mudd_interp.viz.read_panels import Panel, PanelRow, panels_figure, panels_layout
from mudd_interp.viz.theme import finish, source_line, visible
from mudd_interp.viz.triangles import scale, scale_end

_ACROSS = 2


def stream_weights_figure(result: StreamWeights) -> go.Figure:
    """What every sublayer reads of every write by way of each stream, at one token."""
    model, n = result.provenance.model, result.weights.shape[1]
    panels = [Panel(f"stream {i}", result.reads, result.weights[:, i]) for i in range(n)]
    rows = [PanelRow(model, result.writes, panels[i : i + _ACROSS]) for i in range(0, n, _ACROSS)]
    end, stated = scale_end(result.frame[["weight"]].to_numpy(), None)
    token = visible(result.tokens[result.position])
    return finish(
        panels_figure(rows),
        f"What passes through each stream of {model} at token {result.position} “{token}”",
        "the part of a sublayer's write in what a sublayer reads that passes through a stream, "
        "dimensionless; over streams it sums to W; which stream is which is a matter of names: "
        f"compare no two models by it; colours end at ±{end:.3g} ({stated})",
        source_line([result.provenance]),
        coloraxis=scale(end, "weight"),
        **panels_layout(len(rows)),
    )

"""What edits do to a text: bars with intervals."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mudd_interp.analysis import AblationSweep
from mudd_interp.viz.theme import BASELINE, MONOSPACE, MUDD, escape, finish, source_line

_ROW = 46  # pixels of an edit
_LONGEST = 26  # characters of an edit on its axis
_TOGETHER = "all of them together"


def edit_effects_figure(
    result: AblationSweep | None,
    baseline: AblationSweep | None = None,
    notes: Sequence[str] = (),
) -> go.Figure:
    """The effect of each edit on the loss and on the next-token distribution.

    Bars are means over tokens, with 95% intervals (paired bootstrap over sequences).

    Args:
        result: Of the model in question; ``None`` if the edits have no meaning in it.
        baseline: Of the Transformer beside it, for those edits that have a meaning in it.
        notes: Sentences for the line below the title.

    Raises:
        ValueError: If both are ``None``.
    """
    given = [(each, style) for each, style in ((result, MUDD), (baseline, BASELINE)) if each]
    if not given:
        raise ValueError("expected the effects of edits on one model or two.")
    rows = list(dict.fromkeys(_row(edits) for each, _ in given for edits in each.frame["edits"]))
    rows.sort(key=_TOGETHER.__eq__)  # the last one
    figure = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.06,
        subplot_titles=["change of the loss", "KL(unedited ‖ edited)"],
    )
    for sweep, style in given:
        frame, name = sweep.frame, escape(sweep.provenance.model)
        for column, effect in enumerate(("loss", "kl"), start=1):
            mean, low, high = (frame[f"{effect}{end}"].to_numpy() for end in ("", "_low", "_high"))
            trace = go.Bar(
                x=mean,
                y=[rows.index(_row(edits)) for edits in frame["edits"]],
                orientation="h",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                marker_color=style.colour,
                error_x={
                    "array": high - mean,
                    "arrayminus": mean - low,
                    "thickness": 1.2,
                    "color": "#444444",
                },
                text=[escape(edits) for edits in frame["edits"]],
                textposition="none",
                customdata=np.stack([low, high], axis=-1),
                hovertemplate="%{text}<br>%{x:.4f} nats, %{customdata[0]:.4f} to "
                "%{customdata[1]:.4f}<extra>" + name + "</extra>",
            )
            figure.add_trace(trace, row=1, col=column)
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(rows))),
        ticktext=[
            escape(row if len(row) <= _LONGEST else row[: _LONGEST - 1] + "…") for row in rows
        ],
        tickfont={"family": MONOSPACE, "size": 11},
        range=[len(rows) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    figure.update_xaxes(title="nats per token", zeroline=True, zerolinecolor="#777777")
    without = ", ".join(f"{each.provenance.model} {each.loss:.4f}" for each, _ in given)
    return finish(
        figure,
        "What the edits do",
        "means over tokens, with 95% intervals (paired bootstrap over sequences); loss without "
        f"edits: {without}" + "".join(f"; {note}" for note in notes),
        source_line([each.provenance for each, _ in given]),
        height=230 + _ROW * len(rows),
        margin={"l": 210, "r": 40, "t": 130, "b": 95},
        legend={"orientation": "h", "x": 0, "y": -0.32, "yanchor": "top"},
        bargap=0.3,
    )


def _row(edits: str) -> str:
    """The label of a row: an edit, or several."""
    return _TOGETHER if ";" in edits else edits

"""What do the models predict, and at what cost?"""

import pandas as pd

from mudd_interp.analysis import Predictions, loss_difference, predictions, ranked_texts
from mudd_interp.analysis.inputs import NEXT_TOKEN
from mudd_interp.catalog.kind import PROMPT, TEXT, Drawn, FigureKind, of_both
from mudd_interp.study import Study
from mudd_interp.viz import (
    loss_comparison_figure,
    loss_lines_figure,
    loss_strip_figure,
    next_tokens_figure,
)


def _predictions(study: Study) -> tuple[Predictions, Predictions | None]:
    found = [study.of_prompt(role, predictions) for role in study.roles]
    return found[0], found[1] if len(found) > 1 else None


def _token_losses(study: Study) -> Drawn:
    model, baseline = _predictions(study)
    figure = loss_lines_figure if study.request.mode == "overlay" else loss_strip_figure
    if baseline is not None and study.request.mode == "difference":
        return Drawn(figure(model, baseline), loss_difference(model, baseline))
    frame = of_both(study, lambda role: study.of_prompt(role, predictions).frame)
    return Drawn(figure(model, baseline), frame)


def _next_tokens(study: Study) -> Drawn:
    model, baseline = _predictions(study)
    figure = next_tokens_figure(model, study.position("model"), baseline)

    def table(role: str) -> pd.DataFrame:
        found = model if role == "model" or baseline is None else baseline
        return found.top_frame(study.position("model"))

    return Drawn(figure, of_both(study, table))


def _comparison(study: Study) -> Drawn:
    comparison = study.of(study.comparison())
    return Drawn(
        loss_comparison_figure(comparison), ranked_texts(comparison, study.models["model"])
    )


KINDS = (
    FigureKind(
        name="next_tokens",
        title="What comes next: the likeliest tokens after the chosen one",
        draw=_next_tokens,
        uses=(*PROMPT, "position"),
        why_not={
            "overlay": "the bars of one model would hide the other's",
            "difference": "the two models' likeliest tokens differ",
        },
        requires=NEXT_TOKEN,
    ),
    FigureKind(
        name="token_losses",
        title="What each token of the prompt cost",
        draw=_token_losses,
        uses=PROMPT,
        modes=("side_by_side", "overlay", "difference"),
        requires=NEXT_TOKEN,
    ),
    FigureKind(
        name="loss_comparison",
        title="The losses of two models on a text, and the tokens that differ most",
        draw=_comparison,
        needs=lambda study: [study.comparison()],
        uses=TEXT,
        modes=("difference",),
        why_not={
            "overlay": "it is the difference of the two models",
            "side_by_side": "it is the difference of the two models",
        },
        of_baseline=True,
        requires=NEXT_TOKEN,
    ),
)

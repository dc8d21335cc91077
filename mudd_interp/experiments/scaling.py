"""Loss against compute, and how much compute Transformer++ needs for MUDDFormer's loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64

from mudd_interp.experiments.gaps import LEVEL
from mudd_interp.experiments.plan import DEEP, PAIR, SCALES, Run
from mudd_interp.experiments.rungs import RUNGS
from mudd_interp.experiments.student import t_quantile
from mudd_interp.experiments.tables import Tables, planned

PAPER_RATIOS = {"paper, 834M": 1.89, "paper, depth": 2.08}
"""The paper's compute-equivalent ratios, Figures 3 and 5."""

DRAWS = 2000
_ROUNDING = 0.005
_EXPONENTS = np.linspace(0.02, 1.0, 197)


@dataclass(frozen=True)
class Curve:
    """Losses of one architecture by compute, in ascending order.

    Attributes:
        compute: In FLOPs.
        loss: In nats per token.
    """

    compute: Float64[np.ndarray, " point"]
    loss: Float64[np.ndarray, " point"]

    def compute_for(self, loss: float) -> float:
        """The compute for a loss: linear in its logarithm between points, and beyond the ends.

        NaN where the curve is not falling there, or has fewer than two points.
        """
        if len(self.loss) < 2:
            return math.nan
        # The segment that holds the loss; the first or last one stands for what lies beyond.
        at = int(np.clip((self.loss[:-1] > loss).sum() - 1, 0, len(self.loss) - 2))
        high, low = self.loss[at], self.loss[at + 1]
        if high <= low:
            return math.nan
        first, second = np.log(self.compute[at : at + 2])
        return math.exp(first + (second - first) * (high - loss) / (high - low))


def ratio(plain: Curve, compute: float, loss: float) -> float:
    """``C_T++(L) / C``: the compute that the curve needs for a loss, over what was spent on it."""
    return plain.compute_for(loss) / compute


def power_law(curve: Curve) -> tuple[float, float, float]:
    """``E, k, alpha`` of the closest ``L = E + k (C / C_0)**-alpha``, with C_0 the least compute.

    NaN with fewer than four points; four hardly tell E from the rest.
    """
    if len(curve.loss) < 4:
        return math.nan, math.nan, math.nan
    best = (math.inf, math.nan, math.nan, math.nan)
    for alpha in _EXPONENTS:
        falling = (curve.compute / curve.compute[0]) ** -alpha
        design = np.stack([np.ones_like(falling), falling], 1)
        (floor, factor), *_ = np.linalg.lstsq(design, curve.loss)
        error = float(np.square(design @ [floor, factor] - curve.loss).sum())
        if floor >= 0 and error < best[0]:
            best = error, float(floor), float(factor), float(alpha)
    return best[1:]


def scaling_table(tables: Tables) -> pd.DataFrame:
    """Every point, and the ratio at each size that has one.

    Returns:
        Columns ``quantity`` (``loss`` in nats; ``ratio``, with the compute of equal sizes;
        ``ratio, as built``, with MUDD's own FLOPs and the unembedding; ``E``, ``k``, ``alpha`` of
        the fit), ``size``, ``model``, ``seeds``, ``compute`` in FLOPs, ``value``, ``low`` and
        ``high`` (95%, held-out files drawn anew), and ``note``. A ratio with two seeds or more has
        another row, ``ratio, over seeds``, with Student's t of its logarithm.
    """
    rows = [
        _row("ratio", size, "MUDDFormer", 1, 0.0, value, _rounded(value), "one seed")
        for size, value in PAPER_RATIOS.items()
    ]
    runs = planned("scaling", tables)
    if runs:
        rows += _Scaling(runs, tables).rows()
    columns = ["quantity", "size", "model", "seeds", "compute", "value", "low", "high", "note"]
    return pd.DataFrame(rows, columns=columns)


def _rounded(value: float) -> tuple[float, float]:
    return value - _ROUNDING, value + _ROUNDING


class _Scaling:
    """The runs of the scaling experiment, by size and rung."""

    def __init__(self, runs: Sequence[Run], tables: Tables):
        self.tables, self.groups = tables, dict[tuple[str, str], list[Run]]()
        for run in runs:
            self.groups.setdefault((run.size.name, run.rung), []).append(run)
        self.flops, self.loss = tables.by_run("flops"), tables.by_run("loss")
        n_files = len(tables.files)
        times = np.random.default_rng(0).multinomial(
            n_files, np.full(n_files, 1 / n_files), size=DRAWS
        )
        self.losses = {key: self._drawn(group, times) for key, group in self.groups.items()}

    def _drawn(
        self, runs: Sequence[Run], times: np.ndarray
    ) -> Float64[np.ndarray, " draw_plus_one"]:
        """The mean loss over seeds on all files, then on each draw of files."""
        files = self.tables.losses(runs)
        whole = np.concatenate([np.ones((1, times.shape[1])), times])
        return (whole @ files.totals) / (whole @ files.tokens)

    def compute(self, key: tuple[str, str], built: bool) -> float:
        """FLOPs of a run: as built, or 6 N D, the same for the architectures of a size."""
        run = self.groups[key][0]
        return self.flops[run.name] if built else 6.0 * run.size.parameters * run.tokens

    def rows(self) -> list[dict[str, object]]:
        """See :func:`scaling_table`."""
        rows = list[dict[str, object]]()
        for (size, rung), losses in self.losses.items():
            n, compute = len(self.groups[size, rung]), self.compute((size, rung), built=False)
            ends = _ends(losses[1:])
            rows.append(_row("loss", size, _model(rung), n, compute, losses[0], ends, ""))
        for built in (False, True):
            rows += self._ratios(built)
        for rung in PAIR:
            fitted = power_law(self.curve(rung, 0, built=False))
            if not math.isnan(fitted[0]):
                n = len(SCALES)
                rows += [
                    _row(name, "12 layers", _model(rung), n, 0.0, value, (value, value), "fit")
                    for name, value in zip(("E", "k", "alpha"), fitted, strict=True)
                ]
        return rows

    def curve(self, rung: str, draw: int, built: bool) -> Curve:
        """An architecture's points at 12 layers; draw 0 is of all files as they are."""
        keys = [(size.name, rung) for size in SCALES if (size.name, rung) in self.groups]
        compute = [self.compute(key, built) for key in keys]
        return Curve(np.array(compute), np.array([self.losses[key][draw] for key in keys]))

    def _ratios(self, built: bool) -> list[dict[str, object]]:
        rows, name = list[dict[str, object]](), "ratio, as built" if built else "ratio"
        plain, mudd = PAIR
        curves = [self.curve(plain, draw, built) for draw in range(DRAWS + 1)]
        for size, rung in [*((size.name, mudd) for size in SCALES), (DEEP.name, "prepost")]:
            key = size, rung
            if key not in self.groups:
                continue
            compute, losses = self.compute(key, built), self.losses[key]
            pairs = zip(curves, losses, strict=True)
            found = np.array([ratio(curve, compute, float(loss)) for curve, loss in pairs])
            if np.isnan(found[0]) or np.isnan(found).mean() > LEVEL:
                continue
            lowest = curves[0].loss.min()
            note = "beyond the curve of Transformer++" if losses[0] < lowest else ""
            n = len(self.groups[key])
            ends = _ends(found[1:])
            rows.append(_row(name, size, _model(rung), n, compute, found[0], ends, note))
            if not built:
                rows += self._over_seeds(key, curves[0], compute)
        return rows

    def _over_seeds(
        self, key: tuple[str, str], curve: Curve, compute: float
    ) -> list[dict[str, object]]:
        """The ratio of each seed: its own gap, put on the mean loss of Transformer++."""
        size, rung = key
        plain = {run.seed: run for run in self.groups.get((size, PAIR[0]), [])}
        both = [(plain[run.seed], run) for run in self.groups[key] if run.seed in plain]
        if len(both) < 2:
            return []
        mean = np.mean([self.loss[run.name] for run, _ in both])
        gaps = [self.loss[run.name] - self.loss[before.name] for before, run in both]
        logs = np.log([ratio(curve, compute, float(mean + gap)) for gap in gaps])
        if np.isnan(logs).any():
            return []
        half = t_quantile(1 - LEVEL / 2, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
        value, ends = logs.mean(), (logs.mean() - half, logs.mean() + half)
        numbers = math.exp(value), (math.exp(ends[0]), math.exp(ends[1]))
        return [_row("ratio, over seeds", size, _model(rung), len(logs), compute, *numbers, "")]


def _model(rung: str) -> str:
    return RUNGS[rung].title


def _ends(drawn: Float64[np.ndarray, " draw"]) -> tuple[float, float]:
    low, high = np.nanquantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _row(
    quantity: str,
    size: str,
    model: str,
    seeds: int,
    compute: float,
    value: float,
    ends: tuple[float, float],
    note: str,
) -> dict[str, object]:
    return {
        "quantity": quantity,
        "size": size,
        "model": model,
        "seeds": seeds,
        "compute": compute,
        "value": float(value),
        "low": ends[0],
        "high": ends[1],
        "note": note,
    }

# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The whole paper, table by table
#
# What the paper prints, what this toolkit finds, and whether they agree. Costs are arithmetic, and come
# out to the last digit. Everything that was trained here is small, so a row that agrees says that the
# effect shows at this size too, and one that differs says that it does not; neither is the paper's own
# experiment. Numbers of the tables are those of the camera-ready version.

# %%
import json
from importlib.resources import files

import kaleido
import pandas as pd
import plotly.io as pio

import mudd_interp as mi
from mudd_interp.config.widths import swiglu_width
from mudd_interp.evaluation.run import Settings, evaluate, plan  # the extra eval
from mudd_interp.experiments.gaps import ladder_table
from mudd_interp.experiments.tables import planned, read_tables

pio.renderers.default = "plotly_mimetype+png"
kaleido.start_sync_server(mathjax=False)
pd.set_option("display.max_colwidth", None)

summary = []


def row(what: str, paper: str, here: str, verdict: str) -> None:
    """One line of the table at the end."""
    summary.append({"in the paper": what, "it says": paper, "here": here, "verdict": verdict})


# %% [markdown]
# ## Table 1: what dense connections cost
#
# Extra parameters and FLOPs at 4096 tokens, percent. *paper* is its closed form, *exact* the sum that the
# form approximates, *built* what the modules have, norms and rounded widths included.

# %%
PRINTED = {
    "MUDDFormer-1.4B": (0.22, 0.38),
    "MUDDFormer-1.34B": (0.49, 0.80),
    "MUDDPythia-2.8B": (0.23, 0.40),
    "MUDDFormer-6.9B": (0.14, 0.26),
}
costs = {name: mi.cost(name, 4096) for name in PRINTED}
table = pd.DataFrame(
    {
        name: {
            f"{part}, {way}": 100 * getattr(getattr(found, way), part)
            for part in ("parameters", "flops")
            for way in ("paper", "exact", "built")
        }
        for name, found in costs.items()
    }
).T
table["parameters, printed"], table["flops, printed"] = zip(*PRINTED.values(), strict=True)
table.round(3)

# %%
same = all(
    (round(100 * found.paper.parameters, 2), round(100 * found.paper.flops, 2)) == PRINTED[name]
    for name, found in costs.items()
)
row(
    "Table 1, extra parameters and FLOPs",
    "8 numbers",
    "all 8 by its formulas",
    "agrees" if same else "differs",
)
built = costs["MUDDPythia-2.8B"].built.parameters
row("the same, as built (2.8B)", "0.23 %", f"{built:.2%} of the blocks", "more: norms, rounding")

# %% [markdown]
# ## Table 2: sizes
#
# FFN widths grow over depth and keep their total.

# %%
sizes = {}
for name in ("405M", "834M", "1.4B", "797M", "1.34B"):
    cfg = mi.ModelConfig.preset(f"MUDDFormer-{name}")
    sizes[name] = {
        "blocks x width x heads": f"{cfg.n_layers} x {cfg.d_model} x {cfg.n_heads}",
        "FFN": f"{cfg.mlp_widths[0]} to {cfg.mlp_widths[-1]}",
        "sum of FFN": sum(cfg.mlp_widths),
        "without re-allocation": cfg.n_layers * swiglu_width(cfg.d_model),
    }
sizes = pd.DataFrame(sizes).T
sizes

# %%
kept = (sizes["sum of FFN"] == sizes["without re-allocation"]).all()
row(
    "section 2.6, re-allocation",
    "the same total",
    "exactly, in all five sizes",
    "agrees" if kept else "differs",
)

# %% [markdown]
# ## Table 3: downstream tasks
#
# The paper's tasks need weights and data from a hub (`mudd-interp evaluate MUDDPythia-2.8B --tasks paper`
# prints its numbers beside). Here the bundled pair on tasks of its own kind; the whole table, with rules and an
# edit's cost, is in docs/evaluation.md.

# %%
pair = [mi.load_model(name) for name in ("mudd-tiny", "tfm-tiny")]
(scored,) = evaluate(plan(*pair), ["lambada_code"], Settings(limit=200)).tasks
((_, other), gap), *_ = scored.differences.items()
pd.DataFrame(
    {
        "score": {name: score.value for name, score in (scored.scores | scored.rules).items()},
        "standard error": {name: score.stderr for name, score in scored.scores.items()},
    }
).round(3)

# %%
print(f"difference: {gap.value:+.3f}, 95 % over files {gap.low:+.3f} to {gap.high:+.3f}")
clear = gap.low > 0
row(
    "Table 3, MUDDPythia-2.8B against Pythia-2.8B",
    "55.0 against 53.1 (mean of 11, 0-shot)",
    f"LAMBADA for code {gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}), tiny pair",
    "the same direction" if clear else "not resolved",
)

# %% [markdown]
# ## Table 4: speed
#
# `mudd-interp bench paper` decodes 128 tokens after 4,096 at each size that fits, and prints the paper's
# ratios beside. It needs a GPU to mean anything; no such run is claimed here.

# %%
row("Table 4, decoding 2.8B against Transformer++", "0.90", "`mudd-interp bench paper`", "not run")

# %% [markdown]
# ## Table 5: the ladder
#
# Eleven models that differ in their connections only, at 12 x 64 and 1.5 million tokens, several seeds;
# [how](../docs/experiments.md).

# %%
mi.draw("ladder").figure.show()

# %%
tables = read_tables()
ladder, complete = ladder_table(tables), planned("ladder", tables)
print(f"{len(complete)} of {11 * 5} runs are complete; {len(tables.runs)} with those of the sweep.")
ladder

# %%
row(
    "Table 5, eleven rungs",
    "MUDDFormer 0.081 nats below Transformer++",
    f"{len(complete)} of 55 runs at 12 x 64",
    "see the figure" if len(complete) >= 22 else "too few runs yet",
)

# %% [markdown]
# ## Figures 3 to 5: scaling

# %%
mi.draw("scaling").figure.show()
row(
    "Fig. 3, compute-equivalent ratio at 834M",
    "1.89",
    f"{len(planned('scaling', tables))} of 20 runs",
    "see the figure" if planned("scaling", tables) else "no runs yet",
)

# %% [markdown]
# ## Tables 8 and 9: MUDDViT
#
# Parameters of the paper's models, and a small pair on Fashion-MNIST: 12 blocks of width 64, patches of
# 4 x 4, one recipe, three seeds. The [model card](../mudd_interp/bundled/README.md) says how it was made.

# %%
vision = {name: mi.cost(name).counts for name in ("ViT-S/16", "MUDDViT-S/16", "ViT-M/16")}
larger = vision["ViT-M/16"].parameters / vision["ViT-S/16"].parameters
relative = 1 + vision["MUDDViT-S/16"].dense["weight MLPs"] / vision["ViT-S/16"].parameters
print({name: f"{found.parameters:,}" for name, found in vision.items()})
print(
    f"weight MLPs: {relative:.4f} of ViT-S/16; ViT-M/16: "
    f"{vision['ViT-M/16'].parameters / vision['ViT-S/16'].parameters:.3f}"
)
row("Table 9, relative size of MUDDViT-S/16", "1.007", f"{relative:.4f} (weight MLPs)", "agrees")
row(
    "Table 9, relative size of ViT-M/16",
    "1.72",
    "1.763 by parameters",
    "differs: no count gives 1.72",
)

# %%
card = json.loads((files("mudd_interp") / "bundled" / "vit-card.json").read_text())
scores = pd.DataFrame(
    {
        measure: {
            **{model: sum(each) / len(each) for model, each in found["models"].items()},
            "difference": found["difference"]["mean"],
            "over images, low": found["difference"]["images"][0],
            "over images, high": found["difference"]["images"][1],
            "over seeds, low": found["difference"]["seeds"][0],
            "over seeds, high": found["difference"]["seeds"][1],
        }
        for measure, found in card["scores"].items()
    }
)
scores.round(4)

# %%
loss = card["scores"]["loss"]["difference"]
low, high = loss["seeds"]
better = "the same direction" if high < 0 else "the other direction" if low > 0 else "not resolved"
row(
    "Table 9, validation loss of MUDDViT-S/16",
    "0.871 against 0.993",
    f"{loss['mean']:+.3f} nats ({low:+.3f} to {high:+.3f} over seeds), Fashion-MNIST",
    better,
)

# %% [markdown]
# ## Figures 6, 8 and 10 to 13: inside the models
#
# `02_paper_section_3_4` asks each of them of the bundled pair, with controls.

# %%
text = {"sequences": 64}
similarity = mi.draw("layer_similarity", **text).frame
late = similarity[similarity["layer"] >= 9].groupby(["model", "stream"])["cosine"].mean()
v, plain = late["mudd-tiny", "v"], late["tfm-tiny", "r"]
row(
    "Fig. 6, V is most distinct late",
    "-0.5 to 0.9 against 0.97",
    f"{v:.2f} against {plain:.2f}",
    "in part",
)
active = mi.draw("head_activity", **text).frame.groupby("model")["active"].mean()
ratio = active["mudd-tiny"] / active["tfm-tiny"]
row(
    "Fig. 8, heads are awake",
    "2.4 times as often",
    f"{ratio:.2f} times",
    "the same direction" if ratio > 1 else "the other direction",
)
weights = mi.draw("dense_weights", **text, mode="overlay").frame
ours = weights[(weights["model"] == "mudd-tiny") & (weights["stream"] == "v")]
distant = ours[ours["source"] < ours["layer"]]
reads = (distant["mean"].abs() * distant["source_norm"]).groupby(distant["source"]).mean()
row(
    "Figs. 12, 13, what V reads",
    "X_1 most",
    f"X_{reads.idxmax()} most, of distant outputs",
    "differs",
)

# %% [markdown]
# ## All of it

# %%
pd.DataFrame(summary).set_index("in the paper")

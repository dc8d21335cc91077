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
# # Weight, contribution, cause
#
# The paper shows averages of weights. But a source already contains what it read itself, so a weight
# is not a contribution; and what comes later adapts to what is there, so a contribution is not a
# cause. Here the three stand side by side for every edge of `mudd-tiny`: stream × aggregation ×
# source.
#
# Cutting 321 edges on 64 sequences takes minutes. `edge_sweep.py` did it and kept the result.

# %%
import kaleido
import plotly.io as pio
import torch

import mudd_interp as mi
from mudd_interp.analysis import rank_correlations, weight_contribution_cause

pio.renderers.default = "plotly_mimetype+png"
kaleido.start_sync_server(mathjax=False)

model = mi.load_model("mudd-tiny")
batches = mi.data.bundled_batches(64)
sweep = mi.analysis.AblationSweep.load("results/edge_sweep.npz")
sizes = mi.analysis.edge_sizes(model, batches)
estimates = mi.analysis.edge_attribution(model, batches)
table = weight_contribution_cause(sizes, sweep, estimates)
print(
    f"{len(table)} edges, {sweep.provenance.tokens:,} tokens, loss without edits {sweep.loss:.4f}"
)

# %% [markdown]
# ## What cutting an edge does
#
# The ten edges whose cut costs most, in nats per token, with 95% intervals (paired bootstrap over
# sequences). Weight: mean |weight|; contribution: mean norm of weight × source.

# %%
top = table.sort_values("loss", ascending=False).head(10)
columns = ["stream", "layer", "source", "weight", "contribution", "loss", "loss_low", "loss_high"]
top[columns].round(3)

# %%
mi.viz.edge_effects_figure(sweep).show()

# %% [markdown]
# Most edges could go: the interval of their effect holds zero, or the effect is small.

# %%
unsure = ((table["loss_low"] <= 0) & (table["loss_high"] >= 0)).mean()
small = (table["loss"].abs() < 0.001).mean()
helped = (table["loss_high"] < 0).sum()
newest = table["source"] == table["layer"] + 1
print(f"interval holds zero: {unsure:.0%} of edges; |effect| below 0.001 nats: {small:.0%}")
print(f"edges whose cut helps, with all of the interval below zero: {helped}")
print(
    f"share of the summed effects that the newest source has: "
    f"{table.loc[newest, 'loss'].abs().sum() / table['loss'].abs().sum():.0%}"
)

# %% [markdown]
# ## Does a large weight mean a large contribution, and that a large effect?

# %%
mi.viz.causes_figure(sizes, sweep).show()
ranks = rank_correlations(table).set_index("stream")
ranks.round(2)

# %% [markdown]
# Rank correlations over all edges are helped by the obvious: the newest source matters most, and has
# the largest weights. Among the others, those that MUDD adds to a Transformer, the order of the
# weights says less:

# %%
distant = rank_correlations(table[~newest]).set_index("stream")
distant.round(2)

# %% [markdown]
# ## Can one backward pass stand in for the sweep?
#
# The first-order estimate of a cut is −weight × gradient, for all edges at once.

# %%
mi.viz.first_order_figure(sizes, sweep, estimates).show()

# %% [markdown]
# **No, not here.** The rank correlation of estimate and exact effect is 0.16 over all edges. Cutting a
# large edge is too far a step for a linear estimate, on stream R most of all; among the distant
# edges, which are smaller, it is 0.5 to 0.7 for Q, K and V and none for R.

# %% [markdown]
# ## How much of it is dynamic?
#
# All weights are set to their mean over the whole held-out text (the best that static connections
# could do without training), to their learned static part, or are moved to other tokens.

# %%
static = mi.analysis.AblationSweep.load("results/static_vs_dynamic.npz")
mi.viz.static_dynamic_figure(static).show()
whole = static.frame.set_index("edits")["loss"]
print(
    {
        edits: round(float(whole[edits]), 3)
        for edits in ("mean * *<-*", "static * *<-*", "shuffle * *<-*")
    }
)

# %% [markdown]
# ## Controls
#
# The same numbers where there is nothing to find. In a model with random weights every dense weight
# is one-hot, as the paper initialises it, so only the newest source can matter. And on shuffled
# tokens the trained model has nothing to carry: its edges matter less.

# %%
torch.manual_seed(0)
fresh = mi.HookedMUDDTransformer(model.config)
few = list(mi.data.bundled_batches(2, batch_size=2))
random_sweep = mi.analysis.ablation_sweep(fresh, few, ["cut v 7<-2", "cut v 7<-8"])
print("random weights:", random_sweep.frame[["edits", "kl"]].round(6).to_dict("records"))

strongest = [f"cut {s} {l}<-{j}" for s, l, j in top[["stream", "layer", "source"]].to_numpy()[:5]]
order = torch.randperm(few[0].shape[1], generator=torch.Generator().manual_seed(0))
for name, tokens in (("text", few[0]), ("shuffled tokens", few[0][:, order])):
    found = mi.analysis.ablation_sweep(model, [tokens], strongest)
    print(f"{name}: loss {found.loss:.2f}, effects", found.frame["loss"].round(3).tolist())

# %%
assert len(table) == 321
assert (top["loss_low"] > 0).all()
assert ranks.loc["all", "weight_contribution"] > ranks.loc["all", "contribution_effect"]
assert random_sweep.frame["kl"][0] == 0
assert random_sweep.frame["kl"][1] > 0

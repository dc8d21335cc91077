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
# # A tour, for people who know TransformerLens
#
# Load, cache, patterns, ablation, patching, induction: on a MUDDFormer, with a plain Transformer
# beside it. Both are small models of Python source code that come with the package, so everything
# here runs offline in under a minute. The names are TransformerLens' names; what is new is
# explained where it comes up.

# %%
import kaleido
import plotly.io as pio
import torch
from transformer_lens import patching

import mudd_interp as mi

pio.renderers.default = "plotly_mimetype+png"
kaleido.start_sync_server(mathjax=False)
torch.set_grad_enabled(False)

pair = {"model": mi.load_model("mudd-tiny"), "baseline": mi.load_model("tfm-tiny")}
model, baseline = pair.values()
(
    model.cfg.n_layers,
    model.cfg.n_heads,
    model.cfg.d_model,
    model.wiring.streams,
    baseline.wiring.streams,
)

# %% [markdown]
# ## Run, and look at what the model expects
#
# The prompt names a file and loads it, three times over; then the first name appears again.

# %%
prompt = (
    'alpha = load("alpha.json")\nbeta = load("beta.json")\ngamma = load("gamma.json")\n'
    'alpha = load("alpha'
)
tokens = model.to_tokens(prompt)
logits, cache = model.run_with_cache(tokens)
mi.draw("next_tokens", **pair, prompt=prompt).figure.show()

# %% [markdown]
# ## The cache
#
# `names_filter` keeps the cache small: name what you need. Shorthand works as usual.

# %%
_, few = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_pattern"))
print(len(cache), "tensors, or only", len(few))
print("pattern of layer 7:", tuple(few["pattern", 7].shape), "[batch head query key]")

# %% [markdown]
# Two things differ from a plain Transformer.
#
# - A block has four inputs: `hook_q_input`, `hook_k_input`, `hook_v_input` and `hook_resid_pre`.
#   Each is a sum of *all* earlier outputs, with weights that the model computes for each token.
# - `hook_resid_post` of a block is its output $X_{l+1}$, and not the next block's `hook_resid_pre`.
#
# Here is the sum, written out for the value input of block 6. Its weights follow block 5.

# %%
weights = cache["dense.5.hook_weights_v"]  # [batch pos source]
sources = torch.stack([cache["hook_embed"], *(cache["resid_post", l] for l in range(6))], dim=-2)
mixed = (weights[..., None] * sources).sum(-2)
error = (mixed - cache["blocks.6.hook_v_input"]).abs().max().item()
print(f"sum of {sources.shape[-2]} sources, largest difference from the cached input: {error:.1e}")

# %% [markdown]
# What each stream reads at the last token, in every block:

# %%
mi.draw("token_weights", **pair, prompt=prompt).figure.show()

# %% [markdown]
# ## Patterns
#
# All heads of one layer; layer 7 has the strongest induction head of this model, as the last
# section measures.

# %%
mi.draw("attention_maps", **pair, prompt=prompt, layer=7).figure.show()

# %% [markdown]
# ## Ablation
#
# A hook changes a tensor, and everything downstream follows. Here a head is silenced by hand, and
# then by an `Edit`: the same change as a value, which has a name and leaves no hook behind.


# %%
def silence(z, hook):
    z[:, :, 2] = 0
    return z


before = model(tokens, return_type="loss")
by_hand = model.run_with_hooks(
    tokens, return_type="loss", fwd_hooks=[("blocks.7.attn.hook_z", silence)]
)
by_edit = mi.run(model, "cut head 7.2", tokens, return_type="loss")
print(f"loss {before:.3f}; without head 7.2: {by_hand:.3f} by hand, {by_edit:.3f} by edit")

# %% [markdown]
# What is new is that a *connection* can be cut: the value input of block 8 no longer reads the
# output $X_j$ of one earlier block, and everything else still does.

# %%
for source in range(9):
    loss = mi.run(model, f"cut v 7<-{source}", tokens, return_type="loss")
    print(f"V of block 8 without X_{source}: {loss - before:+.3f} nats per token")

# %% [markdown]
# ## Patching
#
# TransformerLens' own tools run unchanged. The clean prompt has an argument called `name`, the
# corrupted one calls it `value`; each head's output, at all tokens, is put back from the clean run,
# and we ask how much of the answer `name` comes back.

# %%
template = "class A(Base):\n    def __init__(self, {}):\n        super().__init__("
clean, corrupted = (model.to_tokens(template.format(word)) for word in ("name", "value"))
answer, other = (model.to_single_token(word) for word in ("name", "value"))


def difference(logits):
    return logits[0, -1, answer] - logits[0, -1, other]


clean_logits, clean_cache = model.run_with_cache(clean)
restored = patching.get_act_patch_attn_head_out_all_pos(model, corrupted, clean_cache, difference)
low, high = difference(model(corrupted)).item(), difference(clean_logits).item()
share = (restored - low) / (high - low)
print(f"logit difference: clean {high:.2f}, corrupted {low:.2f}")
for place in share.flatten().topk(3).indices.tolist():
    layer, head = divmod(place, model.cfg.n_heads)
    print(f"head {layer}.{head} alone restores {share[layer, head]:.0%}")

# %% [markdown]
# ## Induction
#
# Random tokens that repeat: an induction head attends to the token after the last occurrence of
# the present one. Both models are on one scale.

# %%
drawn = mi.draw("head_scores", **pair, sequences=32, score="induction")
drawn.figure.show()
drawn.frame.groupby("model").head(1)[["model", "layer", "head", "induction"]].round(3)

# %% [markdown]
# One seed of each model was trained, so this is about these two models. Of the two, the MUDDFormer
# has the stronger induction head by far.

# %%
assert error < 1e-4
assert torch.isclose(by_hand, by_edit)
assert len(few) == model.cfg.n_layers < len(cache)
assert high > 0 > low
assert 0.2 < share.max() < 1
best = drawn.frame.groupby("model")["induction"].max()
assert best["mudd-tiny"] > 0.5 > best["tfm-tiny"]
assert all(not point.fwd_hooks for point in model.hook_dict.values())

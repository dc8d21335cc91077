"""The model cards of what is bundled, written from measured facts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mudd_interp.files import read_object, write_text
from mudd_interp.training.vision_card import IMAGES, vision_card

LANGUAGE_CARD, VISION_CARD = "card.json", "vit-card.json"

CARD = """# mudd-tiny and tfm-tiny

Two small language models of Python source code, trained from scratch by this project with one
recipe, so that everything works offline. They are for interpretability: to compare a MUDDFormer
with a Transformer that does the same job. They are not for writing code.

| | mudd-tiny | tfm-tiny |
|---|---|---|
| connections | multiway dynamic dense, FFN width re-allocated over depth | plain residual |
| blocks × width × heads | {shape} | {shape} |
| FFN (SwiGLU) width, total over depth | {mudd_widths} | {tfm_widths} |
| parameters | {mudd_parameters:,} | {tfm_parameters:,} |
| held-out loss, nats per token | {mudd_loss:.4f} | {tfm_loss:.4f} |

Difference of the held-out losses (mudd-tiny minus tfm-tiny): **{difference:+.4f}** nats per token,
95 % interval {low:+.4f} to {high:+.4f} (paired bootstrap over {n_files} held-out files). The
interval covers the choice of held-out files. Each model was trained once, with one seed, so nothing
here says how much of the difference another seed would keep.

## Data

Python sources of packages that are pinned in `constraints.txt`, as installed; tests, generated,
vendored, near-duplicate, very small and very large files are left out. `corpus.tsv.gz` lists every
file with its sha256; the split into training and held-out text is by file. The packages:
{packages}.
They are under permissive open-source licences (BSD, MIT, Apache-2.0 and the like); each keeps its
own.

The tokenizer is a byte-level BPE of {d_vocab:,} entries, trained on the training files. A newline
is always a token of its own, digits are single tokens, `<|endoftext|>` stands before each file.

## Recipe

{tokens:,} training tokens for each model, the same rows in the same order, each seen once:
{steps:,} steps of {batch} × {n_ctx} tokens{unfinished}. AdamW (betas {betas}), weight decay
{weight_decay} on projections, gradient clipped at {clip}, learning rate {peak_lr} after 1 % warm-up
and down a cosine to 10 %, no dropout, float32. Neither has QK-norm. The logs are in
`mudd-tiny.log.csv` and `tfm-tiny.log.csv`. `mudd-interp train tiny-pair --out runs` makes both
again; another machine rounds differently, so the weights will differ, at first only in their last
digits.

The weights are stored in half precision, which moves the held-out losses by {mudd_shift:+.5f} and
{tfm_shift:+.5f} nats per token; the losses above are those of the stored weights, run in float32.

## Licence

MIT, as the rest of this project. The held-out pack and the items in `tasks` are short excerpts of
the packages above.
"""


def write_readme(folder: Path) -> None:
    """Write the ``README.md`` of the bundled files: a card for each pair, by its facts there.

    Raises:
        ValueError: If the facts of the language pair are missing or damaged.
    """
    sections = [model_card(read_object(folder / LANGUAGE_CARD))]
    if (folder / VISION_CARD).is_file():
        sections.append(vision_card(read_object(folder / VISION_CARD)))
    write_text(folder / "README.md", "".join([*sections, IMAGES]))


def model_card(facts: Mapping[str, Any]) -> str:
    """The card of the language pair as Markdown, from what ``bundle`` measured."""
    mudd, tfm = facts["models"]["mudd-tiny"], facts["models"]["tfm-tiny"]
    recipe, cfg, difference = facts["recipe"], mudd["config"], facts["difference"]
    short = facts["steps"] < recipe["steps"]
    return CARD.format(
        shape=f"{cfg['n_layers']} × {cfg['d_model']} × {cfg['n_heads']}",
        mudd_widths=_widths(mudd["config"]["d_mlp"]),
        tfm_widths=_widths(tfm["config"]["d_mlp"]),
        mudd_parameters=mudd["parameters"],
        tfm_parameters=tfm["parameters"],
        mudd_loss=mudd["validation_loss"],
        tfm_loss=tfm["validation_loss"],
        mudd_shift=mudd["validation_loss"] - mudd["validation_loss_before_storage"],
        tfm_shift=tfm["validation_loss"] - tfm["validation_loss_before_storage"],
        difference=difference["difference"],
        low=difference["low"],
        high=difference["high"],
        n_files=difference["n_files"],
        packages=", ".join(f"{name} {of['version']}" for name, of in facts["packages"].items()),
        d_vocab=cfg["d_vocab"],
        n_ctx=cfg["n_ctx"],
        tokens=facts["tokens"],
        steps=facts["steps"],
        unfinished=f" (**interim**: the schedule has {recipe['steps']:,})" if short else "",
        batch=recipe["batch"],
        betas=" and ".join(map(str, recipe["betas"])),
        weight_decay=recipe["weight_decay"],
        clip=recipe["clip"],
        peak_lr=recipe["peak_lr"],
    )


def _widths(widths: list[int]) -> str:
    total = f"{sum(widths):,} in total"
    if len(set(widths)) == 1:
        return f"{widths[0]} in each block, {total}"
    return f"{widths[0]} to {widths[-1]}, {total}"

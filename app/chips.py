"""The tokens of a prompt as a row of chips with one cursor: mouse, arrow keys, Home and End."""

from collections.abc import Callable, Sequence

import streamlit as st
from streamlit.components.v2 import component

from mudd_interp.viz import shown

_CSS = """
.chips { display: flex; flex-wrap: wrap; gap: 2px; padding: 3px; border-radius: 6px; }
.chips:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
.chip {
  font: 13px/1.5 var(--st-code-font, "DejaVu Sans Mono", monospace); white-space: pre;
  padding: 1px 4px; border-radius: 4px; cursor: pointer; user-select: none;
  color: var(--st-text-color); background: var(--st-secondary-background-color);
}
.chip:hover { box-shadow: inset 0 0 0 1px var(--st-primary-color); }
.chip[aria-selected="true"] {
  color: var(--st-background-color); background: var(--st-text-color); font-weight: 600;
}
.break { flex-basis: 100%; height: 0; }
"""

# Tokens are untrusted: they reach the page as text nodes and nothing else.
_JS = """
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let box = parentElement.querySelector(".chips");
  if (!box) {
    box = document.createElement("div");
    box.className = "chips";
    box.tabIndex = 0;
    box.setAttribute("role", "listbox");
    box.setAttribute("aria-label", "Tokens of the prompt");
    box.setAttribute("aria-orientation", "horizontal");
    parentElement.appendChild(box);
  }
  const state = (box.state ??= { tokens: null, position: -1, timer: null });
  const chips = () => box.querySelectorAll(".chip");
  const mark = (position) => {
    state.position = position;
    chips().forEach((chip, i) => chip.setAttribute("aria-selected", String(i === position)));
    const chip = chips()[position];
    if (chip) box.setAttribute("aria-activedescendant", chip.id);
  };
  const pick = (position, delay) => {
    const last = chips().length - 1;
    const to = Math.max(0, Math.min(last, position));
    if (to === state.position) return;
    mark(to);
    clearTimeout(state.timer);
    state.timer = setTimeout(() => { state.timer = null; box.emit("picked", to); }, delay);
  };
  const key = JSON.stringify(data.tokens);
  if (state.tokens !== key) {
    state.tokens = key;
    box.replaceChildren();
    data.tokens.forEach((token, i) => {
      const chip = document.createElement("span");
      chip.className = "chip";
      chip.id = `chip-${i}`;
      chip.setAttribute("role", "option");
      chip.textContent = token;
      chip.title = `token ${i}`;
      chip.addEventListener("click", () => box.pick(i, 0));
      box.appendChild(chip);
      if (token.endsWith("\\u23ce")) {
        const end = document.createElement("span");
        end.className = "break";
        end.setAttribute("role", "presentation");
        box.appendChild(end);
      }
    });
  }
  box.pick = pick;
  box.emit = setTriggerValue;
  // While keys are still being pressed, the page's answer to an earlier one is out of date.
  if (state.timer === null) mark(data.position);
  box.onkeydown = (event) => {
    const last = chips().length - 1;
    const to = {
      ArrowLeft: state.position - 1, ArrowRight: state.position + 1, Home: 0, End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    pick(to, 120);
  };
}
"""

_component = component("mudd_interp_chips", css=_CSS, js=_JS)


def chips(tokens: Sequence[str], position: int, key: str, on_pick: Callable[[int], object]) -> None:
    """Show tokens, and let one be chosen.

    Args:
        tokens: The text of each token.
        position: The one that is chosen now.
        key: The component's name on the page.
        on_pick: Called with the position of another one when it is chosen.
    """

    def picked() -> None:
        position = st.session_state[key].picked
        if isinstance(position, int) and 0 <= position < len(tokens):
            on_pick(position)

    data = {"tokens": [shown(token) for token in tokens], "position": position}
    _component(key=key, data=data, on_picked_change=picked)

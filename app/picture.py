"""An image as a grid of patches with one cursor: mouse, arrow keys, Home and End."""

import base64
import io
from collections.abc import Callable

import streamlit as st
from PIL import Image
from streamlit.components.v2 import component

from mudd_interp.images import ImageSet

SIDE = 224
"""Width and height on the page, in pixels."""

_CSS = """
.picture {
  position: relative; display: grid; border-radius: 6px; overflow: hidden;
  background-size: 100% 100%; image-rendering: pixelated;
}
.picture:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
.patch { cursor: pointer; }
.patch:hover { box-shadow: inset 0 0 0 1px var(--st-primary-color); }
.patch[aria-selected="true"] {
  box-shadow: inset 0 0 0 2px var(--st-primary-color), 0 0 0 1px white;
}
"""

_JS = """
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let box = parentElement.querySelector(".picture");
  if (!box) {
    box = document.createElement("div");
    box.className = "picture";
    box.tabIndex = 0;
    box.setAttribute("role", "listbox");
    box.setAttribute("aria-label", "Patches of the image");
    parentElement.appendChild(box);
  }
  const state = (box.state ??= { side: 0, position: -1, timer: null });
  box.style.width = box.style.height = `${data.width}px`;
  box.style.backgroundImage = `url(${data.image})`;
  box.style.gridTemplate = `repeat(${data.side}, 1fr) / repeat(${data.side}, 1fr)`;
  const patches = () => box.querySelectorAll(".patch");
  const mark = (position) => {
    state.position = position;
    patches().forEach((each, i) => each.setAttribute("aria-selected", String(i === position)));
    const patch = patches()[position];
    if (patch) box.setAttribute("aria-activedescendant", patch.id);
  };
  const pick = (position, delay) => {
    const to = Math.max(0, Math.min(patches().length - 1, position));
    if (to === state.position) return;
    mark(to);
    clearTimeout(state.timer);
    state.timer = setTimeout(() => { state.timer = null; box.emit("picked", to); }, delay);
  };
  if (state.side !== data.side) {
    state.side = data.side;
    box.replaceChildren();
    for (let i = 0; i < data.side * data.side; i++) {
      const patch = document.createElement("span");
      patch.className = "patch";
      patch.id = `patch-${i}`;
      patch.setAttribute("role", "option");
      patch.title = `patch ${i}: row ${Math.floor(i / data.side)}, column ${i % data.side}`;
      patch.setAttribute("aria-label", patch.title);
      patch.addEventListener("click", () => box.pick(i, 0));
      box.appendChild(patch);
    }
  }
  box.pick = pick;
  box.emit = setTriggerValue;
  // While keys are still being pressed, the page's answer to an earlier one is out of date.
  if (state.timer === null) mark(data.position);
  box.onkeydown = (event) => {
    const at = state.position, last = patches().length - 1;
    const to = {
      ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last,
      ArrowUp: at < data.side ? at : at - data.side,
      ArrowDown: at + data.side > last ? at : at + data.side,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    pick(to, 120);
  };
}
"""

_component = component("mudd_interp_picture", css=_CSS, js=_JS)


def picture(
    image: ImageSet, side: int, position: int, key: str, on_pick: Callable[[int], object]
) -> None:
    """Show an image, and let one of its patches be chosen.

    Args:
        image: A set of one.
        side: Patches in a row, and in a column.
        position: The patch that is chosen now.
        key: The component's name on the page.
        on_pick: Called with another patch when it is chosen.
    """

    def picked() -> None:
        at = st.session_state[key].picked
        if isinstance(at, int) and 0 <= at < side**2:
            on_pick(at)

    data = {"image": _as_url(image), "side": side, "position": position, "width": SIDE}
    _component(key=key, data=data, on_picked_change=picked)


def _as_url(image: ImageSet) -> str:
    """The picture as PNG, within the page."""
    pixels, out = image.pixels[0], io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()

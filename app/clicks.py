"""Clicks on a chart: Streamlit reports none on heatmaps, so Plotly's own event is listened to."""

from collections.abc import Callable
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

# Streamlit calls the function again when its data change, and may end an earlier call after a later
# one has begun: a call ends what it began and nothing else. Plotly forgets its listeners when it
# redraws a chart, at times in the same node: whatever changes on the page, the listener is set
# again.
JS = """
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let node = null;
  const at = (value) => (typeof value === "number" ? value : null);
  const listen = (event) => {
    const point = event.points?.[0];
    if (!point) return;
    setTriggerValue("clicked", { curve: point.curveNumber, x: at(point.x), y: at(point.y) });
  };
  const attach = () => {
    node?.removeListener?.("plotly_click", listen);
    node = document.querySelector(`.st-key-${CSS.escape(data.chart)} .js-plotly-plot`);
    node?.on?.("plotly_click", listen);
  };
  const observer = new MutationObserver(attach);
  const stop = () => {
    observer.disconnect();
    node?.removeListener?.("plotly_click", listen);
  };
  parentElement.stop?.();
  parentElement.stop = stop;
  attach();
  observer.observe(document.body, { childList: true, subtree: true });
  return stop;
}
"""

_component = component("mudd_interp_clicks", js=JS)


def clicks(chart: str, key: str, on_click: Callable[[int, float, float], Any]) -> None:
    """Report clicks on the points or cells of a chart.

    Args:
        chart: The key of the chart, or of a container around it.
        key: The component's name on the page.
        on_click: Called with the number of the trace, and the point's x and y.
    """

    def clicked() -> None:
        found = st.session_state[key].clicked
        if found and all(isinstance(found.get(name), int | float) for name in ("curve", "x", "y")):
            on_click(found["curve"], found["x"], found["y"])

    _component(key=key, data={"chart": chart}, on_clicked_change=clicked, height=1)

"""Shared by all tests: the app's modules by their plain names, and one thread for each process."""

import os
import sys
from pathlib import Path

import torch

# As Streamlit runs them: the app's modules import their siblings so.
sys.path.insert(0, str(Path(__file__).parents[1] / "app"))

# Several test processes on few cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

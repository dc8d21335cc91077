"""Shared by all tests: several test processes on few cores get one thread each."""

import os

import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

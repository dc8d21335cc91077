"""Scores on tasks: lm-evaluation-harness on our models, its tasks and some of our own.

The harness (``lm_eval``, the extra ``eval``) is imported by ``adapter``, ``tasks`` and what stands
above them, which nothing imports but the command and those who ask for it.
"""

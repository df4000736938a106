"""Averages of the ranks' models from time to time, in place of averages of gradients in every step."""

from .averagers import ModelAverager, PeriodicModelAverager

__all__ = ["ModelAverager", "PeriodicModelAverager"]

"""Differentiation: the graph, its engine, and what users call."""

from . import forward_ad, function, functional, graph, profiler, several_devices
from .differentiate import backward, grad
from .engine import queue_callback
from .function import Function
from .grad_mode import (
    detect_anomaly,
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_detect_anomaly,
    set_grad_enabled,
)
from .gradcheck import GradcheckError, gradcheck, gradgradcheck
from .legacy import Variable

__all__ = [
    "Function",
    "GradcheckError",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "forward_ad",
    "function",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "profiler",
    "queue_callback",
    "set_detect_anomaly",
    "set_grad_enabled",
    "several_devices",
]

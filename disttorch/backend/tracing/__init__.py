"""Elementwise formulas traced into expressions, and expressions written as C, from which a backend makes kernels.

`graph` holds the expressions, `symbols` runs a formula on them, `emission` writes them out. Nothing here knows a device.
"""

from .emission import statements
from .graph import Graph, Node, Untraceable, walk
from .symbols import Trace, python, traced

__all__ = ["Graph", "Node", "Trace", "Untraceable", "python", "statements", "traced", "walk"]

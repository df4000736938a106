"""Where PyTorch keeps the parts of its data loader; scripts take `collate` from here."""

from . import collate

__all__ = ["collate"]

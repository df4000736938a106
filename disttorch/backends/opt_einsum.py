"""As ``torch.backends.opt_einsum``: the package that PyTorch asks for the order of an einsum's products."""

enabled = False
strategy = None


def is_available() -> bool:
    """Whether it is used: it is not."""
    return False

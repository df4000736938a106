"""As ``torch._dynamo.eval_frame``: the class by which programs see that something was compiled."""

__all__ = ["OptimizedModule"]


class OptimizedModule:
    """What ``torch.compile`` makes of a module there; here it gives the module itself, so nothing is one."""

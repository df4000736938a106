"""Linear algebra, one kind of task a file; ``disttorch.linalg`` is where users find it, `names` what the package itself offers.

Factorizations are operations with several results, whose rules are written in PyTorch's convention for complex numbers: the
graph conjugates gradients only around operations with one result. What composes others is plain code on tensors.
"""

"""Where our results may differ from PyTorch's, with the reason; everything else must agree."""

#: Random numbers: our generator is another one, so shapes and dtypes are compared, and the distributions elsewhere.
RANDOM = set(
    """
    bernoulli cauchy exponential geometric log_normal multinomial normal rand_like randint randint_like randn randn_like uniform
    nn.functional.alpha_dropout nn.functional.dropout nn.functional.dropout2d nn.functional.dropout3d nn.functional.feature_alpha_dropout
    nn.functional.fractional_max_pool2d nn.functional.fractional_max_pool3d nn.functional.rrelu
    svd_lowrank pca_lowrank
    """.split()
)

#: Memory that nobody has written to.
COUNT_ONLY = set("empty empty_like empty_permuted empty_strided new_empty new_empty_strided resize_ resize_as_".split())

#: Operations whose indices may be those of any of several equal elements, and where their argument dim stands: what is compared
#: is the elements at the indices.
TIES = {"argsort": 0, "kthvalue": 1, "median": 0, "mode": 0, "nanmedian": 0, "sort": 0, "topk": 1}

#: Operations with poles, where PyTorch's formula gives a huge number by rounding, and ours the infinity that is meant.
POLES = {"polygamma", "special.polygamma"}

#: Operations whose values in PyTorch are 2e-7 from the exact ones in float64 (mpmath's, to which ours are closer): compared as
#: float32.
INEXACT = {"special.bessel_j0", "special.bessel_y1"}

#: (operation, variant) whose samples say nothing about the public name, with the reason.
NOT_COMPARED: dict[tuple[str, str], str] = {}

#: (operation, kind of comparison) that is not PyTorch's on purpose, with the reason.
NOT_AGREED: dict[tuple[str, str], str] = {
    ("__rdiv__", "error"): "a number in the place of the tensor: TypeError as from all other reflected operators",
    ("as_strided_scatter", "gradient"): "PyTorch 2.13 gives the input the gradient of what was overwritten; its own gradcheck fails there",
}

#: Modules with random numbers in them: shapes and dtypes are compared.
RANDOM_MODULES = set(
    """
    AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout RReLU
    """.split()
)

#: (module, kind of comparison) that is not PyTorch's on purpose, with the reason.
MODULES_NOT_AGREED: dict[tuple[str, str], str] = {
    ("__rdiv__", "error"): "a number in the place of the tensor: TypeError as from all other reflected operators",
}

#: Modules whose constructors PyTorch writes as ``*args``.
SIGNATURES: set[str] = set()

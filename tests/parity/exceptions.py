"""Where our results may differ from PyTorch's, with the reason; everything else must agree."""

#: Random numbers: our generator is another one, so shapes and dtypes are compared, and the distributions elsewhere.
RANDOM = set(
    """
    bernoulli cauchy exponential geometric log_normal multinomial normal rand_like randint randint_like randn randn_like uniform
    nn.functional.alpha_dropout nn.functional.dropout nn.functional.dropout2d nn.functional.dropout3d nn.functional.feature_alpha_dropout
    nn.functional.fractional_max_pool2d nn.functional.fractional_max_pool3d nn.functional.rrelu nn.functional.scaled_dot_product_attention
    nn.functional.multi_head_attention_forward svd_lowrank pca_lowrank
    """.split()
)

#: Memory that nobody has written to.
COUNT_ONLY = set("empty empty_like empty_permuted empty_strided new_empty new_empty_strided resize_ resize_as_".split())

#: (operation, variant) whose samples say nothing about the public name, with the reason.
NOT_COMPARED: dict[tuple[str, str], str] = {}

#: (operation, kind of comparison) that is not PyTorch's on purpose, with the reason.
NOT_AGREED: dict[tuple[str, str], str] = {}

#: Modules with random numbers in them: shapes and dtypes are compared.
RANDOM_MODULES = set(
    """
    AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout FractionalMaxPool2d FractionalMaxPool3d RReLU
    """.split()
)

#: (module, kind of comparison) that is not PyTorch's on purpose, with the reason.
MODULES_NOT_AGREED: dict[tuple[str, str], str] = {}

#: Modules whose constructors PyTorch writes as ``*args``.
SIGNATURES: set[str] = set()

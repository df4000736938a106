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

#: Arguments that PyTorch's functions have and ours do not, whatever the function.
NOT_IN_OURS = {
    "layout": "there are dense tensors only",
    "out_dtype": "products of half types in float32, on some GPUs only",
}

#: Differences in arguments that are meant: name -> {argument or "*" for all: the reason}.
KEYWORDS_NOT_AGREED: dict[str, dict[str, str]] = {
    # several ways to call, told apart by what is given
    ".arange": {"end": "arange(end) and arange(start, end)"},
    ".range": {"start": "range(end) works too", "end": "range(end) works too"},
    ".device": {"device": "device(type, index) and device(text or device); the latter only without its name"},
    ".isin": {"element": "the name of a number in that place", "test_element": "the name of a number in that place"},
    ".max": {"other": "max(input, dim) and max(input, other)"},
    ".min": {"other": "min(input, dim) and min(input, other)"},
    ".normal": {"mean": "normal() of a shape has no mean"},
    ".nuclear_norm": {"keepdim": "nuclear_norm(input, keepdim) and nuclear_norm(input, dim, keepdim)"},
    ".randint": {"high": "randint(high, size)", "size": "randint(high, size)"},
    ".randint_like": {"high": "randint_like(input, high)"},
    ".repeat_interleave": dict.fromkeys(("input", "repeats"), "repeat_interleave(repeats): without its name"),
    "Tensor.repeat_interleave": {"repeats": "repeat_interleave(repeats): the tensor is the repeats"},
    ".result_type": dict.fromkeys(("tensor", "other", "scalar", "scalar1", "scalar2"), "two values of any kind"),
    ".searchsorted": {"self": "the name of a number in that place"},
    ".where": dict.fromkeys(("input", "other"), "where(condition)"),
    ".trapezoid": {"x": "trapezoid(y, dx=)"},
    ".trapz": {"x": "trapz(y, dx=)"},
    ".cumulative_trapezoid": {"x": "cumulative_trapezoid(y, dx=)"},
    **{f"{place}.{name}": {"alpha": "without its name only where other is a number"}
       for place, name in (("", "rsub"), ("", "subtract"), ("Tensor", "subtract"), ("Tensor", "subtract_"))},
    # the value that None stands for
    ".gradient": {"spacing": "None is 1"},
    ".meshgrid": {"indexing": "None is ij, with a warning"},
    ".nan_to_num": {"nan": "None is 0"},
    ".nan_to_num_": {"nan": "None is 0"},
    "Tensor.nan_to_num": {"nan": "None is 0"},
    "Tensor.nan_to_num_": {"nan": "None is 0"},
    ".randperm": {"dtype": "None is int64"},
    ".tril_indices": {"dtype": "None is int64"},
    ".triu_indices": {"dtype": "None is int64"},
    ".Generator": {"device": "None is the CPU", "seed": "private"},
    "utils.data.random_split": {"generator": "None is the default generator"},
    "random.fork_rng": dict.fromkeys(("_caller", "_devices_kw", "device_type"), "private, and None is the device there is"),
    # ours takes more
    ".affine_grid_generator": {"align_corners": "need not be given"},
    ".batch_norm": {"cudnn_enabled": "need not be given"},
    ".instance_norm": {"cudnn_enabled": "need not be given"},
    ".histogram": {"bins": "need not be given"},
    ".sum": {"dim": "need not be given together with other arguments"},
    ".unsqueeze": {"dim": "may be called axis; None is refused"},
    "Tensor.unsqueeze": {"dim": "may be called axis; None is refused"},
    "Tensor.contiguous": {"memory_format": "None is contiguous, and it may stand without its name"},
    "linalg.matrix_norm": {"ord": "documented with this default"},
    "special.log_softmax": {"dtype": "may stand without its name, as for softmax"},
    "optim.LBFGS.step": {"closure": "asked for by an error of its own"},
    "autograd.profiler.EventList.export_stacks": {"metric": "need not be given"},
    "cuda.amp.custom_bwd": {"bwd": "need not be given"},
    # arguments of what is another class in ours, made by the package only
    ".UntypedStorage": {"*": "a view of a tensor's memory"},
    ".dtype": {"*": "made by the package"},
    ".layout": {"*": "made by the package"},
    ".memory_format": {"*": "made by the package"},
    "Tensor.new": {"*": "takes what Tensor takes"},
    "autograd.graph.RemovableHandle": {"*": "made by the package"},
    "autograd.profiler.FunctionEvent": {"*": "made by the profiler"},
    "multiprocessing.ProcessContext": {"*": "made by start_processes"},
    "Tensor.polygamma_": dict.fromkeys(("n", "input"), "polygamma(n, input) is a function of the package, x.polygamma_(n) the method"),
    # other names of what is given without its name
    ".enable_grad": {"*": "a decorator's function"},
    "autograd.enable_grad": {"*": "a decorator's function"},
    "nn.Sequential.extend": dict.fromkeys(("sequential", "modules"), "one method of all containers"),
    **{f"distributions.{name}": dict.fromkeys(("prob", "x", "value", "intermediates"), "called value, as by all other distributions")
       for name in ("CorrCholeskyTransform.log_abs_det_jacobian", "HalfCauchy.icdf", "HalfNormal.icdf", "MixtureSameFamily.cdf",
                    "MixtureSameFamily.log_prob")},
    # what has no meaning on our kind of machine, or hardly a user
    "Tensor.dim_order": {"ambiguity_check": "experimental in PyTorch"},
    "Tensor.size": {"axis": "called in every script without its name; another way to spell it would cost everyone"},
    "Tensor.stride": {"axis": "as for size"},
    ".rrelu": {"generator": "the arguments are those of nn.functional.rrelu"},
    ".tensordot": {"out": "only with its name, as documented"},
    **{f"autograd.profiler.{name}": {"*": "options of PyTorch's tables that have no column in ours are taken by name and not read"}
       for name in ("EventList.key_averages", "EventList.table", "profile.export_chrome_trace", "profile.key_averages", "profile.table")},
    "profiler.tensorboard_trace_handler": {"use_python_export": "there is one way to export"},
    **{f"{place}.init_process_group": {"_ranks": "private"} for place in ("distributed", "distributed.device_mesh")},
    "nn.parallel.DistributedDataParallel": {"*": "gradients are views of the buckets unless that is switched off"},
}  # fmt: skip

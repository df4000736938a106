"""What users choose of the libraries that a backend computes with. `settings` and `backends` set it, backends look at it.

It lies here, below both, so that it can be set and asked for where no GPU and no library of one is.
"""

from __future__ import annotations

__all__ = ["CHOICES", "Choices"]


class Choices:
    """Switches, by PyTorch's defaults.

    Attributes
    ----------
    float32_products : str
        How exact float32 matrix products must be: "highest", "high" or "medium". A GPU rounds the factors to TF32 (10 bits of
        mantissa) for all but the first.
    said_of_products, said_of_convolutions : str
        "ieee" where somebody asked for exact float32 by PyTorch's newer names, else "none".
    float16_reduction, bfloat16_reduction : bool
        Whether partial sums of such products may be added up in the half type.
    cudnn : bool
        Whether cuDNN may be used at all.
    cudnn_benchmark : bool
        Whether the first call with new shapes tries several plans and keeps the fastest.
    cudnn_benchmark_limit : int
        How many it tries; 0 for all.
    cudnn_deterministic : bool
        Whether only plans may be used that give the same bits every time.
    cudnn_tf32 : bool
        Whether convolutions of float32 may round the factors to TF32.
    deterministic : bool
        Whether all operations must give the same bits every time.
    attention : dict of str to bool
        Which ways of computing attention may be used: "cudnn" and "flash" (in one kernel), "mem_efficient" and "math" (in blocks).
    package : str
        The name before that of a dtype, a layout or a size where it is printed: scripts compare ``str(tensor.dtype)``.
    """

    def __init__(self) -> None:
        self.float32_products = "highest"
        self.said_of_products = self.said_of_convolutions = "none"
        self.float16_reduction = self.bfloat16_reduction = True
        self.cudnn, self.cudnn_benchmark, self.cudnn_benchmark_limit = True, False, 10
        self.cudnn_deterministic, self.cudnn_tf32 = False, True
        self.deterministic = False
        self.attention = {"flash": True, "mem_efficient": True, "math": True, "cudnn": True}
        self.package = "disttorch"


CHOICES = Choices()

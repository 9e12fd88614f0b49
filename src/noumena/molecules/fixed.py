"""Tensors that follow from a molecule's topology."""

import numpy as np
import torch
from torch import nn


def register_fixed(module: nn.Module, name: str, values: np.ndarray) -> None:
    """Give ``module`` a buffer that moves with it but is not saved, since the topology gives it again.

    It is a real tensor even where a model is built as shapes only, to be filled from a file.

    Args:
        module: to own it.
        name: of the buffer.
        values: integers stay int64, bool stays bool, and floats become float32.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    module.register_buffer(name, tensor.float() if tensor.is_floating_point() else tensor, persistent=False)

"""First weights from a generator that is passed, never from the global one."""

import math

import torch
from torch import nn

POSITION_STD = 0.02


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of every layer inside ``module`` anew.

    Linear and convolution: Xavier uniform, zero bias. GRU: uniform within 1/sqrt(hidden size). Embedding: normal with
    standard deviation 0.02. Layer norm: identity.

    Raises:
        TypeError: a layer with parameters of a kind that this function does not know.
    """
    for layer in module.modules():
        match layer:
            case nn.Linear() | nn.Conv2d():
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
            case nn.GRU():
                bound = 1.0 / math.sqrt(layer.hidden_size)
                for parameter in layer.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)
            case nn.Embedding():
                layer.weight.normal_(std=POSITION_STD, generator=generator)
            case nn.LayerNorm():
                layer.reset_parameters()
            case _ if next(layer.parameters(recurse=False), None) is not None:
                raise TypeError(f"no rule for the initial weights of {type(layer).__name__}")
            case _:
                pass

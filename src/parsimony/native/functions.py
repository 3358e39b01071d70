"""The kernels of kernels.c with their gradients. What calls them sees to it that they can read their tensors."""

from collections.abc import Callable
from ctypes import c_long
from functools import lru_cache, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from parsimony.native.library import Shape, Tail, library

_NO_NORM = (None, None, 0.0, 0.0, True)  # running mean and variance, momentum, epsilon, training


def _once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """PyTorch's once_differentiable says nothing where the gradient that comes in has no history."""

    @wraps(backward)
    def checked(ctx: Any, grad: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("The native layers have no second derivative: take engine.layers=fast.")
        return backward(ctx, grad)

    return checked


class Conv(Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        ctx.shape, output = _shape_and_output(images, weight, padding)
        library().conv_forward(
            images.data_ptr(), weight.data_ptr(), _strides(weight), _pointer(bias), output.data_ptr(), ctx.shape
        )
        ctx.save_for_backward(images, weight)
        ctx.bias = bias is not None
        return output

    @staticmethod
    @_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_images = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_images = torch.empty_like(images)
            library().conv_backward_data(
                grad.data_ptr(), weight.data_ptr(), _strides(weight), grad_images.data_ptr(), ctx.shape
            )
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            grad_weight = torch.empty_like(weight)
            grad_bias = weight.new_empty(len(weight)) if ctx.bias else None
            library().conv_backward_weight(
                *(images.data_ptr(), grad.data_ptr(), grad_weight.data_ptr(), _strides(grad_weight)),
                *(_pointer(grad_bias), ctx.shape),
            )
        return grad_images, grad_weight, grad_bias, None


class Depthwise(Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: None, padding: int) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        ctx.shape, output = _shape_and_output(images, weight, padding)
        library().depthwise_forward(
            images.data_ptr(), weight.data_ptr(), _strides(weight), output.data_ptr(), ctx.shape
        )
        ctx.save_for_backward(images, weight)
        return output

    @staticmethod
    @_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_images = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_images = torch.empty_like(images)
            library().depthwise_backward_data(
                grad.data_ptr(), weight.data_ptr(), _strides(weight), grad_images.data_ptr(), ctx.shape
            )
        if ctx.needs_input_grad[1]:
            grad_weight = torch.empty_like(weight)
            library().depthwise_backward_weight(
                images.data_ptr(), grad.data_ptr(), grad_weight.data_ptr(), _strides(grad_weight), ctx.shape
            )
        return grad_images, grad_weight, None, None


class Tails(Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        norm: nn.BatchNorm1d | nn.BatchNorm2d | None,
        tail: Tail,
    ) -> Tensor:
        ctx.tail, ctx.norm = tail, norm is not None
        saved, output = _scratch(4 * input.shape[1]), torch.empty_like(input)
        running = (norm.running_mean, norm.running_var, norm.momentum, norm.eps, norm.training) if norm else _NO_NORM
        mean, variance, momentum, epsilon, training = running
        library().tail_forward(
            *(input.data_ptr(), _pointer(weight), _pointer(bias), _pointer(mean), _pointer(variance)),
            *(momentum, epsilon, training, saved.data_ptr(), output.data_ptr(), tail),
        )
        ctx.save_for_backward(input, saved)
        return output

    @staticmethod
    @_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        input, saved = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last if grad.ndim == 4 else torch.contiguous_format)
        grad_input = torch.empty_like(input)
        grad_weight, grad_bias = (_scratch(input.shape[1]) if ctx.norm else None for _ in range(2))
        library().tail_backward(
            *(input.data_ptr(), grad.data_ptr(), saved.data_ptr(), _pointer(grad_weight), _pointer(grad_bias)),
            *(grad_input.data_ptr(), ctx.tail),
        )
        return grad_input, grad_weight, grad_bias, None, None


class Pool(Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        n, channels, height, width = images.shape
        ctx.sizes = n, height, width, channels, images.dtype == torch.bfloat16
        size = (n, channels, height // 2, width // 2)
        output = _scratch(size, dtype=images.dtype, memory_format=torch.channels_last)
        library().pool_forward(images.data_ptr(), output.data_ptr(), *ctx.sizes)
        ctx.save_for_backward(images)
        return output

    @staticmethod
    @_once
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (images,) = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_images = torch.empty_like(images)
        library().pool_backward(images.data_ptr(), grad.data_ptr(), grad_images.data_ptr(), *ctx.sizes)
        return grad_images


def _scratch(size: Any, dtype: torch.dtype = torch.float32, **layout: Any) -> Tensor:
    """What a kernel writes to: of the type that it writes, whatever PyTorch's defaults are just now."""
    return torch.empty(size, dtype=dtype, device="cpu", **layout)


def _shape_and_output(images: Tensor, weight: Tensor, padding: int) -> tuple[Shape, Tensor]:
    shape, size = _sizes(images.shape, weight.shape, padding)
    return shape, _scratch(size, memory_format=torch.channels_last)


# Cached, since at a batch of 32 what Python does for a layer takes as long as its small convolutions.
@lru_cache
def _sizes(images: tuple[int, ...], weight: tuple[int, ...], padding: int) -> tuple[Shape, tuple[int, ...]]:
    n, inputs, height, width = images
    outputs, _, kernel, _ = weight
    shape = Shape(n, height, width, inputs, outputs, kernel, padding)
    return shape, (n, outputs, height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1)


def _strides(weight: Tensor) -> Any:
    return _as_longs(weight.stride())


@lru_cache
def _as_longs(strides: tuple[int, ...]) -> Any:
    return (c_long * 4)(*strides)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()

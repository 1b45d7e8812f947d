"""What a model costs by its sizes alone: multiply-adds, counted without running it."""

from __future__ import annotations

from typing import Any

from hf_distilhubert.audio import SAMPLING_RATE

SECONDS = 15  # of the clip that figures per second are for; attention costs more in a longer one


def multiply_adds_per_second(config: Any) -> float:
    """Multiply-adds per second of audio at 16 kHz, in a clip of `SECONDS`."""
    return multiply_adds(config, SECONDS * SAMPLING_RATE) / SECONDS


def multiply_adds(config: Any, num_samples: int) -> int:
    """Multiply-adds of a `HubertModel` for one clip: all its convolutions and matrix products.

    Norms, activations, sums of two arrays and softmax are left out, as in such counts they always are. It is
    the model's own arithmetic that is counted: who computes the same with fewer (the positional convolution
    by Fourier transform) is faster than the count says.

    Args:
        config: of a model of the HuBERT family.
        num_samples: length of the clip.
    """
    total, channels, frames = 0, 1, num_samples
    for width, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        frames = (frames - kernel) // stride + 1
        total += frames * width * channels * kernel
        channels = width
    hidden, depth, kernel = config.hidden_size, 1, config.num_conv_pos_embeddings
    if config.model_type == "data2vec-audio":  # several small ones in place of one
        depth, kernel = config.num_conv_pos_embeddings, config.conv_pos_kernel_size
    # An even kernel gives a frame more than it takes, which the model cuts off again.
    positions = depth * (frames + (kernel + 1) % 2)
    total += frames * channels * hidden
    total += positions * hidden * (hidden // config.num_conv_pos_embedding_groups) * kernel
    return total + config.num_hidden_layers * _layer(frames, hidden, config.intermediate_size)


def _layer(frames: int, hidden: int, intermediate: int) -> int:
    projections = 4 * frames * hidden * hidden
    attention = 2 * frames * frames * hidden  # of queries with keys, and of the weights with the values
    return projections + attention + 2 * frames * hidden * intermediate

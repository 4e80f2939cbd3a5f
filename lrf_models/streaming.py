"""Inference in little memory: the same arithmetic as the usual forward pass, in another order.

The usual pass keeps every layer's spikes as floats, for all T and the whole map at once. Here

* spikes lie between layers as bytes, max-pooled where they are made;
* a layer works on strips of rows, all T of a strip before the next: a membrane lives as long as its strip;
* a convolution steps over t within a strip, so its input is a float for one t only;
* a mixer, which needs all tokens, steps over t;
* an image is convolved once, in strips, and repeated at the neuron.

Neither BN is folded nor a sum reordered: a membrane within rounding of its threshold would fire in one form and not
in the other, and a single spike reaches every logit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from lrf_models.attention import LRFDyn
from lrf_models.backbone import Attention, Block, ConvNeuron, SpikingBackbone
from lrf_models.dynamics import Dendrites
from lrf_models.layers import ConvBN, MaxPool2d
from lrf_models.qkformer import Embedding, PooledConvNeuron, QKFormer
from lrf_models.spikformer import Spikformer

Backbone = TypeVar("Backbone", bound=SpikingBackbone)

# On a CPU, torch convolves fewer values of a single image by another routine, which rounds differently.
SMALLEST_PIECE = 20_481
# Up to so many products, a 1×1 convolution adds them in the same order whatever the size of the map.
LONGEST_SUM = 1_024


class Streaming(nn.Module):
    """A trained Spikformer or QKFormer as a low-memory network: same input, same logits.

    Args:
        model: In evaluation mode. Its weights are shared, not copied.
        recurrent: Scan LRF-Dyn token by token, carrying k values per channel, instead of by one product with its
            N×N kernel matrix. It rounds differently, so a rare spike may differ.
        strip_bytes: About how large the membranes of one strip may be.

    Raises:
        ValueError: The model is of another family or in training mode, or a scan has no recurrent form.
    """

    def __init__(self, model: SpikingBackbone, *, recurrent: bool = False, strip_bytes: int = 2**20) -> None:
        super().__init__()
        if not isinstance(model, Spikformer | QKFormer):
            raise ValueError(f"streaming knows Spikformer and QKFormer, but got {type(model).__name__}")
        if model.training:
            raise ValueError("streaming needs a model in evaluation mode: BN over a strip is not BN over a batch")
        self.model: Spikformer | QKFormer = _recurrent(model) if recurrent else model
        self.strip_bytes = strip_bytes
        # The stream adds up two neurons of the stem or of an embedding, and two of each block.
        neurons = 2 * (len(model.settings.attention_blocks) + 1)
        self.store = torch.uint8 if neurons * getattr(model.settings.neuron, "levels", 1) < 256 else torch.int16
        self.training = False

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, classes]`` of images ``[B, C, H, W]`` or frames ``[T, B, C, H, W]``."""
        model = self.model
        x = model.to_steps(x)
        x = self._spikformer(model, x) if isinstance(model, Spikformer) else self._qkformer(model, x)
        return model.forward_head(self._float(x))

    def _spikformer(self, model: Spikformer, x: Tensor) -> Tensor:
        stem = model.stem
        first, *pools = stem.pools
        x = self._first(stem.first, [], [stem.neuron, first], x)
        for layer, pool in zip(stem.convs, pools, strict=True):
            assert isinstance(layer, ConvNeuron)
            x = self._conv(layer.conv, [layer.neuron, pool], x)
        x = self._layer(stem.position, x).add_(x)
        for block in model.blocks:
            x = self._block(block, x)
        return x

    def _qkformer(self, model: QKFormer, x: Tensor) -> Tensor:
        stem = model.stem
        x = self._first(stem.first, [stem.pool], [stem.neuron], x)
        for embedding, stage in zip(model.embeddings, model.stages, strict=True):
            assert isinstance(embedding, Embedding)
            assert isinstance(stage, nn.ModuleList)
            y = x
            for layer in embedding.convs:
                assert isinstance(layer, PooledConvNeuron)
                y = self._conv(layer.conv, [layer.pool, layer.neuron], y)
            x = self._layer(embedding.shortcut, x).add_(y)
            for block in stage:
                x = self._block(block, x)
        return x

    def _block(self, block: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(block, Block)
        x = self._attention(block.attention, x).add_(x)
        return self._layer(block.mlp.reduce, self._layer(block.mlp.expand, x)).add_(x)

    def _attention(self, attention: Attention, x: Tensor) -> Tensor:
        maps = {name: self._layer(cast(ConvNeuron, layer), x) for name, layer in attention.maps.items()}
        q, k, v = maps.pop("q", None), maps.pop("k", None), maps.pop("v", x)
        if attention.mixer.fires:  # it has a neuron within, which needs all T
            y = attention.mixer(*(None if m is None else self._float(m) for m in (q, k)), v).to(self.store)
        else:
            y = self._steps(attention.mixer, q, k, v)
            del q, k, v
            y = self._strips(attention.neuron, y, self._rows(y, 1))
        return self._layer(attention.proj, y)

    def _layer(self, layer: ConvNeuron, x: Tensor) -> Tensor:
        return self._conv(layer.conv, [layer.neuron], x)

    def _conv(self, conv: ConvBN, after: Sequence[nn.Module], x: Tensor) -> Tensor:
        """Convolution, BN and what follows: in strips, stepping over t within each."""
        pools = sum(isinstance(module, MaxPool2d) for module in after)
        kernel, stride = conv.conv.kernel_size[0], conv.conv.stride[0]

        def piece(strip: Tensor) -> Tensor:
            enough = strip[0].numel() >= SMALLEST_PIECE
            return _chain(after, self._steps(conv, strip) if enough else conv(self._float(strip)))

        rows = x.shape[-2]
        if kernel > 1 or conv.conv.in_channels <= LONGEST_SUM:
            rows = self._rows(x, conv.conv.out_channels / stride**2 / x.shape[-3])
        return self._strips(piece, x, rows, halo=kernel // 2 + pools, stride=stride * 2**pools)

    def _first(self, conv: ConvBN, once: Sequence[nn.Module], over_t: Sequence[nn.Module], x: Tensor) -> Tensor:
        """Convolution, BN and ``once`` on strips of each frame; ``over_t`` on strips of these, repeated over T."""
        timesteps = self.model.settings.timesteps
        pools_once, pools_over_t = (sum(isinstance(m, MaxPool2d) for m in modules) for modules in (once, over_t))

        def repeated(y: Tensor) -> Tensor:
            return _chain(over_t, y.expand(timesteps, *y.shape[1:]))

        def piece(strip: Tensor) -> Tensor:
            y = _chain(once, conv(strip))
            rows = self._rows(y, timesteps / len(y))
            return self._strips(repeated, y, rows, halo=2 * pools_over_t, stride=2**pools_over_t)

        pools = pools_once + pools_over_t
        rows = self._rows(x, 2 * conv.conv.out_channels / x.shape[-3])
        return self._strips(piece, x, rows, halo=1 + pools, stride=2**pools)

    # --- pieces --------------------------------------------------------------------------------------------------

    def _float(self, x: Tensor) -> Tensor:
        return x.to(next(self.model.parameters()).dtype)

    def _steps(self, layer: Callable[..., Tensor], *maps: Tensor | None) -> Tensor:
        """A layer without memory, one t after the other."""
        out: Tensor | None = None
        timesteps = self.model.settings.timesteps
        for t in range(timesteps):
            y = layer(*(None if m is None else self._float(m[t : t + 1]) for m in maps))
            out = y.new_empty(timesteps, *y.shape[1:]) if out is None else out
            out[t] = y[0]
        assert out is not None
        return out

    def _rows(self, x: Tensor, growth: float) -> int:
        """Rows per strip: of about ``strip_bytes`` as floats after a growth, but no smaller than is exact."""
        row = x[0, ..., 0, :].numel()
        wanted = self.strip_bytes / (4 * len(x) * row * growth)
        rows = max(int(wanted), -(-SMALLEST_PIECE // row), 1)
        return min(rows + rows % 2, x.shape[-2])

    def _strips(
        self, piece: Callable[[Tensor], Tensor], x: Tensor, rows: int, *, halo: int = 0, stride: int = 1
    ) -> Tensor:
        """The spikes of ``piece`` on strips of rows, as bytes.

        Args:
            rows: Rows of x per strip, even unless it is all of them.
            halo: Rows of x on either side that a strip also sees, a multiple of the stride.
            stride: Rows of x per row of output.
        """
        height = x.shape[-2]
        out: Tensor | None = None
        for start in range(0, height, rows):
            last = start + rows >= height
            top = max(min(start, (height - rows) // 2 * 2), 0)  # the last strip is no smaller than the others
            bottom = height if last else start + rows
            low = max(top - halo, 0)
            y = piece(x[..., low : min(bottom + halo, height), :])
            if out is None:
                out = torch.empty(*y.shape[:-2], -(-height // stride), y.shape[-1], dtype=self.store, device=y.device)
            begin, end = top // stride, -(-bottom // stride)
            skipped = (top - low) // stride
            out[..., begin:end, :] = y[..., skipped : skipped + end - begin, :]
        assert out is not None
        return out


def _chain(modules: Sequence[nn.Module], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x


class _Recurrent(nn.Module):
    """Dendrites in their inference form, one token after the other."""

    def __init__(self, dendrites: Dendrites) -> None:
        super().__init__()
        self.dendrites = dendrites
        self.groups = dendrites.groups

    def forward(self, u: Tensor) -> Tensor:
        h = torch.empty_like(u)
        for n, h_n in enumerate(self.dendrites.stream(u.unbind(-1))):
            h[..., n] = h_n
        return h


def _recurrent(model: Backbone) -> Backbone:
    """The same network over the same weights, with `_Recurrent` dendrites."""
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    copied = copy.deepcopy(model, shared)
    for mixer in [module for module in copied.modules() if isinstance(module, LRFDyn)]:
        if mixer.settings.padding == "circular":
            raise ValueError("a recurrent scan needs padding='causal', but got padding='circular'")
        for name in ("dendrites", "backward_dendrites"):
            if getattr(mixer, name) is not None:
                setattr(mixer, name, _Recurrent(getattr(mixer, name)))
    return copied

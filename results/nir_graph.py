"""A network in the Neuromorphic Intermediate Representation (Pedersen et al. 2024), as far as it can be said there.

NIR has one time axis. Here it is the T of the network, and a node gets the sum of its inputs. The dendrites of a
block run over tokens within one step of it, so they are a graph of their own inside the graph: leaky integrators with
coupled currents, whose metadata say that their time is the tokens. LIF is read with forward Euler at dt = 1, the
dendrites with inputs held constant for one token. NIR has no product of activations, so SSA, token-QK and the gate of
``qkv`` cannot be expressed. A graph is a description of the network, not a promise that some chip runs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lrf_models import SpikingBackbone
from lrf_models.attention import LRFDyn
from lrf_models.backbone import Block, ConvNeuron
from lrf_models.dynamics import Dendrites
from lrf_models.layers import ConvBN
from lrf_models.neurons import PLIF, Neuron
from lrf_models.spikformer import Spikformer
from results.describe import OPERATORS

if TYPE_CHECKING:
    from results.export import Parcel

Shape = tuple[int, int, int]
Sources = tuple[str, ...]


def write_nir(parcel: Parcel, folder: Path) -> None:
    """``model.nir``, read back and run against the network on the same images.

    Raises:
        ValueError: The network holds what NIR cannot express; the message names the block.
    """
    from results.nir_run import run  # the reader: it shares nothing with this writer

    nir = _nir()
    path = folder / "model.nir"
    nir.write(path, graph_of(parcel.model))
    x = parcel.sample(64)
    with torch.no_grad():
        expected = parcel.model(x)
    found = run(nir.read(path, type_check=False), x)
    error = float((found - expected).abs().max())
    if error > 1e-4:
        raise ValueError(f"model.nir differs from the network by {error:.2g} (at most 1e-4), so it is not written")
    t = parcel.candidate.model.timesteps
    parcel.notes.append(
        f"`model.nir`: T = {t}, logits are the mean over T; largest difference {error:.1e} on {len(x)} images when "
        "read back. A description, not a statement that any hardware runs it"
    )


def _nir() -> Any:
    try:
        import nir
    except ImportError:
        raise ValueError("NIR needs one more package: pip install 'lrf-search[nir]'") from None
    return nir


def graph_of(model: SpikingBackbone) -> Any:
    """The `nir.NIRGraph` of a network.

    Raises:
        ValueError: A part cannot be expressed; the message names it.
    """
    _check(model)
    assert isinstance(model, Spikformer)
    settings = model.settings
    build = _Builder()
    shape: Shape = (settings.in_chans, *settings.img_size)
    source: Sources = build.add("input", build.nir.Input(input_type={"input": np.array(shape)}))
    stem = model.stem
    source, shape = build.conv("stem.first", stem.first, source, shape)
    source = build.neuron("stem.neuron", stem.neuron, source, shape)
    source, shape = build.pool("stem.pools.0", stem.pools[0], source, shape)
    for i, conv in enumerate(stem.convs):
        assert isinstance(conv, ConvNeuron)
        source, shape = build.conv_neuron(f"stem.convs.{i}", conv, source, shape)
        source, shape = build.pool(f"stem.pools.{i + 1}", stem.pools[i + 1], source, shape)
    source += build.conv_neuron("stem.position", stem.position, source, shape)[0]
    for i, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        source = build.block(f"blocks.{i}", block, source, shape)
    build.head(model.head, source, shape)
    return build.graph({"timesteps": settings.timesteps, "readout": "mean over time", "dt": 1.0})


def _check(model: SpikingBackbone) -> None:
    """Refuse before anything is built, naming the first part that cannot be said."""
    for i, operator in enumerate(model.settings.attention_blocks):
        if operator.kind != "lrf_dyn":
            raise ValueError(f"NIR has no product of activations: block {i + 1} is {OPERATORS[operator.kind]}")
        if operator.token == "qkv":
            raise ValueError(f"NIR has no product of activations: block {i + 1} is LRF-Dyn gated by Q and K (qkv)")
        if operator.padding == "circular":
            raise ValueError(f"NIR has no circular convolution: block {i + 1} is LRF-Dyn with padding='circular'")
    if not isinstance(model, Spikformer):
        raise ValueError(f"NIR export knows the Spikformer backbone, but got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, Neuron) and module.settings.kind not in ("if", "lif", "plif"):
            raise ValueError(f"NIR export knows the neurons if, lif and plif, but {name} is {module.settings.kind}")


class _Builder:
    """Nodes and edges under construction. A value is the sum of its sources, as NIR adds what arrives at a node."""

    def __init__(self) -> None:
        self.nir = _nir()
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []

    def add(self, name: str, node: Any, source: Sources = ()) -> Sources:
        self.nodes[name] = node
        self.edges += [(one, name) for one in source]
        return (name,)

    def graph(self, metadata: dict[str, Any]) -> Any:
        return self.nir.NIRGraph(self.nodes, self.edges, metadata=metadata, type_check=False)

    def conv2d(
        self, name: str, conv: nn.Conv2d, weight: Tensor, bias: Tensor, source: Sources, shape: Shape
    ) -> tuple[Sources, Shape]:
        stride, padding, dilation, size = conv.stride[0], int(conv.padding[0]), conv.dilation[0], weight.shape[-1]
        out = tuple((side + 2 * padding - dilation * (size - 1) - 1) // stride + 1 for side in shape[1:])
        node = self.nir.Conv2d(shape[1:], _array(weight), stride, padding, dilation, conv.groups, _array(bias))
        return self.add(name, node, source), (len(weight), out[0], out[1])

    def conv(self, name: str, module: ConvBN, source: Sources, shape: Shape) -> tuple[Sources, Shape]:
        """A convolution with its BN folded in."""
        scale, shift = _affine(module.bn)
        bias = shift if module.conv.bias is None else shift + scale * module.conv.bias
        weight = module.conv.weight * scale.view(-1, 1, 1, 1)
        return self.conv2d(f"{name}.conv", module.conv, weight, bias, source, shape)

    def neuron(self, name: str, module: Neuron, source: Sources, shape: Shape) -> Sources:
        """Ours fires at v ≥ θ, NIR's at v > θ: the next smaller float32 makes them one."""
        settings = module.settings
        full = np.ones(shape, dtype=np.float32)
        threshold = full * np.nextafter(np.float32(settings.threshold), np.float32(-1))
        if settings.kind == "if":
            return self.add(name, self.nir.IF(full, threshold, v_reset=0 * full), source)
        tau = 1 / float(module.decay_logit.detach().sigmoid()) if isinstance(module, PLIF) else settings.tau
        node = self.nir.LIF(full * tau, full, 0 * full, threshold, v_reset=0 * full)
        return self.add(name, node, source)

    def conv_neuron(self, name: str, module: ConvNeuron, source: Sources, shape: Shape) -> tuple[Sources, Shape]:
        source, shape = self.conv(name, module.conv, source, shape)
        return self.neuron(f"{name}.neuron", module.neuron, source, shape), shape

    def pool(self, name: str, module: nn.Module, source: Sources, shape: Shape) -> tuple[Sources, Shape]:
        """The largest of spikes is whether any of them is there: a sum and a threshold."""
        if isinstance(module, nn.Identity):
            return source, shape
        pair = [np.array([n, n]) for n in (3, 2, 1)]
        shape = (shape[0], -(-shape[1] // 2), -(-shape[2] // 2))
        source = self.add(f"{name}.sum", self.nir.SumPool2d(*pair), source)
        half = np.full(shape, 0.5, dtype=np.float32)
        return self.add(f"{name}.any", self.nir.Threshold(half), source), shape

    def block(self, name: str, block: Block, source: Sources, shape: Shape) -> Sources:
        attention, mlp = block.attention, block.mlp
        u = source
        if "v" in attention.maps:
            u, _ = self.conv_neuron(f"{name}.v", attention.maps["v"], source, shape)  # type: ignore[arg-type]
        fired = self.neuron(f"{name}.soma", attention.neuron, self.mixer(name, attention.mixer, u, shape), shape)
        source += self.conv_neuron(f"{name}.proj", attention.proj, fired, shape)[0]
        hidden, wide = self.conv_neuron(f"{name}.expand", mlp.expand, source, shape)
        return source + self.conv_neuron(f"{name}.reduce", mlp.reduce, hidden, wide)[0]

    def mixer(self, name: str, mixer: nn.Module, u: Sources, shape: Shape) -> Sources:
        """BN(H + Σ DW(H)): the BN's factor goes into each term, its shift into the first."""
        assert isinstance(mixer, LRFDyn)
        order = mixer.settings.scan
        h = self.add(f"{name}.dendrites", dendrites_graph(mixer.dendrites, shape[0], order), u)
        if mixer.backward_dendrites is not None:
            back = dendrites_graph(mixer.backward_dendrites, shape[0], "reversed")
            h += self.add(f"{name}.dendrites_back", back, u)
        scale, shift = _affine(mixer.bn)
        one = nn.Conv2d(shape[0], shape[0], 1, groups=shape[0])
        total, _ = self.conv2d(f"{name}.membrane", one, scale.view(-1, 1, 1, 1), shift, h, shape)
        seen = h if mixer.settings.field == "membrane" else u
        for kernel in mixer.local.kernels:
            assert isinstance(kernel, nn.Conv2d)
            weight, zero = kernel.weight * scale.view(-1, 1, 1, 1), torch.zeros_like(scale)
            total += self.conv2d(f"{name}.field.{kernel.dilation[0]}", kernel, weight, zero, seen, shape)[0]
        return total

    def head(self, head: nn.Module, source: Sources, shape: Shape) -> None:
        assert isinstance(head, nn.Linear)
        size = np.array(shape[1:])
        source = self.add("head.mean", self.nir.AvgPool2d(size, size, 0 * size), source)
        flat = self.nir.Flatten({"input": np.array([shape[0], 1, 1])}, start_dim=0, end_dim=-1)
        source = self.add("head.flatten", flat, source)
        source = self.add("head.linear", self.nir.Affine(_array(head.weight), _array(head.bias)), source)
        self.add("output", self.nir.Output(output_type={"output": np.array([head.out_features])}), source)


def dendrites_graph(dendrites: Dendrites, channels: int, order: str) -> Any:
    """Coupled leaky integrators, k per channel, whose time axis is the tokens.

    dx_i/dn = −x_i/τ_i + Σ_j β_ij x_j + Γ_i u is NIR's τ dx/dn = −x + R I with R = τ and I = β x + Γ u.
    """
    nir = _nir()
    k = dendrites.settings.dendrites
    each = channels // dendrites.groups
    with torch.no_grad():
        tau = dendrites.log_tau_Gk.exp()
        coupling = dendrites.transition() + torch.diag_embed(1 / tau)
        per_channel = [
            tensor.repeat_interleave(each, 0) for tensor in (tau, dendrites.gamma_Gk, dendrites.readout_Gk)
        ]
        tau, gamma, readout = per_channel
        beta = torch.block_diag(*coupling.repeat_interleave(each, 0))
    tau_all = _array(tau.flatten())
    nodes = {
        "input": nir.Input(input_type={"input": np.array([channels])}),
        "gamma": nir.Linear(_array(torch.block_diag(*gamma[..., None]))),
        "dendrites": nir.LI(tau_all, tau_all, 0 * tau_all),
        "readout": nir.Linear(_array(torch.block_diag(*readout[:, None]))),
        "output": nir.Output(output_type={"output": np.array([channels])}),
    }
    edges = [("input", "gamma"), ("gamma", "dendrites"), ("dendrites", "readout"), ("readout", "output")]
    if k > 1:
        nodes["coupling"] = nir.Linear(_array(beta))
        edges += [("dendrites", "coupling"), ("coupling", "dendrites")]
    about = {"time": "tokens", "order": order, "input": "held for one token"}
    return nir.NIRGraph(nodes, edges, metadata=about, type_check=False)


def _affine(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and shift of a BN at inference."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return scale, bn.bias - scale * bn.running_mean


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = tensor.detach().cpu().numpy().copy()
    return array

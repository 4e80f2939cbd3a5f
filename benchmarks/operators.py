"""Speed of neurons, operator forms, attention blocks and a training step: every ratio of docs/operators.md.

    python benchmarks/operators.py [lif] [forms] [block] [model] [rates] [--runs 20] [--device cuda --dtype bfloat16]

All contestants of a table take turns in one process, on the same tensors, forward and backward. A figure is the
median over the runs. With ``--clock cpu`` it is processor time, which other work on a shared machine disturbs less;
it needs ``--threads 1``. SpikingJelly and snnTorch take part where they are installed.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lrf_models import build_model
from lrf_models.attention import SSA
from lrf_models.backbone import Attention
from lrf_models.dynamics import Dendrites, fft_convolution, toeplitz_convolution
from lrf_models.neurons import Neuron, build_neuron
from spaces import config, operators

Run = Callable[[], Any]
SCALES = (0.125, 0.25, 0.5, 1.0)


class Bench:
    """Contestants that take turns.

    Args:
        options: Parsed command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.runs: int = options.runs
        self.device = torch.device(options.device)
        self.dtype = getattr(torch, options.dtype)
        self.now = time.process_time if options.clock == "cpu" else time.perf_counter

    def tensor(self, *shape: int, rate: float | None = None) -> Tensor:
        """Normal values, or spikes of a rate; maps [T, B, C, H, W] are channels last in memory, as in training."""
        x = torch.randn(*shape) if rate is None else (torch.rand(*shape) < rate).float()
        if len(shape) == 5:
            x = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, shape[:2])
        return x.to(self.device)

    def autocast(self) -> Any:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    def seconds(self, run: Run) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        start = self.now()
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return self.now() - start

    def table(self, title: str, contestants: dict[str, Run], reference: str) -> None:
        """Medians in ms, and each as a share of the reference."""
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for i in range(self.runs + 2):
            for name, run in contestants.items():
                seconds = self.seconds(run)
                if i >= 2:  # the first two warm up
                    times[name].append(1e3 * seconds)
        medians = {name: statistics.median(values) for name, values in times.items()}
        print(f"\n{title}, n = {self.runs}\n{'':44}{'median ms':>12}{'least ms':>12}{'time / ' + reference:>28}")
        for name, values in times.items():
            share = medians[name] / medians[reference]
            print(f"{name:44}{medians[name]:12.2f}{min(values):12.2f}{share:28.2f}", flush=True)

    def trained(self, module: nn.Module | Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor) -> Run:
        """Forward and backward of a module on leaf inputs."""
        leaves = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
        parameters = list(module.parameters()) if isinstance(module, nn.Module) else []

        def run() -> None:
            for leaf in [*leaves, *parameters]:
                leaf.grad = None
            with self.autocast():
                y = module(*leaves)
            y.backward(gradient.to(y.dtype))

        return run


def lif(bench: Bench) -> None:
    """The multi-step LIF against the libraries' own, on one tensor."""
    shape = (4, 1, 512, 196)
    x, gradient = bench.tensor(*shape), bench.tensor(*shape)
    ours = build_neuron(operators.LIF(), 512)
    contestants: dict[str, Callable[[Tensor], Tensor]] = {"LIF, fused": ours, "LIF, stepped": stepped(ours)}
    contestants |= {"PLIF": build_neuron(operators.PLIF(), 512), "ALIF": build_neuron(operators.ALIF(), 512)}
    contestants |= {"DH-LIF, 4 branches": build_neuron(operators.DHLIF(), 512)}
    try:
        from spikingjelly.activation_based import functional, neuron, surrogate

        node = neuron.LIFNode(2.0, detach_reset=True, surrogate_function=surrogate.Sigmoid(4.0), step_mode="m")

        def spikingjelly(x: Tensor) -> Tensor:
            functional.reset_net(node)
            return node(x)  # type: ignore[no-any-return]

        contestants["SpikingJelly LIFNode"] = spikingjelly
    except ImportError:
        print("SpikingJelly is not installed")
    try:
        import snntorch

        leaky = snntorch.Leaky(0.5, spike_grad=snntorch.surrogate.sigmoid(slope=4), reset_mechanism="zero")
        leaky.to(bench.device)

        def loop(x: Tensor) -> Tensor:
            membrane, spikes = torch.zeros_like(x[0]), []
            for x_t in x:
                s, membrane = leaky(x_t, membrane)
                spikes.append(s)
            return torch.stack(spikes)

        contestants["snnTorch Leaky"] = loop
    except ImportError:
        print("snnTorch is not installed")
    for module in contestants.values():
        if isinstance(module, nn.Module):
            module.to(bench.device)
    runs = {name: bench.trained(module, [x], gradient) for name, module in contestants.items()}
    bench.table(f"Neurons on {list(shape)}", runs, "LIF, fused")


def stepped(neuron: Neuron) -> Callable[[Tensor], Tensor]:
    """A neuron's loop over time steps, without its fused form."""
    return lambda x: Neuron.forward(neuron, x)


def direct_convolution(kernel_GN: Tensor, u_FGDN: Tensor) -> Tensor:
    """K ∗ u as a depthwise one-dimensional convolution with N taps: the third form, never the fastest so far."""
    n = kernel_GN.shape[-1]
    u_MGN = nn.functional.pad(u_FGDN.transpose(1, 2).flatten(0, 1), (n - 1, 0))
    h_MGN = nn.functional.conv1d(u_MGN, kernel_GN.flip(-1)[:, None], groups=len(kernel_GN))
    return h_MGN.unflatten(0, (len(u_FGDN), -1)).transpose(1, 2)


def forms(bench: Bench) -> None:
    """What sets the rule of `lrf_models.dynamics.causal_convolution`, and the recurrence beside it."""
    for groups, channels in ((8, 64), (512, 1)):
        for tokens in (4, 16, 64, 196, 400, 784):
            u = bench.tensor(4, tokens, groups, channels).permute(0, 2, 3, 1)
            kernel, gradient = bench.tensor(groups, tokens), torch.randn_like(u)
            runs = {"FFT, padded": bench.trained(fft_convolution, [kernel, u], gradient)}
            if groups * tokens**2 < 10**8:
                runs["Toeplitz"] = bench.trained(toeplitz_convolution, [kernel, u], gradient)
            if tokens <= 196:
                runs["direct"] = bench.trained(direct_convolution, [kernel, u], gradient)
            bench.table(
                f"K ∗ u, N={tokens}, {groups} kernels for {channels} channels each, T·B=4", runs, "FFT, padded"
            )
    dendrites = Dendrites(operators.LRFDyn(), 8, 196).to(bench.device)
    u = bench.tensor(4, 8, 64, 196, rate=0.15)
    inference = torch.no_grad()
    runs = {
        "parallel": inference(lambda: dendrites(u)),
        "recurrent": inference(lambda: dendrites.recurrent(u)),
        "its kernel K alone": inference(lambda: dendrites.kernel(196)),
    }
    bench.table("Forward of one layer, N=196, d=512, 8 heads, k=8, T·B=4", runs, "parallel")


def block(bench: Bench) -> None:
    """The attention module (projections, mixer, neurons), and its mixer alone."""
    x, gradient = bench.tensor(4, 1, 512, 14, 14, rate=0.15), bench.tensor(4, 1, 512, 14, 14)
    chosen = {
        "SSA, KV form": operators.SSA(),
        "SSA, QK form": operators.SSA(form="qk"),
        "LRF-SSA": operators.LRFSSA(),
        "LRF-Dyn, token v": operators.LRFDyn(),
        "LRF-Dyn, token qkv": operators.LRFDyn(token="qkv"),
    }
    blocks, mixers = {}, {}
    for name, operator in chosen.items():
        attention = Attention(operator, config.SpikformerConfig(), 512, (14, 14), edge="integer").to(bench.device)
        attention.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        blocks[name] = bench.trained(attention, [x], gradient)
        mixers[name] = bench.trained(mixed(attention.mixer), [x, x, x], gradient)
    bench.table("Attention block, N=196, d=512, 8 heads, T=4, B=1", blocks, "SSA, KV form")
    bench.table("Its mixer alone (BN and local field included, projections not)", mixers, "SSA, KV form")


def mixed(mixer: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A mixer of q, k and v that gets those it needs."""
    return lambda q, k, v: mixer(q if "q" in mixer.needs else None, k if "k" in mixer.needs else None, v)


def model(bench: Bench, batch: int) -> None:
    """A training step (forward, loss, backward) of Spikformer-4-384 in its CIFAR form."""
    images, labels = torch.randn(batch, 3, 32, 32, device=bench.device), torch.arange(batch, device=bench.device) % 10

    def step(network: nn.Module, reset: Callable[[nn.Module], Any] | None = None) -> Run:
        network.to(bench.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def run() -> None:
            network.zero_grad()
            with bench.autocast():
                logits = network(images)
                loss = nn.functional.cross_entropy(logits if logits.ndim == 2 else logits.mean(0), labels)
            loss.backward()
            if reset is not None:
                reset(network)

        return run

    def ours(operator: operators.Attention) -> nn.Module:
        cifar = {"img_size": 32, "pools": 2, "dim": 384, "heads": 12, "num_classes": 10}
        return build_model(config.SpikformerConfig.model_validate({**cifar, "blocks": (operator,) * 4}))

    runs = {
        "SSA, QK form": step(ours(operators.SSA(form="qk"))),
        "SSA, KV form": step(ours(operators.SSA())),
        "LRF-Dyn, token v": step(ours(operators.LRFDyn())),
    }
    try:
        from spikingjelly.activation_based import functional
        from spikingjelly.activation_based.model.spikformer import spikformer_cifar10

        runs["SpikingJelly spikformer_cifar10"] = step(spikformer_cifar10(), functional.reset_net)
    except ImportError:
        print("SpikingJelly is not installed")
    bench.table(f"Training step of Spikformer-4-384, T=4, batch {batch}", runs, "SSA, QK form")


def rates(bench: Bench) -> None:
    """Firing rates before training: of each neuron behind a BN, and of SSA's attention neuron by map and scale."""
    x = torch.randn(4, 16, 256, 7, 7)
    print(f"\nFiring rates, T=4, normal currents\n{'':44}{'changing':>12}{'static':>12}")
    published = build_neuron(operators.DHLIF(), 256)
    nn.init.uniform_(published.get_parameter("branch_logit_bC"), 0, 4)
    nn.init.uniform_(published.get_parameter("membrane_logit_C"), 0, 4)
    kinds: tuple[operators.Neuron, ...] = (
        operators.IF(),
        operators.LIF(),
        operators.PLIF(),
        operators.ALIF(),
        operators.DHLIF(),
    )
    neurons = {settings.kind: build_neuron(settings, 256) for settings in kinds}
    with torch.no_grad():
        for name, neuron in {**neurons, "dh_lif from U(0, 4)": published}.items():
            print(f"{name:44}{neuron(x).mean():12.5f}{neuron(x[:1].expand_as(x)).mean():12.5f}")
    print(f"\n{'Attention neuron of SSA: N, head width, rate':44}" + "".join(f"{f's={s}':>10}" for s in SCALES))
    fire = build_neuron(operators.LIF(), 1, 0.5)
    for tokens, width, rate in ((4, 4, 0.15), (16, 4, 0.15), (16, 8, 0.15), (64, 32, 0.15), (196, 64, 0.15)):
        side = int(tokens**0.5)
        q, k, v = ((torch.rand(4, 4, 4 * width, side, side) < rate).float() for _ in range(3))
        y = SSA(operators.SSA(), 4, 1.0, "binary")(q, k, v)
        shares = "".join(f"{fire(s * y).mean():10.4f}" for s in SCALES)
        print(f"{f'{tokens}, {width}, {rate}':44}{shares}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "tables", nargs="*", choices=["lif", "forms", "block", "model", "rates", []], help="default: all"
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8, help="images of the training step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    options = parser.parse_args()
    if options.clock == "cpu" and (options.threads > 1 or options.device != "cpu"):
        parser.error("--clock cpu needs --threads 1 and --device cpu")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    name = (
        torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()}, {os.cpu_count()} CPUs"
    )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{name}; torch {torch.__version__}; {options}\nload of the machine (1, 5, 15 minutes): {load}")
    bench, tables = Bench(options), options.tables or ["lif", "forms", "block", "model", "rates"]
    for table in tables:
        if table == "model":
            model(bench, options.batch)
        else:
            {"lif": lif, "forms": forms, "block": block, "rates": rates}[table](bench)


if __name__ == "__main__":
    main()

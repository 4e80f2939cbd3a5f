"""What a training step costs: CPU-seconds per epoch on digits, and images per second of the large models.

    OMP_NUM_THREADS=1 python benchmarks/training.py cpu
    python benchmarks/training.py gpu

``cpu`` also times a fixed matrix product between the epochs: on a shared machine the ratio tells more than the
seconds. ``gpu`` trains in bf16 with and without ``torch.compile``; it needs CUDA.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from lrf_models import build_model
from search.data import load
from search.recipes import load_recipe
from search.train import Learner
from spaces.config import Model, candidate_from

SMALL = {
    "backbone": "spikformer",
    "dim": 32,
    "pools": 1,
    "heads": 2,
    "mlp_ratio": 2.0,
    "timesteps": 2,
    "blocks": [{"kind": "lrf_dyn", "dilations": [1]}],
}
# Name, image side, pools, width, blocks, heads, batch
LARGE = [("Spikformer-4-384", 32, 2, 384, 4, 12, 128), ("Spikformer-8-512", 224, 4, 512, 8, 8, 64)]


def cpu(epochs: int) -> None:
    """Median and range over epochs, for three batch sizes; the reference is 2 × 1024³ FLOP."""
    torch.set_num_threads(1)
    data = load("digits")
    a = torch.randn(1024, 1024)
    for batch in (32, 64, 128):
        training = {**load_recipe("search"), "batch_size": batch}
        learner = Learner(
            candidate_from({"model": {**SMALL, **data.model_fields()}, "training": training}),
            data,
            torch.device("cpu"),
        )
        learner.epoch()  # warm-up
        seconds, reference = [], []
        for _ in range(epochs):
            seconds.append(cpu_seconds(learner.epoch))
            reference.append(cpu_seconds(lambda: a @ a))
        print(
            f"batch {batch}: {statistics.median(seconds):.3f} CPU-s per epoch "
            f"({min(seconds):.3f} to {max(seconds):.3f}, n = {epochs}); "
            f"a 1024³ product {1e3 * statistics.median(reference):.1f} ms"
        )


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def large(side: int, pools: int, dim: int, depth: int, heads: int, operator: str) -> Model:
    block = {"kind": "lrf_dyn", "token": "qkv", "dilations": [1, 3]} if operator == "lrf_dyn" else {"kind": "ssa"}
    model = {
        "backbone": "spikformer",
        "img_size": side,
        "pools": pools,
        "dim": dim,
        "heads": heads,
        "blocks": [block] * depth,
    }
    return candidate_from({"model": model}).model


def gpu(steps: int) -> None:
    """Images per second of forward, backward and optimiser step; the median of ``steps`` after ten for warm-up."""
    print(torch.cuda.get_device_name())
    for name, side, pools, dim, depth, heads, batch in LARGE:
        for operator in ("ssa", "lrf_dyn"):
            for compiled in (False, True):
                model = build_model(large(side, pools, dim, depth, heads, operator)).cuda()
                model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                rate = images_per_second(torch.compile(model) if compiled else model, batch, side, steps)
                how = "compiled" if compiled else "eager"
                print(f"{name} {side}² {operator} {how}: {rate:.0f} images/s, batch {batch}")


def images_per_second(model: nn.Module, batch: int, side: int, steps: int) -> float:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    x = torch.randn(batch, 3, side, side, device="cuda")
    y = torch.randint(0, 1000, (batch,), device="cuda")
    seconds = []
    for step in range(steps + 10):
        torch.cuda.synchronize()
        started = time.perf_counter()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = model(x)
        nn.functional.cross_entropy(logits.float(), y).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        if step >= 10:
            seconds.append(time.perf_counter() - started)
    return batch / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("device", choices=["cpu", "gpu"])
    parser.add_argument("--repeats", type=int, default=10, help="epochs, or steps on a GPU (default 10)")
    args = parser.parse_args()
    if args.device == "gpu" and not torch.cuda.is_available():
        parser.error("there is no CUDA device")
    (cpu if args.device == "cpu" else gpu)(args.repeats)


if __name__ == "__main__":
    main()

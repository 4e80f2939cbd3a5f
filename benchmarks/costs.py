"""The table of docs/costs.md: what each attention operator costs in each backbone.

    python benchmarks/costs.py [--crops 4] [--pairs 5] [--out docs/costs.md]

Weights are random: there are no trained ImageNet weights to be had. The statistics of all BNs are those of the
crops, so that neurons fire; rates are still those of untrained networks, and the table says so.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from pathlib import Path
from typing import Any

import lrf_models  # isort: skip  (before timm)
import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from lrf_models.counters import counting, measurement, price
from lrf_models.counters.latency import compare
from lrf_models.counters.memory import attention_blocks, peak_bytes
from lrf_models.counters.price import image_shape, traced_model
from lrf_models.streaming import Streaming
from spaces import config, operators

NORMALISATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BACKBONES: dict[str, tuple[Any, str]] = {
    "Spikformer-8-512": (lambda op: config.SpikformerConfig(blocks=(op,) * 8), "kv"),
    "QKFormer HST-10-512": (lambda op: config.QKFormerConfig(blocks=(op,) * 7), "kv"),
    "SDT-V3-S": (lambda op: config.SDTV3Config(blocks=(op,) * 8), "qk"),
}


def operators_of(form: Any) -> dict[str, operators.Frozen]:
    return {
        "SSA": operators.SSA(form=form),
        "causal SSA": operators.CausalSSA(),
        "LRF-SSA": operators.LRFSSA(form=form),
        "LRF-Dyn `v`": operators.LRFDyn(token="v"),
        "LRF-Dyn `qkv`": operators.LRFDyn(token="qkv", sharing="layer"),
    }


def crops(n: int) -> Tensor:
    """Squares of 224 pixels from the two photographs that come with scikit-learn, [n, 3, 224, 224], normalised."""
    rng = np.random.default_rng(0)
    photos = load_sample_images().images
    squares = []
    for i in range(n):
        photo = photos[i % len(photos)]
        top, left = (rng.integers(side - 224 + 1) for side in photo.shape[:2])
        squares.append(photo[top : top + 224, left : left + 224])
    x = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in NORMALISATION)
    return (x - mean) / std


@torch.no_grad()
def calibrate(model: nn.Module, x: Tensor) -> None:
    """The statistics of all BNs from one pass."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            module.reset_running_stats()
    model.train()
    model(x)
    model.eval()


def row(settings: config.Model, x: Tensor, reference: nn.Module | None, pairs: int) -> tuple[dict[str, Any], Any]:
    torch.manual_seed(0)
    model = lrf_models.build_model(settings)
    calibrate(model, x)
    with torch.no_grad(), counting(model) as counter:
        for image in x.split(1):
            model(image)
    cost = price(settings)
    *_, block = attention_blocks(traced_model(settings.canonical())[1].facts).values()
    result = {
        "parameters": cost.parameters,
        "dense_macs": cost.dense_macs,
        "state_bytes": cost.state_bytes,
        "block_bytes": {part: 4 * values for part, values in block.items()},
        "peak_bytes": cost.peak_bytes,
        "streaming_bytes": streaming_peak(settings),
    }
    for profile, convention in (
        ("45nm-fp32", "event"),
        ("45nm-fp32", "memory"),
        ("45nm-int8", "event"),
        ("45nm-int8", "memory"),
    ):
        found = measurement(counter, profile, convention)
        result[f"{profile} {convention}"] = (found.energy_mj, found.energy_mj_se)
        result["sops"] = (found.sops, found.sops_se)
        result["rate"] = sum(found.rates.values()) / len(found.rates)
    if reference is not None:
        result["latency"] = compare(model, reference, x[:1], pairs=pairs, warmup=1).model_dump()
    return result, model


def streaming_peak(settings: config.Model) -> int | None:
    """Peak of the streaming pass, over shapes; None where there is no streaming form."""
    if settings.backbone == "sdt_v3":
        return None
    with torch.device("meta"):
        model = lrf_models.build_model(settings).eval()
    return peak_bytes(Streaming(model), torch.empty(image_shape(settings), device="meta"))


def with_error(mean: float, error: float, scale: float = 1) -> str:
    """Mean ± standard error, both to the error's second digit."""
    digits = max(0, 1 - math.floor(math.log10(error / scale))) if error > 0 else 3
    return f"{mean / scale:.{digits}f} ± {error / scale:.{digits}f}"


def page(found: dict[str, Any]) -> str:
    """The results as a Markdown page."""
    lines = [
        "# What each operator costs",
        "",
        f"Made by `python benchmarks/costs.py --crops {found['crops']} --pairs {found['pairs']}` on one thread of "
        f"{found['cpu']}, torch {found['torch']}, seed 0. T is 4, 1 for SDT-V3; one image of 224×224.",
        "",
        "**Not trained.** There are no trained ImageNet weights to be had for these operators, so synaptic "
        f"operations and energies are those of random weights on {found['crops']} crops of two photographs, "
        "with the statistics of every BN taken from those crops. They show orders of magnitude and that the counters "
        "work; they say nothing about a trained network, nor which operator fires less after training. Parameters, "
        "MACs and bytes hold "
        "as they are. Words are those of [counters.md](counters.md); ± is the standard error over crops.",
    ]
    for backbone, rows in found["rows"].items():
        lines += ["", f"## {backbone}", "", *_table(rows)]
    lines += [
        "",
        "Block: spike maps + N×N map + recurrent state + rows of the field, of the last attention block. Peak: "
        "live bytes beyond the weights in a usual pass, all of T at once, and in the streaming pass "
        "([memory.md](memory.md)), which SDT-V3 does not have. "
        "Latency: median ratio to SSA of the same backbone over interleaved pairs, with its 95 % bootstrap interval; "
        "with so few pairs, on a computer that does other work, intervals near 1 say nothing.",
        "",
    ]
    return "\n".join(lines)


def _table(rows: dict[str, dict[str, Any]]) -> list[str]:
    energies = [key for key in next(iter(rows.values())) if key.startswith("45nm")]
    titles = ["operator", "parameters, M", "dense MACs, G", "SOPs, G", *(f"mJ, {e}" for e in energies)]
    titles += ["state, MB", "block, KiB", "peak, MB", "streaming, MB", "host latency"]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for name, r in rows.items():
        pairs = [with_error(*r[e]) for e in energies]
        latency = r.get("latency")
        block = " + ".join(f"{value / 1024:g}" for value in r["block_bytes"].values())
        cells = [name, f"{r['parameters'] / 1e6:.2f}", f"{r['dense_macs'] / 1e9:.2f}"]
        cells += [with_error(*r["sops"], 1e9), *pairs]
        cells += [f"{r['state_bytes'] / 1e6:.1f}", block, f"{r['peak_bytes'] / 1e6:.1f}"]
        cells += [f"{r['streaming_bytes'] / 1e6:.1f}" if r["streaming_bytes"] else "–"]
        cells += [f"{latency['ratio']:.2f} ({latency['low']:.2f}–{latency['high']:.2f})" if latency else "1"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/costs.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    x = crops(args.crops)
    rows: dict[str, dict[str, Any]] = {}
    started = time.perf_counter()
    for backbone, (build, form) in BACKBONES.items():
        reference = None
        for name, operator in operators_of(form).items():
            found, model = row(build(operator), x, reference, args.pairs)
            reference = reference or model
            rows.setdefault(backbone, {})[name] = found
            print(f"{backbone} {name}: {time.perf_counter() - started:.0f} s", flush=True)
            about = {"crops": args.crops, "pairs": args.pairs, "cpu": platform.machine(), "torch": torch.__version__}
            args.out.write_text(page({**about, "rows": rows}), encoding="utf-8")


if __name__ == "__main__":
    main()

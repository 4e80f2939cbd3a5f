"""Make ``import torchvision`` work beside a CPU-only torch. Imported before timm, also in every worker.

PyPI's torchvision is a CUDA build. Beside a CPU-only torch its compiled operators do not load, and its Python
part fails on registering fake kernels for them (``operator torchvision::nms does not exist``). Nothing here
calls those operators, so their schemas are declared and the import is tried again.
"""

from __future__ import annotations

import re
import sys

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_keep: list[torch.library.Library] = []  # a library that is collected takes its schemas with it


def import_torchvision() -> None:
    """Import torchvision, declaring the operators that its compiled part could not.

    Raises:
        RuntimeError: torchvision fails for another reason.
    """
    declared: set[str] = set()
    while True:
        try:
            import torchvision  # noqa: F401

            return
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None or missing[1] in declared:
                raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define(missing[1] + _SCHEMA)
        _keep.append(library)
        declared.add(missing[1])


import_torchvision()

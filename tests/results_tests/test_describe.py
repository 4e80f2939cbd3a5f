"""A candidate on one line."""

from __future__ import annotations

import pytest

from results.describe import describe
from spaces.config import candidate_from


@pytest.mark.parametrize(
    ("backbone", "neuron", "text"),
    [
        ("spikformer", "lif", "Spikformer 1-64 T2: SSA"),
        ("spikformer", "dh_lif", "Spikformer 1-64 T2 DH-LIF: SSA"),
        ("sdt_v3", "lif", "SDT-V3 1-192 T2 LIF: SSA"),
    ],
)
def test_a_neuron_is_named_where_it_is_not_the_familys_own(backbone: str, neuron: str, text: str) -> None:
    width = {} if backbone == "sdt_v3" else {"dim": 64}
    own = {"split": 0} if backbone == "sdt_v3" else {"img_size": 32}
    fields = {"backbone": backbone, "timesteps": 2, "neuron": {"kind": neuron}, "blocks": [{"kind": "ssa"}]}
    assert describe(candidate_from({"model": {**fields, **width, **own}})) == text

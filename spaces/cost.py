"""What a network costs, as far as it is known before anything is trained."""

from __future__ import annotations

from spaces.operators import Frozen


class Cost(Frozen):
    """The price of a network for one inference of one image (all time steps), before training.

    Bytes are at the precision of the profile's weights (float32 unless said otherwise). The four meanings of memory
    are those of docs/counters.md; ``memory_bytes`` is the one that a search minimises by default.

    Attributes:
        parameters: Number of learned values.
        dense_macs: Multiply-accumulates in the inference form, as if every input were non-zero.
        weights_bytes: Bytes of the parameters and of buffers that inference needs.
        state_bytes: What survives between tokens or time steps: membranes, KV state, dendrites, window buffers.
        attention_bytes: Extra bytes of the most expensive attention block while it runs.
        peak_bytes: Peak of the live bytes beyond the weights in a forward pass of one image.
        energy_mj_low: Energy if no spike were ever fired.
        energy_mj_high: Energy if every neuron fired at every step.
    """

    parameters: int
    dense_macs: int
    weights_bytes: int
    state_bytes: int
    attention_bytes: int
    peak_bytes: int
    energy_mj_low: float
    energy_mj_high: float

    @property
    def memory_bytes(self) -> int:
        """Attention working set + state."""
        return self.attention_bytes + self.state_bytes

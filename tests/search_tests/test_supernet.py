"""One set of weights for many networks: what is shared, what is not, and that it learns."""

from dataclasses import replace

import pytest
import torch
import toys

from lrf_models import build_model
from search.data import load
from search.data.dataset import DataSet
from search.supernet import SuperNetwork
from spaces.config import Candidate, Training

LRF_DYN = {"kind": "lrf_dyn", "token": "qkv", "dendrites": 4, "dilations": [1, 3]}


@pytest.fixture(scope="module")
def data() -> DataSet:
    digits = load("digits")
    return replace(digits, train=digits.train.subset(range(256)), validation=digits.validation.subset(range(64)))


def candidate(*blocks: dict[str, object], **model: object) -> Candidate:
    own = {"heads": 2, "mlp_ratio": 1.0, "timesteps": 1, "blocks": blocks or [{"kind": "ssa"}]}
    return toys.candidate(**{**own, **model})


WIDE, NARROW = candidate({"kind": "ssa"}, {"kind": "ssa"}, dim=32, mlp_ratio=2.0), candidate()
DYN = candidate(LRF_DYN, dim=32)


def test_a_smaller_network_is_the_first_channels_and_blocks_of_the_largest() -> None:
    net = SuperNetwork([NARROW, WIDE, DYN])
    wide, narrow = (net.lent(build_model(c.model)) for c in (WIDE, NARROW))
    assert narrow.keys() < wide.keys()
    for name, weight in narrow.items():
        own = build_model(NARROW.model).get_parameter(name)
        assert weight.shape == own.shape
        assert weight.untyped_storage().data_ptr() == wide[name].untyped_storage().data_ptr()
        assert weight.data_ptr() == wide[name].data_ptr()


def test_operators_share_what_they_have_in_common_and_nothing_else() -> None:
    local = candidate({"kind": "lrf_ssa", "dilations": [3]}, dim=32)
    net = SuperNetwork([WIDE, DYN, local])
    ssa, dyn, lrf = (net.lent(build_model(c.model)) for c in (WIDE, DYN, local))
    block = "blocks.0.attention."
    for name in (f"{block}maps.q.conv.conv.weight", f"{block}proj.conv.conv.weight", "head.weight"):
        assert ssa[name].data_ptr() == dyn[name].data_ptr() == lrf[name].data_ptr()
    kernel, norm = f"{block}mixer.local.kernels.0.weight", f"{block}mixer.bn.weight"
    assert kernel in dyn.keys() & lrf.keys()
    assert dyn[kernel].data_ptr() != lrf[kernel].data_ptr()
    assert dyn[norm].data_ptr() != lrf[norm].data_ptr()


def test_a_kernel_is_known_by_its_dilation() -> None:
    far = candidate({**LRF_DYN, "dilations": [3]})
    net = SuperNetwork([DYN, far])
    both, one = (net.lent(build_model(c.model)) for c in (DYN, far))
    kernels = "blocks.0.attention.mixer.local.kernels"
    assert one[f"{kernels}.0.weight"].data_ptr() == both[f"{kernels}.1.weight"].data_ptr()


def test_few_dendrites_span_the_same_time_constants_as_many() -> None:
    few = [candidate({**LRF_DYN, "dendrites": n}) for n in (1, 2)]
    net = SuperNetwork([*few, DYN])
    name = "blocks.0.attention.mixer.dendrites.log_tau_Gk"
    one, two, four = (net.lent(build_model(c.model))[name] for c in (*few, DYN))
    assert torch.equal(two, four[:, [0, 3]])
    assert torch.equal(one, four[:, [0]])
    for weights in (net.lent(build_model(few[1].model)), net.lent(build_model(few[0].model))):
        weights[name].sum().backward()  # gradients reach the store
    stored = next(p for n, p in net.named_parameters() if n.endswith("log_tau_Gk"))
    assert stored.grad is not None
    assert stored.grad.tolist() == [[2, 0, 0, 1]] * 2


def test_a_step_for_one_network_is_a_step_for_another(data: DataSet) -> None:
    net = SuperNetwork([WIDE, DYN])
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    net.candidates = (NARROW,)
    net.fit(data, Training(epochs=1, warmup_epochs=0, weight_decay=0.0, lr=1e-2, batch_size=128))
    stem = "Spikformer.stem.position.conv.conv.weight"
    now = dict(net.named_parameters())
    assert not torch.equal(now[stem][:16, :16], before[stem][:16, :16])
    assert torch.equal(now[stem][16:], before[stem][16:])
    untouched = [name for name in before if "LRFDyn" in name or ".blocks.1." in name]
    assert untouched
    assert all(torch.equal(now[name], before[name]) for name in untouched)


@pytest.mark.slow
def test_training_lowers_the_loss_and_inherited_weights_are_better_than_fresh_ones() -> None:
    digits = load("digits")
    net = SuperNetwork([NARROW, candidate(dim=32), DYN])
    blank = net.accuracy(DYN, digits)
    losses = net.fit(digits, Training(epochs=8, warmup_epochs=1, lr=2e-2, batch_size=64, label_smoothing=0))
    assert len(losses) == 8
    assert losses[-1] < 0.8 * losses[0]
    assert net.accuracy(DYN, digits) > blank + 0.2
    assert net.accuracy(NARROW, digits) == net.accuracy(NARROW, digits)


def test_same_seed_same_weights(data: DataSet) -> None:
    training = Training(epochs=1, warmup_epochs=0, batch_size=128)
    first, second = SuperNetwork([NARROW, DYN]), SuperNetwork([NARROW, DYN])
    assert first.fit(data, training) == second.fit(data, training)
    assert first.accuracy(DYN, data) == second.accuracy(DYN, data)


def test_what_the_store_does_not_have_is_named() -> None:
    net = SuperNetwork([NARROW])
    with pytest.raises(ValueError, match=r"has \[10, 16\] for 'Spikformer.head.weight', but .* needs \[10, 32\]"):
        net.lent(build_model(WIDE.model))
    with pytest.raises(ValueError, match=r"has nothing for 'Spikformer.*LRFDyn.*"):
        net.lent(build_model(candidate(LRF_DYN).model))
    with pytest.raises(ValueError, match="at least one candidate"):
        SuperNetwork([])

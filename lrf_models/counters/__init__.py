"""What a network costs: operations, energy, memory and latency, before and after training (docs/counters.md)."""

from lrf_models.counters.energy import CONVENTIONS, Convention, Policy, Profile, load_profile, profile_names
from lrf_models.counters.events import Counter, counting
from lrf_models.counters.price import Measurement, measure, measurement, price

__all__ = [
    "CONVENTIONS",
    "Convention",
    "Counter",
    "Measurement",
    "Policy",
    "Profile",
    "counting",
    "load_profile",
    "measure",
    "measurement",
    "price",
    "profile_names",
]

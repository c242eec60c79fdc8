import importlib
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from clusterai.work.query.core.noise import (
    bernoulli_exp,
    discrete_gaussian,
    discrete_laplace,
    permute_and_flip,
)
from clusterai.work.query.core.stream import Stream

DRAWS = 20_000
PINNED = [593, 339, 114, 821, 759]
PINNED_LAPLACE = [8, -15, -16, 16, 39]
dp: Any = importlib.import_module("opendp.prelude")
dp.enable_features("contrib")


def stream(purpose: str) -> Stream:
    return Stream(b"\x07" * 32, purpose)


def chi_squared(found: Counter[int], chance: Callable[[int], float], values: range) -> float:
    """Per degree of freedom; what lies outside of `values` is one more class."""
    total = sum(found.values())
    inside = [(found[value], total * chance(value)) for value in values]
    rest = total - sum(it[0] for it in inside), total - sum(it[1] for it in inside)
    classes = [it for it in (*inside, rest) if it[1] > 5]
    return sum((seen - due) ** 2 / due for seen, due in classes) / (len(classes) - 1)


def laplace_chance(scale: float) -> Callable[[int], float]:
    decay = math.exp(-1 / scale)
    return lambda value: (1 - decay) / (1 + decay) * decay ** abs(value)


def gauss_chance(variance: float) -> Callable[[int], float]:
    whole = sum(math.exp(-value * value / (2 * variance)) for value in range(-1000, 1001))
    return lambda value: math.exp(-value * value / (2 * variance)) / whole


@pytest.mark.parametrize("scale", [Fraction(1, 3), Fraction(5, 2), Fraction(10)])
def test_laplace_noise_has_its_formulas_distribution(scale: Fraction):
    """Seeded draws fit the formula: a chi-squared of about one per degree of freedom."""
    source = stream("laplace")
    found = Counter(discrete_laplace(source, scale) for _ in range(DRAWS))
    assert chi_squared(found, laplace_chance(float(scale)), range(-25, 26)) < 2


@pytest.mark.parametrize("variance", [Fraction(1, 2), Fraction(7, 3), Fraction(30)])
def test_gaussian_noise_has_its_formulas_distribution(variance: Fraction):
    """Seeded draws of the discrete Gaussian fit its formula."""
    source = stream("gauss")
    found = Counter(discrete_gaussian(source, variance) for _ in range(DRAWS))
    assert chi_squared(found, gauss_chance(float(variance)), range(-18, 19)) < 2


@pytest.mark.parametrize("name", ["laplace", "gauss"])
def test_noise_is_distributed_as_opendps(name: str):
    """Our draws and OpenDP's, in equal numbers, fill the same classes."""
    space: Any = dp.atom_domain(T=int), dp.absolute_distance(T=int if name == "laplace" else float)
    make: Any = dp.m.make_laplace if name == "laplace" else dp.m.make_gaussian
    other: Any = make(*space, scale=4.0)
    source = stream("beside")
    ours = Counter(
        discrete_laplace(source, Fraction(4))
        if name == "laplace"
        else discrete_gaussian(source, Fraction(16))
        for _ in range(DRAWS)
    )
    theirs: Counter[int] = Counter(other(0) for _ in range(DRAWS))
    classes = [value for value in range(-30, 31) if ours[value] + theirs[value] > 20]
    distance = sum((ours[it] - theirs[it]) ** 2 / (ours[it] + theirs[it]) for it in classes) / len(classes)
    # OpenDP's draws can't be seeded: a chi-squared of 25 or more degrees of freedom is above 3.5 of each once in 10^7 runs or less.
    assert len(classes) >= 25
    assert distance < 3.5


def test_laplace_noise_hides_one_step():
    """At scale 1/ε the chances of neighbouring results differ by e^ε at most, as far as draws can show."""
    epsilon = 0.5
    source = stream("hides")
    found = Counter(discrete_laplace(source, Fraction(2)) for _ in range(DRAWS))
    for value in range(-4, 5):
        assert found[value] / found[value + 1] < math.exp(epsilon) * 1.15
        assert found[value + 1] / found[value] < math.exp(epsilon) * 1.15


@pytest.mark.parametrize("minus", [Fraction(0), Fraction(1, 7), Fraction(1), Fraction(7, 2)])
def test_exponential_chances_are_right(minus: Fraction):
    """A coin of chance exp(-x) falls so, also above one."""
    source = stream("coin")
    heads = sum(bernoulli_exp(source, minus) for _ in range(DRAWS))
    assert abs(heads / DRAWS - math.exp(-minus)) < 0.012


def test_a_good_candidate_is_drawn_as_published():
    """Permute-and-flip with two candidates takes the worse one with chance exp(-d) / 2."""
    source = stream("flip")
    worse = sum(permute_and_flip(source, [0, -3], Fraction(1, 3)) for _ in range(DRAWS))
    assert abs(worse / DRAWS - math.exp(-1) / 2) < 0.012


def test_one_seed_gives_one_stream():
    """The same seed and purpose draw the same noise; another seed or purpose another."""
    first = [discrete_laplace(stream("a"), Fraction(1000)) for _ in range(3)]
    assert first == [discrete_laplace(stream("a"), Fraction(1000))] * 3
    drawn = {
        tuple(discrete_laplace(it, Fraction(1000)) for _ in range(4) if it)
        for it in (stream("a"), stream("b"), Stream(b"\x08" * 32, "a"))
    }
    assert len(drawn) == 3


def test_the_stream_is_pinned():
    """Bits of a known seed never change: old answers stay replayable."""
    source = Stream(bytes(range(32)), "vector")
    assert [source.below(1000) for _ in range(5)] == PINNED
    assert [discrete_laplace(Stream(bytes(32), f"{at}"), Fraction(50)) for at in range(5)] == PINNED_LAPLACE

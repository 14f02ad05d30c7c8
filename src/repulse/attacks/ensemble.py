"""Several attacks, one after another: what one leaves, the next tries."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import nn

from repulse.attacks import prototype_objectives, random_search, transfer  # noqa: F401 (they enter what they hold)
from repulse.attacks.apgd import APGD, TargetedAPGD
from repulse.attacks.attack import ATTACKS, Attack
from repulse.attacks.fab import FAB
from repulse.attacks.fmn import FMN
from repulse.attacks.hop_skip_jump import HopSkipJump
from repulse.attacks.near_misses import NearMisses
from repulse.attacks.objectives import OBJECTIVES, Objective
from repulse.attacks.polish import Polish
from repulse.attacks.random_search import RandomSearch
from repulse.attacks.square import Square
from repulse.attacks.standing import Standing
from repulse.attacks.targets import margin_targeted
from repulse.attacks.through_masking import ThroughMasking
from repulse.attacks.transfer import Transfer
from repulse.common.errors import RepulseError
from repulse.common.registry import Registry, unknown_name


def make_attack(name: str, **settings: Any) -> Attack:
    """The registered attack called `name` with these settings; an `objective` may be given by its name.

    >>> make_attack("pgd", objective="margin", steps=5).steps
    5

    Raises:
        RepulseError: if there is no such attack, objective or setting, or a setting is missing or out of range.
    """
    known = signature(ATTACKS[name]).parameters
    for setting in settings:
        if setting not in known:
            raise unknown_name(f"setting of attack {name!r}", setting, known)
    for setting in _needed(name):
        if setting not in settings:
            raise RepulseError(f"attack {name!r} needs a setting {setting!r}")
    if isinstance(objective := settings.get("objective"), str):
        settings["objective"] = OBJECTIVES[objective]
    return ATTACKS[name](**settings)


def _needed(name: str) -> list[str]:
    """The settings of a registered attack that have no default."""
    return [key for key, each in signature(ATTACKS[name]).parameters.items() if each.default is each.empty]


@dataclass(frozen=True)
class Member:
    """One attack of an ensemble, with its slug and what a table calls it."""

    name: str
    label: str
    attack: Attack


@dataclass(frozen=True)
class Ensemble(Attack):
    """An attack made of attacks; an image is fooled if any of them fools it.

    Raises:
        RepulseError: if it has no members, or two of one name.
    """

    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if not names or len(set(names)) < len(names):
            raise RepulseError(f"an ensemble needs members of different names, got {names}")

    def search(self, standing: Standing) -> None:
        """Run every member on the images that none before it fooled."""
        for member in self.members:
            member.attack.search(standing)


ENSEMBLES: Registry[Ensemble] = Registry("ensemble")


def ensemble(name: str) -> Ensemble:
    """The ensemble called `name`, or the registered attack of that name on its own.

    - `standard`: the attacks of AutoAttack in its order, with its budgets (Croce & Hein 2020, section 5): Auto-PGD on
      cross-entropy and, towards nine classes, on the targeted DLR; targeted FAB; Square with 5,000 queries.
    - `quick`: Auto-PGD on the margin and towards the nearest classes, long searches where these came near, Square where
      it finds more than they do: about a twentieth of AutoAttack's passes.
    - `adaptive`: `standard`, and what `adaptive()` adds to it for a model that nothing is known of.

    Raises:
        RepulseError: if there is none of that name; the nearest is suggested.
    """
    if name not in ENSEMBLES and name in ATTACKS:
        return Ensemble((Member(name, name, make_attack(name)),))
    return ENSEMBLES[name]


def known_attacks() -> list[str]:
    """The names that `ensemble` takes: ensembles, and the registered attacks that need no settings."""
    return [*ENSEMBLES, *(name for name in ATTACKS if not _needed(name))]


_NEAR = Ensemble(
    (
        Member("apgd-cross-entropy", "APGD, cross-entropy", APGD(OBJECTIVES["cross-entropy"], steps=50)),
        Member("apgd-dlr-targeted", "APGD, targeted DLR", TargetedAPGD(targets=5, steps=40)),
        Member("polish", "Polishing", NearMisses(Polish(), within=1.15)),
    )
)

ENSEMBLES.register("standard")(
    Ensemble(
        (
            Member("apgd-cross-entropy", "APGD, cross-entropy", APGD(OBJECTIVES["cross-entropy"])),
            Member("apgd-dlr-targeted", "APGD, targeted DLR", TargetedAPGD()),
            Member("fab-targeted", "FAB, targeted", FAB()),
            Member("square", "Square", Square()),
        )
    )
)

# Few classes, chosen by the distance of their boundaries, stand for many; long searches follow where these came near.
# Where gradients cannot be trusted, the canary lets Square have all of its queries.
ENSEMBLES.register("quick")(
    Ensemble(
        (
            Member("apgd-margin", "APGD, margin", APGD(OBJECTIVES["margin"], steps=20)),
            Member(
                "apgd-margin-targeted",
                "APGD, margin, nearest classes",
                TargetedAPGD(margin_targeted, targets=3, steps=20, nearest=True),
            ),
            Member("near-misses", "Near misses: APGD, polishing", NearMisses(_NEAR)),
            Member("square", "Square", Square(canary=100)),
        )
    )
)


def adaptive(
    *, prototypes: bool = False, surrogate: nn.Module | None = None, training: Objective | None = None
) -> Ensemble:
    """Everything: the attacks of `standard`, and all others that might find more, cheapest first.

    Restarts on the margin, cross-entropy at a scale of its own, all classes in turn, a long walk to the minimum norm
    for near misses; the distance to prototypes and the training loss of models that have them; random points, transfer
    from a surrogate, and decisions only (if foolbox is installed).

    Args:
        prototypes: whether the model tells its distances to prototypes (`has_distances`), which are then attacked.
        surrogate: a model to transfer from, trained for the purpose.
        training: the training loss as an objective.
    """
    members = [
        *ensemble("standard").members,
        Member("apgd-margin", "APGD, margin, 3 starts", APGD(OBJECTIVES["margin"], restarts=3)),
        Member(
            "apgd-cross-entropy-rescaled",
            "APGD, rescaled cross-entropy",
            APGD(OBJECTIVES["cross-entropy-rescaled"]),
        ),
        Member(
            "apgd-margin-targeted",
            "APGD, targeted margin, 20 classes",
            TargetedAPGD(margin_targeted, targets=20, steps=50),
        ),
    ]
    if prototypes:
        attack = APGD(OBJECTIVES["prototype-distance"])
        members.append(Member("apgd-prototype-distance", "APGD, distance to prototypes", attack))
    if training is not None:
        members.append(Member("apgd-training-loss", "APGD, training loss", APGD(training)))
    long_walk = Member("fmn-long", "FMN, long", FMN(steps=200))
    deep = Ensemble((long_walk, Member("polish", "Polishing", Polish(starts=10))))
    members.append(Member("near-misses", "Near misses: FMN, polishing", NearMisses(deep, within=1.3)))
    members.append(Member("through-masking", "Gradients made smooth", ThroughMasking()))
    members.append(Member("random-search", "Random points", RandomSearch()))
    if surrogate is not None:
        members.append(Member("transfer", "Transfer from a surrogate", Transfer(surrogate)))
    if importlib.util.find_spec("foolbox") is not None:
        members.append(Member("hop-skip-jump", "HopSkipJump, decisions only", HopSkipJump(queries=1000)))
    return Ensemble(tuple(members))


ENSEMBLES.register("adaptive")(adaptive())

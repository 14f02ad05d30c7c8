"""Several attacks, one after another: what one leaves, the next tries."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repulse.attacks import prototype_objectives  # noqa: F401 (enters its objectives)
from repulse.attacks.apgd import APGD, TargetedAPGD
from repulse.attacks.attack import Attack, Perturbed
from repulse.attacks.decision import HopSkipJump
from repulse.attacks.fab import FAB
from repulse.attacks.noise import Noise
from repulse.attacks.objectives import OBJECTIVES, Objective
from repulse.attacks.passes import Passes
from repulse.attacks.random_search import RandomSearch
from repulse.attacks.square import Square
from repulse.attacks.targets import margin_targeted
from repulse.attacks.threat import Threat
from repulse.attacks.transfer import Transfer
from repulse.common.errors import RepulseError
from repulse.common.registry import Registry


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

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Perturbed:
        """Run every member on the images that none before it fooled."""
        best = x.clone()
        left = torch.arange(len(x), device=x.device)
        passes = Passes.none(x)
        for member in self.members:
            if len(left) == 0:
                break
            found = member.attack.search(model, x[left], y[left], threat, noise.take(left))
            best[left] = threat.project(found.images.detach(), x[left])
            with torch.inference_mode():
                robust = model(best[left]).argmax(1) == y[left]
            passes.put(left, found.passes)
            passes.add(left, forward=1)
            left = left[robust.clone()]
        return Perturbed(best, passes)


ENSEMBLES: Registry[Ensemble] = Registry("ensemble")


def ensemble(name: str) -> Ensemble:
    """The ensemble called `name`.

    - `standard`: the attacks of AutoAttack in its order, with its budgets (Croce & Hein 2020, section 5): Auto-PGD on
      cross-entropy and, towards nine classes, on the targeted DLR; targeted FAB; Square with 5,000 queries.
    - `quick`: the same attacks with budgets that follow from what they find.
    - `adaptive`: `standard`, and what `adaptive()` adds to it for a model that nothing is known of.

    Raises:
        RepulseError: if there is none of that name; the nearest is suggested.
    """
    return ENSEMBLES[name]


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

# What the last targets, FAB's many, and the last thousands of queries add is next to nothing where gradients can be
# trusted; where they cannot, the canary lets Square have all of its queries.
ENSEMBLES.register("quick")(
    Ensemble(
        (
            Member("apgd-margin", "APGD, margin", APGD(OBJECTIVES["margin"], steps=50)),
            Member("apgd-cross-entropy", "APGD, cross-entropy", APGD(OBJECTIVES["cross-entropy"], steps=50)),
            Member("apgd-dlr-targeted", "APGD, targeted DLR", TargetedAPGD(steps=50)),
            Member("fab-targeted", "FAB, targeted", FAB(targets=2, steps=50)),
            Member("square", "Square", Square(canary=300)),
        )
    )
)


def adaptive(
    *, prototypes: bool = False, surrogate: nn.Module | None = None, training: Objective | None = None
) -> Ensemble:
    """Everything: the attacks of `standard`, and all others that might find more, cheapest first.

    Restarts on the margin, cross-entropy at a scale of its own, all classes in turn; the distance to prototypes and the
    training loss of models that have them; the minimum norm; random points, transfer from a surrogate, and decisions
    only (if foolbox is installed).

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
    members.append(Member("random-search", "Random points", RandomSearch()))
    if surrogate is not None:
        members.append(Member("transfer", "Transfer from a surrogate", Transfer(surrogate)))
    if importlib.util.find_spec("foolbox") is not None:
        members.append(Member("hop-skip-jump", "HopSkipJump, decisions only", HopSkipJump(queries=1000)))
    return Ensemble(tuple(members))


ENSEMBLES.register("adaptive")(adaptive())

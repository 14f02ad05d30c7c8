"""Records of attacks that never ran, for rules that only read them."""

from repulse.evaluation.record import AttackRecord


def attack_record(name, group, share=0.5, **more):
    """An attack of that name and group that left a share of the images."""
    nothing = {"eps": 0.1, "seconds": 0.0, "forward_passes": 0, "backward_passes": 0, "largest_perturbation": 0.1}
    said = {"label": name.upper(), "norm": "linf", "objective": "", **nothing, **more}
    return AttackRecord(name=name, group=group, robust_accuracy=share, **said)

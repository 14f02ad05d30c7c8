"""Copy the figures of `results/` into the README, and its picture into the docs.

    python benchmarks/readme.py

What stands between the markers in README.md is replaced; nothing else is touched. A test holds the two equal.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from repulse.reproduce.figures import spread

ROOT = Path(__file__).parent.parent
SETS = ("fashion-mnist", "cifar10-jpeg75")

COLUMNS = {
    "test": "natural, all test images",
    "natural": "natural, those attacked",
    "pgd-100-training-loss": "PGD-100, training loss",
    "pgd-100-cross-entropy": "PGD-100, cross-entropy",
    "pgd-100-margin": "PGD-100, margin",
    "worst-case": "**number to quote**",
}

METHODS = ("softmax", "paper", "simplex-cosine", "simplex", "fgsm-rs")

# What the paper promised, what is to be beaten, and what `repulse train` does by default.
IDEAS_SHOWN = ("paper", "FGSM-RS, softmax", "FGSM-RS, simplex", "N-FGSM, simplex", "N-FGSM, simplex, batches of 32")

REPRODUCED = ("fashion", "paper-cifar10")


def records(name: str) -> list[dict[str, Any]]:
    """The records of one data set's comparison, in the order of its report."""
    found = sorted((ROOT / "results" / name).glob("*/evaluations/*/record.json"))
    return [{**_read(path), "test": _read(path.parents[2] / "test.json")} for path in found]


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def figure(record: dict[str, Any], key: str) -> float:
    """One accuracy of a record, in [0, 1]."""
    if key == "test":
        return float(record["test"]["natural_accuracy"])
    if key == "natural":
        return float(record["natural_accuracy"])
    if key == "worst-case":
        return float(record["worst_case_accuracy"])
    return next(float(attack["robust_accuracy"]) for attack in record["attacks"] if attack["name"] == key)


def tables() -> str:
    """The comparison tables, one for each data set and radius."""
    parts = []
    for name in SETS:
        found = records(name)
        for eps in sorted({record["eps"] for record in found}):
            rows = [record for record in found if record["eps"] == eps]
            lines = [
                f"**{rows[0]['data']['name']}, L-inf {radius(eps)}, {rows[0]['data']['count']} test images attacked**",
                "",
                "| model | " + " | ".join(COLUMNS.values()) + " | verdict on the paper-style number |",
                "|---|" + "--:|" * len(COLUMNS) + "---|",
            ]
            for row in sorted(rows, key=lambda row: METHODS.index(row["model"]["name"])):
                cells = [f"{100 * figure(row, key):.1f} %" for key in COLUMNS]
                cells[-1] = f"**{cells[-1]}**"
                cells.append(row["verdict"]["word"])
                lines.append(f"| {row['model']['name']} | " + " | ".join(cells) + " |")
            parts.append("\n".join(lines))
    return "\n\n".join(parts)


def reading() -> str:
    """What the tables say, in plain words."""
    masked, separated, trained = [], [], []
    for name in SETS:
        found = records(name)
        for eps in sorted({record["eps"] for record in found}):
            where = f"{found[0]['data']['name']} at {radius(eps)}"
            row = {record["model"]["name"]: record for record in found if record["eps"] == eps}
            worst = {model: 100 * figure(record, "worst-case") for model, record in row.items()}
            protocol = 100 * figure(row["paper"], "pgd-100-training-loss")
            masked.append(f"{protocol:.1f} % and {worst['paper']:.1f} % on {where}")
            if "fgsm-rs" in worst:
                trained.append(f"{worst['fgsm-rs']:.1f} % on {where}")
            separated.append(f"{worst['simplex-cosine']:.1f} % and {worst['softmax']:.1f} % on {where}")
    return (
        "How to read it. Robust accuracy of the paper's method under its own protocol, and in the worst case: "
        f"{'; '.join(masked)}. The gradient of an L-inf distance passes through one coordinate only, so an attack on "
        "the training loss sees little of the model; attacks on the logits see more. Worst case of simplex prototypes "
        f"with the cosine loss, and of softmax: {'; '.join(separated)}. FGSM-RS, trained on adversarial examples, "
        f"shows what real robustness looks like: {'; '.join(trained)}, at the natural accuracy that it costs. One seed "
        "each. "
        "The number to quote counts an image as robust only if PGD, the minimum-norm attack FMN and all attacks of "
        "AutoAttack failed on it; it is an upper bound all the same."
    )


def reproduced() -> str:
    """The comparison beside its rivals: a row per method, a block of columns per data set."""
    found = {name: _read(ROOT / "results" / "reproduce" / name / "cpu" / "figures.json") for name in REPRODUCED}
    about = "; ".join(
        f"{each['data']}, L-inf {radius(each['eps'])}, {each['images']} test images attacked" for each in found.values()
    )
    columns = [f"{what}, {each['data']}" for each in found.values() for what in ("natural", "PGD-100", "**to quote**")]
    lines = [f"{about}.", "", "| method | kind | " + " | ".join(columns) + " |", "|---|---|" + "--:|" * len(columns)]
    rows = [{row["method"]: row for row in each["methods"]} for each in found.values()]
    for method, row in rows[0].items():
        cells = []
        for table in rows:
            seeds = table[method]["cells"] if method in table else []
            cells += [_spread([cell[key] for cell in seeds]) for key in ("natural", "pgd_100", "worst_case")]
        lines.append(f"| {method} | {row['family']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    over_seeds = spread(values)
    return "–" if over_seeds is None else over_seeds.number(100, 1)


def certified() -> str:
    """The tables of certified accuracy, as their benchmark wrote them."""
    parts = sorted((ROOT / "results" / "certified").glob("*.md"))
    return "\n\n".join(part.read_text(encoding="utf-8").strip() for part in parts)


def ideas() -> str:
    """What was tried at equal cost, all data sets in one table: the paper, the baseline, and the default recipe."""
    found = [_read(path) for path in sorted((ROOT / "results" / "ideas").glob("*.json"))]
    columns = ["natural", f"PGD-20 on the margin, {found[0]['more_images']:,} images", "**worst case**"]
    heads = [f"{column}, {content['data']}" for content in found for column in columns]
    lines = ["| training | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
    for label in IDEAS_SHOWN:
        rows = [content["found"][label] for content in found]
        cells = [_spread([run[key] for run in row]) for row in rows for key in ("natural", "margin", "robust")]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def radius(eps: float) -> str:
    """A radius as people write it."""
    levels = eps * 255
    return f"{levels:.0f}/255" if abs(levels - round(levels)) < 1e-6 else f"{eps:g}"


def filled(text: str) -> str:
    """The README with its tables and their reading made anew."""
    made = {
        "results": tables(),
        "reading": textwrap.fill(reading(), 120),
        "reproduced": reproduced(),
        "ideas": ideas(),
        "certified": certified(),
    }
    for name, content in made.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda match, content=content: f"{match[1]}\n{content}\n\n{match[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    return text


def benchmark_tables() -> str:
    """The benchmarks' figures as Markdown, for the documentation."""
    folder = ROOT / "results" / "benchmarks"
    training = _read(folder / "training.json")
    lines = [
        f"Seconds per epoch of {training['images_per_epoch']:,} images, small CNN, batches of "
        f"{training['batch_size']}, {training['environment']['threads']} threads; ratios of epochs taken in turns:",
        "",
        "| ratio | median | lowest | highest |",
        "|---|--:|--:|--:|",
    ]
    for name, found in training["ratios"].items():
        lines.append(f"| {name} | {found['median']:.2f} | {found['lowest']:.2f} | {found['highest']:.2f} |")
    whole = sum(training["where_the_time_goes"].values())
    parts = (f"{name} {100 * part / whole:.0f} %" for name, part in training["where_the_time_goes"].items())
    lines += ["", f"Where the time of an epoch goes: {', '.join(parts)}.", ""]

    lines += [*attack_table(_read(folder / "attacks.json")), ""]
    cases = _read(folder / "prototypes.json")["cases"]
    lines += ["| prototypes | n | d | seconds | peak GB | smallest angle | at most |", "|---|--:|--:|--:|--:|--:|--:|"]
    for name, case in cases.items():
        if name.startswith("scale"):
            lines.append(
                f"| {case['method']} | {case['n']:,} | {case['d']} | {case['seconds']:.3g} | "
                f"{case['peak_gigabytes']:.2f} | {case['smallest_angle']:.3f} | {case['angle_bound']:.3f} |"
            )
    lines += [
        "",
        "Beside a plain implementation of the paper's procedure (time for 1,000 steps, extrapolated where marked ~; "
        "its separation after the steps that were run):",
        "",
        "| n | d | method | seconds | times as fast | smallest angle | least L-inf distance in the box, of 2 |",
        "|--:|--:|---|--:|--:|--:|--:|",
    ]
    for name, case in cases.items():
        if name.startswith("paper"):
            about = "~" if case.get("extrapolated") else ""
            steps = f", {case['steps_run']:,} steps" if "steps_run" in case else ""
            faster = f"{case['times_as_fast_as_plain']:,.0f}" if "times_as_fast_as_plain" in case else "1"
            lines.append(
                f"| {case['n']:,} | {case['d']:,} | {case['method']}{steps} | {about}{case['seconds']:.3g} "
                f"| {faster} | {case['smallest_angle']:.2f} | {case['smallest_linf_in_box']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def attack_table(found: dict[str, Any]) -> list[str]:
    """Our attacks beside other tools', as rows of Markdown."""
    lines = [
        f"Attacks on images that each model classifies right, small CNN on CIFAR-10 (JPEG 75), L-inf "
        f"{radius(found['eps'])}, {found['environment']['threads']} threads; passes are per image:",
        "",
        "| model | tool | images | robust, of these | seconds | images/s | forward | backward |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found["rows"]:
        if "failed" in row:
            lines.append(f"| {row['model']} | {row['tool']} | failed: {row['failed'][:60]} | | | | | |")
            continue
        lines.append(
            f"| {row['model']} | {row['tool']} | {row['images']} | {100 * row['robust_of_right']:.1f} % | "
            f"{row['seconds']:.1f} | {row['images_per_second']:.2g} | {row['forward_passes_per_image']:,.0f} | "
            f"{row['backward_passes_per_image']:,.0f} |"
        )
    return lines + beside_autoattack(found.get("beside_autoattack", []))


def beside_autoattack(compared: list[dict[str, Any]]) -> list[str]:
    """Our ensembles beside AutoAttack on the same images, as rows of Markdown; nothing if nothing was compared."""
    if not compared:
        return []
    lines = [
        "",
        "Our ensembles beside AutoAttack on the same images; passes are forward and backward together, and memory, "
        "without that of reading the data, was measured in runs of its own on one thread:",
        "",
        "| model | ensemble | images | robust, of these | AutoAttack | times as fast | share of its passes "
        "| share of its peak memory |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in compared:
        lines.append(
            f"| {row['model']} | {row['tool']} | {row['images']} | {100 * row['robust_of_right']:.1f} % | "
            f"{100 * row['robust_of_right_autoattack']:.1f} % | {row['times_as_fast']:.1f} | "
            f"{100 * row['share_of_passes']:.0f} % | {100 * row['share_of_peak_memory']:.0f} % |"
        )
    return lines


def picture() -> str:
    """The robustness curves of Fashion-MNIST as a stand-alone SVG that reads on white and on black."""
    import io

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ink = "#6e7781"
    style: Any = {
        "svg.hashsalt": "repulse",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), ink),
    }
    with rc_context(style):
        drawing = Figure(figsize=(8, 3.6), layout="constrained")
        axes = drawing.subplots()
        colours = {
            "softmax": "#D55E00",
            "paper": "#0072B2",
            "simplex-cosine": "#CC79A7",
            "simplex": "#009E73",
            "fgsm-rs": "#56606b",
        }
        shown = [record for record in records("fashion-mnist") if record["eps"] > 0.05]
        for record in shown:
            x = [255 * point["eps"] for point in record["curve"]]
            for key, line in (("training loss", "--"), ("worst case", "-")):
                y = [100 * point["robust_accuracy"][key] for point in record["curve"]]
                name = record["model"]["name"]
                label = f"{name}, {'the paper’s attack' if key == 'training loss' else 'worst case'}"
                axes.plot(x, y, line, color=colours[name], marker="o", markersize=3, label=label)
        axes.set_xlabel("eps, in 255ths of the pixel range (L-inf)")
        axes.set_ylabel("robust accuracy, %")
        axes.set_ylim(-2, 100)
        axes.grid(True, color=ink, alpha=0.25)
        axes.legend(fontsize=8)
        file = io.StringIO()
        drawing.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def main() -> None:
    """Write README.md, results/benchmarks/table.md and docs/images/curves.svg."""
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")
    table = ROOT / "results" / "benchmarks" / "table.md"
    table.write_text(benchmark_tables(), encoding="utf-8")
    image = ROOT / "docs" / "images" / "curves.svg"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_text(picture(), encoding="utf-8")
    print(f"written: {readme.name}, {table.relative_to(ROOT)}, {image.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

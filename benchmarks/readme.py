"""Copy the figures of `results/` into the README and the docs, and draw their picture.

    python benchmarks/readme.py

What stands between the markers in README.md and docs/tables.md is replaced; nothing else is touched. A test holds them
equal.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from repulse.common.units import in_255ths
from repulse.report.answers import WORDS, answer
from repulse.report.collect import collect
from repulse.report.group import Entry, Group, grouped
from repulse.reproduce.figures import spread

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "tables.md", ROOT / "docs" / "quick-start.md")

# Shown if their folders are there.
SETS = ("fashion-mnist", "cifar10", "cifar100")

METHODS = ("softmax", "paper", "simplex-cosine", "simplex", "fgsm-rs")

PROTOCOL = "pgd-100-training-loss"

# What the paper promised, what is to be beaten, and what `repulse train` does by default.
IDEAS_SHOWN = ("paper", "FGSM-RS, softmax", "FGSM-RS, simplex", "N-FGSM, simplex", "N-FGSM, simplex, batches of 32")


def groups(name: str) -> list[Group]:
    """The evaluations of one data set's comparison, a group for each eps, the smallest first."""
    folder = ROOT / "results" / name
    found = grouped(collect([folder])) if any(folder.glob("*/evaluations/*/record.json")) else []
    return sorted(found, key=lambda group: group.entries[0].record.eps)


def ordered(group: Group) -> list[Entry]:
    """The models of a group in the order of the table."""
    known = [entry for name in METHODS for entry in group.entries if entry.label == name]
    return known + [entry for entry in group.entries if entry not in known]


def tested(entry: Entry) -> float:
    """Natural accuracy on all test images, in [0, 1]."""
    assert entry.measured.run is not None, "results hold runs"
    return float(_read(entry.measured.run / "test.json")["natural_accuracy"])


def protocol(entry: Entry) -> float:
    """What the paper's protocol leaves, in [0, 1]."""
    return entry.record.attack(PROTOCOL).robust_accuracy


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def tables() -> str:
    """A table for each data set: natural accuracy, and at each eps the paper's protocol beside the number to quote."""
    parts = []
    for name in SETS:
        found = groups(name)
        if not found:
            continue
        data = found[0].entries[0].record.data
        radii = [in_255ths(group.entries[0].record.eps) for group in found]
        heads = [
            head for eps in radii for head in (f"its own attack, {eps}", f"**number to quote**, {eps}", "how sure")
        ]
        lines = [
            f"| {data.name}, L-inf, {data.count} images attacked | natural | {' | '.join(heads)} |",
            "|---|--:|" + "--:|--:|---|" * len(radii),
        ]
        for entry in ordered(found[0]):
            cells = [f"{100 * tested(entry):.1f} %"]
            for group in found:
                same = next((each for each in group.entries if each.label == entry.label), None)
                if same is None:
                    cells += ["–", "–", "–"]
                    continue
                found_ = answer(same)
                quoted = (
                    f"≤ {100 * found_.robust:.1f} %" if found_.sure == "upper-bound" else f"{100 * found_.robust:.1f} %"
                )
                sure = "–" if found_.sure is None else WORDS[found_.sure]
                cells += [f"{100 * protocol(same):.1f} %", f"**{quoted}**", sure]
            lines.append(f"| {entry.label} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def outputs() -> dict[str, str]:
    """What is typed and what is printed, as `benchmarks/outputs.py` kept it."""
    kept = _read(ROOT / "results" / "readme.json")
    found = {}
    for name, language in (("own model", "python"), ("own images", "sh"), ("demo", "sh")):
        code, printed = kept[name]["code"], kept[name]["printed"]
        found[name.replace(" ", "-")] = f"```{language}\n{code}\n```\n\n```text\n{printed}\n```"
    return found


def loop() -> str:
    """The training loop of `examples/plain_pytorch.py`, without the rest of the file."""
    text = (ROOT / "examples" / "plain_pytorch.py").read_text(encoding="utf-8")
    _, _, body = text.partition('classifies."""\n')
    lines = textwrap.dedent(body[: body.index("    return criterion")])
    return f"```python\n{lines.rstrip()}\n```"


def reading() -> str:
    """What the tables say, in plain words."""
    masked, separated, trained = [], [], []
    for name in SETS:
        for group in groups(name):
            record = group.entries[0].record
            where = f"{record.data.name} at {in_255ths(record.eps)}"
            worst = {entry.label: 100 * entry.robust for entry in group.entries}
            paper = next((entry for entry in group.entries if entry.label == "paper"), None)
            if paper is not None:
                masked.append(f"{100 * protocol(paper):.1f} % and {worst['paper']:.1f} % on {where}")
            if "fgsm-rs" in worst:
                trained.append(f"{worst['fgsm-rs']:.1f} % on {where}")
            if {"simplex-cosine", "softmax"} <= set(worst):
                separated.append(f"{worst['simplex-cosine']:.1f} % and {worst['softmax']:.1f} % on {where}")
    real = (
        f"FGSM-RS, trained on adversarial examples, shows what real robustness looks like: {'; '.join(trained)}, at "
        "the natural accuracy that it costs. "
    )
    return (
        "How to read it. *Its own attack* is the paper's protocol: PGD with 100 steps on the loss that the model was "
        "trained with. The *number to quote* counts an image as robust only if PGD, the minimum-norm attack FMN and "
        "all attacks of AutoAttack failed on it, at that radius or inside it. For the paper's method they are "
        f"{'; '.join(masked)}: the gradient of an L-inf distance passes through one coordinate only, so its own attack "
        "sees little of the model. Simplex prototypes with the cosine loss, and softmax, keep "
        f"{'; '.join(separated)}. {real if trained else ''}One seed each."
    )


def reproduced() -> str:
    """The comparison beside its rivals: a row per method, a block of columns per data set."""
    paths = sorted((ROOT / "results" / "reproduce").glob("*/cpu/figures.json"))
    found = {path.parent.parent.name: figures for path in paths if "JPEG" not in (figures := _read(path))["data"]}
    about = "; ".join(
        f"{each['data']}, L-inf {in_255ths(each['eps'])}, {each['images']} test images attacked"
        for each in found.values()
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
    parts = sorted(p for p in (ROOT / "results" / "certified").glob("*.md") if "jpeg" not in p.name)
    return "\n\n".join(part.read_text(encoding="utf-8").strip() for part in parts)


def ideas() -> str:
    """What was tried at equal cost, all data sets in one table: the paper, the baseline, and the default recipe."""
    found = [_read(path) for path in sorted((ROOT / "results" / "ideas").glob("*.json")) if "jpeg" not in path.name]
    columns = ["natural", f"PGD-20 on the margin, {found[0]['more_images']:,} images", "**worst case**"]
    heads = [f"{column}, {content['data']}" for content in found for column in columns]
    lines = ["| training | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
    for label in IDEAS_SHOWN:
        rows = [content["found"][label] for content in found]
        cells = [_spread([run[key] for run in row]) for row in rows for key in ("natural", "margin", "robust")]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def filled(text: str) -> str:
    """A page with its tables and their reading made anew."""
    made = {
        **outputs(),
        "loop": loop(),
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
        f"{in_255ths(found['eps'])}, {found['environment']['threads']} threads; passes are per image:",
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
        colours = ["#D55E00", "#0072B2", "#CC79A7", "#009E73", "#56606b"]
        *_, widest = groups("fashion-mnist")
        for entry, colour in zip(ordered(widest), colours, strict=False):
            # Solid: everything ever found for this model at or inside the radius, as in the table.
            grid = [eps for eps in entry.pool.grid() if eps <= 32 / 255 + 1e-9]
            shares = [100 * share for share in entry.pool.curve(grid)]
            axes.plot([255 * eps for eps in grid], shares, color=colour, label=f"{entry.label}, worst case")
            points = [point for point in entry.record.curve if "training loss" in point.robust_accuracy]
            own = [100 * point.robust_accuracy["training loss"] for point in points]
            look: Any = {"linestyle": "--", "marker": "o", "markersize": 3, "color": colour}
            axes.plot([255 * point.eps for point in points], own, label=f"{entry.label}, its own attack", **look)
        axes.set_xlabel("eps, in 255ths of the pixel range (L-inf)")
        axes.set_ylabel("robust accuracy, %")
        axes.set_ylim(-2, 100)
        axes.grid(True, color=ink, alpha=0.25)
        axes.legend(fontsize=8)
        file = io.StringIO()
        drawing.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def main() -> None:
    """Write README.md, docs/tables.md, results/benchmarks/table.md and docs/images/curves.svg."""
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    table = ROOT / "results" / "benchmarks" / "table.md"
    table.write_text(benchmark_tables(), encoding="utf-8")
    image = ROOT / "docs" / "images" / "curves.svg"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_text(picture(), encoding="utf-8")
    print(f"written: {len(PAGES)} pages, {table.relative_to(ROOT)}, {image.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

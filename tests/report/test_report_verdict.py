import json
import re

import pytest
import torch
from report_samples import CHECKS, JUDGED, judged, outcomes, sample, sample_run
from test_report_write import markdown_rows, plainly, report, shown

from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors, save_tensors
from repulse.evaluation.record import OUTCOMES_FILE, VerdictRecord
from repulse.report import markdown_table, write_report


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    record = judged(folder / "e", extras=False)
    return record, load_tensors(folder / "e" / OUTCOMES_FILE)[0], *report(folder / "e", output=folder / "report.html")


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    word = VerdictRecord(word="believable", quote=0.0, found_by="x", claim=0.5, claim_by="claimed", summary="fine")
    other = tuple(check.model_copy(update={"passed": True}) for check in CHECKS[:3])
    records = [
        judged(folder / "a", model="a", extras=False),
        judged(
            folder / "b", model="b <b>", seed=1, curve=(), extras=False, judgement={"verdict": word, "checks": other}
        ),
        sample(folder / "old", model="old", seed=2, extras=False),
    ]
    return records, *report(folder, output=folder / "report.html")


def cards(page):
    """The verdict cards, as text."""
    return [re.sub(r"<[^>]+>", " ", card) for card in re.findall(r"<article.*?</article>", page, flags=re.DOTALL)]


def table(page, first):
    return next(rows for rows in page.tables if rows[0][0] == first)


def test_the_verdict_stands_on_top_with_the_number_to_quote_beside_the_papers(one):
    record, _, text, *_ = one
    (card,) = cards(text)
    assert text.index("<article") < text.index("<table")
    quote, claim = shown(record.worst_case_accuracy), shown(record.attack("pgd-20-training-loss").robust_accuracy)
    assert re.search(r'class="big">([^<]+)<', text)[1] == quote
    for part in ("claim overstated", f"The paper&#39;s protocol says {claim}; {quote} is left.", "--attacks adaptive"):
        assert part in card
    assert "`" not in text[: text.index("<script>")]
    assert "Square &lt;b&gt; found more." in text


def test_the_word_is_written_and_told_without_colour(several):
    texts = cards(several[1])
    assert len(texts) == 3
    assert "claim overstated" in texts[0]
    # Older records say believable.
    assert "measured" in texts[1]
    # Without a verdict there is nothing to be sure of.
    assert "measured" not in texts[2]
    # A claim of the user's own is called that, and no attack is named for it.
    assert 'title="claimed"' in several[1]
    # Why stands once, with the model.
    assert "found more" not in texts[0]
    assert several[2].text.count("Logits saturate & hide.") == 1


def test_checks_come_serious_failures_first_with_their_figures(one):
    # What failed stands open, what passed is folded.
    rows, folded = [rows for rows in one[3].tables if rows[0][0] == "what is asked"]
    found = [row[1:4] for row in (*rows[1:], *folded[1:])]
    assert found == [
        ["failed, serious", "123.5", "88"],
        ["failed, advice", "3", "0"],
        ["passed", shown(0.0), shown(0.05)],
        ["not asked", "", ""],
    ]
    assert rows[2][0] == "Does a black-box attack find more?"
    assert rows[2][4:] == ["Square found <three> more.", "Carlini et al. 2019, section 4.6"]
    assert [row[1:4] for row in markdown_rows(one[4]) if len(row) == 6 and row[0].startswith("Do logits")] == [
        ["failed, serious", "123.5", "88"]
    ]


def test_several_models_share_a_matrix_of_checks(several):
    _, _, page, markdown, _ = several
    rows = table(page, "what is asked")
    assert rows[0] == ["what is asked", "a", "b <b>", "old"]
    assert rows[1] == ["Do logits fit float32?", "failed, serious", "–", "–"]
    assert rows[2] == ["Does a black-box attack find more?", "failed, advice", "passed", "–"]
    assert rows[3:] == [
        ["Does it reach <0> in the whole space?", "passed", "passed", "–"],
        ["Are gradients alive?", "not asked", "passed", "–"],
    ]
    assert page.text.count("Checks that gave no reason to doubt") == 2
    assert "| Are gradients alive? | not asked | passed | – |" in markdown


def test_the_comparison_ends_in_the_number_to_quote(several):
    records, _, page, _, numbers = several
    first, (head, *rows) = [rows for rows in page.tables if rows[0][0] == "model"]
    assert first[0] == ["model", "number to quote", "95 % interval", "natural", "how sure", "claimed"]
    assert head[:3] == ["model", "how sure", "natural"]
    others = ["attacks beyond AutoAttack"]
    # The groups follow each other: the paper's, on the logits, standard, adaptive.
    assert head[3:5] == ["PGD-20, training loss", "PGD-100, training loss"]
    assert head[5:] == ["PGD-20, margin", "PGD-100, margin", "standard attacks", *others, "number to quote"]
    assert [row[1] for row in rows] == ["claim overstated", "measured", "–"]
    quotes = [records[0].worst_case_accuracy, 0.0, records[2].worst_case_accuracy]
    assert [row[-1] for row in rows] == [row[1] for row in first[1:]] == [shown(quote) for quote in quotes]
    found = numbers["groups"][0]["evaluations"]
    assert [each["verdict"] for each in found] == ["overstated", "measured", None]
    assert [each["number_to_quote"] for each in found] == quotes
    assert [each["overstated"] for each in found][:2] == [True, False]
    assert found[0]["checks"]["saturation"] == "failed, serious"


def test_a_group_of_attacks_counts_images_that_none_of_them_fooled(several):
    tensors = outcomes(80, 4, JUDGED, 0, extras=False)
    robust = [
        bool(a) and bool(b) for a, b in zip(tensors["robust/apgd-cross-entropy"], tensors["robust/square"], strict=True)
    ]
    assert several[2].tables[1][1][7] == shown(sum(robust) / 80)


def test_attacks_are_listed_by_group(one):
    labels = [row[0] for row in table(one[3], "attack")]
    assert labels[2:] == [
        "PGD-20, training loss",
        "PGD-20, margin",
        "APGD, cross-entropy",
        "Square <b>",
        "FMN",
        "worst case",
        "PGD-20, training loss, as published",
    ]


def test_what_each_attack_added_is_counted_image_by_image(one):
    record, tensors, _, page, *_ = one
    rows = next(rows for rows in page.tables if rows[0][1] == "images attacked")[1:]
    assert [row[0] for row in rows] == [attack.label for attack in record.attacks]
    fooled = {i for i in range(80) if tensors["label"][i] != tensors["natural_prediction"][i]}
    for row, attack in zip(rows, record.attacks, strict=True):
        assert row[1] == str(attack.attacked)
        assert row[4:] == ["1.50", f"{1000 / attack.attacked:.1f}", f"{900 / attack.attacked:.1f}"]
        if attack.group == "paper-as-published":
            assert row[2:4] == ["–", "–"]
            continue
        now = fooled | {i for i in range(80) if not tensors[f"robust/{attack.name}"][i]}
        assert row[2] == str(len(now - fooled)) == str(attack.added)
        assert row[3] == shown((80 - len(now)) / 80)
        fooled = now
    assert rows[-1][3] == shown(record.worst_case_accuracy)
    # The cost table sums them up, and does not list them again.
    assert [row[0] for row in table(page, "what")[1:]] == ["6 attacks", "whole evaluation"]
    assert table(page, "what")[1][1:] == ["9.00", "6,000", "5,400"]


def test_the_findings_leave_judging_to_the_verdict(one):
    assert "overstated by" not in one[3].text


def test_text_of_verdicts_and_checks_is_escaped(one):
    _, _, text, page, markdown, _ = one
    for part in ("<more>", "<b>", "<0>", "<three>"):
        assert part not in text.replace("&lt;", "")
        assert part in page.text
        assert part not in markdown
    assert len(page.of("script")) == 1


def test_ids_are_unique_with_all_of_it(several):
    text, page = several[1:3]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"][1:] for _, attributes in page.tags if (attributes.get("href") or "").startswith("#")]
    assert set(links + re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_old_records_show_none_of_it(tmp_path):
    sample_run(tmp_path / "run")
    text, page, markdown, numbers = report(tmp_path / "run", output=tmp_path / "r.html")
    assert 'class="sure' not in text
    said = page.text[: page.text.index("use strict")] + markdown
    for word in ("Checks", "Loss-surface", "What each attack added", "How sure"):
        assert word not in said
    (found,) = numbers["groups"][0]["evaluations"]
    assert found["verdict"] is None
    assert found["checks"] == {}
    assert found["worst_case_curve"] is None
    assert found["number_to_quote"] == found["record"]["worst_case_accuracy"]
    # Without counts of attacked images, the attacks stand in the cost table.
    assert len(table(page, "what")) == 1 + len(found["record"]["attacks"]) + 2


def test_the_markdown_table_of_one_ends_in_its_verdict(tmp_path):
    record = judged(tmp_path / "a")
    *_, robust, sure, step = markdown_table([tmp_path / "a"]).splitlines()
    # Non-breaking spaces hold numbers together in either case.
    assert f"robust accuracy **{plainly(record.worst_case_accuracy)}**" in robust.replace("\N{NO-BREAK SPACE}", " ")
    assert sure.startswith("How sure: **claim overstated**. Only 80 images")
    assert "The paper's protocol says " in sure
    assert step == "Next: Run `--attacks adaptive`."


def test_a_verdict_that_quotes_more_than_holds_is_refused(tmp_path):
    record = judged(tmp_path)
    quote = record.worst_case_accuracy + 0.01
    judged(tmp_path, judgement={"verdict": record.verdict.model_copy(update={"quote": quote})})
    with pytest.raises(
        RepulseError, match=r"contradicts itself: its verdict says to quote 0\.\d+, but only 0\."
    ) as error:
        write_report([tmp_path], tmp_path / "r.html")
    assert str(error.value).endswith("of its images are robust; evaluate the model again")


@pytest.mark.parametrize(("name", "shape"), [("smallest", (79,)), ("slice/margin", (2, 9, 8))])
def test_outcomes_of_a_wrong_shape_are_refused(tmp_path, name, shape):
    judged(tmp_path, extras=False)
    tensors = load_tensors(tmp_path / OUTCOMES_FILE)[0]
    save_tensors(tmp_path / OUTCOMES_FILE, tensors | {name: torch.zeros(shape)})
    with pytest.raises(RepulseError, match=re.escape(f"hold {name!r} of shape {shape}, not (")):
        write_report([tmp_path], tmp_path / "r.html")


def test_inputs_that_are_no_images_make_a_page_without_a_gallery(tmp_path):
    record = judged(tmp_path)
    tensors = load_tensors(tmp_path / OUTCOMES_FILE)[0]
    index = tensors["gallery/index"]
    tensors |= {"gallery/clean": torch.rand(len(index), 16), "gallery/adversarial": torch.rand(len(index), 16)}
    save_tensors(tmp_path / OUTCOMES_FILE, tensors)
    flat = record.model_copy(update={"data": record.data.model_copy(update={"image_shape": (16,)})})
    (tmp_path / "record.json").write_text(flat.model_dump_json())
    _, page, _, numbers = report(tmp_path, output=tmp_path / "r.html")
    assert not page.of("img")
    assert "Fooled images" not in page.text
    assert "Loss-surface slices" in page.text
    assert "images of shape (16,)" in page.text
    assert numbers["groups"][0]["evaluations"][0]["record"]["data"]["image_shape"] == [16]


def test_infinite_distances_leave_valid_json(one):
    # Strict JSON knows no Infinity and no NaN.
    json.loads(json.dumps(one[5]), parse_constant=lambda name: pytest.fail(name))

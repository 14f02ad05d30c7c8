"""Certificates in a report: beside evaluations, on their own, broken, and damaged."""

import json
import re

import pytest
import torch
from report_samples import NASTY, judged, sample, sample_run

from repulse.certification.record import (
    CertificateRecord,
    CertifiedPoint,
    LayerRecord,
    LipschitzRecord,
    SmoothingRecord,
    SoundnessRecord,
    certified_accuracy,
    save_certificate,
)
from repulse.common.errors import RepulseError
from repulse.common.seeding import generator
from repulse.evaluation.record import DataRecord, ModelRecord
from repulse.report import write_report
from repulse.report.certificate_picture import certified_curve
from repulse.report.certified import collect_certificates
from repulse.report.collect import collect
from repulse.report.group import grouped
from repulse.report.page import make_page
from repulse.report.printing import certificate_blocks
from repulse.report.render.markdown import page_as_markdown, to_markdown
from repulse.report.tables import comparison

RADII = (0.0, 2 / 255, 8 / 255, 0.1)


def certificate(
    folder, *, model="paper", seed=0, count=80, norm="linf", method="linf-distance", broken=(), attacked=True, **changes
):
    """Write a certificate for the model that `report_samples.sample` evaluates, and return its record."""
    radius = 0.12 * torch.rand(count, generator=generator(seed, "radius"), dtype=torch.float64)
    radius[::4] = 0
    tensors = {"label": torch.zeros(count), "prediction": torch.zeros(count), "radius": radius}
    mask = torch.zeros(count, dtype=torch.uint8)
    mask[list(broken)] = 1
    if attacked:
        tensors["broken"] = mask
    shares = [certified_accuracy(radius, at) for at in RADII]
    smoothed = method == "smoothing"
    record = CertificateRecord(
        created="2026-01-02T03:04:05+00:00",
        model=ModelRecord(name=model, description="small <cnn>", parameters=1234, weights_sha256=f"{model}{seed}"),
        data=DataRecord(
            name="digits",
            split="test",
            count=count,
            image_shape=(1, 8, 8),
            class_names=NASTY,
            sha256=f"digits{count:08d}",
        ),
        norm=norm,
        method=method,
        slack=1e-6,
        lipschitz=None
        if smoothed
        else LipschitzRecord(
            constant=1.25, layers=(LayerRecord(name="layers.<0>", kind="Linear", lower=1.2, upper=1.25),)
        ),
        smoothing=SmoothingRecord(sigma=0.25, n0=100, n=1000, alpha=0.001, abstained=0.125) if smoothed else None,
        natural_accuracy=0.75,
        points=tuple(
            CertifiedPoint(radius=at, certified=share, attacked=share + 0.05 if attacked else None)
            for at, share in zip(RADII, shares, strict=True)
        ),
        soundness=SoundnessRecord(
            attack="quick",
            members=("FMN <b>", "Square"),
            images=60,
            broken=tuple(broken),
            spacing=0.05,
            forward_passes=10,
            backward_passes=5,
            seconds=1.0,
        )
        if attacked
        else None,
        seed=0,
        seconds=3.0,
        environment={"torch": "2.x", "command": "repulse certify RUN --attack"},
    ).model_copy(update=changes)
    save_certificate(folder, record, tensors)
    return record


def shown(share):
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def plainly(share):
    return f"{100 * share:.1f} %"


def written(*paths, output):
    files = write_report(list(paths), output)
    return files.html.read_text(), files.markdown.read_text(), json.loads(files.json.read_text())


def test_one_run_shows_its_certificate_in_all_three(tmp_path):
    evaluation = sample_run(tmp_path / "run")
    record = certificate(tmp_path / "run" / "certificates" / "linf-distance")
    page, markdown, numbers = written(tmp_path / "run", output=tmp_path / "r.html")
    at_eps = record.points[2].certified
    assert record.points[2].radius == evaluation.eps
    for text in (page, markdown):
        assert "run, L-inf-distance network" in text
        assert "at most 1.25, verified layer by layer" in text
        assert "2 attacks on each of 60 certified images, inside its own radius, broke no certificate." in text
    for point in record.points:
        assert shown(point.certified) in page
        assert plainly(point.certified) in markdown
    assert f"| certified | {plainly(at_eps)} |" in markdown
    assert "linf-distance, the same images" in markdown
    (evaluated,) = numbers["groups"][0]["evaluations"]
    assert evaluated["certified"] == at_eps
    assert CertificateRecord.model_validate(numbers["certificates"][0]["record"]) == record
    assert numbers["certificates"][0]["sound"] is True
    assert 'id="c1-curve"' in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_text_from_outside_is_escaped(tmp_path):
    certificate(tmp_path / "certificates" / "x", model="<script>alert(1)</script>")
    page, markdown, _ = written(tmp_path, output=tmp_path / "r.html")
    assert "<script>alert" not in page
    assert "<b>" not in page
    assert "<0>" not in page
    assert "<script" not in markdown


def test_a_column_says_what_is_proved_where_some_model_has_a_certificate(tmp_path):
    judged(tmp_path / "a" / "evaluations" / "e", model="a")
    judged(tmp_path / "b" / "evaluations" / "e", model="b")
    judged(tmp_path / "c" / "evaluations" / "e", model="c")
    record = certificate(tmp_path / "a" / "certificates" / "x", model="a", count=120)
    # Another norm, and other weights, prove nothing here.
    certificate(tmp_path / "b" / "certificates" / "x", model="b", norm="l2", method="lipschitz")
    certificate(tmp_path / "c" / "certificates" / "x", model="c", seed=1)
    (group,) = grouped(collect([tmp_path]))
    certificates = collect_certificates([tmp_path])
    markdown = page_as_markdown(make_page([group], "title", certificates))
    table = comparison(group.entries)
    at_eps = certified_accuracy(certificates[0].outcomes["radius"], 8 / 255)
    assert record.points[2].certified == at_eps
    assert table.head[-2:] == ("number to quote", "certified")
    assert [row[-1].text for row in table.rows] == [shown(at_eps), "–", "–"]
    assert table.rows[0][-1].note.endswith("; on other images, 120 of them")
    assert f"{plainly(at_eps)} |" in markdown
    # Certificates of several models stand in a table of their own, one for each norm.
    assert "| L-inf, digits, test | proved, " in markdown
    assert " | natural | attacked | method | images |" in markdown
    assert "| L2, digits, test | proved, " in markdown


def test_without_a_certificate_there_is_no_column(tmp_path):
    judged(tmp_path / "a" / "evaluations" / "e", model="a")
    judged(tmp_path / "b" / "evaluations" / "e", model="b")
    (group,) = grouped(collect([tmp_path]))
    assert "certified" not in comparison(group.entries).head
    assert "ertified" not in page_as_markdown(make_page([group], "title"))


def test_a_smoothed_certificate_says_that_it_is_of_another_classifier(tmp_path):
    sample(tmp_path / "evaluations" / "e", norm="l2", eps=8 / 255)
    record = certificate(tmp_path / "certificates" / "s", norm="l2", method="smoothing")
    (group,) = grouped(collect([tmp_path]))
    markdown = page_as_markdown(make_page([group], "title", collect_certificates([tmp_path])))
    assert f"| certified | {plainly(record.points[2].certified)} (smoothed) |" in markdown
    assert "What is certified is the smoothed classifier, not the model itself." in markdown
    assert "with noise of standard deviation 0.25, 100 samples to choose and 1,000 to estimate" in markdown


def test_a_broken_certificate_is_loud_and_proves_nothing(tmp_path):
    sample_run(tmp_path / "run")
    certificate(tmp_path / "run" / "certificates" / "x", broken=(3, 17))
    page, markdown, numbers = written(tmp_path / "run", output=tmp_path / "r.html")
    for text in (page, markdown):
        assert "UNSOUND: attacks broke 2 of 60 certificates (images 3, 17)." in text
    assert "| certified | **unsound** |" in markdown
    assert numbers["groups"][0]["evaluations"][0]["certified"] is None
    assert numbers["certificates"][0]["sound"] is False


def test_certificates_need_no_evaluation(tmp_path):
    record = certificate(tmp_path / "run" / "certificates" / "x", attacked=False)
    page, markdown, numbers = written(tmp_path / "run", output=tmp_path / "r.html")
    assert "The certificates were not attacked." in page
    assert "Robustness of run, L-inf-distance network" in page
    assert "attacked |" not in markdown
    assert numbers["groups"] == []
    table, _ = certificate_blocks(record)
    assert to_markdown(table).startswith("| radius | certified |")


def test_the_curve_is_the_share_of_larger_radii(tmp_path):
    certificate(tmp_path)
    (each,) = collect_certificates([tmp_path])
    grid, accuracy = certified_curve(each)
    for radius, share in list(zip(grid, accuracy, strict=True))[::37]:
        assert share == pytest.approx(each.accuracy(radius))
    assert accuracy[-1] == 0


def test_a_record_must_agree_with_its_outcomes(tmp_path):
    record = certificate(tmp_path)
    points = (record.points[0].model_copy(update={"certified": 0.99}), *record.points[1:])
    certificate(tmp_path, points=points)
    with pytest.raises(RepulseError) as error:
        collect_certificates([tmp_path])
    assert str(error.value) == (
        f"{tmp_path} contradicts itself: its record says 0.9900 are certified at radius 0, its outcomes 0.7500; "
        "certify again"
    )
    certificate(tmp_path, soundness=record.soundness.model_copy(update={"broken": (5,)}))
    with pytest.raises(RepulseError, match="its record and its outcomes name other broken certificates"):
        collect_certificates([tmp_path])

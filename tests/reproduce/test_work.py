"""Working through a grid: nothing twice, nothing lost, one failure does not cost the rest."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess

import pytest
from fake_cells import content, fake

from repulse.cli import main
from repulse.common.errors import RepulseError
from repulse.reproduce import cells, comparisons, work
from repulse.reproduce.grid import Grid, write_json
from repulse.reproduce.plan import make_plan
from repulse.reproduce.slurm import Job, SlurmSettings, submit
from repulse.reproduce.work import reproduce

# Forked processes see what a test has put in place of training.
FORK = multiprocessing.get_context("fork")
ALL = ("train", "measure", "report")


def silent(line):
    """Nobody listens."""


def run(grid, stages=("train", "measure"), jobs=1, tell=silent, keep_in=None):
    return reproduce(grid, stages, jobs=jobs, keep_in=keep_in, tell=tell)


def smoke(folder, *methods, **more):
    return Grid("fashion", "smoke", "digits", folder, methods=methods, **more)


@pytest.fixture
def tiny(monkeypatch):
    """The scale `smoke`, with as little training and as few attacks as there can be."""

    def shrink(**training):
        size = comparisons.SCALES["smoke"]
        fit = size.training["fit"] | {"epochs": 1} | training
        changes = size.training | {"fit": fit, "data": {"train_images": 200}}
        smaller = dataclasses.replace(size, training=changes, attacks="paper", images=6)
        monkeypatch.setitem(comparisons.SCALES, "smoke", smaller)

    shrink()
    return shrink


@pytest.fixture
def made_up(monkeypatch):
    """Put made-up work in place of training and measuring; each writes a line to a log."""

    def install(log, train=None):
        def note(what, cell):
            with log.open("a") as file:
                file.write(f"{what} {cell.label}\n")

        def trained(cell, tell):
            note("begin", cell)
            if train is not None:
                train(cell)
            fake(cell)
            (cell.evaluation / "asked.json").unlink()
            note("trained", cell)

        def measured(cell, tell):
            write_json(cell.evaluation / "asked.json", cell.asked)
            write_json(cell.folder / "transfer.json", {"of": cell.crafted_of, "robust": {}})
            note("measured", cell)

        monkeypatch.setattr(cells, "_train", trained)
        monkeypatch.setattr(cells, "_measure", measured)
        monkeypatch.setattr(work.multiprocessing, "get_context", lambda _: FORK)

    return install


def lines(log):
    return log.read_text().splitlines()


def done(*cells):
    return [f"{what} {cell.label}" for cell in cells for what in ("begin", "trained", "measured")]


def test_two_commands_at_once_do_each_cell_once(tmp_path, made_up):
    log = tmp_path / "log"
    made_up(log)
    grid = smoke(tmp_path, "softmax", "paper-linf", "simplex", "fgsm-rs", seeds=(0, 1, 2))
    commands = [FORK.Process(target=run, args=(grid,)) for _ in range(2)]
    for command in commands:
        command.start()
    for command in commands:
        command.join()
        assert command.exitcode == 0
    assert sorted(lines(log)) == sorted(done(*grid.cells))


def test_jobs_work_side_by_side_and_outlive_one_that_is_killed(tmp_path, made_up):
    log = tmp_path / "log"
    parent = os.getpid()

    def die_once(cell):
        first = cell.label == "simplex, seed 0" and lines(log).count(f"begin {cell.label}") == 1
        if first and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    made_up(log, die_once)
    grid = smoke(tmp_path, "softmax", "simplex", "noise", seeds=(0, 1))
    with pytest.raises(RepulseError) as error:
        run(grid, jobs=2)
    assert str(error.value) == (
        "1 of 6 cells failed: simplex, seed 0: its process died (exit code -9); is there enough memory?. The same "
        "command tries them again"
    )
    assert [cell.label for cell in grid.cells if not cell.trained()] == ["simplex, seed 0"]
    # The claim went with the process: the same command takes the cell up, and does nothing else again.
    run(grid, jobs=2)
    assert all(cell.measured() for cell in grid.cells)
    assert sorted(lines(log)) == sorted([*done(*grid.cells), "begin simplex, seed 0"])


def test_a_failing_cell_is_reported_at_the_end_and_does_not_stop_the_others(tmp_path, made_up, capsys):
    def fail(cell):
        if cell.method == "softmax":
            raise RepulseError("the loss is no longer a number")
        if cell.method == "noise":
            raise ValueError("a defect")

    made_up(tmp_path / "log", fail)
    argv = ["reproduce", "fashion", "--methods", "softmax,noise,simplex", "--output", str(tmp_path)]
    assert main(argv) == 2
    folder = tmp_path / "fashion" / "smoke"
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == (
        "repulse: error: 2 of 3 cells failed: softmax, seed 0: the loss is no longer a number; noise, seed 0: "
        "ValueError('a defect'). The same command tries them again"
    )
    # A defect is shown whole, a user's mistake in one line.
    assert said.count("Traceback") == 1
    assert "simplex" in (folder / "table.md").read_text()
    made_up(tmp_path / "log")
    assert main(argv) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {folder / 'report.html'}"


def test_processes_of_a_cell_get_the_commands_that_do_the_same(tmp_path, tiny, monkeypatch, capsys):
    """What torchrun is told to start, started here: it must train this very cell, and attack it as was asked."""
    launched = []

    def started(command, **how):
        launched.append(command[: command.index("repulse") + 1])
        code = main(command[command.index("repulse") + 1 :])
        return subprocess.CompletedProcess(command, code, "", capsys.readouterr().err)

    monkeypatch.setattr(cells.subprocess, "run", started)
    # One process for training, which main runs here, while torchrun would be told of two.
    monkeypatch.setattr(cells, "merge", lambda config, changes, what: config)
    grid = smoke(tmp_path, "softmax", images=4, processes=2)
    run(grid)
    found = grid.cells[0].record()
    assert (found.eps, found.data.count, len(found.curve)) == (0.1, 4, 8)
    assert launched[0][1:4] == ["-m", "torch.distributed.run", "--standalone"]
    assert launched[0][4:] == launched[1][4:] == ["--nproc-per-node=2", "-m", "repulse"]
    with pytest.raises(RepulseError) as error:
        cells._under_torchrun(["evaluate", str(tmp_path / "none")], grid.measurement, 2)
    assert str(error.value).startswith(f"{tmp_path / 'none'} is no run folder")


def test_the_command_itself_is_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RepulseError) as error:
        run(smoke(tmp_path, "softmax"))
    assert str(error.value) == "start this as one process; --processes N gives each cell N processes"


def test_a_claimed_cell_is_left_to_who_holds_it(tmp_path, made_up):
    log = tmp_path / "log"
    made_up(log)
    grid = smoke(tmp_path, "softmax", "simplex")
    softmax, simplex = grid.cells
    told = []
    with softmax.claimed() as mine:
        assert mine
        assert not simplex.held()
        child = FORK.Process(target=run, args=(grid,))
        child.start()
        child.join()
        assert lines(log) == done(simplex)
        run(grid, tell=told.append)
        assert told == ["others are still at 1 cells: softmax, seed 0"]
    run(grid)
    assert lines(log) == done(simplex, softmax)


def times(cell):
    return {
        name: (cell.folder / name).stat().st_mtime_ns
        for name in ("test.json", "metrics.csv", "cost.json", "embedding.json", "transfer.json")
    }


def test_a_changed_setting_redoes_only_what_depends_on_it(tmp_path, tiny):
    told = []
    first = smoke(tmp_path, "softmax")
    (cell,) = first.cells
    run(first, ALL, tell=told.append)
    assert [line.split(":")[1].split()[0] for line in told] == ["trained", "attacked"]
    assert cell.record().data.count == 6
    before, page = times(cell), (first.folder / "report.html").read_bytes()

    run(first, ALL, tell=told.append)
    assert len(told) == 2
    assert times(cell) == before
    assert (first.folder / "report.html").read_bytes() == page

    # Other images: attacked again, not trained.
    (more,) = smoke(tmp_path, "softmax", images=4).cells
    grid = smoke(tmp_path, "softmax", images=4)
    run(grid, tell=told.append)
    assert told[2:] == [told[2]]
    assert told[2].startswith("softmax, seed 0: attacked 4 images in ")
    after = times(more)
    assert {name for name in after if after[name] != before[name]} == {"transfer.json"}

    # Other training: the run is moved aside, and everything of it is done anew.
    tiny(batch_size=50)
    grid = smoke(tmp_path, "softmax", images=4)
    run(grid, tell=told.append)
    assert told[3] == (
        "softmax, seed 0: trained anew, since fit.batch_size changed; the old run lies in seed-0-before-1"
    )
    assert [line.split(":")[1].split()[0] for line in told[4:]] == ["trained", "attacked"]
    assert (cell.folder.parent / "seed-0-before-1" / "test.json").is_file()
    assert not set(times(more).values()) & set(after.values())


def test_data_that_moved_is_the_same_data(tmp_path):
    def grid(place, title=""):
        return Grid("fashion", "cpu", place, tmp_path, methods=("softmax",), seeds=(0,), title=title)

    (here,) = grid("HERE").cells
    fake(here, transfer={})
    assert here.measured()
    assert grid("THERE").cells[0].measured()
    assert grid("HERE", "Other").cells[0].changed() == ["data.name"]


def test_stages_do_what_they_say(tmp_path, made_up):
    log = tmp_path / "log"
    made_up(log)
    grid = smoke(tmp_path, "softmax", "simplex")
    run(grid, ("measure",))
    assert not log.exists()
    run(smoke(tmp_path, "softmax"), ("train",))
    run(grid, ("measure",))
    assert lines(log) == done(grid.cells[0])
    with pytest.raises(RepulseError) as error:
        run(smoke(tmp_path, "simplex"), ("report",))
    assert str(error.value) == (
        f"{grid.folder} holds no cell that was measured with these settings (20 images); make some by "
        "--stages train,measure"
    )


def test_the_plan_counts_what_is_left(tmp_path):
    grid = Grid("fashion", "cpu", "FOLDER", tmp_path, methods=("softmax", "fgsm-rs"), seeds=(0, 1))
    for cell in grid.cells[:2]:
        fake(cell, seconds=20.0, epochs=2)
    planned, source = make_plan(grid, ("train", "measure"))
    # The first seed has no crafted images yet, so something is left to measure, but no attack.
    assert [each.state for each in planned] == ["to measure", "to measure", "to train", "to train"]
    # 24,000 images, forward and backward: 2 epochs of softmax; 3 of fgsm-rs with twice the passes.
    assert [each.passes for each in planned] == [0, 0, 24_000 * 2 * 2, 24_000 * 3 * 4]
    # Cells took 20 s for 2 epochs of 500 images, forward and backward.
    assert planned[2].training == pytest.approx(24_000 * 4 * 20 / 2000)
    assert [each.attacks for each in planned] == [0, 0, 10, 10]
    assert source == "training: as fast as 2 finished cells; attacks: as on 2 finished cells"


def test_the_plan_of_an_empty_grid_comes_from_a_pilot(tmp_path, tiny, capsys):
    argv = ["reproduce", "fashion", "--methods", "softmax", "--output", str(tmp_path), "--dry-run"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "0 of 1 cells done" in text
    assert "to train" in text
    assert "training: as fast as on 512 images just now; attacks: as on 8 images just now" in " ".join(text.split())
    assert not (tmp_path / "fashion").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "name a comparison: repulse reproduce paper-cifar10 | paper-cifar100 | fashion"),
        (["fashion", "--seeds", "x"], "repulse reproduce: seeds.0: input should be a valid integer, unable to parse "
         "string as an integer, got 'x'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(argv, message, capsys):
    assert main(["reproduce", *argv]) == 2
    assert capsys.readouterr().err == f"repulse: error: {message}\n"


def test_missing_data_is_said_once(tmp_path, capsys):
    place = tmp_path / "none"
    argv = ["reproduce", "fashion", "--data", str(place), "--output", str(tmp_path / "runs"), "--methods", "softmax"]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(place) in said


# submitit's executor for trying things out leaves the files of its logs open.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_slurm_runs_cells_by_submitit(tmp_path, made_up):
    pytest.importorskip("submitit")
    log = tmp_path / "log"
    made_up(log)
    grid = smoke(tmp_path, "softmax", "simplex")
    jobs = submit(grid, ("train",), SlurmSettings(workers=2, executor="debug"))
    assert [job.result() for job in jobs] == [None, None]
    assert len(lines(log)) == 4
    assert submit(grid, ("train",), SlurmSettings(workers=2, executor="debug")) == []


def test_a_job_that_fails_says_so_and_one_that_is_stopped_is_queued_again(tmp_path, made_up):
    pytest.importorskip("submitit")

    def fail(cell):
        raise RepulseError("the loss is no longer a number")

    made_up(tmp_path / "log", fail)
    job = Job(smoke(tmp_path, "softmax").cells[0], ("train",))
    with pytest.raises(RepulseError, match="the loss is no longer a number"):
        job()
    assert job.checkpoint().function is job


def test_slurm_without_a_cluster_says_so(tmp_path):
    pytest.importorskip("submitit")
    grid = smoke(tmp_path, "softmax")
    with pytest.raises(RepulseError, match=r"^cannot reach Slurm: "):
        submit(grid, ("train",), SlurmSettings(workers=1))


@pytest.mark.slow
def test_smoke_from_end_to_end(tmp_path, capsys):
    """Two methods as a user runs them: everything is there, and running again does nothing."""
    argv = ["reproduce", "fashion", "--methods", "softmax,fgsm-rs", "--images", "5", "--output", str(tmp_path)]
    assert main(argv) == 0
    said = capsys.readouterr()
    assert len([line for line in said.err.splitlines() if "trained in" in line]) == 2
    folder = tmp_path / "fashion" / "smoke"
    cells = {row["method"]: row["cells"][0] for row in content(folder / "figures.json")["methods"]}
    assert cells["fgsm-rs"]["passes"] == 2 * cells["softmax"]["passes"]
    assert cells["softmax"]["natural"] > 0.7
    transfer = content(folder / "figures.json")["transfer"]
    assert {source: set(targets) for source, targets in transfer.items()} == {source: set(cells) for source in cells}
    assert main(argv) == 0
    assert capsys.readouterr().err == ""

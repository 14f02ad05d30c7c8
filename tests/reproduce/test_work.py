"""Working through a grid: nothing twice, nothing lost, one failure does not cost the rest."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import time

import pytest
from fake_cells import content, fake

from repulse.cli import main
from repulse.common.errors import RepulseError
from repulse.reproduce import comparisons, run, together, work
from repulse.reproduce.command import reproduce
from repulse.reproduce.grid import make_grid, write_json
from repulse.reproduce.plan import make_plan
from repulse.reproduce.slurm import SlurmSettings, submit
from repulse.reproduce.work import claimed, failure, held
from repulse.reproduce.work import work as work_through

# Forked workers see what a test has put in place of training.
FORK = multiprocessing.get_context("fork")
ALL = ("train", "measure", "report")


def silent(line):
    """Nobody listens."""


@pytest.fixture
def tiny(monkeypatch):
    """The scale `smoke`, with as little training and as few attacks as there can be."""

    def shrink(**training):
        size = comparisons._SIZES["smoke"]
        fit = size.training["fit"] | {"epochs": 1} | training
        data = {"train_images": 200}
        changes = size.training | {"fit": fit, "data": data}
        monkeypatch.setitem(
            comparisons._SIZES, "smoke", dataclasses.replace(size, training=changes, attacks="paper", images=6)
        )

    shrink()
    return shrink


@pytest.fixture
def made_up(monkeypatch):
    """Put made-up work in place of training and measuring; each writes a line to a log."""

    def install(log, train=None):
        def note(what, cell):
            with log.open("a") as file:
                file.write(f"{what} {cell.label}\n")

        def trained(cell, tell, processes):
            note("begin", cell)
            if train is not None:
                train(cell)
            time.sleep(0.002)
            fake(cell)
            (cell.evaluation / "asked.json").unlink()
            note("trained", cell)

        def measured(cell, grid, tell, progress):
            write_json(cell.evaluation / "asked.json", cell.asked)
            write_json(cell.folder / "transfer.json", {"of": work._crafted_of(cell), "robust": {}})
            note("measured", cell)

        monkeypatch.setattr(work, "_train", trained)
        monkeypatch.setattr(work, "_measure", measured)

    return install


def lines(log):
    return log.read_text().splitlines()


def start(grid, session="one"):
    process = FORK.Process(target=work_through, args=(grid, ALL, session, silent))
    process.start()
    return process


def wait_for(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited for 30 seconds")


def test_workers_side_by_side_do_each_cell_once(tmp_path, made_up):
    log = tmp_path / "log"
    made_up(log)
    methods = ["softmax", "paper-linf", "simplex", "fgsm-rs"]
    grid = make_grid("fashion", "smoke", "digits", tmp_path, methods=methods, seeds=(0, 1, 2))
    workers = [start(grid) for _ in range(4)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    expected = [f"{what} {cell.label}" for cell in grid.cells for what in ("begin", "trained", "measured")]
    assert sorted(lines(log)) == sorted(expected)
    assert not list((grid.folder / ".failed").glob("*"))


def test_a_killed_workers_cell_is_taken_up_and_nothing_is_done_twice(tmp_path, made_up):
    log = tmp_path / "log"
    victim = os.getpid()

    def hang_in_the_child(cell):
        while cell.method == "paper-linf" and os.getpid() != victim:
            time.sleep(0.01)

    made_up(log, hang_in_the_child)
    methods = ["softmax", "paper-linf", "simplex"]
    grid = make_grid("fashion", "smoke", "digits", tmp_path, methods=methods)
    worker = start(grid)
    wait_for(lambda: log.exists() and "begin paper-linf, seed 0" in lines(log))
    assert held(grid.cells[1])
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert not held(grid.cells[1])
    work_through(grid, ALL, "two", silent)
    found = lines(log)
    assert found.count("begin softmax, seed 0") == 1
    assert found.count("trained paper-linf, seed 0") == 1
    assert all(cell.measured() for cell in grid.cells)


def test_a_cell_that_kills_its_workers_is_given_up_after_two(tmp_path, made_up):
    log = tmp_path / "log"
    parent = os.getpid()

    def die(cell):
        if cell.method == "softmax" and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    made_up(log, die)
    grid = make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax", "simplex"])
    for expected in (-signal.SIGKILL, -signal.SIGKILL, 0):
        worker = start(grid)
        worker.join()
        assert worker.exitcode == expected
    assert failure(grid.cells[0], "one") == "its worker died; is there enough memory?"
    assert grid.cells[1].measured()
    # Another session tries again.
    assert failure(grid.cells[0], "two") is None
    work_through(grid, ALL, "two", silent)
    assert grid.cells[0].measured()


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
    assert capsys.readouterr().err.splitlines()[-1] == (
        "repulse: error: 2 of 3 cells failed: softmax, seed 0: the loss is no longer a number; noise, seed 0: "
        "ValueError('a defect'). The same command tries them again; what was going on stands in "
        f"{folder / '.failed'}"
    )
    assert "Traceback" in content(folder / ".failed" / "noise-seed-0.json")["traceback"]
    assert "simplex" in (folder / "table.md").read_text()
    made_up(tmp_path / "log")
    assert main(argv) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {folder / 'report.html'}"


def test_jobs_work_side_by_side_and_outlive_one_of_them(tmp_path, made_up, monkeypatch):
    log = tmp_path / "log"
    parent = os.getpid()

    def die_once(cell):
        first = cell.label == "simplex, seed 0" and lines(log).count(f"begin {cell.label}") == 1
        if first and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    made_up(log, die_once)
    monkeypatch.setattr(run.multiprocessing, "get_context", lambda _: FORK)
    told = []
    grid = make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax", "simplex", "noise"], seeds=(0, 1))
    assert run.run_grid(grid, ("train",), jobs=2, tell=told.append) == {}
    assert all(cell.trained() for cell in grid.cells)
    found = lines(log)
    assert found.count("begin simplex, seed 0") == 2
    assert [found.count(f"trained {cell.label}") for cell in grid.cells] == [1] * 6
    assert told == ["1 of 2 workers died (exit codes -9)"]


def test_processes_of_a_cell_get_the_commands_that_do_the_same(tmp_path, tiny, monkeypatch, capsys):
    """What torchrun is told to start, started here: it must train this very cell, and attack it as was asked."""
    launched = []

    def started(command, **how):
        launched.append(command[: command.index("repulse") + 1])
        code = main(command[command.index("repulse") + 1 :])
        return subprocess.CompletedProcess(command, code, "", capsys.readouterr().err)

    monkeypatch.setattr(together.subprocess, "run", started)
    grid = make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax"], images=4)
    (cell,) = grid.cells
    together.train_together(cell.config, cell.folder, 1)
    assert cell.trained()
    together.evaluate_together(cell.folder, cell.measurement, cell.images, "digits", 1)
    write_json(cell.evaluation / "asked.json", cell.asked)
    found = cell.record()
    assert (found.eps, found.data.count, len(found.curve)) == (0.1, 4, 8)
    assert launched[0][1:4] == ["-m", "torch.distributed.run", "--standalone"]
    assert launched[0][4:] == ["--nproc-per-node=1", "-m", "repulse"]
    with pytest.raises(RepulseError) as error:
        together.evaluate_together(tmp_path / "none", cell.measurement, 4, "digits", 1)
    assert str(error.value).startswith(f"{tmp_path / 'none'} is no run folder")


def test_the_command_itself_is_one_process(tmp_path, made_up, monkeypatch):
    made_up(tmp_path / "log")
    monkeypatch.setenv("WORLD_SIZE", "2")
    grid = make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax"])
    with pytest.raises(RepulseError) as error:
        run.run_grid(grid, ("train",), tell=silent)
    assert str(error.value) == (
        "start this as one process; --processes N lets N processes train and attack each cell together"
    )


def test_a_claimed_cell_is_left_to_who_holds_it(tmp_path, made_up):
    log = tmp_path / "log"
    made_up(log)
    grid = make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax", "simplex"])
    told = []
    with claimed(grid.cells[0]) as mine:
        assert mine
        assert not held(grid.cells[1])
        child = FORK.Process(target=work_through, args=(grid, ALL, "one", silent))
        child.start()
        child.join()
        assert lines(log) == [f"{what} simplex, seed 0" for what in ("begin", "trained", "measured")]
    reproduce(grid, ("train", "measure"), jobs=1, keep_in=None, tell=told.append)
    assert len(lines(log)) == 6


def times(cell):
    return {
        name: (cell.folder / name).stat().st_mtime_ns
        for name in ("test.json", "metrics.csv", "cost.json", "embedding.json", "transfer.json")
    }


def test_a_changed_setting_redoes_only_what_depends_on_it(tmp_path, tiny):
    told = []
    first = make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax"])
    (cell,) = first.cells
    reproduce(first, ALL, jobs=1, keep_in=None, tell=told.append)
    assert [line.split(":")[1].split()[0] for line in told] == ["trained", "attacked"]
    assert cell.record().data.count == 6
    before, page = times(cell), (first.folder / "report.html").read_bytes()

    reproduce(first, ALL, jobs=1, keep_in=None, tell=told.append)
    assert len(told) == 2
    assert times(cell) == before
    assert (first.folder / "report.html").read_bytes() == page

    # Other images: attacked again, not trained.
    (more,) = make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax"], images=4).cells
    grid = make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax"], images=4)
    reproduce(grid, ("train", "measure"), jobs=1, keep_in=None, tell=told.append)
    assert told[2:] == [told[2]]
    assert told[2].startswith("softmax, seed 0: attacked 4 images in ")
    after = times(more)
    assert {name for name in after if after[name] != before[name]} == {"transfer.json"}

    # Other training: the run is moved aside, and everything of it is done anew.
    tiny(batch_size=50)
    grid = make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax"], images=4)
    reproduce(grid, ("train", "measure"), jobs=1, keep_in=None, tell=told.append)
    assert told[3] == (
        "softmax, seed 0: trained anew, since fit.batch_size changed; the old run lies in seed-0-before-1"
    )
    assert [line.split(":")[1].split()[0] for line in told[4:]] == ["trained", "attacked"]
    assert (cell.folder.parent / "seed-0-before-1" / "test.json").is_file()
    assert not set(times(more).values()) & set(after.values())


def test_data_that_moved_is_the_same_data(tmp_path, made_up, monkeypatch):
    made_up(tmp_path / "log")
    here = make_grid("fashion", "cpu", "HERE", tmp_path, methods=["softmax"], seeds=(0,))
    work_through(here, ALL, "one", silent)
    there = make_grid("fashion", "cpu", "THERE", tmp_path, methods=["softmax"], seeds=(0,))
    assert there.cells[0].measured()
    renamed = make_grid("fashion", "cpu", "HERE", tmp_path, methods=["softmax"], seeds=(0,), title="Other")
    assert renamed.cells[0].changed() == ["data.name"]


def test_stages_do_what_they_say(tmp_path, made_up, capsys):
    log = tmp_path / "log"
    made_up(log)
    grid = make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax", "simplex"])
    work_through(grid, ("measure",), "one", silent)
    assert not log.exists()
    work_through(make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax"]), ("train",), "one", silent)
    work_through(grid, ("measure",), "one", silent)
    assert lines(log) == [f"{what} softmax, seed 0" for what in ("begin", "trained", "measured")]
    with pytest.raises(RepulseError) as error:
        reproduce(
            make_grid("fashion", "smoke", "digits", tmp_path, methods=["simplex"]),
            ("report",),
            jobs=1,
            keep_in=None,
            tell=silent,
        )
    assert str(error.value) == (
        f"{grid.folder} holds no cell that was measured with these settings (20 images); make some by "
        "--stages train,measure"
    )


def test_the_plan_counts_what_is_left(tmp_path):
    grid = make_grid("fashion", "cpu", "FOLDER", tmp_path, methods=["softmax", "fgsm-rs"], seeds=(0, 1))
    for cell in grid.first_seed:
        fake(cell, seconds=20.0, epochs=2)
    planned, source = make_plan(grid, ("train", "measure"))
    # The first seed has no crafted images yet, so something is left to measure, but no attack.
    assert [each.state for each in planned] == ["to measure", "to measure", "to train", "to train"]
    # 24,000 images, forward and backward: 2 epochs of softmax; 3 of fgsm-rs with twice the passes.
    assert [each.passes for each in planned] == [0, 0, 24_000 * 2 * 2, 24_000 * 3 * 4]
    # Cells took 20 s for 2 epochs of 500 images, forward and backward.
    assert planned[2].training == pytest.approx(24_000 * 4 * 20 / 2000)
    assert [each.measuring for each in planned] == [0, 0, 10, 10]
    assert source == "training: as fast as 2 finished cells; attacks: as on 2 finished cells"


def test_the_plan_of_an_empty_grid_comes_from_a_pilot(tmp_path, tiny, capsys):
    argv = ["reproduce", "fashion", "--methods", "softmax", "--output", str(tmp_path), "--dry-run"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "0 of 1 cells done" in text
    assert "to train" in text
    assert "training: as fast as softmax on 512 images just now; attacks: unknown until a cell is finished" in " ".join(
        text.split()
    )
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
def test_slurm_runs_workers_by_submitit(tmp_path, made_up):
    pytest.importorskip("submitit")
    log = tmp_path / "log"
    made_up(log)
    grid = make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax", "simplex"])
    jobs = submit(grid, ("train",), SlurmSettings(workers=2, executor="debug"))
    assert [job.result() for job in jobs] == [None, None]
    assert len(lines(log)) == 4


def test_slurm_without_a_cluster_says_so(tmp_path):
    pytest.importorskip("submitit")
    grid = make_grid("fashion", "smoke", "digits", tmp_path, methods=["softmax"])
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

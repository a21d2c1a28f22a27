"""The cost of faults, counted on made-up ledgers."""

from collections.abc import Callable

import pytest

from tests.scenarios.chaos.faults import Fault
from tests.scenarios.chaos.repeats import allowed, most, repeats
from tests.scenarios.chaos.runs import Run, Task
from tests.scenarios.chaos.verdict import judge

THREADS, PREFORK, CHILD, OTHER = 100, 200, 201, 300


def done(pid: int, at: float, *, owner: int | None = None) -> Run:
    """Make a run that took a tenth of a second."""
    return Run(0, pid, owner or pid, at - 0.1, at, "ok")


def again(first: Run, at: float, number: int = 0) -> Task:
    """Make a task that ended in one process, and again in another."""
    return Task(f"t{number}", outcome="taken", runs=[first, done(OTHER, at)])


def kill(pid: int, at: float, kind: str = "kill worker") -> Fault:
    """Make a kill."""
    return Fault(kind, at, at + 0.01, [pid])


def freeze(pid: int, begins: float, ends: float) -> Fault:
    """Make a freeze."""
    return Fault("freeze worker", begins, ends, [pid])


def test_each_fault_of_a_process_is_counted_by_itself() -> None:
    """Runs that a process lost by a freeze are not added to those it lost by a later kill."""
    faults = [freeze(THREADS, 10, 15), kill(THREADS, 30)]
    tasks = [again(done(THREADS, 9.9), 14, n) for n in range(7)]
    tasks += [again(done(THREADS, 29.9), 34, n) for n in range(7, 16)]
    found = repeats(tasks, faults)
    assert [(each.kind, each.runs) for each in found] == [("kill worker", 9), ("freeze worker", 7)]
    assert most(found, "chaosthreads", killed=True) == 9
    assert most(found, "chaosthreads", killed=False) == 7
    assert most(found, "chaosprefork", killed=True) == 0


def test_a_kill_of_many_is_counted_for_each_process() -> None:
    """When the supervisor dies, the runs that one worker lost are not added to those of another."""
    fault = Fault("kill supervisor", 10, 10.1, [1, THREADS, PREFORK, CHILD])
    tasks = [again(done(THREADS, 9.9), 14, n) for n in range(3)]
    tasks += [again(done(CHILD, 9.9, owner=PREFORK), 14, n) for n in range(3, 5)]
    found = {(each.owner, each.pool, each.runs) for each in repeats(tasks, [fault])}
    assert found == {(THREADS, "chaosthreads", 3), (PREFORK, "chaosprefork", 2)}


@pytest.mark.parametrize(
    ("task", "faults", "kinds"),
    [
        (again(Run(0, THREADS, THREADS, 9.9), 14), [kill(THREADS, 10)], []),
        (again(done(THREADS, 9.9), 9.95), [kill(THREADS, 10)], []),
        (again(done(THREADS, 9.9), 14), [kill(OTHER, 10)], []),
        (again(done(THREADS, 9.9), 14), [Fault("cut connections", 9.9, 10)], []),
        (again(done(THREADS, 15.1), 14), [freeze(THREADS, 10, 15)], ["freeze worker"]),
        (again(done(THREADS, 16.5), 18), [freeze(THREADS, 10, 15)], ["freeze worker"]),
        (again(done(THREADS, 16.5), 18), [freeze(THREADS, 10, 15), kill(THREADS, 17)], ["kill worker"]),
        (again(done(THREADS, 9.9), 18), [freeze(THREADS, 10, 15), kill(THREADS, 17)], ["freeze worker"]),
        (again(done(THREADS, 9.9), 18), [freeze(THREADS, 10, 17.1), kill(THREADS, 12)], ["kill worker"]),
        (again(done(CHILD, 9.9, owner=PREFORK), 14), [kill(CHILD, 10, "kill child")], ["kill child"]),
    ],
    ids=[
        "it had not finished",
        "it ran again before",
        "another was hit",
        "nobody was killed or frozen",
        "it went on after a freeze",
        "it had been fetched before a freeze",
        "frozen, gone on, killed",
        "frozen before, killed when its message was not its own any more",
        "killed while frozen",
        "a child",
    ],
)
def test_a_run_is_counted_under_the_fault_that_kept_it(
    task: Task, faults: list[Fault], kinds: list[str]
) -> None:
    """A finished run done again counts once, under the fault of its own process; in doubt, the kill."""
    assert [each.kind for each in repeats([task], faults)] == kinds


@pytest.fixture
def costing() -> Callable[[int], list[str]]:
    """Judge a run in which the kill of a prefork worker cost so many finished tasks."""

    def judged(runs: int) -> list[str]:
        tasks = [again(done(CHILD, 9.9, owner=PREFORK), 10.5, n) for n in range(runs)]
        return judge({task.id: task for task in tasks}, [kill(PREFORK, 10)], set()).wrong

    return judged


def test_a_kill_is_held_to_the_limit_of_its_own_pool(costing: Callable[[int], list[str]]) -> None:
    """A prefork worker has two slots: a kill that costs it 18 finished tasks is allowed, 19 is wrong."""
    assert (allowed("chaosprefork"), allowed("chaosthreads")) == (18, 20)
    assert costing(18) == []
    [line] = costing(19)
    assert "too dear" in line
    assert "runs=19" in line


def test_a_waiting_task_is_not_lost() -> None:
    """A task whose message the broker still has is waiting; one without is lost."""
    tasks = {id: Task(id, outcome="taken") for id in ("here", "nowhere")}
    verdict = judge(tasks, [], set(), {"here"})
    assert (verdict.counts["waiting"], verdict.counts["lost"]) == (1, 1)
    assert ["nowhere" in line for line in verdict.wrong] == [True]

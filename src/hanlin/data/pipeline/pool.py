"""Where tasks run: in this process, in others on this machine, or on a Ray cluster; what they make is the same.

A task is a function at the top of a module and takes one argument; it writes its result to a folder that all can
reach and returns nothing, so that nothing large travels and a task that was done need not be done again.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from hanlin.errors import ConfigError, MissingExtra, RunError, problem
from hanlin.machine import cores

T = TypeVar("T")
Run = Callable[[Callable[[T], None], Sequence[T], int], Iterator[int]]

ENGINES = ("local", "ray")


def run(engine: str, task: Callable[[T], None], items: Sequence[T], workers: int) -> Iterator[int]:
    """Do `task` for every item, on `workers` cores, 0 for all; yield how many are done, as they are.

    The first error ends the rest and is raised here. ConfigError for an engine there is none of.
    """
    workers = workers or cores()
    if engine not in ENGINES:
        raise ConfigError(problem("engine", f"'{engine}'", f"one of: {', '.join(ENGINES)}"))
    if engine == "ray":
        yield from _ray(task, items, workers)
    elif workers == 1 or len(items) < 2:
        for done, item in enumerate(items, start=1):
            task(item)
            yield done
    else:
        yield from _local(task, items, min(workers, len(items)))


def _local(task: Callable[[T], None], items: Sequence[T], workers: int) -> Iterator[int]:
    """Do the tasks in processes of this machine, started afresh: a fork of a process with threads may hang."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_alone) as pool:
        futures = [pool.submit(task, item) for item in items]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                yield done
        except BrokenProcessPool:
            do = "the system may have run out of memory: use fewer --workers; the same command goes on"
            raise RunError(problem("prepare", "a process was killed", do=do)) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _alone() -> None:
    """Keep libraries in a process to one thread: there is a process a core already."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _ray(task: Callable[[T], None], items: Sequence[T], workers: int) -> Iterator[int]:
    """Do the tasks as a Ray data set, a row an item."""
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "cluster") from None
    if not ray.is_initialized():
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)

    def one(row: dict[str, Any]) -> dict[str, Any]:
        _alone()
        task(items[row["id"]])
        return {"id": row["id"]}

    rows = ray.data.range(len(items), override_num_blocks=len(items)).map(one)
    for done, _ in enumerate(rows.iter_rows(), start=1):
        yield done

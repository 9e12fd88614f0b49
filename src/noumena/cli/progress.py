"""What the verbs that take long share: processors, a progress bar, and words for an interrupt."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """On a terminal, a bar on stderr; elsewhere the log has the lines."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, count: bar.update(task, completed=done, total=count)


@contextmanager
def keeping_finished_jobs(out: Path) -> Iterator[None]:
    """Ctrl-C inside the block ends the command with the words that nothing done is lost."""
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo(f"interrupted; what is finished is kept in {out}. The same command continues.", err=True)
        raise typer.Exit(130) from error

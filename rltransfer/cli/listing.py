"""The `list` command."""

from __future__ import annotations

from collections import Counter

from rltransfer.cli.parsing import check_no_more
from rltransfer.errors import unknown
from rltransfer.learning import methods
from rltransfer.machine.terminal import ignore_closed_pipe
from rltransfer.tasks import families
from rltransfer.tasks.task import Suite
from rltransfer.teachers.zoo import zoo_cards


def list_command(words: list[str]) -> None:
    """Prints what there is."""
    from rltransfer.cli.experiment import experiment_names

    sections: dict[str, list[str]] = {
        "agents": methods.method_names(),
        "suites": [f"{s.name}: {_listed(s)}" for s in families.suites().values()],
        "teachers": [
            f"zoo:{card.task.id}, return {card.data['return_mean']:.1f}" for card in zoo_cards()
        ],
        "experiments": experiment_names(),
        "tasks": families.task_ids(),
    }
    if words and words[0] not in sections:
        raise unknown("list", words[0], sections)
    check_no_more(words[1:], "list NAME")
    with ignore_closed_pipe():
        if words:
            print("\n".join(sections[words[0]]))
            return
        sections["tasks"] = [f"{len(sections['tasks'])}: `rltransfer list tasks` names them"]
        for name, rows in sections.items():
            print(name + "".join(f"\n  {row}" for row in rows))


def _listed(suite: Suite) -> str:
    """Returns a suite's ids, each once: tasks may differ in keyword arguments alone."""
    counts = Counter(task.id for task in suite)
    return ", ".join(f"{count} x {id_}" if count > 1 else id_ for id_, count in counts.items())

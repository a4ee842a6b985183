"""``rhosight doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from .common import console

_MARKS = {"ok": "[green]✓[/]", "absent": "[yellow]–[/]", "error": "[red]✗[/]"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print it for programs.")] = False,
) -> None:
    """What works on this machine, what does not, and the cure; exit code 1 if something is broken.

    Looks at libraries, weights, GPU, optional parts and programs. What is optional and absent is no
    error.
    """
    from .doctor import findings

    found = findings()
    broken = [finding for finding in found if finding.status == "error"]
    if as_json:
        content = {"ok": not broken, "findings": [asdict(finding) for finding in found]}
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        table = Table(show_header=False, box=None, pad_edge=False)
        for _ in range(4):
            table.add_column(overflow="fold")  # a command or address is there to be copied
        topic = ""
        for finding in found:
            new = finding.topic != topic
            if new and topic:
                table.add_row()
            topic = finding.topic
            text = f"{finding.found}\n  → {finding.cure}" if finding.cure else finding.found
            # Text: brackets are the extras of a package, not markup
            table.add_row(topic if new else "", _MARKS[finding.status], finding.subject, Text(text))
        console.print(table)
        console.print(
            f"\n{len(broken)} of these must be repaired." if broken else "\nrhosight works here."
        )
    if broken:
        raise typer.Exit(1)

"""A run as a file: scenario, rules, decisions, what was found. It is what one sends to somebody else."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from e2kdisk.errors import UsageError
from e2kdisk.lab.decisions import Decision
from e2kdisk.lab.rules import Rules

KIND = "e2kdisk-run"
VERSION = 1


@dataclass(slots=True)
class Record:
    """One run that can be made again."""

    scenario: str
    rules: Rules
    decisions: list[Decision]
    hash: str
    """Of its events; the same decisions must give it again."""
    violations: list[str] = field(default_factory=list)
    seed: int | None = None
    """What it was found with."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON."""
        content = {
            "kind": KIND,
            "version": VERSION,
            "scenario": self.scenario,
            "seed": self.seed,
            "rules": asdict(self.rules),
            "violations": self.violations,
            "hash": self.hash,
            "decisions": [list(decision) for decision in self.decisions],
        }
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Record:
        """Read what save() wrote. Raises UsageError, OSError."""
        with open(path, encoding="utf-8") as file:
            try:
                content = json.load(file)
                if content["kind"] != KIND or content["version"] != VERSION:
                    raise ValueError(f"kind {content['kind']!r} version {content['version']}")
                rules: dict[str, Any] = {
                    name: tuple(v) if isinstance(v, list) else v for name, v in content["rules"].items()
                }
                decisions = [
                    Decision(str(name), int(options), int(choice)) for name, options, choice in content["decisions"]
                ]
                return cls(
                    str(content["scenario"]),
                    Rules(**rules),
                    decisions,
                    str(content["hash"]),
                    [str(what) for what in content["violations"]],
                    content["seed"],
                )
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{os.fspath(path)}: is not a recorded run ({error})") from error

"""docs/models.md, generated from the zoo's table: `--write FILE`, or `--check FILE` for drift."""

import sys
from collections.abc import Iterator, Sequence
from typing import Final

from dynalign_operator.generate.generator import run_generator
from zoo.families import Family, Passes, Refused
from zoo.loop_records import read_record, recorded
from zoo.papers import TWINS
from zoo.table import DENSE, FAMILIES, HYBRIDS, MIXTURES, QUANTISED

_HEAD: Final = """\
<!-- Generated from tests/zoo by `make generate`; change the table there instead. -->
# Models

What the [preflight](preflight.md) decides about families of models with the default settings (`training.backend: Auto`,
`training.lora.targetModules: [Auto]`, `model.chat.thinking: "Off"`). `make test-zoo` has it decide about a random model of
two layers of each family, with that family's configuration, names of tensors and chat template, and compares. Then it aligns
these models on a CPU: two iterations from fetch to export, in Float32, an adapter of rank 4. Random models learn nothing that
could be judged: a loop that ran shows that sampler, trainer and export compute the same function of the same weights.

A checkpoint can differ from its family: names of tensors from before transformers had the architecture, another template.
`dynalign validate FILE` tells for a model on this machine.

- **thinking**: what `model.chat.thinking` may be. *none*: the template says nothing of thoughts, and answers begin at once.
  *Off or On*: the template leads to an answer or to a thought, as the run says. *On only*: the template asks for a thought every
  time; write `thinking: "On"` or `Auto`, for `Off` is refused.
- **adapters on**: what `[Auto]` stands for, without `_proj`.
- **backend**: what `Auto` stands for, and of TRL, what Packed does not compute ([two backends](method.md#two-backends)).
- **full training**: whether `training.method: Full` passes. *no* names a parameter that the files call otherwise than
  transformers does in memory.
- **whole loop**: the settings of `model.chat.thinking` with which the loop ran. The trained policy differs from the base
  model, the log-probabilities of sampler and trainer differ by less than 1e-4 on average, and the exported model, in
  transformers, finds every token of the last policy's greedy answers the likeliest (nine of ten where a converted model is
  exported in BFloat16). Otherwise, why it does not run on a CPU.
- **template**: the one of the test data. Where it is that of the nearest family, it stands in parentheses, and so does what
  follows from it.
"""

_CONVERTED: Final = """\
With `model.quantized: Refuse`, the default, fetch refuses all of these. With `Dequantize` it converts them to BFloat16
([what is converted](preflight.md#quantised-checkpoints)), and decides about the copy as about the family:
"""

_PAPERS: Final = """\
## Papers

The files of [examples/papers](../examples/papers) go through the whole loop on a CPU too, with a random model of the published one's
family: agents, objective, judging, KL, thinking and training method as in the file. `--set` changes the model, sizes (two iterations
of eight prompts, answers of 40 tokens, one process), leaves out the tasks, whose questions come from a hub, and takes away
`judging.minMass`, for a random model hardly ever writes a digit.
"""


def render_page() -> str:
    """The page: a table for each kind of model, and one of those that are refused."""
    parts = [_HEAD]
    for title, families in (
        ("Dense models", DENSE),
        ("Mixtures of experts", MIXTURES),
        ("Layers without attention", HYBRIDS),
        ("Quantised checkpoints", QUANTISED),
    ):
        parts += [f"## {title}\n", *([_CONVERTED] if families is QUANTISED else []), *_passing(families), ""]
    return "\n".join([*parts, "## Refused\n", *_refused(FAMILIES), "", _PAPERS, *_papers(), ""])


def _passing(families: Sequence[Family]) -> Iterator[str]:
    yield "| family | architecture | thinking | adapters on | backend | full training | whole loop | template |"
    yield "|---|---|---|---|---|---|---|---|"
    for family in families:
        decision = family.decision
        if isinstance(decision, Passes):
            thoughts = _guessed(family, str(decision.thoughts))
            yield _row(_names(family), thoughts, *_columns(decision), _loop(family), _guessed(family, family.template))


def _columns(decision: Passes) -> tuple[str, str, str]:
    modules = ", ".join(module.removesuffix("_proj") for module in decision.targets)
    backend = f"TRL: {decision.obstacle}" if decision.obstacle else "Packed"
    full = f"no: `{decision.renamed}`" if decision.renamed else "yes"
    return modules, backend, full


def _loop(family: Family) -> str:
    """What is on record of the family's loops."""
    unsampled = family.decision.unsampled if isinstance(family.decision, Passes) else ""
    ran = ", ".join(str(record.thinking) for record in recorded(family.name))
    if ran or not unsampled:
        return ran or family.differs or "not run"
    return f"refused with vLLM for CPUs: {unsampled}"


def _refused(families: Sequence[Family]) -> Iterator[str]:
    yield "| family | architecture | what fetch says |\n|---|---|---|"
    for family in families:
        if isinstance(family.decision, Refused):
            yield _row(_names(family), family.decision.sentence)


def _papers() -> Iterator[str]:
    yield "| file | random model | thinking | backend | sampler and trainer differ by | ran with |\n|---|---|---|---|---|---|"
    for twin in TWINS:
        if twin.record.is_file():
            record = read_record(twin.record)
            numbers = record.measured
            ran = f"vLLM {numbers.vllm}, transformers {numbers.transformers}"
            difference = f"{numbers.logprob_difference:.0e} nats".replace("e-0", "e-")
            yield _row(
                f"`{twin.paper}.yaml`", record.family, str(record.thinking), str(record.backend), difference, ran
            )


def _names(family: Family) -> str:
    return f"{family.name} | {family.model.family}"


def _guessed(family: Family, cell: str) -> str:
    return f"({cell})" if family.is_nearest else cell


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or compare it and print a diff; returns the exit code."""
    return run_generator("Page of models", render_page(), argv)


if __name__ == "__main__":
    sys.exit(main())

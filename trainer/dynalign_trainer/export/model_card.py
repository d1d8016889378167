"""The model card of an export: where the model comes from, what it was aligned to, and how it scored."""

import json
from typing import Final

from dynalign_contract.config import BASE_POLICY, ExportParams, IterationSummary
from dynalign_contract.estimate import Estimate
from dynalign_contract.sources import HubSource, parse_source
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.origin import Origin

_MISSING: Final = "-"


def build_model_card(run: str, params: ExportParams, chat: ChatTemplate, origin: Origin | None = None) -> str:
    """Markdown with the YAML front matter of hub model cards.

    `chat` is the base model's template as the run used it, `origin` where the base model came from, if that is known.
    """
    objective = params.objective
    aspects = "\n".join(f"- **{aspect.title}**: {aspect.definition.strip()}" for aspect in objective.aspects)
    return f"""---
library_name: transformers
pipeline_tag: text-generation
{_base_model(params.model_uri)}tags: [dynalign, grpo, {objective.name}]
---

# {run}

{_introduction(params)}

- Base model: `{params.model_uri}`
{_converted(origin)}- Policy: `{params.policy.version}`
- Objective: {objective.name}, version {objective.version}
{_training(params)}{_chat(chat)}
## Objective

{objective.preamble.strip()}

{aspects}

## Iterations

{_table(params.iterations)}

Rewards lie between 0 and 1 and were given by the model itself. The win rate is against the base model on held-out
prompts, ties counted as one half. Capability is the mean score over general tasks; the change is against the base model
on the same items. Confidence intervals are in brackets.

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
messages = {_messages(chat)}
inputs = tokenizer.apply_chat_template({_call(chat)}, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=200)[0]))
```

## Limits

A model that rewards itself can learn to please its own judge. Read the canaries, and the win rate of a judge that took
no part in the training, before you trust the rewards. The licence and the limits of the base model apply.
"""


def _base_model(uri: str) -> str:
    """A line of the front matter where the base model is one of the hub."""
    source = parse_source(uri)
    return f"base_model: {source.repository}\n" if isinstance(source, HubSource) else ""


def _converted(origin: Origin | None) -> str:
    """A line of the list where the base weights are not as they were published."""
    if origin is None or origin.quantized is None:
        return ""
    commit = f", commit `{origin.commit}`" if origin.commit is not None else ""
    return f"- Base weights: converted from {origin.quantized} to BFloat16 before the run{commit}\n"


def _training(params: ExportParams) -> str:
    """Lines of the list; none where nothing was trained."""
    if params.training is None or params.policy.version == BASE_POLICY:
        return ""
    return "".join(f"- Training: {line}\n" for line in params.training.describe())


def _chat(chat: ChatTemplate) -> str:
    """How the run asked the model, in a line, where it is not simply as the template has it."""
    form, system = chat.form, chat.settings.system_prompt
    said = [
        "answers begin with thoughts" if form.thinks else "",
        f"arguments of the chat template: {_arguments(chat).removesuffix(', ')}" if form.arguments else "",
        f"after the generation prompt: `{form.start}`" if form.start else "",
        "a system turn, as below" if system is not None else "",
    ]
    told = "; ".join(filter(None, said))
    return f"- Chats: {told}\n" if told else ""


def _messages(chat: ChatTemplate) -> str:
    question = Message(role="user", content="How could a village share its tools?")
    return json.dumps(chat.complete([question]), ensure_ascii=False)


def _call(chat: ChatTemplate) -> str:
    return f"messages, {_arguments(chat)}add_generation_prompt=True"


def _arguments(chat: ChatTemplate) -> str:
    """The template's arguments as Python, each followed by a comma."""
    return "".join(f"{name}={value!r}, " for name, value in chat.form.arguments.items())


def _introduction(params: ExportParams) -> str:
    if params.policy.version == BASE_POLICY and params.iterations:
        return (
            "The base model as it was: dynalign (method: arXiv 2512.05464) tried to align it with itself, and every "
            "iteration\nthat was evaluated was worse, as the table below says."
        )
    return "A language model aligned with itself by dynalign (method: arXiv 2512.05464)."


def _table(iterations: tuple[IterationSummary, ...]) -> str:
    if not iterations:
        return "No iteration was run: these are the base model's weights."
    rows = [
        f"| {row.index} | {_MISSING if row.reward is None else f'{row.reward:.3f}'} | {_text(row.win_rate)} | "
        f"{_text(row.capability)} | {_text(row.capability_delta)} |"
        for row in iterations
    ]
    head = "| iteration | training reward | win rate | capability | change of capability |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def _text(estimate: Estimate | None) -> str:
    return _MISSING if estimate is None else estimate.text()

"""All checks of a model folder and of the user's files, in the order in which their inputs arrive."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynalign_contract.preflight import Preflight
from dynalign_contract.settings import ChatSettings, EngineSettings, Quantized
from dynalign_contract.supplied.files import read_supplied
from dynalign_contract.supplied.paths import supplied_path
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.files import INDEX, read_index, read_model_files
from dynalign_trainer.models.languages import LanguageFilter
from dynalign_trainer.models.training_choice import choose_backend
from dynalign_trainer.preflight.answers import check_answers
from dynalign_trainer.preflight.architecture import check_architecture
from dynalign_trainer.preflight.capacity import Needs, check_capacity, estimate_needs
from dynalign_trainer.preflight.dequantised import Conversion, plan_conversion
from dynalign_trainer.preflight.findings import Findings
from dynalign_trainer.preflight.headers import Tensor, read_header
from dynalign_trainer.preflight.model import check_tokenizer
from dynalign_trainer.preflight.modules import build_model, check_names, check_shapes, check_training, count_rows
from dynalign_trainer.preflight.quantised import Quantisation, check_quantised_tensors, read_quantisation
from dynalign_trainer.preflight.rewards import find_in_rewards
from dynalign_trainer.preflight.rows import Room, check_rows
from dynalign_trainer.preflight.sampler import check_experts, check_heads, check_imports, check_recurrence
from dynalign_trainer.preflight.template import check_template
from dynalign_trainer.preflight.tokens import check_ids
from dynalign_trainer.preflight.window import check_window
from dynalign_trainer.runtime.machine import is_cpu_build


@dataclass
class Inspection:
    """The checks of one model for one run; each raises one StageError that tells everything that it found."""

    uri: str
    """The model as the run file names it."""
    preflight: Preflight | None
    """None: the model alone is looked at."""
    engine: EngineSettings
    chat: ChatSettings
    look: Callable[[], None]
    """Called now and then; may raise to stop."""
    in_place: bool = True
    """Whether the stages run here, with their packages, their keys and their network; otherwise no server is asked."""
    quantized: Quantized = Quantized.REFUSE
    findings: Findings = field(default_factory=Findings)
    quantisation: Quantisation | None = None
    """How the weights are quantised; None where they are not, or where that has not been looked at."""
    _model: Any = None
    _names: frozenset[str] | None = None
    """Names of the tensors that the run will have, where an index or headers have told them."""

    def check(self, folder: Path, weights: Mapping[str, Path]) -> None:
        """Look at everything at once: the folder, and the weights wherever they lie. Raises as the others do."""
        self.find_in_metadata(folder)
        self.find_in_weights(weights)
        self.findings.raise_errors()

    def check_metadata(self, folder: Path) -> None:
        """Look at everything but the weights. Raises what `Findings.raise_errors` does."""
        self.find_in_metadata(folder)
        self.findings.raise_errors()

    def check_weights(self, files: Mapping[str, Path]) -> None:
        """Look at the headers of the weights: name in the model -> file. Raises what `Findings.raise_errors` does."""
        self.find_in_weights(files)
        self.findings.raise_errors()

    def announce_conversion(self, source: int) -> Needs | None:
        """Note what it takes to convert quantised weights of `source` bytes; None where nothing is converted."""
        if self.quantisation is None or self._model is None:
            return None
        needs = estimate_needs(self.quantisation.method, self._model, source, self._names)
        self.findings.notes.append(needs.describe(self.quantisation.method))
        return needs

    def check_conversion(self, source: int, folder: Path) -> None:
        """Look whether the volume of `folder` and the memory are enough to convert weights of `source` bytes, if any.

        Raises what `check_capacity` does.
        """
        needs = self.announce_conversion(source)
        if needs is not None:
            check_capacity(needs, folder)

    def find_in_metadata(self, folder: Path) -> None:
        """Collect what the configuration, the tokenizer, the template and the rows show."""
        found = self.findings
        errors = len(found.errors)
        found.attempt(lambda: check_architecture(folder, self.uri))
        self.quantisation = found.attempt(lambda: read_quantisation(folder, self.uri, self.quantized))
        if len(found.errors) == errors:
            self._model = found.attempt(lambda: build_model(folder))
        if self._model is not None and self.preflight is not None:
            backend = self.preflight.training.backend
            found.attempt(lambda: choose_backend(self._model, backend))
            found.attempt(lambda: check_imports(self._model, self.uri))
            if is_cpu_build():
                found.attempt(lambda: check_heads(self._model, self.uri))
                found.attempt(lambda: check_recurrence(self._model, self.uri))
        if self._model is not None and (folder / INDEX).is_file():
            found.attempt(lambda: self._check_names(self._plan(list(read_index(folder / INDEX))).names))
        # a tokenizer is loaded by way of config.json: where that is wrong, it would tell the same once more
        tokenizer = None if self._model is None else found.attempt(lambda: check_tokenizer(folder))
        usable, rows = None, None
        if tokenizer is not None:
            template = ChatTemplate(tokenizer, self.chat)
            notes = found.attempt(lambda: check_template(template, self.uri))
            found.notes += notes or []
            rows = self._check_ids(template)
            if (preflight := self.preflight) is not None:
                found.attempt(lambda: check_answers(tokenizer, preflight))
            usable = template if notes is not None else None
        if self.preflight is not None:
            self._find_in_settings(folder, self.preflight, usable, rows)

    def find_in_weights(self, files: Mapping[str, Path]) -> None:
        """Collect what the headers of the weights show."""
        found = self.findings
        headers = found.attempt(lambda: {name: t for path in files.values() for name, t in read_header(path).items()})
        if headers is None:
            return
        if self._model is None:
            return
        plan, errors = self._plan(list(headers), headers), len(found.errors)
        kept = {name: headers[name].format for name in plan.kept}
        found.attempt(lambda: check_quantised_tensors(kept, self.uri, self.uri, self.quantized))
        if len(found.errors) > errors:
            return
        found.attempt(lambda: self._check_names(plan.names))
        found.attempt(lambda: check_shapes(self._model, plan.shapes(headers), self.uri))

    def _plan(self, names: list[str], headers: Mapping[str, Tensor] | None = None) -> Conversion:
        """What becomes of the tensors of the model's files: all are kept where nothing is quantised."""
        if self.quantisation is None:
            return Conversion((), tuple(names))
        return plan_conversion(self.quantisation.method, names, headers)

    def _check_ids(self, template: ChatTemplate) -> int | None:
        """Rows of the embedding; None where they are not known, or not enough, which is found here."""
        if self._model is None:
            return None
        rows, errors = count_rows(self._model), len(self.findings.errors)
        if note := self.findings.attempt(lambda: check_ids(template, rows, self.uri)):
            self.findings.notes.append(note)
        return rows if len(self.findings.errors) == errors else None

    def _check_names(self, names: frozenset[str]) -> None:
        self._names = names
        check_names(self._model, names, self.uri)
        if self.preflight is not None:
            if is_cpu_build():
                self.findings.attempt(lambda: check_experts(list(names), self.uri))
            self.findings.training = check_training(self._model, names, self.preflight.training)

    def _find_in_settings(
        self, folder: Path, preflight: Preflight, template: ChatTemplate | None, rows: int | None
    ) -> None:
        found, prompts = self.findings, preflight.prompts
        find_in_rewards(found, preflight.rewards, self.look, in_place=self.in_place)
        room = found.attempt(lambda: check_window(folder, self.engine.max_length, preflight))
        if prompts.languages:
            found.attempt(lambda: LanguageFilter(prompts.languages, "prompts.languages"))
        if prompts.decontamination.uri is not None:
            texts, where = prompts.decontamination.uri, "prompts.decontamination"
            found.attempt(lambda: read_supplied(supplied_path(texts, where, os.environ), where))
        if prompts.supplied is None:
            return
        uri = prompts.supplied.uri
        path = found.attempt(lambda: supplied_path(uri, "prompts.supplied", os.environ))
        if path is None:
            return
        if template is None or room is None:
            found.attempt(lambda: read_supplied(path, "prompts.supplied"))
            return
        space, rewards = Room(room, rows), preflight.rewards
        notes = found.attempt(lambda: check_rows(template, prompts, space, path, self.look, rewards=rewards))
        found.notes += notes or []


def inspect_folder(
    folder: Path,
    preflight: Preflight | None,
    engine: EngineSettings,
    chat: ChatSettings,
    quantized: Quantized = Quantized.REFUSE,
) -> Findings:
    """All checks of a model that lies in a folder, for the person who wrote the run file."""
    inspection = Inspection(
        os.fspath(folder), preflight, engine, chat, lambda: None, in_place=False, quantized=quantized
    )
    files = inspection.findings.attempt(lambda: read_model_files(folder))
    inspection.find_in_metadata(folder)
    if files is not None:
        weights = {name: folder / name for name in files.weights}
        inspection.find_in_weights(weights)
        inspection.announce_conversion(sum(path.stat().st_size for path in weights.values()))
    return inspection.findings

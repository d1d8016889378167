"""A copy of a quantised checkpoint in BFloat16: one function for sampler, trainer and export."""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from dynalign_contract.files import write_bytes
from dynalign_contract.layout import SOURCE_FILE
from dynalign_trainer.fetch.converters import build_converter
from dynalign_trainer.fetch.copying import Watch, copy_files
from dynalign_trainer.fetch.shards import Shards
from dynalign_trainer.models.files import CONFIG, INDEX, read_model_files, read_tensor_files
from dynalign_trainer.models.folder import read_json
from dynalign_trainer.models.origin import Origin, read_origin, write_origin
from dynalign_trainer.preflight.capacity import SHARD_BYTES
from dynalign_trainer.preflight.checks import Inspection
from dynalign_trainer.preflight.dequantised import plan_conversion
from dynalign_trainer.preflight.headers import read_headers
from dynalign_trainer.preflight.quantised import QUANTISER_FILES, Quantisation, without_quantisation

SOURCE_FOLDER: Final = "quantized"
"""Below the model's folder while fetch works: the checkpoint as it was published."""


def fetch_dequantised(
    fetch: Callable[[Path], None], uri: str, target: Path, watch: Watch, inspection: Inspection
) -> None:
    """Bring a model by `fetch` into a folder below `target`, and convert it from there to BFloat16.

    A model that is not quantised is moved up as it is. What an earlier attempt has brought is used again where `fetch`
    does so; the conversion begins anew. Raises what `fetch` does, and BadInputError naming a tensor.
    """
    source = target / SOURCE_FOLDER
    for path in (*target.glob("*.safetensors"), target / INDEX):
        path.unlink(missing_ok=True)  # of an attempt that ended while it converted: room that this one needs
    fetch(source)
    found = inspection.quantisation
    if found is None:
        inspection.findings.notes.append(
            "spec.model.quantized is Dequantize, but the weights are not quantised: they stay as they are"
        )
        for name in [*read_model_files(source).all, *(name for name in (SOURCE_FILE,) if (source / name).is_file())]:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).replace(target / name)
    else:
        write_dequantised(source, target, found, watch)
        origin = read_origin(source) or Origin(uri=uri)
        write_origin(target, origin.model_copy(update={"quantized": str(found.method)}))
        inspection.check_weights({name: target / name for name in read_model_files(target).weights})
    shutil.rmtree(source)


def write_dequantised(source: Path, target: Path, found: Quantisation, watch: Watch) -> None:
    """Write the model in the folder `source` into `target`, its weights in BFloat16.

    Names of tensors, tokenizer, chat template and generation settings are those of the source; the configuration says
    nothing of quantisation any more. Tensors that are not quantised keep their number format. `watch` is told bytes of
    the source. Raises BadInputError naming a tensor.
    """
    files = read_model_files(source)
    other = {name: source / name for name in files.metadata if name not in (CONFIG, INDEX, *QUANTISER_FILES)}
    copy_files(other, target, lambda _done, _total: watch(0, 0))
    _write_weights(source, target, found, watch)
    config = without_quantisation(read_json(source / CONFIG))
    write_bytes(target / CONFIG, json.dumps(config, indent=2).encode())


def _write_weights(source: Path, target: Path, found: Quantisation, watch: Watch) -> None:
    import torch
    from safetensors import safe_open

    files = read_model_files(source)
    size = sum((source / name).stat().st_size for name in files.weights)
    headers, places = read_headers(source, files.weights), read_tensor_files(source)
    plan = plan_conversion(found.method, list(headers), headers)
    computed = {weight.root: weight for weight in plan.weights}
    roots = sorted((*plan.kept, *computed), key=lambda name: (places[name], name))
    convert, shards = build_converter(source, found), Shards(target, SHARD_BYTES)
    with ExitStack() as stack, torch.inference_mode():
        opened = {path: stack.enter_context(safe_open(path, framework="pt")) for path in set(places.values())}
        for done, name in enumerate(roots):
            watch(size * done // len(roots), size)
            weight = computed.get(name)
            if weight is None:
                shards.add(name, opened[places[name]].get_tensor(name))
            else:
                stored = (weight.root, *weight.partners)
                shards.add(weight.name, convert(weight, {of: opened[places[of]].get_tensor(of) for of in stored}))
        shards.finish()
    watch(size, size)

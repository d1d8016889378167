"""Clusters by meaning, and languages."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dynalign_contract.errors import BadConfigError, BadInputError
from dynalign_contract.objective import BUILTIN, builtin_objective
from dynalign_contract.settings import ClusterSettings, DedupSettings
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.languages import LanguageFilter, recognise_language
from dynalign_trainer.prompts.clusters import Clusters, Vector, embed_by_tokens, read_token_vectors, reference_texts
from dynalign_trainer.prompts.curator import Checks, Curator
from dynalign_trainer.prompts.drafts import Drop
from dynalign_trainer.prompts.wording import written_wording
from lab.tiny_qwen3 import write_tiny_qwen3

DIRECTIONS = {"sea": (1.0, 0.0), "ocean": (0.96, 0.28), "shop": (0.0, 1.0)}


def embed(text: str) -> Vector:
    return np.asarray(DIRECTIONS[text.rsplit(maxsplit=1)[-1]], dtype=np.float32)


def curator(max_size: int) -> Curator:
    clusters = Clusters(ClusterSettings(similarity=0.9, max_size=max_size), embed)
    return Curator(DedupSettings(), Checks(clusters=clusters))


def test_a_cluster_takes_so_many_and_other_meanings_are_free() -> None:
    one = curator(max_size=1)
    assert one.admit(written_wording("I look at the sea")) is None
    assert one.admit(written_wording("We swim in an ocean")) is Drop.CLUSTER
    assert one.admit(written_wording("They own a shop")) is None
    two = curator(max_size=2)
    found = [
        two.admit(written_wording(text)) for text in ("I look at the sea", "We swim in an ocean", "Who sails the sea")
    ]
    assert found == [None, None, Drop.CLUSTER]


def test_what_is_exchanged_frees_its_place() -> None:
    one = curator(max_size=1)
    one.admit(written_wording("I look at the sea"))
    assert one.replace("I look at the sea", written_wording("We swim in an ocean")) is None
    assert one.replace("We swim in an ocean", written_wording("They own a shop")) is None
    assert one.admit(written_wording("Who sails the sea")) is None


class Numbers:
    """A tokenizer whose tokens are numbers."""

    def encode(self, text: str, **_: object) -> list[int]:
        return [int(word) for word in text.split()]


def test_what_all_texts_have_in_common_tells_none_of_them_apart() -> None:
    table = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32) + 5
    embed = embed_by_tokens(Numbers(), table, [f"{i} {i + 1} 3" for i in range(100, 140)])
    one, same, other = embed("201 202 203"), embed("203 201 202"), embed("301 302 303")
    assert float(one @ one) == pytest.approx(1.0, abs=1e-5)
    assert float(one @ same) == pytest.approx(1.0, abs=1e-5)  # the order of tokens does not count
    assert abs(float(one @ other)) < 0.7  # without the centre it would be 0.99
    assert float(embed("201 202 0") @ one) > float(embed("201 202 399") @ one)  # frequent tokens count less
    assert not embed("").any()


def test_vectors_come_from_the_models_own_embedding(tmp_path: Path) -> None:
    folder = write_tiny_qwen3(tmp_path)
    tokenizer, table = load_tokenizer(folder), read_token_vectors(folder)
    assert table.shape == (len(tokenizer), 32)
    for name in BUILTIN:
        embed = embed_by_tokens(tokenizer, table, reference_texts(builtin_objective(name)))
        assert float(embed("abc") @ embed("cab")) == pytest.approx(1.0, abs=1e-4)


def test_the_seeds_words_do_not_make_two_prompts_mean_the_same() -> None:
    one = curator(max_size=1)
    assert one.admit(written_wording("A nurse asks about the sea", "the sea")) is None
    assert one.admit(written_wording("A nurse asks about a shop", "a shop")) is None
    one.remember(written_wording("A baker asks about the sea", "the sea"))
    assert one.admit(written_wording("A mayor wonders about this ocean", "this ocean")) is Drop.CLUSTER


def test_a_model_without_an_embedding_of_a_known_name_is_refused(tmp_path: Path) -> None:
    save_file({"layers.0.weight": np.zeros((2, 2), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(BadInputError, match=r"prompts\.dedup\.clusters needs"):
        read_token_vectors(tmp_path)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("I am a nurse and need help with my shifts at night.", "en"),
        ("Ich bin Bäcker und brauche Hilfe mit meinem Laden.", "de"),
        ("Je voudrais savoir comment parler avec mon voisin.", "fr"),
        ("Hi!", None),
    ],
)
def test_languages_are_recognised_where_there_is_enough_to_tell(text: str, code: str | None) -> None:
    assert recognise_language(text) == code


def test_unwanted_languages_stay_out() -> None:
    german = Curator(DedupSettings(), Checks(languages=LanguageFilter(["de"], "prompts.languages")))
    assert german.admit(written_wording("Ich bin Bäcker und brauche Hilfe mit meinem Laden.")) is None
    assert german.admit(written_wording("I am a nurse and need help with my shifts at night.")) is Drop.LANGUAGE
    assert german.admit(written_wording("Hi!")) is None


def test_a_language_that_nobody_recognises_is_named() -> None:
    with pytest.raises(BadConfigError, match=r"prompts\.languages: xx cannot be recognised"):
        LanguageFilter(["en", "xx"], "prompts.languages")

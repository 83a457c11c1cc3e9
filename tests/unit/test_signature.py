"""The identity of a run depends on what can change a result and on nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from rsdiff.config import config
from rsdiff.config.reading import ReadWith
from rsdiff.metrics.options import MetricsConfig
from rsdiff.runs.content import NOTHING, digest_of_path, metric_files
from rsdiff.runs.identity import SIGNATURE_LENGTH, Identity, settings_of, signature_of


@config
class Inner:
    rate: float = 1.0
    workers: int = 0

    result_neutral: ClassVar[frozenset[str]] = frozenset({"workers"})


@config
class Outer:
    width: int = 8
    inner: Inner = Inner()
    sizes: tuple[int, ...] = (1, 2)
    root: str = ""
    shape: str = "flat"
    height: int = 1

    located: ClassVar[frozenset[str]] = frozenset({"root"})
    read_with: ClassVar[ReadWith] = {"height": ("shape", ("tall",))}


def test_neutral_located_and_unread_options_do_not_enter_at_any_depth() -> None:
    assert signature_of({"a": Outer()}) == signature_of({"a": Outer(inner=Inner(workers=5), root="elsewhere", height=3)})
    assert signature_of({"a": Outer(shape="tall")}) != signature_of({"a": Outer(shape="tall", height=3)})


def test_every_other_option_enters() -> None:
    variants = [Outer(), Outer(width=9), Outer(inner=Inner(rate=2.0)), Outer(sizes=(2, 1)), Outer(shape="tall")]
    signatures = {signature_of({"a": variant}) for variant in variants}
    assert len(signatures) == len(variants)
    assert {len(signature) for signature in signatures} == {SIGNATURE_LENGTH}


def test_the_order_of_the_settings_does_not_matter() -> None:
    assert signature_of({"a": 1, "b": 2.5}) == signature_of({"b": 2.5, "a": 1})


def test_a_new_option_with_a_default_orphans_nothing() -> None:
    def later(**given: Any) -> Any:
        @config
        class Deeper:
            rate: float = 1.0
            workers: int = 0
            added: bool = False
            result_neutral: ClassVar[frozenset[str]] = frozenset({"workers"})

        @config
        class Wider:
            width: int = 8
            inner: Deeper = Deeper()
            sizes: tuple[int, ...] = (1, 2)
            added: str = "no"

        return Wider(inner=Deeper(rate=2.0), **given)

    assert settings_of(Outer(inner=Inner(rate=2.0))) == settings_of(later())
    assert settings_of(later(added="yes")) != settings_of(later())


def test_a_file_enters_with_its_content_wherever_it_lies(tmp_path: Path) -> None:
    file, folder = tmp_path / "weights", tmp_path / "folder"
    file.write_bytes(b"one")
    before = digest_of_path(file)
    assert before == digest_of_path(file.rename(tmp_path / "other"))
    (tmp_path / "other").write_bytes(b"another")
    assert before != digest_of_path(tmp_path / "other")
    folder.mkdir()
    (folder / "a.png").write_bytes(b"one")
    before = digest_of_path(folder)
    assert digest_of_path(folder.rename(tmp_path / "moved")) == before
    (tmp_path / "moved" / "a.png").rename(tmp_path / "moved" / "b.png")
    assert digest_of_path(tmp_path / "moved") != before


def test_weights_of_a_metric_that_are_supplied_later_make_another_run(tmp_path: Path) -> None:
    def metrics(folder: Path) -> MetricsConfig:
        return MetricsConfig(metrics=("psnr", "niqe_rs"), weight_folders=(str(folder),))

    found = metric_files(metrics(tmp_path / "none"))
    assert found == {"metric/niqe_rs": NOTHING}
    for place, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "niqe_rs.npz").write_bytes(content)
    a, b, c = (metric_files(metrics(tmp_path / place)) for place in "abc")
    assert a == b != c != found
    assert Identity({}, a).signature != Identity({}, c).signature


def test_a_neutral_name_that_is_no_option_is_our_mistake() -> None:
    @config
    class Wrong:
        result_neutral: ClassVar[frozenset[str]] = frozenset({"wrokers"})

        workers: int = 0

    with pytest.raises(AssertionError, match="wrokers"):
        signature_of({"a": Wrong()})

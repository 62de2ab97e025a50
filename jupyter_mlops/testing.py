"""Contract suites for what other packages can bring: subclass one in a test module and fill in its values.

They are plain classes of pytest tests. Ours are held to the same ones.
"""

from __future__ import annotations

import copy
import pickle
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest

from jupyter_mlops.fingerprints import Budget, Provider, fingerprint
from jupyter_mlops.fingerprints.providing import use
from jupyter_mlops.registry import Format, FormatRefused, LoadRefused, ModelDamaged


class FingerprintSuite:
    """What a fingerprint has to keep to, whoever provides it.

    Examples
    --------
    ::

        class TestRaster(FingerprintSuite):
            provider = RasterProvider()

            def values(self):
                return [Raster([1, 2]), Raster([2, 1]), Raster([])]
    """

    provider: Provider | None = None
    """The provider under test; None to test types that are known without one."""

    def values(self) -> list[Any]:
        """Values of which no two have equal content; made anew, but equal, at each call."""
        raise NotImplementedError

    def setup_method(self) -> None:
        """Take the provider into use."""
        if self.provider is not None:
            use(self.provider)

    def test_every_value_has_a_digest(self) -> None:
        for value in self.values():
            found = fingerprint(value)
            assert found.digest is not None, found.why

    def test_equal_content_has_an_equal_digest(self) -> None:
        assert [fingerprint(value).digest for value in self.values()] == [
            fingerprint(value).digest for value in self.values()
        ]

    def test_a_copy_has_an_equal_digest(self) -> None:
        for value in self.values():
            assert fingerprint(copy.deepcopy(value)).digest == fingerprint(value).digest

    def test_other_content_has_another_digest(self) -> None:
        values = self.values()
        assert len({fingerprint(value).digest for value in values}) == len(values)

    def test_a_digest_does_not_change_the_value(self) -> None:
        for value in self.values():
            assert fingerprint(value).digest == fingerprint(value).digest

    def test_a_value_counts_inside_a_container(self) -> None:
        values = self.values()
        assert len({fingerprint([value]).digest for value in values}) == len(values)

    def test_work_that_is_called_off_ends_without_a_digest(self) -> None:
        budget = Budget()
        budget.cancel()
        for value in self.values():
            assert fingerprint([value] * 600, budget=budget).digest is None


class FormatSuite:
    """What a way to keep models has to keep to, whoever provides it.

    Examples
    --------
    ::

        class TestRules(FormatSuite):
            format = rules.FORMAT

            def models(self):
                return [Rules(["a"]), Rules(["b"])]

            def answers(self, model):
                return model.predict([1, 2, 3])
    """

    format: Format
    """The format under test; it has both `dump` and `load`."""

    def models(self) -> list[Any]:
        """Models of which no two answer alike; made anew, but equal, at each call."""
        raise NotImplementedError

    def answers(self, model: Any) -> Any:
        """What a model answers to some fixed input, as a value that ``==`` compares: a list, a text, bytes."""
        raise NotImplementedError

    def dumped(self, model: Any) -> bytes:
        """The bytes of a model."""
        assert self.format.dump is not None
        data = self.format.dump(model)
        assert type(data) is bytes
        return data

    def loaded(self, data: bytes) -> Any:
        """The model of some bytes."""
        assert self.format.load is not None
        return self.format.load(data)

    def test_a_loaded_model_answers_what_the_dumped_one_did(self) -> None:
        models = self.models()
        assert len({repr(self.answers(model)) for model in models}) == len(models) > 1
        for model in models:
            assert self.answers(self.loaded(self.dumped(model))) == self.answers(model)

    def test_a_loaded_model_can_be_dumped_again(self) -> None:
        for model in self.models():
            again = self.loaded(self.dumped(self.reborn(self.loaded(self.dumped(model)))))
            assert self.answers(again) == self.answers(model)

    def reborn(self, loaded: Any) -> Any:
        """What `dump` takes, of what `load` gives; the same thing, unless overridden."""
        return loaded

    def test_dumping_does_not_change_the_model(self) -> None:
        for model in self.models():
            before = self.answers(model)
            self.dumped(model)
            assert self.answers(model) == before

    def test_what_was_dumped_looks_like_it_and_can_be_kept(self) -> None:
        for model in self.models():
            data = self.dumped(model)
            assert self.format.looks(data[:4096])
            if self.format.check is not None:
                self.format.check(data)

    def test_what_is_no_such_model_is_refused(self) -> None:
        for other in (object(), None, 1.5, [1, 2]):
            with pytest.raises(FormatRefused):
                self.dumped(other)

    def test_a_pickle_is_refused_and_never_run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            mark = Path(folder) / "ran"
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                data = pickle.dumps(_Leaves(mark), protocol=protocol)
                assert protocol < 2 or not self.format.looks(data)
                with pytest.raises((ModelDamaged, LoadRefused)):
                    self.loaded(data)
            assert not mark.exists()

    def test_damaged_bytes_are_refused(self) -> None:
        """Not asked of a fragile format, whose library is not given damaged bytes."""
        if self.format.fragile:
            return
        noise = random.Random(0).randbytes(3000)  # noqa: S311 - no secret
        for model in self.models():
            data = self.dumped(model)
            for damaged in (b"", data[:1], data[: len(data) // 2], data[:-1], noise, data[:8] + noise):
                with pytest.raises((ModelDamaged, LoadRefused)):
                    self.loaded(damaged)

    def test_its_name_and_suffixes_are_its_own(self) -> None:
        assert self.format.name
        assert self.format.name not in {"skops", "pickle", "joblib"}
        for suffix in self.format.suffixes:
            assert suffix.startswith(".")
            assert suffix == suffix.lower()
            assert suffix not in {".pkl", ".pickle", ".p", ".joblib", ".dill", ".pt", ".pth", ".ckpt"}


class _Leaves:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (self.mark,)

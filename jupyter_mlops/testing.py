"""Contract suites for what other packages can bring: subclass one in a test module and fill in its values.

They are plain classes of pytest tests. Ours are held to the same ones.
"""

from __future__ import annotations

import copy
from typing import Any

from jupyter_mlops.fingerprints import Budget, Provider, fingerprint
from jupyter_mlops.fingerprints.providing import use


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

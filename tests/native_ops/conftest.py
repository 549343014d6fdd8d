"""What several tests of the native part need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(params=["plain", "packed"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways of a GPU to multiply, whatever is fast on this device."""
    monkeypatch.setenv("EDGE_VULKAN_PRODUCT", request.param)
    yield request.param

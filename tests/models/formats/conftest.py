"""What the readers' tests share: a context for content that must be refused."""

from functools import partial

import pytest


@pytest.fixture
def unreadable(refused):
    """A context whose code must raise a `ContentError` with these facts."""
    from ppl_cnn.models.formats import ContentError

    return partial(refused, kind=ContentError)

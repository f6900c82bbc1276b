"""What all tests run under: types checked at run time, no silent broadcasting or casting."""

import re
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import jax
import pytest
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import install_import_hook

check_types = beartype(
    # An int will do for a float, as for mypy; methods are decorated one by one, where beartype
    # has no class that `Self` could stand for.
    conf=BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({Self: object}))
)
install_import_hook("ppl_cnn", f"{__name__}.check_types")

jax.config.update("jax_numpy_rank_promotion", "raise")

# NumPyro's HMC divides floats by integers, so that what runs it can't be strict about dtypes.
STRICT_DTYPES = ("models", "test_losses.py")


@pytest.fixture(autouse=True)
def _strict_dtypes(request):
    path = Path(request.node.path)
    strict = path.parent.name in STRICT_DTYPES or path.name in STRICT_DTYPES
    with jax.numpy_dtype_promotion("strict" if strict else "standard"):
        yield


@pytest.fixture
def refused():
    """A context whose code must raise an `InputError` of one sentence with the given words."""
    from ppl_cnn import InputError

    @contextmanager
    def context(*words: str):
        with pytest.raises(InputError) as caught:
            yield
        sentence = str(caught.value)
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert not re.search(r"[.!?] [A-Z]", sentence), f"more than one sentence: {sentence}"
        for word in words:
            assert word in sentence

    return context

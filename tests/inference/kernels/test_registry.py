"""Kernels and their texts."""

import sys

import pytest
from numpyro.infer import AIES, BarkerMH

from ppl_cnn.errors import ArgumentError, UnknownNameError
from ppl_cnn.inference.kernels.isir import FRESH, ISIR
from ppl_cnn.inference.kernels.langevin import Langevin
from ppl_cnn.inference.kernels.libraries.numpyro_kernels import HMC, NUTS, ExternalKernel
from ppl_cnn.inference.kernels.registry import KERNELS, LIBRARIES, parse_kernel
from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.inference.kernels.tempered import RUNGS, Tempered


@pytest.mark.parametrize("text", [*KERNELS, "tempered:4", "tempered:1", "isir:8", "isir:1"])
def test_a_text_names_a_kernel_which_gives_it_back(text):
    kernel = parse_kernel(text)
    assert type(kernel) is KERNELS[text.partition(":")[0]]
    assert str(kernel) == text


@pytest.mark.parametrize("text", ["blackjax:mala", "numpyro:BarkerMH"])
def test_a_text_names_a_kernel_of_another_library(text):
    kernel = parse_kernel(text)
    assert type(kernel) is LIBRARIES[text.partition(":")[0]]
    assert str(kernel) == text


@pytest.mark.parametrize("text", ["blackjax", "blackjax:gibbs", "numpyro:", "numpyro:AIES"])
def test_a_name_that_a_library_lacks_is_refused(text, refused):
    known = "mgrad_gaussian" if text.startswith("blackjax") else "BarkerMH"
    with refused(known, kind=UnknownNameError, name=text.partition(":")[2]):
        parse_kernel(text)


def test_a_library_that_is_not_installed_is_named(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "blackjax", None)
    with refused("ppl_cnn[blackjax]", "'blackjax:mala'", kind=ArgumentError, argument="kernel"):
        parse_kernel("blackjax:mala")


def test_the_number_of_rungs_is_read():
    assert parse_kernel("tempered:5").replicas == 5
    assert parse_kernel("tempered").replicas == RUNGS
    # They give the same draws, and are recorded alike.
    assert str(parse_kernel(f"tempered:{RUNGS}")) == str(parse_kernel("tempered"))
    assert parse_kernel("split").replicas == 1


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (Split(angle=1.0), "split(angle=1.0)"),
        (Split(step_size=0.5, angle=1.0), "split(step_size=0.5, angle=1.0)"),
        (HMC(trajectory_length=2.0), "hmc(trajectory_length=2.0)"),
        (NUTS(max_tree_depth=7), "nuts(max_tree_depth=7)"),
        (Tempered(rungs=3), "tempered:3"),
        (ISIR(fresh=8), "isir:8"),
        (ISIR(fresh=FRESH), "isir"),
        (Langevin(step_size=0.5), "langevin(step_size=0.5)"),
        (ExternalKernel(BarkerMH, step_size=0.5), "numpyro:BarkerMH(step_size=0.5)"),
        (Split(target_accept_prob=0.9), "split"),  # which the record has by itself
    ],
)
def test_settings_that_change_draws_are_in_the_text(kernel, text):
    assert str(kernel) == text


def test_unknown_kernels_are_refused(refused):
    known = tuple(KERNELS)
    with refused("'gibbs'", *KERNELS, kind=UnknownNameError, name="gibbs", known=known):
        parse_kernel("gibbs")
    with refused("'gibbs'", kind=UnknownNameError, name="gibbs"):
        parse_kernel("gibbs:3")


@pytest.mark.parametrize(
    "text", ["tempered:", "tempered:x", "tempered:0", "tempered:-2", "tempered:2.5"]
)
def test_bad_numbers_of_rungs_are_refused(text, refused):
    with refused("tempered:R", repr(text), kind=ArgumentError, argument="kernel"):
        parse_kernel(text)


@pytest.mark.parametrize("text", ["isir:", "isir:x", "isir:0", "isir:-2", "isir:2.5"])
def test_bad_numbers_of_fresh_draws_are_refused(text, refused):
    with refused("isir:N", repr(text), kind=ArgumentError, argument="kernel"):
        parse_kernel(text)


@pytest.mark.parametrize("text", ["hmc:", "nuts:10"])
def test_values_for_kernels_without_are_refused(text, refused):
    with refused(repr(text), kind=ArgumentError, argument="kernel"):
        parse_kernel(text)


def test_a_kernel_that_moves_chains_by_each_other_is_refused(refused):
    with refused("AIES", kind=ArgumentError, argument="make"):
        ExternalKernel(AIES)

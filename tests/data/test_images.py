import numpy as np
import pytest
import tensorflow_datasets as tfds

from ppl_cnn.data import open_split
from ppl_cnn.data.catalogue import find


def test_images_are_those_that_tfds_itself_decodes():
    data = open_split("fashion-embedded", "test")
    peer = tfds.builder_from_directory(find("fashion-embedded").folder).as_data_source("test")
    for i in (0, 1, 499, 999):
        np.testing.assert_array_equal(data.source[i]["image"], peer[i]["image"], strict=True)
        assert data.source[i]["label"] == peer[i]["label"]


def test_source_is_a_sequence():
    source = open_split("fashion-embedded", "test[:10]").source
    assert len(list(source)) == 10
    np.testing.assert_array_equal(source[-1]["image"], source[9]["image"])
    assert source[0]["label"].dtype == np.int32
    with pytest.raises(IndexError):
        source[10]
    assert source.read([])["image"].shape == (0, 28, 28, 1)

from ppl_cnn.models.networks.catalogue import (
    ALEXNET,
    LENET,
    SQUEEZENET,
)
from ppl_cnn.models.units.listing import unit_layers


def test_alexnets_receptive_fields_are_those_of_its_windows():
    fields = {layer.name: layer for layer in unit_layers(ALEXNET)}
    assert [fields[f"conv{index}"].receptive_field[0] for index in range(1, 6)] == [
        *(11, 51, 99, 131, 163)
    ]
    assert [fields[f"conv{index}"].stride for index in range(1, 6)] == [4, 8, 16, 16, 16]
    assert fields["conv5"].image == (163, 163)
    assert fields["conv5"].places == (13, 13)
    # What comes before fc6 on all of the image, then 9216x4096, 4096x4096 and 4096.
    count = 665_784_864 + 37_748_736 + 16_777_216 + 4_096
    assert fields["fc8"] == ("fc8", 1000, None, None, (227, 227), (227, 227), count, count)


def test_lenets_receptive_fields_are_those_of_its_windows():
    fields = {layer.name: layer for layer in unit_layers(LENET)}
    assert list(fields) == ["conv1", "conv2", "fc3", "fc4"]
    conv1 = 24 * 24 * 25, 25  # multiplications of a channel's map, and of a place on it
    assert fields["conv1"] == ("conv1", 20, (24, 24), 1, (5, 5), (5, 5), *conv1)
    conv2 = 24 * 24 * 25 * 20 + 8 * 8 * 25 * 20, 10 * 10 * 25 * 20 + 25 * 20
    assert fields["conv2"] == ("conv2", 50, (8, 8), 2, (14, 14), (14, 14), *conv2)


def test_squeezenets_receptive_fields_go_through_its_branches():
    fields = {layer.name: layer for layer in unit_layers(SQUEEZENET)}
    # conv1 reads 3 at a stride of 2, pool1 3 of these at 2: 7 at 4, and a 3x3 more 15.
    assert fields["fire2/squeeze1x1"].receptive_field == (7, 7)
    assert fields["fire2/expand1x1"].receptive_field == (7, 7)
    assert fields["fire2/expand3x3"].receptive_field == (15, 15)
    # fire3's first layer reads the concatenation, and has the wider of its two fields.
    assert fields["fire3/squeeze1x1"].receptive_field == (15, 15)
    assert fields["fire3/expand3x3"].image == (23, 23)
    assert [fields[f"fire{n}/expand1x1"].stride for n in range(2, 10)] == [4] * 2 + [8] * 2 + [
        16
    ] * 4
    assert fields["pool10"][:6] == ("pool10", 1000, None, None, (227, 227), (227, 227))
    assert "fire2/concat" not in fields

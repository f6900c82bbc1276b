import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ppl_cnn import InputError
from ppl_cnn.errors import ArgumentError, MismatchError, UnknownNameError
from ppl_cnn.models.units.names import UnitName, parse_units

LAYERS = {
    "conv1": (55, 55, 96),
    "conv5_3": (14, 14, 512),
    "fire2/expand1x1": (7, 5, 64),
    "fc8": (12,),
}
CLASSES = (
    *("goldfish", "great white shark", "T-shirt/top", "ox", "ox, big", "jack-o'-lantern"),
    *("crane", "crane", "Straße", "9-volt", "", "7"),
)


def shown(text: str, classes=CLASSES) -> list[str]:
    return [str(name) for name in parse_units(text, LAYERS, classes)]


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("conv1:12", ["conv1:12@27,27"]),
        ("conv1:12@0,54", ["conv1:12@0,54"]),
        ("conv1:12@mean", ["conv1:12@mean"]),
        ("conv5_3:511", ["conv5_3:511@7,7"]),
        ("fire2/expand1x1:3", ["fire2/expand1x1:3@3,2"]),
        ("fc8:3", ["fc8:3"]),
        ("conv1:3-5@mean", ["conv1:3@mean", "conv1:4@mean", "conv1:5@mean"]),
        ("conv1:3-3@1,2", ["conv1:3@1,2"]),
        ("conv1:2@0,1,fc8:9,conv1:0", ["conv1:2@0,1", "fc8:9", "conv1:0@27,27"]),
        ("fc8:1-2,fc8:0", ["fc8:1", "fc8:2", "fc8:0"]),
    ],
)
def test_texts_name_units_in_their_order(text, units):
    assert shown(text) == units


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("class:3", [3]),
        ("class:0-2", [0, 1, 2]),
        ("class:goldfish", [0]),
        ("class:GoldFish", [0]),
        ("class:great white shark", [1]),
        ("class:t-shirt/top,class:11", [2, 11]),
        ("class:ox", [3]),
        ("class:ox, big", [4]),
        ("class:ox,class:ox, big", [3, 4]),
        ("class:jack-o'-lantern,fc8:0", [5, 0]),
        ("class:straße", [8]),
        ("class:9-volt", [9]),
        ("class:11", [11]),
    ],
)
def test_classes_are_units_of_the_last_layer_by_name_or_index(text, indices):
    assert parse_units(text, LAYERS, CLASSES) == [UnitName("fc8", c, None) for c in indices]


@pytest.mark.parametrize(
    ("text", "layer", "place"),
    [
        *(("conv1", "conv1", (27, 27)), ("conv1:*", "conv1", (27, 27))),
        *(("conv1@mean", "conv1", "mean"), ("conv1:*@0,54", "conv1", (0, 54))),
        *(("fire2_expand1x1", "fire2/expand1x1", (3, 2)), ("features.0", "conv1", (27, 27))),
        *(("fc8", "fc8", None), ("class:*", "fc8", None), ("class", "fc8", None)),
    ],
)
def test_a_layer_alone_is_all_of_its_units(text, layer, place):
    names = parse_units(text, LAYERS, CLASSES, aliases={"features.0": "conv1"})
    assert names == [UnitName(layer, channel, place) for channel in range(LAYERS[layer][-1])]
    beside = parse_units(f"conv5_3:1,{text},conv5_3:0", LAYERS, aliases={"features.0": "conv1"})
    assert beside[1:-1] == names


def test_what_is_shown_is_read_again():
    for text in ("conv1:12", "conv1:95@0,54", "fire2/expand1x1:0-63@mean", "class:ox, big"):
        names = parse_units(text, LAYERS, CLASSES)
        assert parse_units(",".join(map(str, names)), LAYERS) == names


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "conv1:",
            "conv1:**",
            "conv1:*-3",
            "*",
            "*:3",
            "conv1:3,7",
            "conv1:3,7-9",
            ":3",
            "conv1:-1",
            "conv1:1.5",
            "conv1:one",
            "conv1: 1",
            "conv 1:1",
        ),
        *("conv1:1@3", "conv1:1@3,", "conv1:1@-1,0", "conv1:1@0,0,0", "conv1:1@", "conv1:1@0;0"),
        *(
            "conv1:1@median",
            "conv1:1@mean,",
            "conv1:1,,conv1:2",
            "conv1:1,",
            ",conv1:1",
            "conv1:1-",
        ),
        *("conv1:1\n", "conv1:\N{ARABIC-INDIC DIGIT ONE}", "conv1:1234567890123", "/conv1:1"),
    ],
)
def test_malformed_units_are_refused(text, refused):
    forms = ("layer:channel@row,col", "layer:channel@mean", "class:name")
    with refused(*forms, kind=ArgumentError, argument="unit"):
        shown(text)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("conv9:0", UnknownNameError, ["'conv9'", "conv1, conv5_3, fire2/expand1x1, fc8"]),
        ("conv1:96", MismatchError, ["conv1", "0 to 95", "96"]),
        ("conv1:90-96", MismatchError, ["conv1", "0 to 95", "96"]),
        ("conv1:0-999999999", MismatchError, ["conv1", "0 to 95", "999999999"]),
        ("class:12", MismatchError, ["fc8", "0 to 11", "12"]),
        ("fire2/expand1x1:0@7,0", MismatchError, ["fire2/expand1x1", "6,4", "7,0"]),
        ("fire2/expand1x1:0@0,5", MismatchError, ["fire2/expand1x1", "6,4", "0,5"]),
        ("fc8:0@0,0", MismatchError, ["fc8", "no map", "@"]),
        ("class:7", MismatchError, ["'7'", "fc8:11", "'crane'", "fc8:7"]),
        ("class:6-8", MismatchError, ["'7'", "fc8:11", "'crane'", "fc8:7"]),
        ("class:0@mean", MismatchError, ["fc8", "no map", "@"]),
        ("conv1:9-3", ArgumentError, ["'conv1:9-3'", "3-9"]),
        ("conv1:1,conv1:1", ArgumentError, ["conv1:1@27,27 twice"]),
        ("conv1:1,conv1:1@27,27", ArgumentError, ["conv1:1@27,27 twice"]),
        ("conv1:0-5,conv1:3", ArgumentError, ["conv1:3@27,27 twice"]),
        ("fc8:4,class:ox, big", ArgumentError, ["fc8:4 twice"]),
        ("class:gold fish", UnknownNameError, ["'gold fish'", "goldfish", "class:0 to class:11"]),
        ("class:great white", UnknownNameError, ["'great white'", "great white shark"]),
        ("class:crane", UnknownNameError, ["2 classes", "'crane'", "class:6 or class:7"]),
        ("class:", UnknownNameError, ["class ''"]),
        ("class:zebra,conv1:0", UnknownNameError, ["'zebra'"]),
        ("conv9", UnknownNameError, ["'conv9'", "conv1, conv5_3, fire2/expand1x1, fc8"]),
        ("conv9:*", UnknownNameError, ["'conv9'", "conv1, conv5_3, fire2/expand1x1, fc8"]),
        ("Goldfish", UnknownNameError, ["'Goldfish'", "class:Goldfish"]),
        ("fc8@mean", MismatchError, ["fc8", "no map", "@"]),
        ("class:*@0,0", MismatchError, ["fc8", "no map", "@"]),
        ("conv1,conv1:3", ArgumentError, ["conv1:3@27,27 twice"]),
        ("conv1:*@55,0", MismatchError, ["conv1", "54,54", "55,0"]),
    ],
)
def test_units_that_are_not_there_are_refused(text, kind, words, refused):
    with refused(*words, kind=kind):
        shown(text)


FOLDERS = tuple(sorted(str(number) for number in range(1, 11)))
"""1, 10, 2, ..., 9: folders in the order of their indices."""


@pytest.mark.parametrize(
    ("text", "classes", "index"),
    [
        ("class:10", FOLDERS, 1),  # there is no index 10
        ("class:3", FOLDERS, 3),
        ("class:3", tuple("0123456789"), 3),
        ("class:1-3", tuple("0123456789"), 1),
        ("class:007", ("bond", "007"), 1),
        ("class:7, large", ("7", "7, large"), 1),
        ("class:0-9", ("digits", "0-9"), 1),
        ("fc4:1", FOLDERS, 1),
        ("class:5", ("a", "b", "c", "d", "e", "f"), 5),
        ("class:2024", ("2023", "2024"), 1),
        ("class:*, star", ("+", "*, star"), 1),
    ],
)
def test_a_number_is_a_name_where_no_index_contradicts(text, classes, index):
    names = parse_units(text, {"fc4": (len(classes),)}, classes)
    assert names[0] == UnitName("fc4", index, None)


@pytest.mark.parametrize(
    ("text", "classes", "facts"),
    [
        ("class:1", FOLDERS, ["'1'", "fc4:0", "'10'", "fc4:1"]),
        ("class:1-3", FOLDERS, ["'1'", "fc4:0", "'10'", "fc4:1"]),
        ("class:0-1", ("digits", "letters", "0-1"), ["'0-1'", "fc4:2", "'digits'", "fc4:0"]),
        ("class:0", ("1", "0"), ["'0'", "fc4:1", "'1'", "fc4:0"]),
        ("class:0,class:1", ("0", "2", "1"), ["'1'", "fc4:2", "'2'", "fc4:1"]),
        ("class:1", ("1", "1"), ["'1'", "fc4:0", "fc4:1"]),
        ("class:*", ("+", "*"), ["'*'", "fc4:1", "fc4."]),
    ],
)
def test_a_number_that_means_two_classes_is_refused_with_both(text, classes, facts, refused):
    with refused(*facts, kind=MismatchError):
        parse_units(text, {"fc4": (len(classes),)}, classes)


def test_an_unknown_layer_is_told_with_those_that_there_are(refused):
    with refused("conv9", kind=UnknownNameError, name="conv9", known=tuple(LAYERS)):
        shown("conv9:0")


def test_classes_without_names_are_asked_for_by_index(refused):
    assert shown("class:11", ()) == ["fc8:11"]
    with refused("'goldfish'", "class:INDEX", kind=UnknownNameError, name="goldfish"):
        shown("class:goldfish", ())


PIECES = st.sampled_from(
    [*LAYERS, *CLASSES, *":@,-/.*\n", "class:", "mean", "0", "12", "999999999", "conv1:1"]
)
TEXTS = st.text(max_size=60) | st.lists(PIECES, max_size=12).map("".join)


@given(TEXTS)
@example("a/" * 20_000 + ":")
@example("1-" * 20_000)
@example("class:" + "ox, " * 5_000)
@example("conv1:1@0,0," * 5_000)
def test_any_text_gives_units_or_a_sentence_quickly(text):
    began = time.perf_counter()
    names, sentence = [], None
    try:
        names = parse_units(text, LAYERS, CLASSES)
    except InputError as error:
        sentence = str(error)
    assert names or (sentence.endswith(".") and "\n" not in sentence)
    for layer, channel, place in names:
        *places, channels = LAYERS[layer]
        assert channel in range(channels)
        assert (place is None) == (not places)
        if isinstance(place, tuple):
            assert place[0] in range(places[0])
            assert place[1] in range(places[1])
    # A thousandth of it is usual; the machine may be busy.
    assert time.perf_counter() - began < 1

from ppl_cnn.models.formats.names import listed, shown


def test_names_are_shown_so_that_they_stay_in_the_sentence():
    assert shown("features.0.weight") == "features.0.weight"
    assert shown("a. B\nc") == "'a. B\\nc'"
    assert len(shown("a " * 1000)) < 50
    assert listed(map(str, range(7))) == "0, 1, 2, 3, 4 and 2 more"
    assert listed(["a"]) == "a"

"""Which class of a network is which of a data set."""

import pytest

from s3_jax.errors import S3Error
from s3_jax.networks.classes import is_numbered, match

NUMBERS = tuple(map(str, range(12)))


@pytest.mark.parametrize(
    ("network", "data", "expected"),
    [
        (NUMBERS, sorted(NUMBERS), [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]),
        (("red", "blue"), ("blue", "red"), [1, 0]),
        (("red", "blue", "green"), ("green", "blue"), [2, 1]),
        (NUMBERS, ("3", "11"), [3, 11]),
        (("caf\u00e9", "bar"), ("bar", "cafe\u0301"), [1, 0]),
        (("0", "1", "2"), ("n01440764", "n01443537", "n01484850"), [0, 1, 2]),  # ImageNet's own order
        (("0", "1"), ("00", "01"), [0, 1]),
        (("crane", "crane", "dog"), ("crane", "crane", "dog"), [0, 1, 2]),  # two of ImageNet's classes
        (("crane", "crane", "dog"), ("dog",), [2]),
    ],
)
def test_classes_are_matched_by_name(network, data, expected):
    assert match(network, data).tolist() == expected


@pytest.mark.parametrize(
    ("network", "data", "message"),
    [
        (("red", "blue"), ("Red", "blue"), r"Only in the data: Red\. Only in the network: red$"),
        (("a", "b", "c"), ("cats", "dogs", "mice"), r"data: cats, dogs, mice\. Only in the network: a, b, c$"),
        (("0", "1", "2"), ("1", "2", "3"), r"data: 3\. Only in the network: 0; .* name them with --class_names$"),
        (("0", "1", "2"), ("cat", "dog"), r"data: cat, dog\. Only in the network: 0, 1, 2; .* --class_names$"),
        (("cat", "dog"), ("0", "1"), r"data: 0, 1\. Only in the network: cat, dog$"),
        (("cat",), ("cat", "dog"), r"data: dog\. Only in the network: none$"),
        (("x",), NUMBERS, r"data: 0, 1, 10, 11, 2, 3, 4, 5, 6, 7 and 2 more\."),
        (("crane", "crane", "dog"), ("crane", "dog"), "two classes of the network are called 'crane'"),
        (("caf\u00e9", "bar"), ("caf\u00e9", "cafe\u0301"), "two classes of the data are called 'caf\u00e9'"),
    ],
)
def test_classes_without_a_partner_are_listed(network, data, message):
    with pytest.raises(S3Error, match=message):
        match(network, data)


def test_numbers_are_no_names():
    assert is_numbered(NUMBERS)
    assert not is_numbered(("1", "2"))
    assert not is_numbered(sorted(NUMBERS))

import pytest
from search_commands import words

from mfagan.space import SearchSpace
from nas.architecture_list import read_architectures
from nas.cli import main

SPACE = SearchSpace(widths=(8, 12), modules=(1, 2), convolutions=(2, 3), branches=(0, 1))


def test_comments_and_repetitions_are_passed_over(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("# two\nmfa_x4_w8_c2_s0\n\n mfa_x4_w12_c2-3_s0-1  # wide\nmfa_x4_w8_c2_s0\n")
    assert list(map(str, read_architectures(file, SPACE))) == [
        "mfa_x4_w8_c2_s0",
        "mfa_x4_w12_c2-3_s0-1",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"mfa_x4_w8_c2_s0\nmfa_x4_w8\n", "line 2 of '.*': 'mfa_x4_w8' is not an architecture"),
        (b"mfa_x4_w16_c2_s0\n", "line 1 of '.*': mfa_x4_w16_c2_s0 is not in the supernet's space"),
        (b"mfa_x2_w8_c2_s0\n", "not in the supernet's space"),
        (b"rrdb_x4_w64_b23_g32\n", "not in the supernet's space"),
        (b"# nothing\n", "lists no architecture"),
        (b"\xff\xfe\n", "no text in UTF-8"),
    ],
)
def test_a_line_that_names_no_member_is_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "list.txt"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=sentence):
        read_architectures(file, SPACE)


def test_the_command_refuses_it_before_anything_is_written(supernet_file, photos, tmp_path, capsys):
    file = tmp_path / "list.txt"
    file.write_text("mfa_x4_w16_c2_s0\n")
    flags = words(supernet_file, photos, tmp_path / "out", enqueue=file)
    assert main(flags) == 2
    assert "is not in the supernet's space" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

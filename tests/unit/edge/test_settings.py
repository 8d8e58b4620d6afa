"""Flags beat environment beats file beats defaults, and mistakes name their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.settings import SettingsError, load


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "box.toml"
    file.write_text(text)
    return file


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, 'site = "file"\nfps = 5\n[track]\nend_s = 3.0\n')

    settings = load(
        flags={("site",): ("flag", "--site")},
        environ={"EDGE_SITE": "environment", "EDGE_FPS": "7", "EDGE_TRACK__CONFIRM_HITS": "2"},
        file=file,
    )

    assert settings.config.site == "flag"
    assert settings.config.fps == 7
    assert settings.config.track.end_s == 3.0
    assert settings.config.track.confirm_hits == 2
    assert settings.config.shutdown_s == 10.0
    origins = {key: origin for key, _, origin in settings.rows()}
    assert origins["site"] == "--site"
    assert origins["fps"] == "environment EDGE_FPS"
    assert origins["track.end_s"] == f"{file}:4"
    assert origins["shutdown_s"] == "default"


def test_an_unknown_key_names_file_line_and_nearest_key(tmp_path: Path) -> None:
    file = write(tmp_path, 'site = "a"\n\n[track]\nconfirm_hit = 3\n')

    with pytest.raises(SettingsError) as caught:
        load(flags={}, environ={}, file=file)

    assert str(caught.value) == (
        f"{file}:4: unknown key 'confirm_hit' in section [track]; did you mean 'confirm_hits'?"
    )


def test_an_unknown_key_of_the_second_camera_names_its_line(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        '[[sources]]\nname = "a"\nurl = "a.mp4"\n[[sources]]\nname = "b"\nurll = "b.mp4"\n',
    )

    with pytest.raises(SettingsError, match=r"box.toml:6: unknown key 'urll'.*'url'"):
        load(flags={}, environ={}, file=file)


def test_a_bad_value_names_its_place_and_what_was_found(tmp_path: Path) -> None:
    file = write(tmp_path, "[track]\nend_s = -1\n")

    with pytest.raises(SettingsError, match=r"box.toml:2: track.end_s: .*greater than 0.*'-1'"):
        load(flags={}, environ={}, file=file)


def test_a_bad_flag_value_names_the_flag() -> None:
    with pytest.raises(SettingsError, match=r"--fps: fps: .*found '0'"):
        load(flags={("fps",): (0, "--fps")}, environ={}, file=None)


@pytest.mark.parametrize("span", ["inf", "1e30", "nan", "0"])
def test_a_span_of_time_that_no_clock_counts_is_refused(span: str) -> None:
    with pytest.raises(SettingsError, match="EDGE_SPOOL__ACKED_KEEP_S"):
        load(flags={}, environ={"EDGE_SPOOL__ACKED_KEEP_S": span}, file=None)


@pytest.mark.parametrize("year", ["0001", "9999"])
def test_a_start_time_that_does_not_fit_the_wire_is_refused(tmp_path: Path, year: str) -> None:
    file = tmp_path / "box.toml"
    file.write_text(
        f'[[sources]]\nname = "a"\nurl = "a.mp4"\nstart_time = {year}-01-01T00:00:00Z\n'
    )

    with pytest.raises(SettingsError, match=r"box.toml:\d: sources\[0\].*from 1970 to 2199"):
        load(flags={}, environ={}, file=file)


def test_an_unknown_environment_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="EDGE_TRACK__ENDS; did you mean 'EDGE_TRACK__END_S'"):
        load(flags={}, environ={"EDGE_TRACK__ENDS": "1"}, file=None)


def test_what_is_the_matchers_in_a_shared_environment_is_not_the_boxs() -> None:
    environ = {"EDGE_MATCH_ASSOCIATION__DEFAULT_THRESHOLD": "0.85", "EDGE_SITE": "yard"}

    assert load(flags={}, environ=environ, file=None).config.site == "yard"


def test_matchers_in_the_environment_are_separated_by_commas() -> None:
    settings = load(flags={}, environ={"EDGE_MATCHER": "a:1, b:2"}, file=None)

    assert settings.config.uplink.matchers == ("a:1", "b:2")


def test_an_empty_variable_is_unset() -> None:
    settings = load(flags={}, environ={"EDGE_MODELS_DIR": "", "EDGE_FPS": ""}, file=None)

    assert settings.config.models_dir is None
    assert settings.config.fps == 10.0


def test_a_file_that_is_not_toml_says_where(tmp_path: Path) -> None:
    file = write(tmp_path, "site = \n")

    with pytest.raises(SettingsError, match=r"not valid TOML.*line 1"):
        load(flags={}, environ={}, file=file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere.toml: cannot be read"):
        load(flags={}, environ={}, file=tmp_path / "nowhere.toml")


def test_two_cameras_of_one_name_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, '[[sources]]\nname="a"\nurl="x"\n[[sources]]\nname="a"\nurl="y"\n')

    with pytest.raises(SettingsError, match="two cameras are called 'a'"):
        load(flags={}, environ={}, file=file)


def test_credentials_in_urls_are_masked_in_the_printed_configuration(tmp_path: Path) -> None:
    file = write(tmp_path, '[[sources]]\nname="a"\nurl="rtsp://u:secret@h/p"\n')

    settings = load(flags={}, environ={}, file=file)

    assert "secret" not in "".join(value for _, value, _ in settings.rows())


def test_a_camera_given_by_flag_shows_where_it_comes_from() -> None:
    flag = ([{"name": "a", "url": "a.mp4"}], "--source")

    settings = load(flags={("sources",): flag}, environ={}, file=None)

    origins = {key: origin for key, _, origin in settings.rows()}
    assert origins["sources[0].url"] == "--source"
    assert origins["sources[0].transport"] == "default"


@pytest.mark.parametrize(
    "url", ["rtsp://u:s@cret@h/p", "rtsp://u:s cret@h/p", "http://h/?psw=cret"]
)
def test_no_password_is_printed_however_it_is_written(url: str) -> None:
    settings = load(
        flags={("sources",): ([{"name": "a", "url": url}], "--source")}, environ={}, file=None
    )

    assert "cret" not in "".join(value for _, value, _ in settings.rows())


def test_a_value_across_two_fields_shows_both(tmp_path: Path) -> None:
    file = write(tmp_path, "[track]\nlow_confidence = 0.7\n")

    with pytest.raises(SettingsError, match=r"low_confidence 0.7 .*high_confidence 0.6"):
        load(flags={}, environ={}, file=file)

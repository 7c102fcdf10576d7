"""The systemd units of deploy/: systemd understands them, they may do little."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.nodes import ROOT

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(
    ANALYZE is None, reason="systemd-analyze isn't installed: apt-get install systemd"
)
UNITS = sorted(
    path for path in (ROOT / "deploy").iterdir() if path.suffix in (".service", ".socket", ".timer")
)
SERVICES = [path for path in UNITS if path.suffix == ".service"]
HOME = "/opt/aipriceaction-proxy"
MOST_EXPOSURE = 30  # tenths


def options(path: Path) -> list[tuple[str, str]]:
    """Every line NAME=VALUE of a unit; a name may come twice."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [line.partition("=") for line in lines if re.match(r"[A-Z]\w+=", line)]
    return [(name, value) for name, _, value in found]


def values(path: Path, name: str) -> list[str]:
    return [value for found, value in options(path) if found == name]


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Look at unit files; nothing is asked of a running systemd."""
    assert ANALYZE
    return subprocess.run(
        [ANALYZE, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@needs_systemd
def test_systemd_understands_every_unit(tmp_path: Path) -> None:
    """With programs at the places that the units name."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "gunicorn"):
        (programs / name).symlink_to("/bin/true")
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(HOME, str(tmp_path)))
    done = analyze("verify", *(str(tmp_path / unit.name) for unit in UNITS))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_a_service_may_do_little(unit: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE}", str(unit))
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_a_service_has_a_user_limits_and_the_nodes_settings(unit: Path) -> None:
    assert values(unit, "User") == ["aipriceaction"]
    assert values(unit, "UMask") == ["0077"]
    assert values(unit, "MemoryMax")
    assert values(unit, "LimitNOFILE")
    # The environment would beat the file, and systemd reads it at the start only.
    assert values(unit, "EnvironmentFile") == []
    assert values(unit, "Environment") == [f"ENV_FILE={HOME}/.env"]


def test_the_documents_make_the_units_user_and_its_folder() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"useradd .*", text)
    assert command
    assert command[0].split()[-1] == "aipriceaction"
    assert "DATA_DIR=/var/lib/aipriceaction" in text
    assert "-m 600" in text


def test_a_reload_checks_the_settings_first_and_then_hangs_up() -> None:
    reload = values(ROOT / "deploy" / "aipriceaction-api.service", "ExecReload")
    assert reload == [f"{HOME}/.venv/bin/python manage.py check", "/bin/kill -HUP $MAINPID"]


def test_a_new_master_may_tell_systemd_that_it_is_the_main_one() -> None:
    api = ROOT / "deploy" / "aipriceaction-api.service"
    assert values(api, "NotifyAccess") == ["all"]
    # gunicorn can't start itself again from "python -m gunicorn".
    assert values(api, "ExecStart") == [f"{HOME}/.venv/bin/gunicorn -c gunicorn.conf.py"]


def test_the_socket_is_where_nginx_looks() -> None:
    (address,) = values(ROOT / "deploy" / "aipriceaction-api.socket", "ListenStream")
    assert f"server {address};" in (ROOT / "deploy" / "nginx-site.conf").read_text()

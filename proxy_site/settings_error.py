"""The end of a process whose settings can't be right, and the text that it must not show."""


class Secret(str):
    """A setting whose value isn't shown in diffsettings, tracebacks and reprs."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'********'"


class SettingsError(SystemExit):
    """A variable is missing or wrong; the process ends with the line that the operator reads."""

    def __init__(self, name: str, problem: str, example: str) -> None:
        super().__init__(f"aipriceaction-proxy: {name} {problem}. Example: {name}={example}")

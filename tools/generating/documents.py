"""Generate the environment file of a daemon, which the packages install, from its settings."""

import textwrap

from llama_orch.settings.declaration import Var
from llama_orch.settings.loading import Settings, as_text

WIDTH = 100
PROFILES = {"any": "", "home": " HOME_PROFILE only.", "cloud": " CLOUD_PROFILE only."}


def environment_file(daemon: str, settings: type[Settings]) -> str:
    """Return the environment file: every variable with its meaning. All but the packaged ones are commented out."""
    head = (
        f"# Environment of {daemon}.service, see {daemon}.env(5). To check and to apply it:\n"
        f"#   {daemon} --check-config\n"
        f"#   {' && '.join(apply_commands(daemon))}\n"
    )
    return head + "".join(_entry(settings, name, var) for name, var in settings.variables().items())


def apply_commands(daemon: str) -> list[str]:
    """Return the commands that apply a changed environment file."""
    if daemon == "engine-provisioner":
        return [f"systemctl restart {daemon}.service"]
    return ["systemctl daemon-reload", f"systemctl restart {daemon}.socket {daemon}-metrics.socket {daemon}.service"]


def _entry(settings: type[Settings], name: str, var: Var) -> str:
    default = default_text(settings, name, var)
    required = f" Required {var.required}." if var.required else ""
    text = f"{var.meaning}{PROFILES[var.profile]}{required} Allowed: {var.allowed}. Default: {default}."
    lines = textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    comment = "\n".join(f"# {line}" for line in lines)
    if var.packaged is not None:
        return f"\n{comment}\n{var.env}={var.packaged}\n"
    return f"\n{comment}\n#{var.env}={'' if var.secret else var.example}\n"


def default_text(settings: type[Settings], name: str, var: Var) -> str:
    """Return the default of field `name` as text."""
    if var.default is not None:
        return var.default
    return as_text(settings.model_fields[name].get_default(call_default_factory=True, validated_data={}))

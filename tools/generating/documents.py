"""From the declarations of a daemon's settings to the environment file that the packages ship."""

import textwrap

from llama_orch.settings.declaration import Var
from llama_orch.settings.loading import Settings, as_text

WIDTH = 100
PROFILES = {"any": "", "home": " HOME_PROFILE only.", "cloud": " CLOUD_PROFILE only."}


def environment_file(daemon: str, settings: type[Settings]) -> str:
    """The environment file of `daemon`: every variable with its meaning, all but the packaged ones commented out."""
    head = (
        f"# Environment of {daemon}.service, see {daemon}.env(5). To check it, and to have it in force:\n"
        f"#   (set -a; . /etc/llama-orch/{daemon}.env; {daemon} --check-config)\n"
        f"#   {' && '.join(in_force_by(daemon))}\n"
    )
    return head + "".join(_entry(settings, name, var) for name, var in settings.variables().items())


def in_force_by(daemon: str) -> list[str]:
    """The commands by which a changed environment file comes into force."""
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
    """How the default of field `name` reads."""
    if var.default is not None:
        return var.default
    return as_text(settings.model_fields[name].get_default(call_default_factory=True, validated_data={}))

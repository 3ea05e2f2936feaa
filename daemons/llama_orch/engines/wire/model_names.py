"""Names of models as clients see them, and the key by which two names are compared."""


def public_name(model: str) -> str:
    """`model` as clients see it: a path on some machine's disk is cut to the name of its file, by which the model can
    be asked for as well."""
    return model_key(model) if model.startswith(("/", "file:")) else model


def model_key(model: str) -> str:
    """What names of one model have in common: the name of its file without directory and ending."""
    return model.rpartition("/")[2].removesuffix(".gguf").lower()

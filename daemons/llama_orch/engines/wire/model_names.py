"""Model names: the form that clients see, and the key by which two names are compared."""


def public_name(model: str) -> str:
    """Return the name of `model` for clients: for a file path the name of the file, which clients can request too."""
    return model_key(model) if model.startswith(("/", "file:")) else model


def model_key(model: str) -> str:
    """Return what all names of one model share: the file's name in lower case, without directory and `.gguf`."""
    return model.rpartition("/")[2].removesuffix(".gguf").lower()

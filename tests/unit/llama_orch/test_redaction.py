"""Plans show no secrets."""

from llama_orch.redaction import shown_arguments, shown_environment


def test_values_of_secret_options_are_hidden() -> None:
    argv = ["llama-server", "--hf-token", "x", "--api-key=x", "-m", "https://me:x@host/m.gguf?sig=x", "--no-key-cache"]
    assert shown_arguments(argv) == [
        "llama-server",
        "--hf-token",
        "***",
        "--api-key=***",
        "-m",
        "https://host/m.gguf",
        "--no-key-cache",
    ]


def test_secret_variables_are_hidden() -> None:
    env = {"HF_TOKEN": "x", "AWS_SECRET_ACCESS_KEY": "x", "GGML_X": "1", "PROXY": "http://me:x@proxy:80/"}
    assert shown_environment(env) == {
        "HF_TOKEN": "***",
        "AWS_SECRET_ACCESS_KEY": "***",
        "GGML_X": "1",
        "PROXY": "http://proxy:80/",
    }

"""The history of a conversation, kept in memory and sent with each request."""

from dataclasses import dataclass, field


@dataclass
class History:
    """The turns that were answered, and the system message before them."""

    system: str | None = None
    turns: list[tuple[str, str]] = field(default_factory=list)

    def messages(self, text: str) -> list[dict[str, str]]:
        """Return OpenAI's `messages` for the next turn `text`."""
        messages = [("system", self.system)] if self.system else []
        for question, answer in self.turns:
            messages += [("user", question), ("assistant", answer)]
        return [{"role": role, "content": content} for role, content in [*messages, ("user", text)]]

    def add_turn(self, text: str, answer: str) -> None:
        """Add a turn. The answer may be incomplete; a turn without any answer is dropped."""
        if answer:
            self.turns.append((text, answer))

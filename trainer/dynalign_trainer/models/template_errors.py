"""What a chat template can do wrong. Templates are programs: what they refuse becomes a sentence."""

from dynalign_contract.errors import BadConfigError, BadInputError


class TemplateRefusalError(BadInputError):
    """The template does not take this chat. `why` is what it says itself."""

    reason = "TemplateRefusal"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the model's chat template does not take a chat ({why}). Change the chat's turns, or put a "
            "chat_template.jinja that takes them into the model's folder."
        )
        self.why = why


class ThinkingError(BadConfigError):
    """Answers are to begin without a thought, and the template asks for one whatever its arguments are."""

    def __init__(self) -> None:
        super().__init__(
            "the chat template asks the model for a thought before every answer, and has no argument that switches it "
            'off, but spec.model.chat.thinking is "Off". Write thinking: "On" or thinking: Auto, or name a model that '
            "answers at once."
        )

"""The kind `classifier`, formerly `llama`: a transformer with a head of three labels."""

from lmsys_ray.data.conversations import CellForm
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.model_kind import LanguageModelKind
from lmsys_ray.members.protocol import Encoder, Scorer


class ClassifierKind(LanguageModelKind[ClassifierSettings]):
    """A transformer with a head of three labels."""

    settings = ClassifierSettings

    def preflight(self, settings: ClassifierSettings, key: str) -> ClassifierSettings:
        """Returns the settings as every language model's are; raises `UsageError` for turns that its text joins."""
        from lmsys_ray.prompts.cell_text import check_turns

        try:
            check_turns(settings.text, settings.turns)
        except UsageError as error:
            raise UsageError(f"{key}: {error}") from None
        return super().preflight(settings, key)

    def encoder(self, settings: ClassifierSettings, cells: CellForm) -> Encoder:
        """Returns what turns conversations into token ids."""
        from lmsys_ray.members.classifier.encoder import ClassifierEncoder

        return ClassifierEncoder(settings, cells)

    def scorer(self, settings: ClassifierSettings, cells: CellForm) -> Scorer:
        """Loads the model."""
        from lmsys_ray.members.classifier.scorer import ClassifierScorer

        return ClassifierScorer(settings)


KIND = ClassifierKind()

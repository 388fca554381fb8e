"""The kind `judge`: a language model that is asked which response is better."""

from lmsys_ray.data.conversations import CellForm
from lmsys_ray.members.judge.settings import JudgeSettings
from lmsys_ray.members.model_kind import LanguageModelKind
from lmsys_ray.members.protocol import Encoder, Scorer


class JudgeKind(LanguageModelKind[JudgeSettings]):
    """A language model that is asked which response is better."""

    settings = JudgeSettings

    def encoder(self, settings: JudgeSettings, cells: CellForm) -> Encoder:
        """Returns what turns conversations into token ids."""
        from lmsys_ray.members.judge.encoder import JudgeEncoder

        return JudgeEncoder(settings, cells)

    def scorer(self, settings: JudgeSettings, cells: CellForm) -> Scorer:
        """Loads the model."""
        from lmsys_ray.members.judge.scorer import JudgeScorer

        return JudgeScorer(settings)


KIND = JudgeKind()

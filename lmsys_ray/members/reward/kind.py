"""The kind `reward`: a model that scores one response to a prompt."""

from lmsys_ray.data.conversations import CellForm
from lmsys_ray.members.model_kind import LanguageModelKind
from lmsys_ray.members.protocol import Encoder, Scorer
from lmsys_ray.members.reward.settings import RewardSettings


class RewardKind(LanguageModelKind[RewardSettings]):
    """A model that scores one response to a prompt."""

    settings = RewardSettings

    def encoder(self, settings: RewardSettings, cells: CellForm) -> Encoder:
        """Returns what turns conversations into token ids."""
        from lmsys_ray.members.reward.encoder import RewardEncoder

        return RewardEncoder(settings, cells)

    def scorer(self, settings: RewardSettings, cells: CellForm) -> Scorer:
        """Loads the model."""
        from lmsys_ray.members.reward.scorer import RewardScorer

        return RewardScorer(settings)


KIND = RewardKind()

"""The kind `shared_encoder`: one encoder for both responses, averaged, and a dense layer of three."""

from pathlib import Path

from lmsys_ray.data.conversations import CellForm
from lmsys_ray.errors import UsageError
from lmsys_ray.members.model_kind import LanguageModelKind
from lmsys_ray.members.protocol import Encoder, Scorer
from lmsys_ray.members.shared_encoder.settings import SharedEncoderSettings
from lmsys_ray.storage.files import path_of
from lmsys_ray.storage.packaged import locate


class SharedEncoderKind(LanguageModelKind[SharedEncoderSettings]):
    """One encoder for both responses, whose mean states a dense layer compares."""

    settings = SharedEncoderSettings

    def preflight(self, settings: SharedEncoderSettings, key: str) -> SharedEncoderSettings:
        """Returns the settings as every language model's are.

        Raises `UsageError` for a template that cannot be used, and, of a local directory, where it has no head or was
        trained to read rows otherwise; the actors check others, which they fetch anyway.
        """
        from lmsys_ray.checkpoints.averaged import check_head_file
        from lmsys_ray.members.shared_encoder.note import check_note
        from lmsys_ray.prompts.template import Template

        found = super().preflight(settings, key)
        path = path_of(locate(settings.model))
        try:
            Template.of_one_response(settings.template)
            if isinstance(path, Path) and path.is_dir():
                check_head_file(path, settings.model)
                check_note(settings)
        except UsageError as error:
            raise UsageError(f"{key}: {error}") from None
        return found

    def encoder(self, settings: SharedEncoderSettings, cells: CellForm) -> Encoder:
        """Returns what turns conversations into token ids."""
        from lmsys_ray.members.shared_encoder.encoder import SharedEncoderEncoder

        return SharedEncoderEncoder(settings, cells)

    def scorer(self, settings: SharedEncoderSettings, cells: CellForm) -> Scorer:
        """Loads the model."""
        from lmsys_ray.members.shared_encoder.scorer import SharedEncoderScorer

        return SharedEncoderScorer(settings)


KIND = SharedEncoderKind()

